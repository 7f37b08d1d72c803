//! Why the engine refuses or fails.

use std::path::PathBuf;

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
    /// RocksDB reports an error.
    #[error("storage error: {0}")]
    Storage(#[from] rocksdb::Error),
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

impl EngineError {
    /// A directory error at that path.
    pub(crate) fn directory(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Directory { path, source }
    }
}
