//! Who owns each slot, from what every node says. An owner's own word at the highest epoch wins; hearsay counts only above it.

use std::collections::{BTreeMap, HashMap, HashSet};

use sluice_topology::{NodeId, SLOT_COUNT, Slot, SlotEntry, SlotEpoch, SlotRanges, TopologyDocument, admin::NodeStatus};

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Owner and epoch of every slot that has one, by slot number.
    slots: Vec<Option<(NodeId, SlotEpoch)>>,
    /// Slots that two nodes claim at the same epoch. Must never be; nothing is decided about them.
    pub contested: SlotRanges,
}

impl Ownership {
    /// Owner and epoch of a slot.
    pub fn of(&self, slot: Slot) -> Option<(NodeId, SlotEpoch)> {
        self.slots.get(slot.index()).copied().flatten()
    }

    fn assigned(&self) -> impl Iterator<Item = (Slot, NodeId, SlotEpoch)> {
        Slot::all().filter_map(|slot| self.of(slot).map(|(owner, epoch)| (slot, owner, epoch)))
    }

    /// Every node that owns a slot.
    pub fn owners(&self) -> HashSet<NodeId> {
        self.assigned().map(|(_, owner, _)| owner).collect()
    }

    /// Entries for a document that lists only those nodes.
    pub fn entries(&self, listed: &HashSet<NodeId>) -> Vec<SlotEntry> {
        let mut groups: HashMap<(NodeId, SlotEpoch), Vec<Slot>> = HashMap::new();
        for (slot, owner, epoch) in self.assigned().filter(|(_, owner, _)| listed.contains(owner)) {
            groups.entry((owner, epoch)).or_default().push(slot);
        }
        groups.into_iter().map(|((owner, epoch), slots)| SlotEntry { slots: slots.into_iter().collect(), owner, epoch }).collect()
    }

    /// Slots whose owner is none of those.
    pub fn owned_by_others(&self, listed: &HashSet<NodeId>) -> BTreeMap<NodeId, SlotRanges> {
        let mut lost: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
        for (slot, owner, _) in self.assigned().filter(|(_, owner, _)| !listed.contains(owner)) {
            lost.entry(owner).or_default().push(slot);
        }
        lost.into_iter().map(|(owner, slots)| (owner, slots.into_iter().collect())).collect()
    }

    /// Slots nobody owns.
    pub fn unassigned(&self) -> SlotRanges {
        Slot::all().filter(|slot| self.of(*slot).is_none()).collect()
    }
}

/// Puts together what the nodes and the last document say.
pub fn ownership<'a>(document: Option<&TopologyDocument>, statuses: impl Iterator<Item = &'a NodeStatus>) -> Ownership {
    // The greatest is believed: epoch first, then an owner's own word over hearsay.
    let mut best: Vec<Option<(SlotEpoch, bool, NodeId)>> = vec![None; usize::from(SLOT_COUNT)];
    let mut contested: HashSet<Slot> = HashSet::new();
    let mut note = |entry: &SlotEntry, own_word: bool| {
        for slot in entry.slots.iter() {
            let Some(place) = best.get_mut(slot.index()) else { continue };
            match place {
                Some((epoch, own, owner)) if (*epoch, *own) == (entry.epoch, own_word) => {
                    if own_word && *owner != entry.owner {
                        contested.insert(slot);
                    }
                }
                Some((epoch, own, _)) if (*epoch, *own) > (entry.epoch, own_word) => {}
                _ => {
                    contested.remove(&slot);
                    *place = Some((entry.epoch, own_word, entry.owner));
                }
            }
        }
    };
    for entry in document.iter().flat_map(|document| &document.slots) {
        note(entry, false);
    }
    for status in statuses {
        for entry in &status.slots {
            note(entry, entry.owner == status.node_id && !status.retired);
        }
    }
    Ownership {
        slots: best.into_iter().map(|claim| claim.map(|(epoch, _, owner)| (owner, epoch))).collect(),
        contested: contested.into_iter().collect(),
    }
}
