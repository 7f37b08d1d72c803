//! Taking a topology document: the whole of it is judged first, then one durable write, then memory.

use sluice_topology::{
    ClusterId, DocumentError, LeaderEpoch, NodeId, Slot, SlotRanges, TopologyDocument, TopologyVersion,
    merge::{MergeReport, SlotRow, Verdict, judge},
};

use super::{Cluster, Known, SlotState, rows::ownership_records};
use crate::engine::{Engine, EngineError, SystemBatch, SystemKind};

/// Why a document, or a command of the operator, is refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The node is not part of a cluster.
    #[error("this node is not in cluster mode: set cluster-enabled yes and restart it")]
    NotACluster,
    /// The document contradicts itself.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It is of another cluster.
    #[error("this node belongs to cluster {mine}, the document is of {theirs}: a node never changes its cluster")]
    OtherCluster {
        /// The node's.
        mine: ClusterId,
        /// The document's.
        theirs: ClusterId,
    },
    /// Its leader was replaced.
    #[error("leader epoch {theirs} is over: this node has seen {mine}")]
    StaleLeader {
        /// The highest seen.
        mine: LeaderEpoch,
        /// The one that asks.
        theirs: LeaderEpoch,
    },
    /// The node has a newer one.
    #[error("version {theirs} is older than this node's {mine}")]
    StaleVersion {
        /// The node's.
        mine: TopologyVersion,
        /// The document's.
        theirs: TopologyVersion,
    },
    /// The id cannot be changed.
    #[error("the node id stays {0}: the node owns slots or is part of a cluster")]
    IdInUse(NodeId),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
}

/// Reads the last document taken, without its slots: those have rows.
pub(super) fn load(engine: &Engine) -> Result<Known, EngineError> {
    let Some(bytes) = engine.system_record(SystemKind::Topology, b"")? else { return Ok(Known::default()) };
    let document =
        TopologyDocument::from_json(&bytes).map_err(|error| EngineError::Damaged(format!("the stored topology: {error}")))?;
    Ok(known(&document))
}

fn known(document: &TopologyDocument) -> Known {
    Known {
        cluster_id: Some(document.cluster_id),
        leader_epoch: document.leader_epoch,
        version: document.version,
        nodes: document.nodes.clone(),
        retired: document.retired.clone(),
    }
}

impl Cluster {
    /// Merges a document: see ARCHITECTURE.md for the table. The report names what was not taken.
    pub fn apply(&self, document: &TopologyDocument) -> Result<MergeReport, TopologyError> {
        if !self.enabled {
            return Err(TopologyError::NotACluster);
        }
        document.validate()?;
        let _one_at_a_time = self.changing();
        let current = self.known();
        self.check_sender(&current, document)?;
        // A retired id stays retired, whatever later documents list.
        let mut retired: Vec<NodeId> = current.retired.iter().chain(&document.retired).copied().collect();
        retired.sort_unstable();
        retired.dedup();
        let me = self.me();
        let (mut changes, mut stale, mut conflicts, mut assigned) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (slot, (owner, epoch)) in document.by_slot() {
            match judge(me, self.row(slot), owner, epoch, |id| retired.contains(&id)) {
                Verdict::Same => {}
                Verdict::Stale => stale.push(slot),
                Verdict::Conflict | Verdict::AskOwner => conflicts.push(slot),
                Verdict::Learn => changes.push((slot, SlotRow { owner: Some(owner), epoch })),
                Verdict::Assign | Verdict::TakeOver => {
                    changes.push((slot, SlotRow { owner: Some(owner), epoch }));
                    assigned.push(slot);
                }
            }
        }
        let mut stored = document.clone();
        stored.slots.clear();
        stored.retired.clone_from(&retired);
        stored.nodes.retain(|node| !retired.contains(&node.id));
        let mut batch = SystemBatch::new();
        batch.put(SystemKind::Topology, b"", stored.to_json()?.into_bytes());
        ownership_records(&mut batch, &changes);
        self.engine.write_system(batch)?;
        self.write_rows(&changes, Some(known(&stored)));
        let assigned: SlotRanges = assigned.into_iter().collect();
        let is_retired = retired.contains(&me);
        if is_retired {
            self.set_state(&SlotRanges::full(), SlotState::Elsewhere);
            self.engine.drain();
        } else {
            self.set_state(&assigned, SlotState::Open);
        }
        Ok(MergeReport {
            version: document.version,
            stale: stale.into_iter().collect(),
            conflicts: conflicts.into_iter().collect(),
            assigned,
            retired: is_retired,
        })
    }

    /// Refuses a command of a leader that was replaced; remembers a newer one only with its next document.
    pub fn check_leader(&self, leader: LeaderEpoch) -> Result<(), TopologyError> {
        let mine = self.known().leader_epoch;
        if leader < mine { Err(TopologyError::StaleLeader { mine, theirs: leader }) } else { Ok(()) }
    }

    fn check_sender(&self, current: &Known, document: &TopologyDocument) -> Result<(), TopologyError> {
        if let Some(mine) = current.cluster_id.filter(|mine| *mine != document.cluster_id) {
            return Err(TopologyError::OtherCluster { mine, theirs: document.cluster_id });
        }
        self.check_leader(document.leader_epoch)?;
        if document.leader_epoch == current.leader_epoch && document.version < current.version {
            return Err(TopologyError::StaleVersion { mine: current.version, theirs: document.version });
        }
        Ok(())
    }

    /// Gives the node another id, as Kvrocks' tools do before they form a cluster: only while it owns nothing and belongs nowhere.
    pub fn set_node_id(&self, id: NodeId) -> Result<(), TopologyError> {
        let _one_at_a_time = self.changing();
        if id == self.me() {
            return Ok(());
        }
        let assigned = Slot::all().any(|slot| self.row(slot).owner.is_some());
        if assigned || self.known().cluster_id.is_some() {
            return Err(TopologyError::IdInUse(self.me()));
        }
        Ok(self.engine.set_node_id(id)?)
    }

    /// Records that slots have another owner since a switch, together with `records` and whatever `write` does with them; then routes
    /// by it. On return no command that saw the old owner is under way.
    pub fn switch<E>(
        &self,
        changes: &[(Slot, SlotRow)],
        mut records: SystemBatch,
        write: impl FnOnce(SystemBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let _one_at_a_time = self.changing();
        ownership_records(&mut records, changes);
        write(records)?;
        self.write_rows(changes, None);
        let me = self.me();
        let slots = |mine: bool| -> SlotRanges {
            changes.iter().filter(|(_, row)| (row.owner == Some(me)) == mine).map(|(slot, _)| *slot).collect()
        };
        let closed = self.retired();
        self.set_state(&slots(true), if closed { SlotState::Elsewhere } else { SlotState::Open });
        self.set_state(&slots(false), SlotState::Elsewhere);
        Ok(())
    }
}
