//! The admin plane of a node, as its clients see it: operator, peers and tests.

mod client;
mod reply;
mod status;

pub use client::{AdminClient, AdminError, AdminTimeouts};
pub use reply::{Reply, ReplyError};
pub use status::{FlushReceipt, MigrationState, MigrationStatus, NodeStatus, PersistenceStatus, SlotStats};
