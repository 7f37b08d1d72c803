//! kill -9, SIGTERM, flush receipts: what was acknowledged comes back as promised.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

mod damage;
mod durability;
mod faults;
mod flushing;
mod starting;
