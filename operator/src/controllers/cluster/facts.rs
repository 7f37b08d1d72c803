//! What was seen of a cluster, as plain values: the planners know nothing of the API.

use std::collections::BTreeMap;

use sluice_topology::{
    NodeId, SlotRanges,
    admin::{MigrationState, NodeStatus},
};

use crate::{
    api::{SlotMigration, SluiceCluster},
    names::Names,
    topology_record::TopologyRecord,
};

/// A StatefulSet as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSetFacts {
    /// Its uid.
    pub uid: String,
    /// Name of its volume claim template; cannot be changed.
    pub claim_template: String,
    /// Size in its volume claim template; cannot be changed.
    pub claim_size: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether its controller has seen the newest template: a pod deleted before that would come back from the old one.
    pub observed: bool,
}

/// A pod as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: Option<String>,
    /// Whether its Ready condition is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether none of its containers was ever started.
    pub pending: bool,
    /// The template hash it was made from.
    pub template_hash: Option<String>,
    /// What keeps it from running, when something does: a reason of the kubelet, or the last words of the process.
    pub trouble: Option<String>,
}

/// A volume claim as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Its name.
    pub name: String,
    /// The claim template it was made from.
    pub template: String,
    /// The size it asks for.
    pub size: String,
    /// The node that left it for ever.
    pub retired_node: Option<String>,
}

/// What is known of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFacts {
    /// Its StatefulSet.
    pub stateful_set: Option<StatefulSetFacts>,
    /// Its pod.
    pub pod: Option<PodFacts>,
    /// Its volumes.
    pub volumes: Vec<VolumeFacts>,
    /// What its node says of itself, or why it says nothing.
    pub node: Result<NodeStatus, String>,
    /// Whether its name leads to its pod. `None` when nobody had to know.
    pub name_resolves: Option<bool>,
}

impl Default for ShardFacts {
    fn default() -> Self {
        Self { stateful_set: None, pod: None, volumes: Vec::new(), node: Err("it does not exist".into()), name_resolves: None }
    }
}

impl ShardFacts {
    /// Whether pod and node serve.
    pub fn is_serving(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.ready && !pod.deleting) && self.node.is_ok()
    }

    /// Why it does not serve, for people.
    pub fn trouble(&self) -> String {
        match (&self.pod, &self.node) {
            (None, _) => "it has no pod".into(),
            (Some(pod), _) if pod.deleting => "its pod is being deleted".into(),
            (Some(PodFacts { trouble: Some(trouble), .. }), _) => trouble.clone(),
            (Some(_), Err(why)) => why.clone(),
            (Some(pod), Ok(_)) if !pod.ready => "its pod is not ready".into(),
            _ => "it serves".into(),
        }
    }
}

/// Why the written-down topology is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordFacts {
    /// There is none.
    Missing,
    /// There is one that cannot be read, and why.
    Unreadable(String),
    /// Here it is.
    Present(Box<TopologyRecord>),
}

/// Everything seen in one pass.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The object.
    pub cluster: SluiceCluster,
    /// Names of its parts.
    pub names: Names,
    /// Every shard that is wanted, recorded or seen.
    pub shards: BTreeMap<u32, ShardFacts>,
    /// The written-down topology.
    pub record: RecordFacts,
    /// The cluster's SlotMigrations.
    pub migrations: Vec<SlotMigration>,
    /// Unix time, milliseconds.
    pub now_ms: i64,
}

impl Facts {
    /// Number of shards asked for.
    pub fn wanted_shards(&self) -> u32 {
        u32::try_from(self.cluster.spec.shards).unwrap_or(0)
    }

    /// The record, when there is one.
    pub fn record(&self) -> Option<&TopologyRecord> {
        match &self.record {
            RecordFacts::Present(record) => Some(record),
            RecordFacts::Missing | RecordFacts::Unreadable(_) => None,
        }
    }

    /// What every node says that says anything.
    pub fn statuses(&self) -> impl Iterator<Item = (u32, &NodeStatus)> {
        self.shards.iter().filter_map(|(shard, facts)| facts.node.as_ref().ok().map(|status| (*shard, status)))
    }

    /// The live word of that node.
    pub fn status_of(&self, id: NodeId) -> Option<&NodeStatus> {
        self.statuses().map(|(_, status)| status).find(|status| status.node_id == id)
    }

    /// Slots of a node: by its own word, or by the document while it cannot be asked.
    pub fn owned(&self, id: NodeId) -> SlotRanges {
        match self.status_of(id) {
            Some(status) => status.owned(),
            None => self.record().map(|record| record.document.owned_by(id)).unwrap_or_default(),
        }
    }

    /// Whether any node says that it moves slots from or to that node.
    pub fn is_migrating(&self, id: NodeId) -> bool {
        self.statuses()
            .flat_map(|(_, status)| &status.migrations)
            .any(|job| job.state == MigrationState::Running && (job.source == id || job.target == id))
    }

    /// The node id each shard is recorded with: by the document, or by status when the document is lost.
    pub fn recorded_ids(&self) -> BTreeMap<u32, NodeId> {
        match self.record() {
            Some(record) => record.document.nodes.iter().map(|node| (node.shard, node.id)).collect(),
            None => self
                .cluster
                .status
                .iter()
                .flat_map(|status| &status.shards)
                .filter_map(|shard| Some((u32::try_from(shard.shard).ok()?, shard.node_id.as_deref()?.parse().ok()?)))
                .collect(),
        }
    }

    /// Whether a cluster was ever made, by anybody's word.
    pub fn was_bootstrapped(&self) -> bool {
        self.cluster.status.as_ref().is_some_and(|status| status.topology.bootstrapped)
    }
}
