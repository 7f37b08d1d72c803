//! Commands: one table of specs, one file a family.

mod bits;
mod client;
mod client_filter;
mod clients;
mod cluster;
mod clusterx;
mod config;
mod cursors;
mod databases;
mod debug;
mod error;
mod flush;
mod geo;
mod hash_scans;
mod hashes;
mod hyperloglog;
mod info;
mod keys;
mod lengths;
mod listing;
mod lists;
mod numbers;
mod pages;
mod persistence;
mod pubsub;
mod run;
mod scan;
mod server;
mod session;
mod sets;
mod sort;
mod sorted_sets;
mod strings;
mod subcommands;
mod substrings;
mod table;
pub mod transactions;

use crate::glob;

pub use crate::clients::Class;
pub use error::CommandError;
pub use run::{Context, Later, LaterReply, Step, begin_later, check_length, claim, prefetch, run, run_piece};
pub use session::{Plane, Replies, Session};
pub use table::{Calls, CommandSpec, Flags, Handler, Keys, Positions, calls, find, table};
