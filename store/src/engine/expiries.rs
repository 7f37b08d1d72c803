//! For every slot, a time before which nothing in it expires: the sweep looks at no slot before that time.
//!
//! Noted by whoever writes a record with an expiry, inside the gate; read by the sweep, which forgets a slot's time, drains the gate, and
//! only then looks: a time noted before is either seen as a record, or noted again. Kept over a shutdown in order.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use sluice_topology::Slot;

use super::{
    EngineError, Home,
    sealed::{Opened, Seal},
};

/// Nothing expires.
const NEVER: u64 = u64::MAX;

/// Somebody who hears of keys that were deleted because they had expired, but for those that compactions remove.
pub trait HearsExpired: Send + Sync {
    /// Whether it listens now: asked for each of them.
    fn listens(&self) -> bool;
    /// That key was deleted, and this is committed.
    fn expired(&self, home: Home, key: &[u8]);
}

pub(crate) struct Expiries {
    hearer: OnceLock<Arc<dyn HearsExpired>>,
    earliest_ms: Box<[AtomicU64]>,
    /// Keys removed because they had expired, but for those that compactions removed.
    removed: AtomicU64,
}

impl Expiries {
    /// Nothing is known: every slot has to be looked at once.
    pub(crate) fn unknown() -> Self {
        Self::filled(0)
    }

    fn filled(at_ms: u64) -> Self {
        Self {
            hearer: OnceLock::new(),
            earliest_ms: Slot::all().map(|_| AtomicU64::new(at_ms)).collect(),
            removed: AtomicU64::new(0),
        }
    }

    /// Something in the slot expires then, Unix milliseconds; 0: what came there is not known.
    pub(crate) fn note(&self, slot: Slot, at_ms: u64) {
        let earliest = &self.earliest_ms[slot.index()];
        // Looked at first: the line is shared by every thread that writes.
        if earliest.load(Ordering::SeqCst) > at_ms {
            earliest.fetch_min(at_ms, Ordering::SeqCst);
        }
    }

    /// Whether something in the slot may have expired.
    pub(crate) fn due(&self, slot: Slot, now_ms: u64) -> bool {
        self.earliest_ms[slot.index()].load(Ordering::SeqCst) <= now_ms
    }

    /// Whether anything expires, as far as is known.
    pub(crate) fn any(&self) -> bool {
        self.earliest_ms.iter().any(|earliest| !matches!(earliest.load(Ordering::Relaxed), 0 | NEVER))
    }

    /// Whether anything is known of any slot.
    pub(crate) fn any_known(&self) -> bool {
        self.earliest_ms.iter().any(|earliest| earliest.load(Ordering::SeqCst) > 0)
    }

    /// Forgets the slot's time: whoever calls this drains the gate, looks at the slot, and notes what is there.
    pub(crate) fn forget(&self, slot: Slot) {
        self.earliest_ms[slot.index()].store(NEVER, Ordering::SeqCst);
    }

    /// Counts keys that were removed because they had expired.
    pub(crate) fn count_removed(&self, keys: u64) {
        self.removed.fetch_add(keys, Ordering::Relaxed);
    }

    /// Says who hears of them. Once.
    pub(crate) fn set_hearer(&self, hearer: Arc<dyn HearsExpired>) {
        let _ = self.hearer.set(hearer);
    }

    pub(crate) fn hearer(&self) -> Option<&Arc<dyn HearsExpired>> {
        self.hearer.get()
    }

    pub(crate) fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// Slots in which something expires, and when: sealed `count u16 · (slot u16 · unix ms u64) …`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let known: Vec<(Slot, u64)> = Slot::all()
            .map(|slot| (slot, self.earliest_ms[slot.index()].load(Ordering::SeqCst)))
            .filter(|(_, at_ms)| *at_ms != NEVER)
            .collect();
        let seal = Seal::new().u16(known.len() as u16);
        known.into_iter().fold(seal, |seal, (slot, at_ms)| seal.u16(slot.get()).u64(at_ms)).finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        let mut record = Opened::open("the record of expiries", bytes)?;
        let expiries = Self::filled(NEVER);
        for _ in 0..record.u16()? {
            let (slot, at_ms) = (record.u16()?, record.u64()?);
            let slot = Slot::new(slot).ok_or_else(|| EngineError::Damaged("the record of expiries names no slot".into()))?;
            expiries.note(slot, at_ms);
        }
        record.end()?;
        Ok(expiries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn a_slot_is_due_at_the_earliest_time_noted() {
        let expiries = Expiries::decode(&Expiries::filled(NEVER).encode()).unwrap();
        assert!(!expiries.due(slot(3), NEVER - 1));
        [500, 300, 900].into_iter().for_each(|at| expiries.note(slot(3), at));
        assert!(!expiries.due(slot(3), 299) && expiries.due(slot(3), 300) && !expiries.due(slot(4), 300));
        expiries.forget(slot(3));
        assert!(!expiries.due(slot(3), 900));
        expiries.note(slot(3), 0);
        assert!(expiries.due(slot(3), 1));
        assert!(Slot::all().all(|slot| Expiries::unknown().due(slot, 0)));
    }

    proptest! {
        #[test]
        fn the_record_round_trips_and_notices_damage(
            times in proptest::collection::btree_map(0u16..16384, 0..u64::MAX, 0..20), position in 0usize..7, bit in 0u8..8
        ) {
            let expiries = Expiries::filled(NEVER);
            times.iter().for_each(|(number, at)| expiries.note(slot(*number), *at));
            let bytes = expiries.encode();
            prop_assert_eq!(bytes.len(), 7 + 10 * times.len());
            let again = Expiries::decode(&bytes).unwrap();
            for (one, other) in expiries.earliest_ms.iter().zip(&again.earliest_ms) {
                prop_assert_eq!(one.load(Ordering::SeqCst), other.load(Ordering::SeqCst));
            }
            let mut spoiled = bytes.clone();
            spoiled[position] ^= 1 << bit;
            prop_assert!(Expiries::decode(&spoiled).is_err());
            prop_assert!(Expiries::decode(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn every_slot_fits(at in 0..u64::MAX) {
            let bytes = Expiries::filled(at).encode();
            let again = Expiries::decode(&bytes).unwrap();
            prop_assert!(again.earliest_ms.iter().all(|known| known.load(Ordering::SeqCst) == at));
        }
    }
}
