//! The topology document: what the operator writes down, then pushes to every node.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClusterId, LeaderEpoch, NodeId, SlotEpoch, TopologyVersion},
    ranges::SlotRanges,
    slot::Slot,
};

/// The only document format there is so far.
const FORMAT: u32 = 1;
/// Most nodes a document may list: shards of a cluster (1024) and as many again on their way in or out.
const NODES_MAX: usize = 2048;
/// Most retired ids a document keeps.
const RETIRED_MAX: usize = 65_536;
/// Longest host name (RFC 1035).
const HOST_LEN_MAX: usize = 253;

/// Why a document is refused. Nothing of a refused document is applied.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of this shape.
    #[error("the topology document cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error("the topology document has format {0}, this version reads {FORMAT}: upgrade it first")]
    Format(u32),
    /// It contradicts itself or exceeds a limit.
    #[error("the topology document contradicts itself: {0}")]
    Invalid(String),
}

/// A node of the cluster, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its id, read from the node itself.
    pub id: NodeId,
    /// The shard it serves, counted from 0.
    pub shard: u32,
    /// Host name or address clients and peers reach it by.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// Port of its admin plane.
    pub admin_port: u16,
}

/// Who owns a run of slots, and since which switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotEntry {
    /// The slots.
    pub slots: SlotRanges,
    /// Their owner.
    pub owner: NodeId,
    /// The epoch of their last change of owner.
    pub epoch: SlotEpoch,
}

/// The whole cluster as the operator last wrote it down. See ARCHITECTURE.md for how nodes merge it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyDocument {
    /// Format of this document, 1.
    pub format: u32,
    /// The cluster's id, made at bootstrap.
    pub cluster_id: ClusterId,
    /// Fencing epoch of the leader that wrote it.
    pub leader_epoch: LeaderEpoch,
    /// Counts on with every change.
    pub version: TopologyVersion,
    /// The nodes.
    pub nodes: Vec<NodeEntry>,
    /// Ids that own nothing any more, for ever.
    #[serde(default)]
    pub retired: Vec<NodeId>,
    /// Who owns which slots. Slots of no entry are not assigned yet.
    #[serde(default)]
    pub slots: Vec<SlotEntry>,
}

impl TopologyDocument {
    /// A document of a cluster that has no node yet.
    pub fn new(cluster_id: ClusterId, leader_epoch: LeaderEpoch, version: TopologyVersion) -> Self {
        Self { format: FORMAT, cluster_id, leader_epoch, version, nodes: Vec::new(), retired: Vec::new(), slots: Vec::new() }
    }

