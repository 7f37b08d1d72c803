//! CLIENT PAUSE: commands wait in their connections until its time is over or CLIENT UNPAUSE. Also how a transaction that cannot be one
//! batch is alone, or a script that takes long: nobody else executes anything meanwhile. Of the former others wait for the end, of the
//! latter they are told.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{Busy, SlowScript};

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    /// Nothing.
    Nothing,
    /// What changes data, or may.
    Writes,
    /// Every command of clients.
    All,
    /// None: they are told of the script that runs.
    Busy(Busy),
}

#[derive(Default)]
struct Until {
    writes: Option<Instant>,
    /// As `writes`, for want of memory.
    slowed: Option<Instant>,
    all: Option<Instant>,
    /// The client that is alone, and nobody else may execute anything; and the script because of which it is.
    alone: Option<(u64, Option<Arc<SlowScript>>)>,
}

/// See the module's text.
pub struct Pause {
    now: AtomicU8,
    until: Mutex<Until>,
    changes: watch::Sender<u64>,
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicU64,
}

/// Counts a client out when it waits no more, however that happens.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The client is alone as long as this lives.
pub struct Alone<'a> {
    pause: &'a Pause,
    // Given back after the others may go on.
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.pause.set_alone(None);
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            now: AtomicU8::new(0),
            until: Mutex::default(),
            changes: watch::Sender::new(0),
            turn: tokio::sync::Mutex::default(),
            waiting: AtomicU64::new(0),
        }
    }
}

impl Pause {
    /// What of that client waits now. One load while nothing does.
    pub fn now(&self, client: u64) -> Paused {
        match self.now.load(Ordering::SeqCst) {
            0 => Paused::Nothing,
            _ => self.look(client, Instant::now()),
        }
    }

