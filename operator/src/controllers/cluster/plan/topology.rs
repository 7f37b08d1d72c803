//! What the topology document shall be. A cluster is made once; afterwards the document follows the nodes, never the other way round.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sluice_topology::{
    ClusterId, LeaderEpoch, NodeEntry, NodeId, SLOT_COUNT, Slot, SlotEntry, SlotEpoch, SlotRanges, TopologyDocument,
    TopologyVersion, admin::NodeStatus,
};

use super::ownership::{Ownership, ownership};
use crate::{
    controllers::cluster::facts::{Facts, RecordFacts},
    names::{ADMIN_PORT, CLIENT_PORT, Names},
};

/// A node that came back without the volume it is recorded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostVolume {
    /// Its shard.
    pub shard: u32,
    /// The id it is recorded with.
    pub recorded: NodeId,
    /// The id it has now.
    pub found: NodeId,
}

/// What to do about the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing can be decided before more nodes answer.
    Wait {
        /// In one word.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Nothing is decided before a person has looked.
    Refuse {
        /// In one word.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// The one time a cluster is made.
    Bootstrap(TopologyDocument),
    /// The document was lost; this is what the nodes know.
    Rebuild(TopologyDocument),
    /// Nodes, or who owns what, have changed. Leader epoch and version are the old ones: whoever writes it counts them on.
    Write(TopologyDocument),
    /// It is as it should be.
    Keep,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyPlan {
    /// What to do.
    pub decision: Decision,
    /// Nodes that lost their volume.
    pub lost_volumes: Vec<LostVolume>,
    /// Nodes that belong to another cluster, or whose id another node has as well: shard, and why.
    pub foreign: BTreeMap<u32, String>,
    /// Slots two nodes claim.
    pub contested: SlotRanges,
    /// Slots that no listed node owns.
    pub orphaned: SlotRanges,
}

impl TopologyPlan {
    fn new(decision: Decision) -> Self {
        Self {
            decision,
            lost_volumes: Vec::new(),
            foreign: BTreeMap::new(),
            contested: SlotRanges::empty(),
            orphaned: SlotRanges::empty(),
        }
    }
}

/// The entry of a shard's node.
pub fn entry(names: &Names, shard: u32, id: NodeId) -> NodeEntry {
    NodeEntry { id, shard, host: names.host(shard), port: CLIENT_PORT, admin_port: ADMIN_PORT }
}

/// Decides what the document shall be. `new_id` is used if a cluster is made now.
pub fn plan(facts: &Facts, new_id: ClusterId) -> TopologyPlan {
    match &facts.record {
        RecordFacts::Unreadable(why) => TopologyPlan::new(Decision::Refuse {
            reason: "TopologyUnreadable",
            message: format!(
                "ConfigMap {} cannot be read: {why}; mend it, or delete it to have it rebuilt from the nodes",
                facts.names.topology()
            ),
        }),
        RecordFacts::Missing => without_document(facts, new_id),
        RecordFacts::Present(record) => with_document(facts, &record.document),
    }
}

/// Nodes that are not what the record says, by shard.
fn strangers(facts: &Facts, cluster_id: Option<ClusterId>) -> (Vec<LostVolume>, BTreeMap<u32, String>) {
    let recorded = facts.recorded_ids();
    let (mut lost, mut foreign) = (Vec::new(), BTreeMap::new());
    let mut seen: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (shard, status) in facts.statuses() {
        if let Some(first) = seen.insert(status.node_id, shard) {
            foreign.insert(shard, format!("it has the node id of shard {first}: its volume is a copy"));
        }
        match recorded.get(&shard) {
            Some(id) if *id != status.node_id => lost.push(LostVolume { shard, recorded: *id, found: status.node_id }),
            _ => {}
        }
        if let (Some(ours), Some(theirs)) = (cluster_id, status.cluster_id)
            && ours != theirs
        {
            foreign.insert(shard, format!("its volume belongs to cluster {theirs}, this is {ours}"));
        }
    }
    (lost, foreign)
}

fn without_document(facts: &Facts, new_id: ClusterId) -> TopologyPlan {
    let expected: BTreeSet<u32> = (0..facts.wanted_shards())
        .chain(facts.shards.iter().filter(|(_, shard)| shard.stateful_set.is_some()).map(|(number, _)| *number))
        .chain(facts.recorded_ids().into_keys())
        .collect();
    let silent: Vec<u32> =
        expected.iter().copied().filter(|shard| facts.shards.get(shard).is_none_or(|s| s.node.is_err())).collect();
    let statuses: Vec<(u32, &NodeStatus)> = facts.statuses().filter(|(shard, _)| expected.contains(shard)).collect();
    let known_ids: BTreeSet<ClusterId> = statuses.iter().filter_map(|(_, status)| status.cluster_id).collect();
    let exists = facts.was_bootstrapped() || !known_ids.is_empty() || statuses.iter().any(|(_, status)| !status.slots.is_empty());
    let (lost_volumes, foreign) = strangers(facts, known_ids.first().copied());
    let refuse = |reason, message| TopologyPlan {
        lost_volumes: lost_volumes.clone(),
        foreign: foreign.clone(),
        ..TopologyPlan::new(Decision::Refuse { reason, message })
    };
    if !silent.is_empty() {
        return if exists {
            refuse(
                "TopologyLost",
                format!(
                    "the topology document is lost, and shards {silent:?} cannot be asked what they know: bring them back first"
                ),
            )
        } else {
            TopologyPlan::new(Decision::Wait { reason: "AwaitingNodes", message: format!("shards {silent:?} do not answer yet") })
        };
    }
    if let Some((shard, why)) = foreign.first_key_value() {
        return refuse("ForeignNode", format!("shard {shard}: {why}"));
    }
    if let Some(lost) = lost_volumes.first() {
        return refuse(
            "VolumeLost",
            format!("shard {} is recorded as node {} and came back as {}", lost.shard, lost.recorded, lost.found),
        );
    }
    if !exists {
        return match statuses.iter().find(|(_, status)| status.retired) {
            Some((shard, _)) => {
                refuse("RetiredVolume", format!("the volume of shard {shard} was retired from a cluster: delete it"))
            }
            None => TopologyPlan::new(Decision::Bootstrap(first_document(facts, &statuses, new_id))),
        };
    }
    let Some(cluster_id) = known_ids.first().copied() else {
        return refuse(
            "TopologyLost",
            "a cluster was made here, and no node remembers it: restore the volumes, or ConfigMap and status".into(),
        );
    };
    rebuild(facts, &statuses, cluster_id).unwrap_or_else(|(reason, message)| refuse(reason, message))
}

/// Slots in equal runs, the first shards one more where they do not divide.
fn first_document(facts: &Facts, statuses: &[(u32, &NodeStatus)], id: ClusterId) -> TopologyDocument {
    let mut document = TopologyDocument::new(id, LeaderEpoch(0), TopologyVersion(0));
    document.nodes = statuses.iter().map(|(shard, status)| entry(&facts.names, *shard, status.node_id)).collect();
    let all: Vec<Slot> = Slot::all().collect();
    let count = statuses.len();
    let mut start = 0;
    for (position, (_, status)) in statuses.iter().enumerate() {
        let length = usize::from(SLOT_COUNT) / count + usize::from(position < usize::from(SLOT_COUNT) % count);
        let slots: SlotRanges = all.iter().skip(start).take(length).copied().collect();
        start += length;
        document.slots.push(SlotEntry { slots, owner: status.node_id, epoch: SlotEpoch(1) });
    }
    document.normalised()
}

fn rebuild(facts: &Facts, statuses: &[(u32, &NodeStatus)], id: ClusterId) -> Result<TopologyPlan, (&'static str, String)> {
    let owners = ownership(None, statuses.iter().map(|(_, status)| *status));
    let mut document = TopologyDocument::new(
        id,
        statuses.iter().map(|(_, status)| status.leader_epoch).max().unwrap_or_default(),
        statuses.iter().map(|(_, status)| status.topology_version).max().unwrap_or_default(),
    );
    // A node may be written down by others before it has heard of the cluster itself.
    let told_of = owners.owners();
    let members = statuses
        .iter()
        .filter(|(_, status)| !status.retired && (status.cluster_id.is_some() || told_of.contains(&status.node_id)));
    document.nodes = members.map(|(shard, status)| entry(&facts.names, *shard, status.node_id)).collect();
    document.retired = statuses.iter().filter(|(_, status)| status.retired).map(|(_, status)| status.node_id).collect();
    let listed: HashSet<NodeId> = document.nodes.iter().map(|node| node.id).collect();
    if let Some((owner, slots)) = owners.owned_by_others(&listed).into_iter().next() {
        let shard = statuses.iter().flat_map(|(_, status)| &status.nodes).find(|node| node.id == owner).map(|node| node.shard);
        let hint = shard.map_or_else(
            || "restore its volume".to_owned(),
            |shard| format!("it served shard {shard}: set spec.shards to at least {}, or restore its volume", shard + 1),
        );
        return Err(("MissingShard", format!("slots {} belong to node {owner}, which does not run; {hint}", brief(&slots))));
    }
    if !owners.contested.is_empty() {
        return Err(("ContestedSlots", format!("slots {} are claimed by two nodes", brief(&owners.contested))));
    }
    document.slots = owners.entries(&listed);
    let orphaned = owners.unassigned();
    Ok(TopologyPlan { orphaned, ..TopologyPlan::new(Decision::Rebuild(document.normalised())) })
}

fn with_document(facts: &Facts, old: &TopologyDocument) -> TopologyPlan {
    let (lost_volumes, foreign) = strangers(facts, Some(old.cluster_id));
    let trusted: Vec<(u32, &NodeStatus)> = facts
        .statuses()
        .filter(|(shard, _)| !foreign.contains_key(shard) && lost_volumes.iter().all(|lost| lost.shard != *shard))
        .collect();
    let mut nodes: Vec<NodeEntry> = old.nodes.iter().map(|node| entry(&facts.names, node.shard, node.id)).collect();
    let shards: HashSet<u32> = nodes.iter().map(|node| node.shard).collect();
    let joining = trusted.iter().filter(|(shard, status)| {
        *shard < facts.wanted_shards()
            && !shards.contains(shard)
            && !status.retired
            && !old.is_retired(status.node_id)
            // A node that knows of no cluster, or of this one and owns nothing: else it has a past nobody wrote down.
            && status.owned().is_empty()
            && facts.shards.get(shard).and_then(|facts| facts.name_resolves) == Some(true)
    });
    nodes.extend(joining.map(|(shard, status)| entry(&facts.names, *shard, status.node_id)));
    let listed: HashSet<NodeId> = nodes.iter().map(|node| node.id).collect();
    let owners: Ownership = ownership(Some(old), trusted.iter().map(|(_, status)| *status));
    let mut document = old.clone();
    document.nodes = nodes;
    let contested: HashSet<Slot> = owners.contested.iter().collect();
    let mut entries = owners.entries(&listed);
    if !contested.is_empty() {
        // What two nodes claim stays as it is written until a person has looked.
        for entry in &mut entries {
            entry.slots = entry.slots.iter().filter(|slot| !contested.contains(slot)).collect();
        }
        entries.extend(
            old.slots.iter().map(|entry| SlotEntry { slots: entry.slots.intersection(&owners.contested), ..entry.clone() }),
        );
    }
    document.slots = entries;
    let document = document.normalised();
    let decision = if document == old.clone().normalised() { Decision::Keep } else { Decision::Write(document.clone()) };
    let assigned: HashSet<Slot> = document.slots.iter().flat_map(|entry| entry.slots.iter()).collect();
    TopologyPlan {
        decision,
        lost_volumes,
        foreign,
        contested: owners.contested,
        orphaned: Slot::all().filter(|slot| !assigned.contains(slot)).collect(),
    }
}

/// The document without nodes that left for ever.
pub fn without(mut document: TopologyDocument, leaving: &[NodeId]) -> TopologyDocument {
    document.nodes.retain(|node| !leaving.contains(&node.id));
    document.slots.retain(|entry| !leaving.contains(&entry.owner));
    document.retired.extend(leaving);
    document.normalised()
}

/// Slots for a message: long lists are cut.
pub fn brief(slots: &SlotRanges) -> String {
    let text = slots.to_string();
    if text.len() <= 120 { text } else { format!("{}… ({} slots)", text.chars().take(100).collect::<String>(), slots.len()) }
}
