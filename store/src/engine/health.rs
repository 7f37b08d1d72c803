//! Whether writes are taken: the disk is watched, RocksDB's background errors are acted upon.
//!
//! Writes are refused by name, before RocksDB runs out of space, when the free space is below `disk-free-min` and what the memtables
//! still have to write. When RocksDB has stopped writes by itself, its reason is given. Reads go on in each case. Room that comes back
//! opens a full disk again without a restart: RocksDB resumes from "no space" by itself. From any other failed write it never
//! resumes; once the directory can be written again the process ends, so that a start recovers it from the log.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    EngineError,
    disk::{self, Reserve, Space},
    raw::{Database, Events},
    worker::Worker,
};

/// Between two looks at the disk. What is written in between has to fit into `disk-free-min`, so it is looked at more often when
/// there is not much more than that.
const INTERVAL: Duration = Duration::from_millis(200);
const INTERVAL_NEAR: Duration = Duration::from_millis(20);
/// Below this part of `disk-free-min` the reserve file goes.
const RELEASE_PART: u64 = 4;
/// Free space that counts as none when `disk-free-min` is 0.
const RELEASE_MIN: u64 = 1 << 20;

/// Reasons for which writes are refused, as bits: they come and go independently.
const CLOSING: u8 = 1;
const LOW: u8 = 2;
const FAILED: u8 = 4;

/// Why writes are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The disk is nearly full. Deletions are still taken.
    #[error(
        "writes are refused: the disk has {free} bytes free for them, {needed} are wanted (disk-free-min, and what the memtables \
         hold); reads and deletions go on: delete keys, free space or grow the volume, and writes are taken again"
    )]
    LowSpace {
        /// Bytes free, less those the reserve file wants back.
        free: u64,
        /// Bytes wanted.
        needed: u64,
    },
    /// RocksDB met a full disk.
    #[error(
        "Errors writing to the data directory: {0}; reads go on: free space or grow the volume, and writes are taken again within \
         seconds"
    )]
    NoSpace(String),
    /// The file system failed a write otherwise.
    #[error(
        "Errors writing to the data directory: {0}; reads go on: see to the disk and its permissions; once the directory can be \
         written again the process ends, so that a start recovers it"
    )]
    Device(String),
    /// What is stored is damaged.
    #[error(
        "Errors writing to the data directory: {0}; reads go on: restore the node from a checkpoint, or restart it, move its slots \
         away and start it empty"
    )]
    Damaged(String),
}

impl Fault {
    /// What RocksDB's reason for stopping writes is.
    fn of(text: &str) -> Self {
        let any = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        if any(&["No space left on device", "Space limit reached", "Max allowed space was reached"]) {
            Self::NoSpace(text.into())
        } else if text.starts_with("Corruption") || any(&["While pread", "While read"]) {
            Self::Damaged(text.into())
        } else {
            Self::Device(text.into())
        }
    }

    /// Its name in INFO and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LowSpace { .. } => "low_space",
            Self::NoSpace(_) => "no_space",
            Self::Device(_) => "device",
            Self::Damaged(_) => "damaged",
        }
    }
}

/// What the disk has for users' writes, and what they want of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    free: u64,
    needed: u64,
}

impl Room {
    /// The reserve's bytes are never theirs, and what is in memtables has to fit as well.
    fn of(space: Space, reserve_missing: u64, unflushed: u64, free_min: u64) -> Self {
        let needed = if free_min == 0 { 0 } else { free_min.saturating_add(unflushed) };
        Self { free: space.free.saturating_sub(reserve_missing), needed }
    }

    /// Whether writes are refused. A tenth more is wanted to go on than to stop, so that one small file does not switch to and fro.
    fn is_low(self, was_low: bool) -> bool {
        self.free < if was_low { self.needed.saturating_add(self.needed / 10) } else { self.needed }
    }
}

/// Whether writes are taken. Read by every write, changed by the watch and at the end.
pub(crate) struct Health {
    refused: AtomicU8,
    fault: Mutex<Option<Fault>>,
    space: Mutex<Space>,
    refusals: AtomicU64,
    /// Whether there is little more room than is wanted.
    near: AtomicBool,
    /// Free space below which users' writes are refused; 0: never.
    free_min: AtomicU64,
    restart: watch::Sender<Option<String>>,
}

