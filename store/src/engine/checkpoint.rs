//! Checkpoints: whole data directories, made of hard links while the node works on.
//!
//! One is made under a name that is never taken for a checkpoint and published by a rename, so that what is there is whole. It begins
//! with a flush round: a node started from it reports that round as recovered. The files are linked and never change; where the
//! checkpoints are on another file system RocksDB copies them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use rocksdb::checkpoint;

use super::{EngineError, database::Engine, directory};

/// Folder of the checkpoints in a data directory, when the settings name no other.
pub(crate) const FOLDER: &str = "checkpoints";
const MAKING: &str = "making";
const REMOVING: &str = "removing-";

/// What is known of checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saves {
    /// One is being made.
    pub running: bool,
    /// When the newest one was made, Unix milliseconds; 0: there is none.
    pub last_ms: u64,
    /// Its name; empty: there is none.
    pub last_name: String,
    /// The last attempt of this process failed.
    pub failed: bool,
    /// How long the last attempt took, in milliseconds.
    pub last_duration_ms: Option<u64>,
    /// Records that commands had committed when this process began to make the newest one, see [`super::Counters`]; 0: it made none.
    pub last_records: u64,
}

/// Why no checkpoint is made.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// One is being made already.
    #[error("Background save already in progress")]
    Running,
    /// It failed. What was made of it is removed.
    #[error(transparent)]
    Failed(#[from] EngineError),
}

/// The checkpoints of one engine.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    keep: AtomicUsize,
    running: AtomicBool,
    making: Mutex<()>,
    known: Mutex<Saves>,
}

impl Checkpoints {
    /// Looks at what is there, and removes what an end cut short.
    pub(crate) fn find(directory: &Path, folder: Option<&Path>, keep: usize) -> Self {
        let folder = folder.map_or_else(|| directory.join(FOLDER), Path::to_owned);
        let mut names = Vec::new();
        for name in directory::names(&folder).unwrap_or_default() {
            if made_at(&name).is_some() {
                names.push(name);
            } else if name == MAKING || name.starts_with(REMOVING) {
                let _ = fs::remove_dir_all(folder.join(name));
            }
        }
        let last_name = names.into_iter().max_by_key(|name| made_at(name)).unwrap_or_default();
        let known = Saves { last_ms: made_at(&last_name).unwrap_or(0), last_name, ..Saves::default() };
        Self {
            folder,
            keep: AtomicUsize::new(keep),
            running: AtomicBool::new(false),
            making: Mutex::new(()),
            known: Mutex::new(known),
        }
    }

    pub(crate) fn saves(&self) -> Saves {
        Saves { running: self.running.load(Ordering::SeqCst), ..self.known().clone() }
    }

    /// Changes how many are kept, from the next one on.
    pub(crate) fn set_keep(&self, keep: usize) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    /// Waits until none is being made. New ones are refused already.
    pub(crate) fn finish(&self) {
        drop(self.making.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Saves> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all but the newest. The name goes first, so that half of one is none.
    fn prune(&self) -> io::Result<()> {
        let mut names: Vec<String> = directory::names(&self.folder)?.into_iter().filter(|name| made_at(name).is_some()).collect();
        names.sort_by_key(|name| std::cmp::Reverse(made_at(name)));
        for name in names.into_iter().skip(self.keep.load(Ordering::Relaxed).max(1)) {
            let removing = self.folder.join(format!("{REMOVING}{name}"));
            fs::rename(self.folder.join(name), &removing)?;
            fs::remove_dir_all(removing)?;
        }
        Ok(())
    }
}

/// When a checkpoint of that name was made; `None`: it is no checkpoint's name.
fn made_at(name: &str) -> Option<u64> {
    let (made, round) = name.split_once("-round-")?;
    round.parse::<u64>().ok()?;
    made.parse().ok()
}

/// The right to make the one checkpoint. Dropped, the next may be made.
pub struct Save<'e>(&'e Engine);

impl Drop for Save<'_> {
    fn drop(&mut self) {
        self.0.checkpoints().running.store(false, Ordering::SeqCst);
    }
}

impl Save<'_> {
    /// Makes it, blocking the thread; returns its name.
    pub fn make(self) -> Result<String, EngineError> {
        let (engine, started) = (self.0, Instant::now());
        let checkpoints = engine.checkpoints();
        let _making = checkpoints.making.lock().unwrap_or_else(PoisonError::into_inner);
        let records = engine.counters().committed_records;
        let outcome = engine.admit_write(false).and_then(|()| engine.make_checkpoint());
        let duration_ms = started.elapsed().as_millis() as u64;
        let mut known = checkpoints.known();
        known.failed = outcome.is_err();
        known.last_duration_ms = Some(duration_ms);
        match &outcome {
            Ok(name) => {
                known.last_ms = made_at(name).unwrap_or(0);
                known.last_name.clone_from(name);
                known.last_records = records;
                tracing::info!(name, duration_ms, "checkpoint made");
            }
            Err(error) => {
                tracing::error!(%error, "no checkpoint was made");
                let _ = fs::remove_dir_all(checkpoints.folder.join(MAKING));
            }
        }
        outcome
    }
}

impl Engine {
    /// What is known of checkpoints.
    pub fn saves(&self) -> Saves {
        self.checkpoints().saves()
    }

    /// Takes the right to make a checkpoint: one at a time.
    pub fn begin_save(&self) -> Result<Save<'_>, SaveError> {
        self.admit_write(false)?;
        if self.checkpoints().running.swap(true, Ordering::SeqCst) { Err(SaveError::Running) } else { Ok(Save(self)) }
    }

    fn make_checkpoint(&self) -> Result<String, EngineError> {
        // What is live when it begins is not given back while its files are gathered.
        let _reader = self.long_reader("checkpoint");
        let folder = &self.checkpoints().folder;
        let making = folder.join(MAKING);
        let at = |path: &Path| EngineError::directory(path.to_owned());
        fs::create_dir_all(folder).map_err(at(folder))?;
        if making.exists() {
            fs::remove_dir_all(&making).map_err(at(&making))?;
        }
        fs::create_dir(&making).map_err(at(&making))?;
        let receipt = self
            .flush(false)
            .and_then(super::FlushWait::receipt_blocking)
            .map_err(|error| EngineError::Flush(error.to_string()))?;
        // Flushes once more what has come since, so that no log belongs to it and the mode of the log makes no difference.
        checkpoint::Checkpoint::new(self.database().db())
            .and_then(|checkpoint| checkpoint.create_checkpoint(directory::database_of(&making)))?;
        directory::write_format(&making).map_err(at(&making))?;
        let name = format!("{}-round-{}", self.now_ms(), receipt.round);
        let published = folder.join(&name);
        fs::rename(&making, &published).map_err(at(&published))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
        if let Err(error) = self.checkpoints().prune() {
            tracing::warn!(%error, "an old checkpoint was not removed");
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_checkpoints_count_and_the_newest_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        for name in ["1000-round-1", "2000-round-9", "10000-round-2", MAKING, "removing-500-round-1", "notes"] {
            fs::create_dir_all(folder.join(name).join("db")).unwrap();
        }
        let checkpoints = Checkpoints::find(root.path(), None, 2);
        assert_eq!((checkpoints.saves().last_name.as_str(), checkpoints.saves().last_ms), ("10000-round-2", 10_000));
        checkpoints.prune().unwrap();
        let mut left = directory::names(&folder).unwrap();
        left.sort();
        assert_eq!(left, ["10000-round-2", "2000-round-9", "notes"], "what is not ours is left alone");
    }
}
