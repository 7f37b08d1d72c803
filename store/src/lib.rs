//! Sluice's store: a Redis-protocol key-value store on RocksDB, sharded by Redis Cluster slots. See ARCHITECTURE.md for the map.
//!
//! Rooms, each importing only from those below it: server, commands, memory, clients, migration, cluster, types, engine, traces, tls, protocol; config beside them.

pub mod blocked;
pub mod clients;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod dice;
pub mod engine;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod glob;
pub mod memory;
pub mod metrics;
pub mod migration;
pub mod node;
pub mod protocol;
pub mod server;
pub mod tls;
pub mod traces;
pub mod types;