    /// Lets nobody else execute anything, from the moment on at which what is under way has ended: the caller drains the gate. Waits for
    /// others who are alone, but not for a slow script: then that is the error.
    pub async fn alone(&self, client: u64, script: Option<Arc<SlowScript>>) -> Result<Alone<'_>, Busy> {
        let mut changes = self.changes.subscribe();
        let turn = loop {
            // Seen before the look: a change after it is not missed.
            changes.borrow_and_update();
            if let Some(slow) = self.slow_script() {
                return Err(slow.busy());
            }
            tokio::select! {
                biased;
                turn = self.turn.lock() => break turn,
                _ = changes.changed() => {}
            }
        };
        self.set_alone(Some((client, script)));
        Ok(Alone { pause: self, _turn: turn })
    }

    /// The script that runs while everybody else is told so.
    pub fn slow_script(&self) -> Option<Arc<SlowScript>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).alone.as_ref()?.1.clone()
    }

    /// Whether that client is told of a script that runs.
    pub fn is_busy(&self, client: u64) -> bool {
        matches!(self.now(client), Paused::Busy(_))
    }

    fn set_alone(&self, alone: Option<(u64, Option<Arc<SlowScript>>)>) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.alone = alone;
        self.now.store(1, Ordering::SeqCst);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits until the pause is over or has changed.
    pub async fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let mut changes = self.changes.subscribe();
        changes.borrow_and_update();
        let (end, alone) = {
            let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
            ([until.writes, until.slowed, until.all].into_iter().flatten().min(), until.alone.is_some())
        };
        match (end, alone) {
            (_, true) => drop(changes.changed().await),
            (Some(end), false) => drop(tokio::time::timeout_at(end, changes.changed()).await),
            (None, false) => {}
        }
    }

    /// Begins a pause. One that is under way is not made shorter.
    pub fn begin(&self, what: Paused, time: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + time;
        let place = if what == Paused::All { &mut until.all } else { &mut until.writes };
        *place = Some(place.map_or(end, |before| before.max(end)));
        self.now.store(1, Ordering::SeqCst);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Lets writes wait for that long, for want of memory. CLIENT UNPAUSE does not end it.
    pub fn slow_writes(&self, time: Duration) {
        if !time.is_zero() {
            self.until.lock().unwrap_or_else(PoisonError::into_inner).slowed = Some(Instant::now() + time);
            self.now.store(1, Ordering::SeqCst);
        }
    }

    /// Ends it.
    pub fn end(&self) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        (until.writes, until.all) = (None, None);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Clients that wait for its end.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn look(&self, client: u64, now: Instant) -> Paused {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.writes = until.writes.filter(|end| *end > now);
        until.slowed = until.slowed.filter(|end| *end > now);
        until.all = until.all.filter(|end| *end > now);
        match (&until.alone, until.all, until.writes.or(until.slowed)) {
            (Some((alone, _)), ..) if *alone == client => Paused::Nothing,
            (Some((_, Some(script))), ..) => Paused::Busy(script.busy()),
            (Some(_), ..) | (None, Some(_), _) => Paused::All,
            (None, None, Some(_)) => Paused::Writes,
            (None, None, None) => {
                self.now.store(0, Ordering::SeqCst);
                Paused::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Run;

    #[test]
    fn the_longer_and_the_stronger_pause_wins() {
        let (pause, second) = (Pause::default(), Duration::from_secs(1));
        assert_eq!(pause.now(1), Paused::Nothing);
        pause.begin(Paused::Writes, 100 * second);
        pause.begin(Paused::Writes, second);
        let start = Instant::now();
        assert_eq!(pause.look(1, start + 50 * second), Paused::Writes);
        pause.begin(Paused::All, second);
        assert_eq!(pause.now(1), Paused::All);
        assert_eq!(pause.look(1, start + 10 * second), Paused::Writes);
        assert_eq!(pause.look(1, start + 200 * second), Paused::Nothing);
        pause.begin(Paused::All, second);
        pause.end();
        assert_eq!(pause.now(1), Paused::Nothing);
    }

    #[test]
    fn what_slows_writers_down_is_over_by_itself() {
        let (pause, second) = (Pause::default(), Duration::from_secs(1));
        pause.slow_writes(Duration::ZERO);
        assert_eq!(pause.now(1), Paused::Nothing);
        pause.slow_writes(10 * second);
        pause.end();
        assert_eq!(pause.now(1), Paused::Writes, "CLIENT UNPAUSE is about something else");
        assert_eq!(pause.look(1, Instant::now() + 11 * second), Paused::Nothing);
    }

    #[tokio::test]
    async fn one_client_is_alone_at_a_time() {
        let pause = Pause::default();
        let alone = pause.alone(7, None).await;
        assert_eq!((pause.now(7), pause.now(8)), (Paused::Nothing, Paused::All));
        assert!(tokio::time::timeout(Duration::from_millis(10), pause.alone(8, None)).await.is_err());
        drop(alone);
        assert_eq!((pause.now(7), pause.now(8)), (Paused::Nothing, Paused::Nothing));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_slow_script() {
        let pause = Pause::default();
        let run = Run { kind: Busy::Function, name: "f".into(), words: Vec::new(), since: std::time::Instant::now() };
        let script = Arc::new(SlowScript::new(run, false));
        let transaction = pause.alone(6, None).await;
        // The one waits for the transaction, the other for either: and is told once it is the script.
        let mut first = std::pin::pin!(pause.alone(7, Some(script.clone())));
        let mut second = std::pin::pin!(pause.alone(8, None));
        assert!(futures_pending(first.as_mut()).await && futures_pending(second.as_mut()).await);
        drop(transaction);
        let alone = first.await;
        assert_eq!((pause.now(7), pause.now(8)), (Paused::Nothing, Paused::Busy(Busy::Function)));
        assert_eq!(second.await.err(), Some(Busy::Function));
        pause.begin(Paused::All, Duration::from_secs(100));
        assert!(pause.is_busy(9), "it is told of the script before it has to wait for a pause");
        drop(alone);
        assert_eq!(pause.now(8), Paused::All);
    }

    async fn futures_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        tokio::time::timeout(Duration::from_millis(10), future).await.is_err()
    }
}
