//! Asking the peers: a starting node may have slept through a switch, and a document may know of one. Only an owner's own word counts.

use std::{sync::atomic::Ordering, time::Duration};

use sluice_topology::{
    NodeEntry, NodeId, Slot, SlotRanges,
    admin::{AdminClient, AdminError, AdminTimeouts, NodeStatus},
    merge::SlotRow,
};
use tokio::task::JoinSet;

use super::{Cluster, PeerAccess, SlotState, rows::ownership_records};
use crate::engine::{EngineError, SystemBatch};

impl PeerAccess {
    /// Opens a connection to a node's admin plane.
    pub(super) async fn dial(&self, node: &NodeEntry) -> Result<AdminClient, AdminError> {
        let timeouts = AdminTimeouts { connect: self.timeout.min(Duration::from_secs(3)), answer: self.timeout };
        self.dial_within(node, timeouts).await
    }

    /// The one place from which a node dials another. Certificates as they are in its files now.
    async fn dial_within(&self, node: &NodeEntry, timeouts: AdminTimeouts) -> Result<AdminClient, AdminError> {
        let tls = self.tls.as_ref().and_then(|tls| tls.link());
        AdminClient::connect(&node.host, node.admin_port, self.password.as_deref(), tls.as_ref(), timeouts).await
    }
}

impl Cluster {
    /// Opens a connection to a node's admin plane.
    pub async fn dial(&self, node: &NodeEntry) -> Result<AdminClient, AdminError> {
        self.peers.dial(node).await
    }

    /// The node of that id, by the last document.
    pub fn node(&self, id: NodeId) -> Option<NodeEntry> {
        self.known().nodes.iter().find(|node| node.id == id).cloned()
    }

    /// Asks every peer, bounded in time, and yields slots that one of them owns at a higher epoch. Slots whose rows still name this
    /// node are then opened, but for `fenced` ones. A node that gets no answer serves what its own durable copy says.
    pub async fn confirm(&self, limit: Duration, fenced: &SlotRanges) -> Result<(), EngineError> {
        let mut asking = JoinSet::new();
        for node in self.known().nodes.iter().filter(|node| node.id != self.me()) {
            let (node, peers, timeouts) = (node.clone(), self.peers.clone(), AdminTimeouts { connect: limit, answer: limit });
            asking.spawn(async move { peers.dial_within(&node, timeouts).await?.status().await });
        }
        let answers = async {
            let mut answers = Vec::new();
            while let Some(answer) = asking.join_next().await {
                match answer {
                    Ok(Ok(status)) => answers.push(status),
                    Ok(Err(error)) => tracing::info!(%error, "a peer gave no word on this node's slots"),
                    Err(error) => tracing::warn!(%error, "asking a peer failed"),
                }
            }
            answers
        };
        let answers = tokio::time::timeout(limit, answers).await.unwrap_or_else(|_| {
            tracing::info!(limit_ms = limit.as_millis() as u64, "peers did not answer in time; serving by the durable copy");
            Vec::new()
        });
        for status in &answers {
            self.yield_to(status)?;
        }
        self.unpark(&SlotRanges::full().difference(fenced));
        self.confirmed.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Asks the owners that a document claims for slots this node owns. Slots that they confirm are yielded.
    pub async fn ask_owners(&self, owners: Vec<NodeId>) {
        for node in owners.into_iter().filter_map(|id| self.node(id)) {
            let status = match self.dial(&node).await {
                Ok(mut client) => client.status().await,
                Err(error) => Err(error),
            };
            match status {
                Ok(status) => {
                    if let Err(error) = self.yield_to(&status) {
                        tracing::error!(%error, "slots that a peer owns were not yielded");
                    }
                }
                Err(error) => tracing::warn!(%error, "a claimed owner of this node's slots gave no word"),
            }
        }
    }

    /// Yields the slots that the peer itself owns at a higher epoch than this node's rows.
    fn yield_to(&self, status: &NodeStatus) -> Result<(), EngineError> {
        let _one_at_a_time = self.changing();
        if status.cluster_id.is_none() || status.cluster_id != self.known().cluster_id || status.retired {
            return Ok(());
        }
        let claims = status.slots.iter().filter(|entry| entry.owner == status.node_id);
        let newer: Vec<(Slot, SlotRow)> = claims
            .flat_map(|entry| entry.slots.iter().map(|slot| (slot, SlotRow { owner: Some(entry.owner), epoch: entry.epoch })))
            .filter(|(slot, row)| row.epoch > self.row(*slot).epoch)
            .collect();
        if newer.is_empty() {
            return Ok(());
        }
        let me = Some(self.me());
        let lost: SlotRanges = newer.iter().filter(|(slot, _)| self.row(*slot).owner == me).map(|(slot, _)| *slot).collect();
        let mut batch = SystemBatch::new();
        ownership_records(&mut batch, &newer);
        self.engine.write_system(batch)?;
        self.write_rows(&newer, None);
        if !lost.is_empty() {
            tracing::warn!(slots = %lost, owner = %status.node_id, "yielded slots that a peer owns at a higher epoch");
            self.set_state(&lost, SlotState::Elsewhere);
        }
        Ok(())
    }
}
