//! kill -9, SIGTERM, flush receipts: what was acknowledged comes back as promised.

mod durability;
mod flushing;
mod starting;
