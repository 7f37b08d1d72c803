//! The cluster as clients ask for it.

use std::{collections::BTreeMap, sync::PoisonError};

use sluice_topology::{NodeEntry, NodeId, Slot, SlotEntry, SlotEpoch, SlotRanges};

use super::{Cluster, SlotState};

impl Cluster {
    /// Owner and epoch of every assigned slot, joined to ranges.
    pub fn slot_entries(&self) -> Vec<SlotEntry> {
        let mut groups: BTreeMap<(NodeId, SlotEpoch), Vec<Slot>> = BTreeMap::new();
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        for (slot, row) in Slot::all().zip(rows.iter()) {
            if let Some(owner) = row.owner {
                groups.entry((owner, row.epoch)).or_default().push(slot);
            }
        }
        groups.into_iter().map(|((owner, epoch), slots)| SlotEntry { slots: slots.into_iter().collect(), owner, epoch }).collect()
    }

    /// The nodes with the slots of each, as far as known.
    pub fn nodes_with_slots(&self) -> Vec<(NodeEntry, SlotRanges)> {
        let entries = self.slot_entries();
        let slots = |id| entries.iter().filter(|entry| entry.owner == id).flat_map(|entry| entry.slots.iter()).collect();
        self.known().nodes.iter().map(|node| (node.clone(), slots(node.id))).collect()
    }

    /// Slots this node owns and does not serve right now.
    pub fn fenced(&self) -> SlotRanges {
        let unserved = self.states.matching(|state| matches!(state, SlotState::Parked | SlotState::Elsewhere));
        self.owned().intersection(&unserved)
    }
}
