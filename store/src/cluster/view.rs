//! The cluster as clients ask for it.

use std::collections::BTreeMap;

use sluice_topology::{NodeEntry, NodeId, Slot, SlotEntry, SlotEpoch, SlotRanges};

use super::{Cluster, SlotState};

impl Cluster {
    /// Owner and epoch of every assigned slot, joined to ranges.
    pub fn slot_entries(&self) -> Vec<SlotEntry> {
        let mut groups: BTreeMap<(NodeId, SlotEpoch), Vec<Slot>> = BTreeMap::new();
        for slot in Slot::all() {
            let row = self.row(slot);
            if let Some(owner) = row.owner {
                groups.entry((owner, row.epoch)).or_default().push(slot);
            }
        }
        groups.into_iter().map(|((owner, epoch), slots)| SlotEntry { slots: slots.into_iter().collect(), owner, epoch }).collect()
    }

    /// The nodes with the slots of each, as far as known.
    pub fn nodes_with_slots(&self) -> Vec<(NodeEntry, SlotRanges)> {
        let mut owned: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
        for slot in Slot::all() {
            if let Some(owner) = self.row(slot).owner {
                owned.entry(owner).or_default().push(slot);
            }
        }
        let slots = |id: &NodeId| owned.get(id).map(|slots| slots.iter().copied().collect()).unwrap_or_default();
        self.known().nodes.iter().map(|node| (node.clone(), slots(&node.id))).collect()
    }

    /// Slots that have a known owner.
    pub fn assigned(&self) -> usize {
        Slot::all().filter(|slot| self.row(*slot).owner.is_some()).count()
    }

    /// Slots this node owns and does not serve right now.
    pub fn fenced(&self) -> SlotRanges {
        let unserved = self.states.matching(|state| matches!(state, SlotState::Parked | SlotState::Elsewhere));
        self.owned().intersection(&unserved)
    }
}
