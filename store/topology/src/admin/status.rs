//! What a node says of itself on its admin plane.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    document::{NodeEntry, SlotEntry},
    ids::{ClusterId, InstanceId, JobId, LeaderEpoch, NodeId, TopologyVersion},
    ranges::SlotRanges,
};

/// The reply of `CLUSTERX STATUS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's id, from its volume.
    pub node_id: NodeId,
    /// The database's id, from its volume.
    pub instance: InstanceId,
    /// The cluster it belongs to; `None` before its first document.
    pub cluster_id: Option<ClusterId>,
    /// Highest leader epoch it has seen.
    pub leader_epoch: LeaderEpoch,
    /// Version of the last document it took.
    pub topology_version: TopologyVersion,
    /// Version of the software.
    pub software_version: String,
    /// Whether a document has retired this id; it owns nothing then.
    pub retired: bool,
    /// Whether it serves clients (what `/readyz` says).
    pub ready: bool,
    /// Nodes of the last document.
    pub nodes: Vec<NodeEntry>,
    /// Owner and epoch of every slot this node knows an owner of.
    pub slots: Vec<SlotEntry>,
    /// Slots that this node is recorded to own but does not serve: the outcome of a switch is unknown, or a peer has to be asked.
    pub fenced: SlotRanges,
    /// Durability facts.
    pub persistence: PersistenceStatus,
    /// Jobs with this node as their source: running ones and the last that ended, newest first.
    pub migrations: Vec<MigrationStatus>,
}

impl NodeStatus {
    /// The slots this node owns, by its own durable rows.
    pub fn owned(&self) -> SlotRanges {
        self.slots.iter().filter(|entry| entry.owner == self.node_id).flat_map(|entry| entry.slots.iter()).collect()
    }
}

/// What a start found on disk and what became durable since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceStatus {
    /// Whether writes go to the write-ahead log.
    pub wal: bool,
    /// Last flush round that completed; rounds go on counting over restarts.
    pub last_flush_round: u64,
    /// The flush round this start found on disk.
    pub recovered_round: u64,
    /// Whether the shutdown before this start flushed and closed in order.
    pub clean_shutdown: bool,
    /// RocksDB's latest sequence number.
    pub latest_sequence: u64,
}

/// Where a migration job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// It moves slots, or waits to try again.
    Running,
    /// Every slot was switched.
    Done,
    /// It gave up; slots not done stay at the source.
    Failed,
    /// It was cancelled; slots not done stay at the source.
    Cancelled,
}

/// A migration job, as its source sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationStatus {
    /// Its number at the source.
    pub job: JobId,
    /// The source node.
    pub source: NodeId,
    /// The target node.
    pub target: NodeId,
    /// All its slots.
    pub slots: SlotRanges,
    /// Running, or how it ended.
    pub state: MigrationState,
    /// The step the current unit is at, by the name it has in ARCHITECTURE.md.
    pub step: String,
    /// Slots already switched.
    pub slots_done: u32,
    /// Slots in all.
    pub slots_total: u32,
    /// Keys moved so far.
    pub keys_done: u64,
    /// Of `bytes_total`, what is moved: counted unit by unit.
    pub bytes_done: u64,
    /// About what the slots held in files when the job began, as compressed as they are.
    #[serde(default)]
    pub bytes_total: u64,
    /// Bytes put on the link so far, whatever became of them.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Of these, bytes that were sent again: after a link broke, and those of attempts that failed.
    #[serde(default)]
    pub bytes_resent: u64,
    /// Average of `bytes_sent` a second, over the time the job runs or ran.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// Milliseconds to go at the pace so far; 0 while that cannot be told.
    #[serde(default)]
    pub eta_ms: u64,
    /// Batches sent so far.
    #[serde(default)]
    pub batches: u64,
    /// Bytes of a batch, as fits the link right now.
    #[serde(default)]
    pub batch_bytes: u64,
    /// Attempts made, over all units.
    pub attempts: u64,
    /// The last error met; empty when there was none.
    pub last_error: String,
    /// Longest time for which writes of a unit waited, in milliseconds.
    pub switch_pause_ms_max: u64,
}

impl MigrationStatus {
    /// That of a job that has done nothing yet.
    pub fn new(job: JobId, source: NodeId, target: NodeId, slots: SlotRanges) -> Self {
        Self {
            job,
            source,
            target,
            slots_total: slots.len() as u32,
            slots,
            state: MigrationState::Running,
            step: "waiting".into(),
            slots_done: 0,
            keys_done: 0,
            bytes_done: 0,
            bytes_total: 0,
            bytes_sent: 0,
            bytes_resent: 0,
            bytes_per_second: 0,
            eta_ms: 0,
            batches: 0,
            batch_bytes: 0,
            attempts: 0,
            last_error: String::new(),
            switch_pause_ms_max: 0,
        }
    }

    /// Works out pace and time to go, for a job that has run so long.
    pub fn in_time(&mut self, took: Duration) {
        let took_ms = took.as_millis().max(1);
        self.bytes_per_second = u64::try_from(u128::from(self.bytes_sent) * 1000 / took_ms).unwrap_or(u64::MAX);
        let left = self.bytes_total.saturating_sub(self.bytes_done);
        // By what is done: it counts what is switched, so that the time of the switches is in it.
        self.eta_ms = match self.bytes_done {
            0 => 0,
            done => u64::try_from(u128::from(left) * took_ms / u128::from(done)).unwrap_or(u64::MAX),
        };
    }
}

/// Proof of what a flush made durable: the map that `FLUSHMEMTABLE RECEIPT` returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushReceipt {
    /// The database's id. A receipt says nothing about another instance.
    pub instance: InstanceId,
    /// The flush round; a restart of the same instance shows a recovered round at least this high.
    pub round: u64,
    /// Every write up to this RocksDB sequence number is in the round.
    pub sequence: u64,
    /// When the round became durable, Unix milliseconds.
    pub durable_at_ms: u64,
    /// Bytes of memtables the round flushed.
    pub bytes: u64,
    /// How long the round took, in milliseconds.
    pub duration_ms: u64,
    /// Callers that waited for it.
    pub waiters: u64,
}

/// Keys and bytes of slots: the reply of `CLUSTERX SLOTSTATS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStats {
    /// The slots asked for.
    pub slots: SlotRanges,
    /// Keys of each slot, in the order of `slots`.
    pub keys: Vec<u64>,
    /// Bytes of keys and values of each slot, before compression, in the order of `slots`.
    pub bytes: Vec<u64>,
}
