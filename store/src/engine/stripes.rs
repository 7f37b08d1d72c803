//! Striped key locks: two writers of one key never run at once; writers of several keys take their stripes in order.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_topology::Slot;

const STRIPES: usize = 1024;

pub(crate) struct Stripes([Mutex<()>; STRIPES]);

impl Stripes {
    pub(crate) fn new() -> Self {
        Self([const { Mutex::new(()) }; STRIPES])
    }

    /// Locks the stripes of those keys, each once, in ascending order: no two callers can wait for each other.
    pub(crate) fn lock<'a>(&'a self, keys: &[(Slot, &[u8])]) -> Vec<MutexGuard<'a, ()>> {
        let mut stripes: Vec<usize> = keys.iter().map(|(slot, key)| Self::of(*slot, key)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        // A panic while a stripe was held left no half-done state behind: a batch is written as a whole or not at all.
        stripes.into_iter().map(|stripe| self.0[stripe].lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Locks every stripe.
    pub(crate) fn lock_all(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(|stripe| stripe.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    fn of(slot: Slot, key: &[u8]) -> usize {
        // FNV-1a: short keys, no adversary gains more than waiting for himself.
        let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(slot.get());
        let hash = key.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        (hash ^ (hash >> 32)) as usize % STRIPES
    }
}
