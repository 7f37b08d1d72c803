//! Facts for the planners' tables.

mod ownership;
mod rollout;
mod scaling;
mod topology;

use std::collections::BTreeMap;

use sluice_topology::{
    ClusterId, LeaderEpoch, NodeId, SlotEntry, SlotEpoch, TopologyDocument, TopologyVersion, admin::NodeStatus,
};

use super::topology::entry;
use crate::{
    api::SluiceCluster,
    controllers::{
        cluster::facts::{Facts, PodFacts, RecordFacts, ShardFacts, StatefulSetFacts},
        testing::{CLUSTER, node_id},
    },
    names::Names,
    topology_record::TopologyRecord,
};

/// A shard whose node says that.
pub(super) fn shard(node: Result<NodeStatus, &str>) -> ShardFacts {
    ShardFacts {
        stateful_set: Some(StatefulSetFacts {
            uid: "set".into(),
            claim_template: "data".into(),
            claim_size: "1Gi".into(),
            deleting: false,
            observed: true,
        }),
        pod: Some(PodFacts { uid: "pod".into(), ready: true, template_hash: Some("old".into()), ..PodFacts::default() }),
        node: node.map_err(str::to_owned),
        name_resolves: Some(true),
        ..ShardFacts::default()
    }
}

/// A cluster that wants so many shards, and what was seen of them, without a document.
pub(super) fn facts(wanted: i32, shards: Vec<ShardFacts>) -> Facts {
    let cluster: SluiceCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "SluiceCluster", "metadata": {"name": "demo", "namespace": "ns"},
        "spec": {"shards": wanted, "storage": {"size": "1Gi"}},
    }))
    .unwrap();
    Facts {
        names: Names::of(&cluster),
        cluster,
        shards: (0..).zip(shards).collect::<BTreeMap<_, _>>(),
        record: RecordFacts::Missing,
        migrations: Vec::new(),
        now_ms: 1_000_000,
    }
}

/// A document of nodes 1, 2, … for shards 0, 1, …, with those slots.
pub(super) fn document(slots: &[&str]) -> TopologyDocument {
    let names = Names { cluster: "demo".into(), namespace: "ns".into(), domain: "cluster.local".into() };
    let mut document = TopologyDocument::new(CLUSTER, LeaderEpoch(1), TopologyVersion(1));
    for (position, owned) in slots.iter().enumerate() {
        let number = u8::try_from(position + 1).unwrap();
        document.nodes.push(entry(&names, u32::from(number) - 1, node_id(number)));
        if !owned.is_empty() {
            document.slots.push(SlotEntry { slots: owned.parse().unwrap(), owner: node_id(number), epoch: SlotEpoch(1) });
        }
    }
    document.normalised()
}

/// Facts with that document written down.
pub(super) fn with(mut facts: Facts, document: TopologyDocument) -> Facts {
    facts.record =
        RecordFacts::Present(Box::new(TopologyRecord { document, operation: None, resource_version: Some("1".into()) }));
    facts
}

/// The id a cluster would be made with.
pub(super) const NEW: ClusterId = ClusterId::from_bytes([8; 16]);

/// Slots of that node, at that epoch, as any node may know them.
pub(super) fn knows(slots: &str, owner: NodeId, epoch: u64) -> SlotEntry {
    SlotEntry { slots: slots.parse().unwrap(), owner, epoch: SlotEpoch(epoch) }
}
