//! Knowing when every command that began before a change has ended, at two uncontended atomic additions a command.
//!
//! A command enters the gate, *then* looks at the state it depends on (is this slot mine, which generation is live), and leaves when
//! it is done. Whoever changes that state first changes it, then drains the gate: from then on no command is under way that saw
//! the old state. This is sleepable RCU: two phases of counters, so that new commands do not hold up a drain.

use std::{
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const SHARDS: usize = 32;

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    inside: [AtomicU64; 2],
}

/// See the module's text.
pub(crate) struct Gate {
    phase: AtomicUsize,
    shards: [Shard; SHARDS],
    draining: Mutex<()>,
    /// Whether writers are to stay out, and the turn of who keeps them out.
    excluding: AtomicBool,
    exclusion: Mutex<()>,
}

/// A place inside the gate, to be given back by [`Gate::leave`].
#[must_use]
pub(crate) struct Place {
    shard: usize,
    phase: usize,
}

/// A command inside the gate.
#[must_use]
pub struct Inside<'a> {
    gate: &'a Gate,
    place: Place,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.gate.leave(&self.place);
    }
}

/// No writer is inside the gate while this lives.
#[must_use]
pub(crate) struct Excluded<'a> {
    gate: &'a Gate,
    // Given back after `drop` has let writers in again.
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Excluded<'_> {
    fn drop(&mut self) {
        self.gate.excluding.store(false, Ordering::SeqCst);
    }
}

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static MY_SHARD: Cell<usize> = Cell::new(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            phase: AtomicUsize::new(0),
            shards: Default::default(),
            draining: Mutex::new(()),
            excluding: AtomicBool::new(false),
            exclusion: Mutex::new(()),
        }
    }

    /// Enters. What the command depends on is looked at only after this. Never held across a wait.
    pub(crate) fn enter(&self) -> Inside<'_> {
        Inside { gate: self, place: self.take_place() }
    }

    /// [`Gate::enter`] for an owner that outlives a borrow.
    pub(crate) fn take_place(&self) -> Place {
        let phase = self.phase.load(Ordering::SeqCst) & 1;
        let shard = MY_SHARD.with(Cell::get);
        // Sequentially consistent with the stores of whoever drains: either the drain sees this command, or the command
        // sees the change.
        self.shards[shard].inside[phase].fetch_add(1, Ordering::SeqCst);
        Place { shard, phase }
    }

    /// Leaves.
    pub(crate) fn leave(&self, place: &Place) {
        self.shards[place.shard].inside[place.phase].fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether writers are to stay out. Asked inside the gate; a writer that hears yes leaves, and waits outside.
    pub(crate) fn excludes_writers(&self) -> bool {
        self.excluding.load(Ordering::SeqCst)
    }

    /// Waits, outside the gate, until writers may come in, or `give_up` says so.
    pub(crate) fn await_inclusion(&self, give_up: &dyn Fn() -> bool) {
        while matches!(self.exclusion.try_lock(), Err(TryLockError::WouldBlock)) && !give_up() {
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Keeps writers out: on return none is inside. Blocks the thread, which must not be inside itself.
    pub(crate) fn exclude_writers(&self) -> Excluded<'_> {
        let turn = self.exclusion.lock().unwrap_or_else(PoisonError::into_inner);
        self.excluding.store(true, Ordering::SeqCst);
        let excluded = Excluded { gate: self, _turn: turn };
        self.drain();
        excluded
    }

    /// Waits until every command that entered before this call has left. Blocks the thread, as long as the longest of them.
    pub(crate) fn drain(&self) {
        let _one_at_a_time = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        // Both phases: a command may have read the phase before a flip and counted itself in after the wait for that phase.
        for _ in 0..2 {
            let old = self.phase.fetch_add(1, Ordering::SeqCst) & 1;
            let mut rounds = 0u32;
            while self.shards.iter().any(|shard| shard.inside[old].load(Ordering::SeqCst) != 0) {
                if rounds < 64 {
                    thread::yield_now();
                } else {
                    thread::sleep(Duration::from_micros(100));
                }
                rounds = rounds.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU64};

    use super::*;

    #[test]
    fn after_a_drain_no_command_is_under_way_that_saw_the_old_state() {
        let gate = Arc::new(Gate::new());
        let open = Arc::new(AtomicBool::new(true));
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (gate, open, stop, written) = (gate.clone(), open.clone(), stop.clone(), written.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let _inside = gate.enter();
                        if open.load(Ordering::SeqCst) {
                            written.fetch_add(1, Ordering::Relaxed);
                            thread::yield_now();
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            open.store(false, Ordering::SeqCst);
            gate.drain();
            let before = written.load(Ordering::SeqCst);
            for _ in 0..10 {
                thread::yield_now();
                assert_eq!(written.load(Ordering::SeqCst), before);
            }
            open.store(true, Ordering::SeqCst);
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(written.load(Ordering::SeqCst) > 0);
    }
}
