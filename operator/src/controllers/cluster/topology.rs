//! Writes the topology down, then pushes it: in that order, always.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Api;
use sluice_topology::{LeaderEpoch, TopologyDocument, TopologyVersion, admin::NodeStatus, merge::MergeReport};
use tracing::{info, warn};

use super::{facts::Facts, observe::address};
use crate::{
    context::Context,
    error::Error,
    network::{self, Access},
    topology_record::{Operation, TopologyRecord},
};

/// Documents that differ only by slots on their way are written no more often than this.
const SLOTS_WRITE_INTERVAL: Duration = Duration::from_secs(4);
/// Nodes pushed to at once.
const NODES_AT_ONCE: usize = 16;
/// Longest wait for one node to take a document.
const PUSH_TIMEOUT: Duration = Duration::from_secs(8);

/// Keeps the written-down topology of one cluster during one reconcile.
pub(super) struct Scribe<'a> {
    ctx: &'a Context,
    facts: &'a Facts,
    uid: &'a str,
    owner: &'a OwnerReference,
    /// What is written down now.
    pub(super) record: Option<TopologyRecord>,
}

impl<'a> Scribe<'a> {
    /// Starts from what was read.
    pub(super) fn new(ctx: &'a Context, facts: &'a Facts, uid: &'a str, owner: &'a OwnerReference) -> Self {
        Self { ctx, facts, uid, owner, record: facts.record().cloned() }
    }

    /// The highest leader epoch anybody knows of.
    fn highest_epoch(&self) -> LeaderEpoch {
        let nodes = self.facts.statuses().map(|(_, status)| status.leader_epoch).max().unwrap_or_default();
        self.record.as_ref().map_or(nodes, |record| record.document.leader_epoch.max(nodes))
    }

    /// Whether this process took the epoch the document has.
    pub(super) fn leads(&self) -> Result<bool, Error> {
        let ours = self.ctx.remember(self.uid, |memory| memory.leader_epoch);
        let theirs = self.highest_epoch();
        match ours {
            Some(ours) if ours == theirs => Ok(true),
            Some(ours) if ours < theirs => {
                self.ctx.remember(self.uid, |memory| memory.leader_epoch = None);
                Err(Error::Superseded { cluster: self.facts.names.cluster.clone(), theirs: theirs.0, ours: ours.0 })
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Writes a document and an operation down: under this process's epoch, one version on.
    pub(super) async fn write(&mut self, mut document: TopologyDocument, operation: Option<Operation>) -> Result<(), Error> {
        let epoch = if self.leads()? {
            self.highest_epoch()
        } else {
            let taken = self.ctx.remember(self.uid, |memory| memory.leader_epoch).unwrap_or_default();
            self.highest_epoch().max(taken).next().ok_or_else(|| Error::Unexpected("leader epochs are used up".into()))?
        };
        let seen = self.facts.statuses().map(|(_, status)| status.topology_version).max().unwrap_or_default();
        let last = self.record.as_ref().map_or(seen, |record| record.document.version).max(document.version);
        document.leader_epoch = epoch;
        document.version = last.next().ok_or_else(|| Error::Unexpected("topology versions are used up".into()))?;
        let resource_version = self.record.as_ref().and_then(|record| record.resource_version.clone());
        let mut record = TopologyRecord { document, operation, resource_version };
        let api: Api<ConfigMap> = Api::namespaced(self.ctx.client.clone(), &self.facts.names.namespace);
        self.ctx.may_act()?;
        record.write(&api, &self.facts.names, self.owner).await?;
        self.ctx.remember(self.uid, |memory| memory.leader_epoch = Some(epoch));
        self.ctx.metrics.documents.inc();
        info!(version = record.document.version.0, leader_epoch = epoch.0, "topology written down");
        self.record = Some(record);
        Ok(())
    }

    /// Writes a document that follows the nodes, unless one was written a moment ago and only slots have moved since.
    pub(super) async fn follow(&mut self, document: TopologyDocument) -> Result<(), Error> {
        let Some(record) = self.record.clone() else {
            return Err(Error::Unexpected("there is no document to follow with".into()));
        };
        let same_nodes = record.document.nodes == document.nodes && record.document.retired == document.retired;
        let last = self.ctx.remember(self.uid, |memory| memory.slots_written_at);
        if same_nodes && record.operation.is_some() && last.is_some_and(|last| last.elapsed() < SLOTS_WRITE_INTERVAL) {
            return Ok(());
        }
        self.write(document, record.operation).await?;
        self.ctx.remember(self.uid, |memory| memory.slots_written_at = Some(Instant::now()));
        Ok(())
    }

    /// Takes the lead of this cluster if this process does not have it.
    pub(super) async fn lead(&mut self) -> Result<LeaderEpoch, Error> {
        if !self.leads()? {
            let record = self.record.clone().ok_or_else(|| Error::Unexpected("there is no document to lead with".into()))?;
            self.write(record.document, record.operation).await?;
        }
        Ok(self.highest_epoch())
    }

    /// Pushes what is written down to every node that has an older one. Returns what is not as it should be, for people.
    pub(super) async fn push(&self, access: &Access) -> Vec<String> {
        let Some(record) = &self.record else { return Vec::new() };
        let document = &record.document;
        let due = self.facts.shards.iter().filter_map(|(shard, seen)| {
            let status = seen.node.as_ref().ok()?;
            let known = document.node(status.node_id).is_some() || document.is_retired(status.node_id);
            (known && is_behind(status, document)).then_some((*shard, address(&self.facts.names, *shard, seen)?))
        });
        let reports: Vec<(u32, Result<MergeReport, String>)> = stream::iter(due.collect::<Vec<_>>())
            .map(|(shard, node)| async move {
                let send =
                    async { network::connect(self.ctx.network.as_ref(), &node, access).await?.set_topology(document).await };
                let report = match tokio::time::timeout(PUSH_TIMEOUT, send).await {
                    Ok(report) => report.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("it does not take a document within {} s", PUSH_TIMEOUT.as_secs())),
                };
                (shard, report)
            })
            .buffer_unordered(NODES_AT_ONCE)
            .collect()
            .await;
        let mut problems = Vec::new();
        for (shard, report) in reports {
            match report {
                Ok(report) if !report.conflicts.is_empty() => {
                    problems.push(format!(
                        "shard {shard} contradicts the document about slots {}",
                        super::plan::topology::brief(&report.conflicts)
                    ));
                }
                Ok(_) => {}
                Err(why) => {
                    warn!(shard, why, "the topology could not be pushed");
                    problems.push(format!("shard {shard}: {why}"));
                }
            }
        }
        problems.sort();
        problems
    }
}

/// Whether a node has an older document than that.
pub(super) fn is_behind(status: &NodeStatus, document: &TopologyDocument) -> bool {
    let seen: (LeaderEpoch, TopologyVersion) = (status.leader_epoch, status.topology_version);
    seen < (document.leader_epoch, document.version)
}
