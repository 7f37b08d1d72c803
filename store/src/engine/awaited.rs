//! Keys that somebody waits for. Writers note those they change, so that whoever waits is served in the same turn; while nobody waits
//! that costs them one load.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::Home;

/// Places that awaited keys are told apart by: two keys in one place cost a look in vain.
const PLACES: usize = 1 << 10;

/// Counts of those who wait. Whoever begins to wait for a key that a writer may be changing holds the key's stripe, or a writer that has
/// it already would not note it.
pub struct Awaited {
    total: AtomicUsize,
    places: Box<[AtomicU32]>,
}

impl Awaited {
    pub(crate) fn new() -> Self {
        Self { total: AtomicUsize::new(0), places: (0..PLACES).map(|_| AtomicU32::new(0)).collect() }
    }

    /// One more waits for that key.
    pub fn add(&self, home: Home, key: &[u8]) {
        self.places[place(home, key)].fetch_add(1, Ordering::SeqCst);
        self.total.fetch_add(1, Ordering::SeqCst);
    }

    /// One of those who waited for that key waits no more.
    pub fn remove(&self, home: Home, key: &[u8]) {
        self.total.fetch_sub(1, Ordering::SeqCst);
        self.places[place(home, key)].fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether somebody may wait for that key; false is certain.
    pub(crate) fn may_hold(&self, home: Home, key: &[u8]) -> bool {
        self.total.load(Ordering::SeqCst) > 0 && self.places[place(home, key)].load(Ordering::SeqCst) > 0
    }
}

fn place(home: Home, key: &[u8]) -> usize {
    // FNV-1a, as for stripes.
    let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(home.database) ^ (u64::from(home.slot.get()) << 8);
    let hash = key.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use sluice_topology::Slot;

    use super::*;

    #[test]
    fn a_key_is_awaited_as_long_as_somebody_waits_for_it() {
        let (awaited, home) = (Awaited::new(), Home { database: 3, slot: Slot::of_key(b"k") });
        assert!(!awaited.may_hold(home, b"k"));
        awaited.add(home, b"k");
        awaited.add(home, b"k");
        awaited.remove(home, b"k");
        assert!(awaited.may_hold(home, b"k"));
        let others = (0..2000).filter(|number| awaited.may_hold(home, format!("other:{number}").as_bytes())).count();
        assert!(others < 20, "{others} of 2000 keys are taken for an awaited one");
        awaited.remove(home, b"k");
        assert!(!awaited.may_hold(home, b"k"));
    }
}
