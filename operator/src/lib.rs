//! The operator of Sluice. See docs/operator.md for what it promises, ARCHITECTURE.md for where things are.

pub mod api;
pub mod context;
pub mod controllers;
pub mod crds;
pub mod error;
pub mod http;
pub mod leader_election;
pub mod metrics;
pub mod names;
pub mod network;
pub mod signals;
pub mod topology_record;
