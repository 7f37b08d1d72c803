//! What commands of a slot do, in one byte a slot that they read without a lock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use sluice_topology::{Slot, SlotRanges};

/// The state of a slot on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    /// Another node's, or nobody's.
    Elsewhere,
    /// Served.
    Open,
    /// Reads are served, writes wait: the slot is being copied for its switch.
    WritesParked,
    /// Everything waits: the switch is decided and not yet confirmed, or the peers are still being asked.
    Parked,
}

/// What becomes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is executed.
    Serve,
    /// It waits until the slot's state changes.
    Wait,
    /// Its client is sent elsewhere: the text of the error reply.
    Moved(String),
    /// Nobody serves the slot.
    Unserved,
}

pub(super) struct StateTable {
    states: Box<[AtomicU8]>,
    parked: AtomicUsize,
    /// Slots that are being copied to another node: the background keeps out of them.
    moving: Box<[AtomicBool]>,
}

impl StateTable {
    pub(super) fn new(initial: SlotState) -> Self {
        let moving = Slot::all().map(|_| AtomicBool::new(false)).collect();
        Self { states: Slot::all().map(|_| AtomicU8::new(initial as u8)).collect(), parked: AtomicUsize::new(0), moving }
    }

    pub(super) fn get(&self, slot: Slot) -> SlotState {
        Self::decode(self.states[slot.index()].load(Ordering::SeqCst))
    }

    pub(super) fn set(&self, slot: Slot, state: SlotState) {
        let parked = |state| matches!(state, SlotState::WritesParked | SlotState::Parked);
        // Counted up before and down after: a command that writes everywhere never misses a parked slot.
        if parked(state) {
            self.parked.fetch_add(1, Ordering::SeqCst);
        }
        let old = Self::decode(self.states[slot.index()].swap(state as u8, Ordering::SeqCst));
        if parked(old) {
            self.parked.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn moving(&self, slot: Slot) -> bool {
        self.moving[slot.index()].load(Ordering::SeqCst)
    }

    pub(super) fn set_moving(&self, slot: Slot, moving: bool) {
        self.moving[slot.index()].store(moving, Ordering::SeqCst);
    }

    pub(super) fn any_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst) > 0
    }

    pub(super) fn matching(&self, wanted: impl Fn(SlotState) -> bool) -> SlotRanges {
        Slot::all().filter(|slot| wanted(self.get(*slot))).collect()
    }

    fn decode(byte: u8) -> SlotState {
        match byte {
            1 => SlotState::Open,
            2 => SlotState::WritesParked,
            3 => SlotState::Parked,
            _ => SlotState::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_slots_are_counted() {
        let table = StateTable::new(SlotState::Open);
        let slot = Slot::new(5).unwrap();
        for (state, parked) in
            [(SlotState::WritesParked, true), (SlotState::Parked, true), (SlotState::Parked, true), (SlotState::Elsewhere, false)]
        {
            table.set(slot, state);
            assert_eq!((table.get(slot), table.any_parked()), (state, parked));
        }
        assert_eq!(table.matching(|state| state == SlotState::Elsewhere).to_string(), "5");
    }
}
