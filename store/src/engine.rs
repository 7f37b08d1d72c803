//! The storage engine: the only room that names RocksDB.
//!
//! Invariants: every user key begins with its slot and generation; nothing here ever writes a range tombstone; `system` records are
//! written with a synced WAL in every mode. The bytes on disk are described in `engine/FORMAT.md`.

mod batch;
mod caches;
mod checkpoint;
mod clock;
mod compaction;
mod contents;
mod database;
mod directory;
mod disk;
mod error;
mod expiries;
mod families;
mod feed;
mod filter;
mod flush;
mod gate;
mod generations;
mod health;
mod identity;
mod layout;
mod raw;
mod raw_batch;
mod read;
mod readers;
mod reclaim;
mod record;
mod scan;
mod sealed;
mod slot_table;
mod staging;
mod storage;
mod stripes;
mod sweep;
mod sync;
mod system;
mod versions;
mod worker;
mod writer;

pub use batch::Gathered;
pub use caches::CacheUse;
pub use checkpoint::{Save, SaveError, Saves};
pub use clock::system_ms;
pub use compaction::Compaction;
pub use database::{Counters, Engine, EngineOptions, Start};
pub use disk::Space;
pub use error::EngineError;
pub use feed::{Changed, ChangedBatch, FeedEvent, Overflowed, Subscription};
pub use flush::{FlushError, FlushWait};
pub use gate::Inside;
pub use health::Fault;
pub use layout::Generation;
pub use read::Stored;
pub use readers::LongReader;
pub use reclaim::MayWrite;
pub use record::{Collection, Discarded, Kind, Record, RecordError};
pub use scan::{SlotUsage, StoredKey};
pub(crate) use sealed::{Opened, Seal};
pub use staging::{RawFamily, RawRecord};
pub use storage::Storage;
pub use sweep::{Sweep, SweepPace};
pub use sync::SyncPolicy;
pub use system::{SystemBatch, SystemKind, SystemRecords};
pub use writer::{Writer, Written};
