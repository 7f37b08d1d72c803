//! CLIENT PAUSE: commands wait in their connections until its time is over or CLIENT UNPAUSE. Also how a transaction that cannot be one
//! batch is alone: nobody else executes anything meanwhile.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Paused {
    /// Nothing.
    Nothing,
    /// What changes data, or may.
    Writes,
    /// Every command of clients.
    All,
}

#[derive(Default)]
struct Until {
    writes: Option<Instant>,
    all: Option<Instant>,
}

/// See the module's text.
pub struct Pause {
    now: AtomicU8,
    until: Mutex<Until>,
    changes: watch::Sender<u64>,
}

impl Default for Pause {
    fn default() -> Self {
        Self { now: AtomicU8::new(0), until: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Pause {
    /// What waits now. One load while nothing does.
    pub fn now(&self) -> Paused {
        match self.now.load(Ordering::Acquire) {
            0 => Paused::Nothing,
            _ => self.look(Instant::now()),
        }
    }

    /// Begins a pause. One that is under way is not made shorter.
    pub fn begin(&self, what: Paused, time: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + time;
        let place = if what == Paused::All { &mut until.all } else { &mut until.writes };
        *place = Some(place.map_or(end, |before| before.max(end)));
        let strongest = if until.all.is_some() { Paused::All } else { Paused::Writes };
        self.now.store(strongest as u8, Ordering::Release);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Ends it.
    pub fn end(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Until::default();
        self.now.store(0, Ordering::Release);
        self.changes.send_modify(|count| *count += 1);
    }

    /// A receiver that is told of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// When what waits now may go on, if nothing changes.
    pub fn ends_at(&self) -> Option<Instant> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        [until.writes, until.all].into_iter().flatten().min()
    }

    fn look(&self, now: Instant) -> Paused {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.writes = until.writes.filter(|end| *end > now);
        until.all = until.all.filter(|end| *end > now);
        let paused = match (until.all, until.writes) {
            (Some(_), _) => Paused::All,
            (None, Some(_)) => Paused::Writes,
            (None, None) => Paused::Nothing,
        };
        self.now.store(paused as u8, Ordering::Release);
        paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_and_the_stronger_pause_wins() {
        let (pause, second) = (Pause::default(), Duration::from_secs(1));
        assert_eq!(pause.now(), Paused::Nothing);
        pause.begin(Paused::Writes, 100 * second);
        pause.begin(Paused::Writes, second);
        let start = Instant::now();
        assert_eq!(pause.look(start + 50 * second), Paused::Writes);
        pause.begin(Paused::All, second);
        assert_eq!(pause.now(), Paused::All);
        assert_eq!(pause.look(start + 10 * second), Paused::Writes);
        assert_eq!(pause.look(start + 200 * second), Paused::Nothing);
        pause.begin(Paused::All, second);
        pause.end();
        assert_eq!(pause.now(), Paused::Nothing);
    }
}