impl Health {
    pub(crate) fn new(free_min: u64) -> Self {
        Self {
            refused: AtomicU8::new(0),
            fault: Mutex::default(),
            space: Mutex::default(),
            refusals: AtomicU64::new(0),
            near: AtomicBool::new(false),
            free_min: AtomicU64::new(free_min),
            restart: watch::Sender::new(None),
        }
    }

    /// Whether a write may begin; with `deletes_only`, one that gives space back.
    pub(crate) fn admit(&self, deletes_only: bool) -> Result<(), EngineError> {
        match self.refused.load(Ordering::SeqCst) {
            0 => Ok(()),
            LOW if deletes_only => Ok(()),
            refused if refused & CLOSING != 0 => Err(EngineError::Closed),
            _ => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                // The watch may have taken it back since.
                self.fault().map_or(Ok(()), |fault| Err(EngineError::Refused(fault)))
            }
        }
    }

    /// Whether the engine is being closed.
    pub(crate) fn closing(&self) -> bool {
        self.refused.load(Ordering::SeqCst) & CLOSING != 0
    }

    /// From now on no more writes.
    pub(crate) fn close(&self) {
        self.refused.fetch_or(CLOSING, Ordering::SeqCst);
    }

    /// The low-water mark of the disk.
    pub(crate) fn free_min(&self) -> u64 {
        self.free_min.load(Ordering::Relaxed)
    }

    /// Changes it.
    pub(crate) fn set_free_min(&self, bytes: u64) {
        self.free_min.store(bytes, Ordering::Relaxed);
    }

    /// Why writes are refused right now, if they are.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Room of the disk at the last look.
    pub(crate) fn space(&self) -> Space {
        *self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes refused since the start.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Returns when only a new start of the process can take writes again, and would.
    pub(crate) async fn needs_restart(&self) -> EngineError {
        let mut restart = self.restart.subscribe();
        match restart.wait_for(Option::is_some).await {
            Ok(why) => EngineError::Restart(why.clone().unwrap_or_default()),
            Err(_) => EngineError::Closed,
        }
    }

    fn set(&self, fault: Option<Fault>) {
        let mut current = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = match &fault {
            None => 0,
            Some(Fault::LowSpace { .. }) => LOW,
            Some(_) => FAILED,
        };
        match (&*current, &fault) {
            (None, Some(fault)) => tracing::error!(%fault, "writes are refused"),
            (Some(_), None) => tracing::info!("writes are taken again"),
            (Some(old), Some(new)) if old.name() != new.name() => tracing::error!(fault = %new, "writes are still refused"),
            _ => {}
        }
        *current = fault;
        let _ = self.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some((old & CLOSING) | bits));
    }
}

struct Watch {
    health: Arc<Health>,
    database: Arc<Database>,
    directory: PathBuf,
    reserve: Arc<Reserve>,
    stop: Arc<(Mutex<bool>, std::sync::Condvar)>,
}

/// The watching thread.
pub(crate) struct Watcher {
    stop: Arc<(Mutex<bool>, std::sync::Condvar)>,
    worker: Worker,
}

