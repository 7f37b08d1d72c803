//! Why the engine refuses or fails.

use std::path::PathBuf;

use super::health::Fault;

/// An engine error: what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The directory holds something else.
    #[error("{path} is not a data directory of Sluice: it holds `{found}`; name an empty directory or one that Sluice made")]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The directory was written by a newer version.
    #[error("{path} has data format {found}, this version reads up to {known}: start it with the newer version that wrote it")]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this version reads.
        known: u32,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process: stop it, or name another directory")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// Opening the directory failed.
    #[error("{path} cannot be used: {source}")]
    Directory {
        /// The path that failed.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A record that must be there is missing or fails its check.
    #[error("the database is damaged: {0}; restore it from a backup, or start the node empty and migrate its slots to it")]
    Damaged(String),
    /// A file without which the database cannot be opened is gone.
    #[error(
        "{path} holds a database without {missing}: nothing was opened or changed; put the file back, restore the directory from a \
         checkpoint, or start the node empty and migrate its slots to it"
    )]
    Incomplete {
        /// Where the database is.
        path: PathBuf,
        /// What is gone.
        missing: String,
    },
    /// RocksDB refuses to open what is there.
    #[error(
        "the database in {path} is damaged: {why}; nothing was changed: restore the directory from a checkpoint, or start the node \
         empty and migrate its slots to it. If it is the write-ahead log after a power loss, one start with rocksdb.wal_recovery_mode \
         point_in_time keeps everything before the damage, and with that everything that was synced"
    )]
    DamagedFiles {
        /// Where the database is.
        path: PathBuf,
        /// RocksDB's reason.
        why: String,
    },
    /// The system does not let the process use the directory.
    #[error("{path} cannot be used: {why}; {advice}")]
    Unusable {
        /// Where the database is.
        path: PathBuf,
        /// RocksDB's reason.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// RocksDB reports an error.
    #[error("storage error: {0}")]
    Storage(rocksdb::Error),
    /// A read met damaged files. Others are read as before.
    #[error(
        "the stored data is damaged where this was read: {0}; the rest is served: restore the node from a checkpoint, or move its \
         slots away and start it empty"
    )]
    Unreadable(rocksdb::Error),
    /// RocksDB failed a write. Nothing of it was applied.
    #[error("Errors writing to the data directory: {0}; nothing of this write was applied; reads go on")]
    WriteFailed(rocksdb::Error),
    /// Writes are refused.
    #[error("{0}")]
    Refused(Fault),
    /// What stopped writes is gone, and RocksDB goes on only after a new start.
    #[error(
        "the data directory can be written again after an error that RocksDB does not resume from ({0}): the process ends, and the \
         next start goes on from the log"
    )]
    Restart(String),
    /// A write was applied and cannot be made durable now.
    #[error("the write-ahead log cannot be synced now: what was written may or may not be durable")]
    NotDurable,
    /// A flush of the memtables failed.
    #[error("the memtables were not flushed: {0}")]
    Flush(String),
    /// No number is left for a generation; kept apart because going on would let old keys come back.
    #[error("slot {0} has used up its generations: dump and load the data into a new node")]
    GenerationsExhausted(u16),
    /// No number is left for a key version.
    #[error("the key versions are used up: dump and load the data into a new node")]
    VersionsExhausted,
    /// A batch of raw records has one that it must not have; nothing of it was applied.
    #[error("a batch of raw records is refused as a whole, {0}")]
    RawBatch(String),
    /// Imports that never ended hold all the staging places of a slot.
    #[error("slot {0} has too many imports under way: cancel those that are stuck")]
    TooManyStaged(u16),
    /// A background thread was not started.
    #[error("the engine's `{name}` thread was not started: {source}; raise the limit on threads")]
    Thread {
        /// Its name.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A write came after the engine stopped taking writes.
    #[error("the store is shutting down and takes no more writes")]
    Closed,
    /// A durable write was not confirmed; the process must not go on.
    #[error(
        "an fsync failed ({0}): what was written since the last one may be lost; the node stops so that nothing is acknowledged wrongly"
    )]
    SyncFailed(String),
}

impl From<rocksdb::Error> for EngineError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::Unreadable(error),
            _ => Self::Storage(error),
        }
    }
}

impl EngineError {
    /// A directory error at that path.
    pub(crate) fn directory(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Directory { path, source }
    }
}