    /// Reads and checks a document.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_slice(text)?;
        document.validate()?;
        Ok(document)
    }

    /// Writes it, on one line.
    pub fn to_json(&self) -> Result<String, DocumentError> {
        Ok(serde_json::to_string(self)?)
    }

    /// The node of that id, when it is listed.
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Whether that id is listed as retired.
    pub fn is_retired(&self, id: NodeId) -> bool {
        self.retired.contains(&id)
    }

    /// Slots that node owns, by this document.
    pub fn owned_by(&self, id: NodeId) -> SlotRanges {
        self.slots.iter().filter(|entry| entry.owner == id).flat_map(|entry| entry.slots.iter()).collect()
    }

    /// Owner and epoch of every slot.
    pub fn by_slot(&self) -> HashMap<Slot, (NodeId, SlotEpoch)> {
        self.slots.iter().flat_map(|entry| entry.slots.iter().map(|slot| (slot, (entry.owner, entry.epoch)))).collect()
    }

    /// Sorts entries and joins those of the same owner and epoch, so that equal topologies are equal documents.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let mut groups: HashMap<(NodeId, SlotEpoch), Vec<Slot>> = HashMap::new();
        for entry in &self.slots {
            groups.entry((entry.owner, entry.epoch)).or_default().extend(entry.slots.iter());
        }
        self.slots = groups
            .into_iter()
            .map(|((owner, epoch), slots)| SlotEntry { slots: slots.into_iter().collect(), owner, epoch })
            .filter(|entry| !entry.slots.is_empty())
            .collect();
        self.slots.sort_by_key(|entry| entry.slots.iter().next());
        self.nodes.sort_by_key(|node| (node.shard, node.id));
        self.retired.sort_unstable();
        self.retired.dedup();
        self
    }

    /// Checks what the type cannot say.
    pub fn validate(&self) -> Result<(), DocumentError> {
        let invalid = |why: String| Err(DocumentError::Invalid(why));
        if self.format != FORMAT {
            return Err(DocumentError::Format(self.format));
        }
        if self.nodes.len() > NODES_MAX || self.retired.len() > RETIRED_MAX {
            return invalid(format!("at most {NODES_MAX} nodes and {RETIRED_MAX} retired ids are allowed"));
        }
        let retired: HashSet<NodeId> = self.retired.iter().copied().collect();
        let mut ids = HashSet::new();
        for node in &self.nodes {
            if !ids.insert(node.id) {
                return invalid(format!("node {} is listed twice", node.id));
            }
            if retired.contains(&node.id) {
                return invalid(format!("node {} is listed both as a node and as retired", node.id));
            }
            let host_ok = !node.host.is_empty()
                && node.host.len() <= HOST_LEN_MAX
                && node.host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
            if !host_ok || node.port == 0 || node.admin_port == 0 {
                return invalid(format!("node {} has no usable address: host `{}`", node.id, node.host.escape_debug()));
            }
        }
        let mut assigned = HashSet::new();
        for entry in &self.slots {
            if !ids.contains(&entry.owner) {
                return invalid(format!("slots {} belong to node {}, which is not listed", entry.slots, entry.owner));
            }
            if entry.epoch == SlotEpoch(0) {
                return invalid(format!("slots {} have epoch 0: an assigned slot's epoch is at least 1", entry.slots));
            }
            if let Some(slot) = entry.slots.iter().find(|slot| !assigned.insert(*slot)) {
                return invalid(format!("slot {slot} has two entries"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> TopologyDocument {
        let id = |n: u8| NodeId::from_bytes([n; 20]);
        let mut document = TopologyDocument::new(ClusterId::from_bytes([9; 16]), LeaderEpoch(1), TopologyVersion(3));
        document.nodes = (1..=2)
            .map(|n| NodeEntry { id: id(n), shard: u32::from(n) - 1, host: format!("node-{n}"), port: 6379, admin_port: 7379 })
            .collect();
        document.slots = vec![
            SlotEntry { slots: "0-99".parse().unwrap(), owner: id(1), epoch: SlotEpoch(1) },
            SlotEntry { slots: "100-199".parse().unwrap(), owner: id(2), epoch: SlotEpoch(4) },
        ];
        document
    }

    #[test]
    fn round_trips_through_json() {
        let document = document();
        assert_eq!(TopologyDocument::from_json(document.to_json().unwrap().as_bytes()).unwrap(), document);
        assert_eq!(document.clone().normalised(), document);
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        let cases: [(&str, fn(&mut TopologyDocument)); 7] = [
            ("listed twice", |d| d.nodes.push(d.nodes[0].clone())),
            ("both as a node and as retired", |d| d.retired.push(d.nodes[0].id)),
            ("no usable address", |d| d.nodes[0].host = "a\r\nb".into()),
            ("no usable address", |d| d.nodes[0].port = 0),
            ("not listed", |d| d.slots[0].owner = NodeId::from_bytes([7; 20])),
            ("epoch 0", |d| d.slots[0].epoch = SlotEpoch(0)),
            ("two entries", |d| d.slots[0].slots = "0-100".parse().unwrap()),
        ];
        for (expected, spoil) in cases {
            let mut document = document();
            spoil(&mut document);
            let error = document.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(TopologyDocument::from_json(br#"{"format": 2}"#).is_err());
        assert!(TopologyDocument::from_json(br#"{"surprise": true}"#).is_err());
    }
}