impl Watcher {
    /// Looks once, then starts the thread: a full disk is known before the first write.
    pub(crate) fn start(
        health: Arc<Health>,
        database: Arc<Database>,
        directory: PathBuf,
        reserve: Arc<Reserve>,
    ) -> Result<Self, EngineError> {
        let stop = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
        let watch = Watch { health, database, directory, reserve, stop: stop.clone() };
        let mut seen = 0;
        watch.look(&mut seen);
        let worker = Worker::spawn("health", move || watch.run(seen))?;
        Ok(Self { stop, worker })
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_one();
        self.worker.join();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watch {
    fn run(&self, mut seen: u64) {
        loop {
            {
                let stopped = self.stop.0.lock().unwrap_or_else(PoisonError::into_inner);
                if *stopped {
                    return;
                }
                let interval = if self.health.near.load(Ordering::Relaxed) { INTERVAL_NEAR } else { INTERVAL };
                let (stopped, _) = self.stop.1.wait_timeout(stopped, interval).unwrap_or_else(PoisonError::into_inner);
                if *stopped {
                    return;
                }
            }
            self.look(&mut seen);
        }
    }

    /// One look at RocksDB and the disk; `errors_seen` are the background errors that were dealt with.
    fn look(&self, errors_seen: &mut u64) {
        let errors = self.events().errors();
        let was = self.health.fault();
        let had_failed = was.as_ref().is_some_and(|fault| !matches!(fault, Fault::LowSpace { .. }));
        // Asking costs a write that writes nothing: only when there is a reason.
        if errors != *errors_seen || had_failed {
            *errors_seen = errors;
            if let Some(text) = self.database.stopped() {
                return self.stopped(Fault::of(&text));
            }
        }
        let space = match disk::space(&self.directory) {
            Ok(space) => space,
            Err(error) => return self.stopped(Fault::Device(format!("{}: {error}", self.directory.display()))),
        };
        *self.health.space.lock().unwrap_or_else(PoisonError::into_inner) = space;
        let free_min = self.health.free_min.load(Ordering::Relaxed);
        if space.free < (free_min / RELEASE_PART).max(RELEASE_MIN) {
            self.reserve.release();
        }
        let room = Room::of(space, self.reserve.missing(), self.database.memtable_bytes(), free_min);
        self.health.near.store(room.free / 3 < room.needed, Ordering::Relaxed);
        let low = room.is_low(matches!(was, Some(Fault::LowSpace { .. })));
        self.health.set(low.then_some(Fault::LowSpace { free: room.free, needed: room.needed }));
        // `room` holds the missing reserve back already; made only with a margin, so that it does not make the disk full itself.
        if !low && self.reserve.missing() > 0 && room.free > room.needed.saturating_add(self.reserve.missing() / 4) {
            match self.reserve.restore() {
                Ok(()) => tracing::info!("the reserve file is there"),
                Err(error) => tracing::debug!(%error, "the reserve file was not made"),
            }
        }
    }

    fn stopped(&self, fault: Fault) {
        match &fault {
            // RocksDB looks every five seconds, and resumes when there is room for one memtable.
            Fault::NoSpace(_) => drop(self.reserve.release()),
            Fault::Device(why) if self.health.fault().is_some() && disk::probe(&self.directory).is_ok() => {
                self.health.restart.send_modify(|restart| *restart = Some(why.clone()));
            }
            _ => {}
        }
        if let Ok(space) = disk::space(&self.directory) {
            *self.health.space.lock().unwrap_or_else(PoisonError::into_inner) = space;
        }
        self.health.set(Some(fault));
    }

    fn events(&self) -> &Events {
        self.database.events()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stop_before_the_disk_is_full_and_go_on_with_a_margin() {
        let room = |free, missing, unflushed| Room::of(Space { free, total: 10_000 }, missing, unflushed, 1000);
        // (free, reserve missing, unflushed, was low) -> low
        let cases = [
            (2000, 0, 0, false, false),
            (1000, 0, 0, false, false),
            (999, 0, 0, false, true),
            (1050, 0, 0, true, true),
            (1100, 0, 0, true, false),
            (1400, 0, 500, false, true),
            (2000, 1500, 0, false, true),
            (2600, 1500, 0, true, false),
            (0, 0, 0, false, true),
        ];
        for (free, missing, unflushed, was, expected) in cases {
            assert_eq!(room(free, missing, unflushed).is_low(was), expected, "{free} {missing} {unflushed} {was}");
        }
        assert!(!Room::of(Space::default(), 0, 5000, 0).is_low(true), "0 switches it off");
    }

    #[test]
    fn reasons_are_told_apart() {
        let cases = [
            ("IO error: No space left on device: While appending to file: db/000012.log: No space left on device", "no_space"),
            ("IO error: While open a file for appending: db/000015.sst: Permission denied", "device"),
            ("IO error: While appending to file: db/000012.log: Read-only file system", "device"),
            ("IO error: While pread offset 0 len 100: db/000012.sst: Input/output error", "damaged"),
            ("Corruption: block checksum mismatch: stored = 1, computed = 2 in db/000012.sst", "damaged"),
        ];
        for (text, expected) in cases {
            assert_eq!(Fault::of(text).name(), expected, "{text}");
        }
    }

    #[test]
    fn deletions_are_taken_on_a_nearly_full_disk_and_nothing_once_closed() {
        let health = Health::new(0);
        assert!(health.admit(false).is_ok());
        health.set(Some(Fault::LowSpace { free: 1, needed: 2 }));
        assert!(matches!(health.admit(false), Err(EngineError::Refused(Fault::LowSpace { .. }))));
        assert!(health.admit(true).is_ok());
        health.set(Some(Fault::NoSpace("full".into())));
        assert!(health.admit(true).is_err());
        health.close();
        health.set(None);
        assert!(matches!(health.admit(true), Err(EngineError::Closed)), "a fault that goes does not open what is closed");
    }
}
