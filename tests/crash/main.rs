//! kill -9, SIGTERM, flush receipts: what was acknowledged comes back as promised.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

mod account;
mod checkpoints;
mod collections;
mod damage;
mod durability;
mod expiring;
mod faults;
mod figures;
mod flushing;
mod groups;
mod kill_loop;
mod members;
mod ordered;
mod reading;
mod reclaiming;
mod rounds;
mod settings;
mod starting;
mod writer;
