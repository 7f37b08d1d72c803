//! Who owns each slot, from what every node says. An owner's own word at the highest epoch wins; hearsay counts only above it.

use std::collections::{BTreeMap, HashMap, HashSet};

use sluice_topology::{NodeId, Slot, SlotEntry, SlotEpoch, SlotRanges, TopologyDocument, admin::NodeStatus};

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Owner and epoch of every slot that has one.
    pub slots: BTreeMap<Slot, (NodeId, SlotEpoch)>,
    /// Slots that two nodes claim at the same epoch. Must never be; nothing is decided about them.
    pub contested: SlotRanges,
}

impl Ownership {
    /// Entries for a document that lists only those nodes.
    pub fn entries(&self, listed: &HashSet<NodeId>) -> Vec<SlotEntry> {
        let mut groups: HashMap<(NodeId, SlotEpoch), Vec<Slot>> = HashMap::new();
        for (slot, (owner, epoch)) in self.slots.iter().filter(|(_, (owner, _))| listed.contains(owner)) {
            groups.entry((*owner, *epoch)).or_default().push(*slot);
        }
        groups.into_iter().map(|((owner, epoch), slots)| SlotEntry { slots: slots.into_iter().collect(), owner, epoch }).collect()
    }

    /// Slots whose owner is none of those.
    pub fn owned_by_others(&self, listed: &HashSet<NodeId>) -> BTreeMap<NodeId, SlotRanges> {
        let mut lost: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
        for (slot, (owner, _)) in self.slots.iter().filter(|(_, (owner, _))| !listed.contains(owner)) {
            lost.entry(*owner).or_default().push(*slot);
        }
        lost.into_iter().map(|(owner, slots)| (owner, slots.into_iter().collect())).collect()
    }

    /// Slots nobody owns.
    pub fn unassigned(&self) -> SlotRanges {
        Slot::all().filter(|slot| !self.slots.contains_key(slot)).collect()
    }
}

/// Puts together what the nodes and the last document say.
pub fn ownership<'a>(document: Option<&TopologyDocument>, statuses: impl Iterator<Item = &'a NodeStatus>) -> Ownership {
    // Sorted last is believed: epoch first, then an owner's own word over hearsay.
    let mut best: BTreeMap<Slot, (SlotEpoch, bool, NodeId)> = BTreeMap::new();
    let mut contested: HashSet<Slot> = HashSet::new();
    let mut note = |entry: &SlotEntry, own_word: bool| {
        for slot in entry.slots.iter() {
            let claim = (entry.epoch, own_word, entry.owner);
            match best.get(&slot) {
                Some((epoch, own, owner)) if (*epoch, *own) == (claim.0, claim.1) => {
                    if own_word && *owner != entry.owner {
                        contested.insert(slot);
                    }
                }
                Some((epoch, own, _)) if (*epoch, *own) > (claim.0, claim.1) => {}
                _ => {
                    contested.remove(&slot);
                    best.insert(slot, claim);
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
        slots: best.into_iter().map(|(slot, (epoch, _, owner))| (slot, (owner, epoch))).collect(),
        contested: contested.into_iter().collect(),
    }
}
