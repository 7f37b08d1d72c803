//! Long readers: those that look at generations and outlive a command: a checkpoint, a migration's snapshot, a scan in many steps.
//!
//! The gate tells when commands have ended, and nothing that waits may stay inside it. A long reader registers here instead, *then*
//! looks at generations. Whoever takes something away publishes that first, *then* takes a [`Stamp`]: a reader that registered before
//! the stamp may still read what was there, a later one cannot see it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A moment between registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

/// A reader that outlives a command. What was live when it registered is given back only after it is dropped.
#[must_use]
pub struct LongReader {
    number: u64,
    registry: Readers,
}

impl Drop for LongReader {
    fn drop(&mut self) {
        self.registry.end(self.number);
    }
}

type Woken = Box<dyn Fn() + Send>;

#[derive(Default)]
struct State {
    /// Registrations so far.
    registered: u64,
    /// Those that have not ended, and what each is for.
    open: BTreeMap<u64, &'static str>,
    /// Told when one ends.
    woken: Vec<Woken>,
}

/// The registry of one engine.
#[derive(Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<State>>);

impl Readers {
    /// Registers a reader; `what` names it where somebody asks what holds space back.
    pub(crate) fn register(&self, what: &'static str) -> LongReader {
        let mut state = self.lock();
        state.registered += 1;
        let number = state.registered;
        state.open.insert(number, what);
        LongReader { number, registry: self.clone() }
    }

    /// Now. Taken after the change that later readers must see.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp(self.lock().registered)
    }

    /// Whether every reader that registered before the stamp has ended.
    pub(crate) fn passed(&self, stamp: Stamp) -> bool {
        self.lock().open.first_key_value().is_none_or(|(oldest, _)| *oldest > stamp.0)
    }

    /// Readers that have not ended, the oldest first.
    pub(crate) fn open(&self) -> Vec<&'static str> {
        self.lock().open.values().copied().collect()
    }

    /// Has `woken` called whenever a reader ends. It must not block.
    pub(crate) fn on_end(&self, woken: impl Fn() + Send + 'static) {
        self.lock().woken.push(Box::new(woken));
    }

    fn end(&self, number: u64) {
        let mut state = self.lock();
        state.open.remove(&number);
        state.woken.iter().for_each(|woken| woken());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_stamp_passes_when_the_readers_before_it_have_ended() {
        let readers = Readers::default();
        let ended = Arc::new(AtomicUsize::new(0));
        let counter = ended.clone();
        readers.on_end(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        assert!(readers.passed(readers.stamp()));
        let (first, second) = (readers.register("first"), readers.register("second"));
        let stamp = readers.stamp();
        let later = readers.register("later");
        drop(first);
        assert!(!readers.passed(stamp), "the second one registered before the stamp");
        assert_eq!(readers.open(), ["second", "later"]);
        drop(second);
        assert!(readers.passed(stamp), "the later one cannot see what was taken away before it");
        assert!(!readers.passed(readers.stamp()));
        drop(later);
        assert!(readers.passed(readers.stamp()));
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }
}
