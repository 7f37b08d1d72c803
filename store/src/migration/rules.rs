//! What the two ends of a switch decide, from nothing but what is durable and what they are told. A node carries it out; the model
//! test (`model.rs`) runs these same rules under crashes and lost, late and repeated messages, in many thousand orders.

use sluice_topology::{NodeId, SlotEpoch, merge::SlotRow};

use super::journal::ImportStep;

/// A source's word on one of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The switch is decided: the target makes the unit live.
    Committed,
    /// It may still be decided: the target waits.
    Pending,
    /// There is nothing to wait for: the attempt was given up, or its target was live before the source was done with it.
    Aborted,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Committed, Self::Pending, Self::Aborted];

    /// As the admin plane says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Pending => "pending",
            Self::Aborted => "aborted",
        }
    }

    /// Reads it again; `None`: it is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str().as_bytes() == text)
    }
}

/// What a target is told to do with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Prepare,
    Commit,
    Abort,
    Forget,
}

/// What it does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obeyed {
    Do,
    /// It was done before: a message may come twice.
    Done,
    Refuse,
}

/// What a start does with an attempt that its journal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtStart {
    Abort,
    /// Nobody serves its slots here until the target has confirmed the switch.
    Fence,
}

/// The source's word. `decided` is its journal's: `None` where it has no record. `active`: whether the attempt is under way all the same.
pub(super) fn outcome(decided: Option<bool>, active: bool) -> Outcome {
    match decided {
        Some(true) => Outcome::Committed,
        Some(false) => Outcome::Pending,
        None if active => Outcome::Pending,
        None => Outcome::Aborted,
    }
}

/// The target at an order. `whole`: whether all that was sent is there.
pub(super) fn obey(order: Order, step: ImportStep, whole: bool) -> Obeyed {
    match (order, step) {
        (Order::Prepare, ImportStep::Staged) if whole => Obeyed::Do,
        (Order::Prepare, ImportStep::Prepared | ImportStep::Live) => Obeyed::Done,
        (Order::Commit, ImportStep::Prepared) => Obeyed::Do,
        (Order::Commit, ImportStep::Live) => Obeyed::Done,
        (Order::Abort, ImportStep::Staged | ImportStep::Prepared) => Obeyed::Do,
        (Order::Forget, ImportStep::Live) => Obeyed::Do,
        _ => Obeyed::Refuse,
    }
}

/// What a target that has asked its source does about the answer.
pub(super) fn learned(outcome: Outcome, step: ImportStep) -> Option<Order> {
    match (outcome, step) {
        (Outcome::Committed, ImportStep::Prepared) => Some(Order::Commit),
        (Outcome::Aborted, ImportStep::Live) => Some(Order::Forget),
        (Outcome::Aborted, _) => Some(Order::Abort),
        _ => None,
    }
}

/// Whether a target may stage a slot that `source` claims to own since `epoch`. `row`: what the target itself knows.
pub(super) fn may_stage(me: NodeId, row: SlotRow, source: NodeId, epoch: SlotEpoch) -> bool {
    (row.epoch < epoch && row.owner != Some(me)) || (row.epoch == epoch && row.owner == Some(source))
}

/// Whether a target may take slots back whose last switch away from it is decided and not confirmed: `fenced`. When that switch is
/// done the node drops what the slots hold here, which by then would be what came back.
pub(super) fn may_take_back(fenced: bool) -> bool {
    !fenced
}

/// Whether a source that is done with a switch records its target as the owner. It may have learned of a later one.
pub(super) fn records(row: SlotRow, given: SlotRow) -> bool {
    row.epoch < given.epoch
}

/// What a start does with an attempt of its journal.
pub(super) fn at_start(committed: bool) -> AtStart {
    if committed { AtStart::Fence } else { AtStart::Abort }
}
