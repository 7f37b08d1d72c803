//! The engine's clock: what expiry is judged by. It never goes back, over restarts neither, as far as the disk knows.
//!
//! It follows the system's clock. When that is set back, the engine's goes on from where it was at the pace of real time: time to live
//! keeps its length, and what has expired stays so. The floor of a start is the latest time found on disk: that of the last flush round, of
//! a shutdown in order, or the one that is noted every few seconds while there is anything that expires.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use rocksdb::WriteOptions;

use super::{
    EngineError,
    families::Family,
    layout::OWN_PREFIX,
    raw::Database,
    sealed::{Opened, Seal},
};

/// Unix time in milliseconds, as the system says it.
pub fn system_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn noted_key() -> Vec<u8> {
    [&OWN_PREFIX[..], b"clock"].concat()
}

/// Notes a time that the clock of the next start must not go below, with the data's own durability.
pub(crate) fn note(database: &Database, at_ms: u64, wal: bool) -> Result<(), EngineError> {
    let mut options = WriteOptions::default();
    options.disable_wal(!wal);
    Ok(database.db().put_cf_opt(database.family(Family::Meta), noted_key(), Seal::new().u64(at_ms).finish(), &options)?)
}

/// The time that was noted last; 0: none ever was.
pub(crate) fn noted(database: &Database) -> Result<u64, EngineError> {
    match database.db().get_cf(database.family(Family::Meta), noted_key())? {
        Some(bytes) => Opened::open("the clock's note", &bytes)?.u64(),
        None => Ok(0),
    }
}

pub(crate) struct Clock {
    started: Instant,
    /// Engine time less the time since `started`. It only rises.
    base_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), base_ms: AtomicU64::new(0) }
    }

    /// Unix time in milliseconds, never less than before.
    pub(crate) fn now_ms(&self) -> u64 {
        self.at(self.started.elapsed().as_millis() as u64, system_ms())
    }

    /// Never goes below that time from now on.
    pub(crate) fn raise(&self, floor_ms: u64) {
        let elapsed = self.started.elapsed().as_millis() as u64;
        self.base_ms.fetch_max(floor_ms.saturating_sub(elapsed), Ordering::SeqCst);
    }

    /// The time, `elapsed_ms` after the clock was made, when the system's clock says `system_ms`.
    fn at(&self, elapsed_ms: u64, system_ms: u64) -> u64 {
        let (base, ahead) = (self.base_ms.load(Ordering::SeqCst), system_ms.saturating_sub(elapsed_ms));
        if ahead > base {
            // Written only when the system's clock runs ahead: a line of cache that everybody reads stays shared.
            self.base_ms.fetch_max(ahead, Ordering::SeqCst);
        }
        base.max(ahead).saturating_add(elapsed_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_system_and_never_goes_back() {
        let clock = Clock::new();
        // Elapsed, what the system says, what the clock has to say.
        let steps = [
            (0, 1000, 1000),
            (10, 1010, 1010),
            // Set forward, then back by more: from there on at the pace of real time.
            (20, 9000, 9000),
            (30, 500, 9010),
            (130, 600, 9110),
            // The system's clock catches up, and leads again.
            (140, 9500, 9500),
        ];
        for (elapsed, system, expected) in steps {
            assert_eq!(clock.at(elapsed, system), expected, "{elapsed} ms after, the system says {system}");
        }
    }

    #[test]
    fn a_floor_holds_at_the_pace_of_real_time() {
        let clock = Clock::new();
        let floor = system_ms() + 3_600_000;
        clock.raise(floor);
        let now = clock.now_ms();
        assert!(now >= floor && now < floor + 600_000, "{now} after {floor}");
        clock.raise(5);
        assert!(clock.now_ms() >= now);
    }
}
