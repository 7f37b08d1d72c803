//! How a node merges a topology document, slot by slot. Ownership is what the nodes' disks say; a document never moves it.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{NodeId, SlotEpoch, TopologyVersion},
    ranges::SlotRanges,
};

/// What a node durably knows of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotRow {
    /// The last known owner; `None` while the slot was never assigned.
    pub owner: Option<NodeId>,
    /// The epoch of that ownership; 0 while never assigned.
    pub epoch: SlotEpoch,
}

/// What a node does with a document's entry for one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Entry and row say the same.
    Same,
    /// The entry is older than the row; it changes nothing.
    Stale,
    /// The entry contradicts the row at the same epoch, or would give away a slot that has an owner; it changes nothing.
    Conflict,
    /// The entry is newer than the row and speaks of others: taken as routing knowledge.
    Learn,
    /// This node gets a slot that nobody ever owned.
    Assign,
    /// This node gets the slot of an owner that is retired for ever.
    TakeOver,
    /// This node owns the slot and the entry claims that another does at a higher epoch: only that owner's own word counts.
    AskOwner,
}

/// Judges one slot of a document: the table in ARCHITECTURE.md.
pub fn judge(me: NodeId, row: SlotRow, owner: NodeId, epoch: SlotEpoch, is_retired: impl Fn(NodeId) -> bool) -> Verdict {
    if epoch < row.epoch {
        return Verdict::Stale;
    }
    if epoch == row.epoch {
        return if row.owner == Some(owner) { Verdict::Same } else { Verdict::Conflict };
    }
    match row.owner {
        Some(current) if current == me => Verdict::AskOwner,
        _ if owner != me => Verdict::Learn,
        None if epoch == SlotEpoch(1) => Verdict::Assign,
        Some(current) if is_retired(current) => Verdict::TakeOver,
        _ => Verdict::Conflict,
    }
}

/// What became of a document on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeReport {
    /// The version the node has now.
    pub version: TopologyVersion,
    /// Slots whose entry was older than the node's row.
    pub stale: SlotRanges,
    /// Slots whose entry contradicts the node's row; nothing changed for them.
    pub conflicts: SlotRanges,
    /// Slots this node owns since this document.
    pub assigned: SlotRanges,
    /// Whether the document lists this node as retired.
    pub retired: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId::from_bytes([1; 20]);
    const OTHER: NodeId = NodeId::from_bytes([2; 20]);
    const THIRD: NodeId = NodeId::from_bytes([3; 20]);
    const GONE: NodeId = NodeId::from_bytes([9; 20]);

    #[test]
    fn a_document_never_moves_an_owned_slot() {
        let row = |owner, epoch| SlotRow { owner, epoch: SlotEpoch(epoch) };
        let table = [
            (row(None, 0), ME, 1, Verdict::Assign),
            (row(None, 0), OTHER, 1, Verdict::Learn),
            // A node that knows nothing is never given a slot that had owners before.
            (row(None, 0), ME, 2, Verdict::Conflict),
            (row(None, 0), OTHER, 7, Verdict::Learn),
            (row(Some(ME), 3), ME, 3, Verdict::Same),
            (row(Some(ME), 3), ME, 2, Verdict::Stale),
            (row(Some(ME), 3), OTHER, 2, Verdict::Stale),
            (row(Some(ME), 3), OTHER, 3, Verdict::Conflict),
            (row(Some(ME), 3), OTHER, 4, Verdict::AskOwner),
            (row(Some(ME), 3), ME, 4, Verdict::AskOwner),
            (row(Some(OTHER), 3), ME, 4, Verdict::Conflict),
            (row(Some(OTHER), 3), THIRD, 4, Verdict::Learn),
            (row(Some(OTHER), 3), OTHER, 3, Verdict::Same),
            (row(Some(GONE), 3), ME, 4, Verdict::TakeOver),
            (row(Some(GONE), 3), ME, 3, Verdict::Conflict),
        ];
        for (row, owner, epoch, expected) in table {
            let verdict = judge(ME, row, owner, SlotEpoch(epoch), |id| id == GONE);
            assert_eq!(verdict, expected, "{row:?} against {owner} at {epoch}");
        }
    }
}
