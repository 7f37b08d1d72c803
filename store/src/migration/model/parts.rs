//! What a world consists of.

use std::collections::{BTreeMap, BTreeSet};

use sluice_topology::{NodeId, SlotEpoch, merge::SlotRow};

use super::{ImportStep, Order, Outcome};
use crate::cluster::SlotState;

pub(super) const NODES: usize = 3;
pub(super) const SLOTS: usize = 2;

/// Source, and its number.
pub(super) type Attempt = (usize, u64);
pub(super) type Keys = BTreeSet<u32>;

/// A unit at its source, as its journal has it.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) target: usize,
    pub(super) slots: Vec<(usize, SlotEpoch)>,
    pub(super) committed: bool,
}

/// A unit at its target, as its journal has it, and what was staged.
#[derive(Clone)]
pub(super) struct Taken {
    pub(super) step: ImportStep,
    pub(super) slots: Vec<(usize, SlotEpoch)>,
    pub(super) staged: Vec<Keys>,
    /// Batches that came; `None` after a restart.
    pub(super) came: Option<u32>,
}

/// What a source remembers of an attempt without a decision.
pub(super) struct Transfer {
    pub(super) sent: u32,
    /// Keys that were changed since they were read, by the place of their slot in the unit.
    pub(super) changed: Vec<Keys>,
    pub(super) parked: bool,
}

#[derive(Clone)]
pub(super) enum Message {
    Begin { id: Attempt, target: usize, slots: Vec<(usize, SlotEpoch)> },
    Batch { id: Attempt, sequence: u32, keys: Vec<(usize, u32, bool)> },
    Prepare { id: Attempt, sent: u32 },
    Prepared { number: u64 },
    Order(Order, Attempt),
    Confirmed { number: u64 },
    Ask { id: Attempt, by: usize },
    Word { id: Attempt, outcome: Outcome },
    Document([SlotRow; SLOTS]),
    Status { of: usize, rows: [SlotRow; SLOTS] },
}

pub(super) struct Node {
    pub(super) rows: [SlotRow; SLOTS],
    pub(super) live: [Keys; SLOTS],
    pub(super) given: BTreeMap<u64, Given>,
    pub(super) taken: BTreeMap<Attempt, Taken>,
    pub(super) attempts: u64,
    // Gone with the process:
    pub(super) up: bool,
    pub(super) confirmed: bool,
    pub(super) states: [SlotState; SLOTS],
    pub(super) active: BTreeSet<u64>,
    pub(super) transfers: BTreeMap<u64, Transfer>,
}

impl Node {
    pub(super) fn fenced(&self, slot: usize) -> bool {
        self.given.values().any(|unit| unit.committed && unit.slots.iter().any(|(other, _)| *other == slot))
    }

    pub(super) fn serves(&self, slot: usize) -> bool {
        self.up && matches!(self.states[slot], SlotState::Open | SlotState::WritesParked)
    }
}

pub(super) fn id_of(node: usize) -> NodeId {
    NodeId::from_bytes([node as u8 + 1; NodeId::LEN])
}

pub(super) fn node_of(id: NodeId) -> usize {
    usize::from(id.as_bytes()[0]) - 1
}
