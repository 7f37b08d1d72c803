//! What every part of Sluice agrees on about a cluster: hash slots, node ids, the topology document the operator writes and
//! the nodes merge, its text forms, and the client of a node's admin plane.
//!
//! No RocksDB and no Kubernetes in here: store, operator and tests all use it.

pub mod admin;
mod document;
mod ids;
pub mod merge;
mod ranges;
mod slot;
mod text;
pub mod tls;

pub use document::{DocumentError, NodeEntry, SlotEntry, TopologyDocument};
pub use ids::{ClusterId, IdError, InstanceId, JobId, LeaderEpoch, NodeId, SlotEpoch, TopologyVersion};
pub use ranges::{RangeError, SlotRanges};
pub use slot::{SLOT_COUNT, Slot};
pub use text::{NodesTextError, nodes_text, parse_setnodes};
