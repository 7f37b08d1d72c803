//! SluiceCluster: the status. Nothing in it changes while nothing happens, so that a reconcile of a steady cluster writes nothing.

// The schema derive expands to a private copy of each struct, which this lint mistakes for the struct itself.
#![allow(unreachable_pub)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::condition::Condition;

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SluiceClusterStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true, since when and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Shards that exist; for the scale subresource.
    #[serde(default)]
    pub replicas: i32,
    /// Shards that serve.
    #[serde(default)]
    pub ready_shards: i32,
    /// Label selector of the pods; for the scale subresource.
    #[serde(default)]
    pub selector: String,
    /// Each shard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardStatus>,
    /// The topology document.
    #[serde(default)]
    pub topology: TopologyStatus,
    /// The roll that runs or is halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The change of the number of shards that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Its number, from 0.
    pub shard: i32,
    /// Its StatefulSet.
    pub name: String,
    /// Its pod.
    pub pod: String,
    /// The node id it is recorded with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Whether it serves.
    pub ready: bool,
    /// Slots it owns by its own word, or by the document while it cannot be asked.
    #[serde(default)]
    pub slots: i32,
    /// The flush round its last start found on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_round: Option<i64>,
    /// Proof of its last flush by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_receipt: Option<Receipt>,
}

/// Proof of what a flush made durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The database instance; a receipt says nothing about another.
    pub instance: String,
    /// The flush round.
    pub round: i64,
    /// Every write up to this sequence number is in it.
    pub sequence: i64,
    /// When it became durable, Unix milliseconds.
    pub durable_at_ms: i64,
    /// Bytes of memtables flushed.
    pub bytes: i64,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
}

/// The topology document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// That a cluster was made once. Never goes back: with it the operator makes no second one, whatever else is lost.
    #[serde(default)]
    pub bootstrapped: bool,
    /// The cluster's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Fencing epoch of the leader that wrote the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i64>,
    /// The document's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
}

/// A roll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Hash of the pod template that is rolled out.
    pub template_hash: String,
    /// Pods that run it, and serve.
    pub done: i32,
    /// Pods in all.
    pub total: i32,
    /// The pod being restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentRestart>,
    /// Why the roll stopped; a newer spec starts it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<HaltedRollout>,
}

/// The pod being restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentRestart {
    /// Its shard.
    pub shard: i32,
    /// Its name.
    pub pod: String,
    /// The uid of the pod that goes; the one that comes has another.
    pub old_uid: String,
    /// When its turn came, Unix milliseconds.
    pub since_ms: i64,
    /// What its flush made durable; absent until it was flushed, and for a pod too broken to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// That the operator asked for the pod's deletion, or was about to.
    #[serde(default)]
    pub deleting: bool,
}

/// Why a roll stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HaltedRollout {
    /// In one word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The shard.
    pub shard: i32,
    /// The pod template it was halted with: another one lets the roll go on.
    pub template_hash: String,
}

/// A change of the number of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Number of shards before.
    pub from_shards: i32,
    /// Number of shards after.
    pub to_shards: i32,
    /// The moves, in the order they are made; the first thousand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<PlannedMove>,
    /// Slots that move in all.
    #[serde(default)]
    pub slots_total: i32,
    /// Slots moved so far.
    #[serde(default)]
    pub slots_done: i32,
    /// Bytes that were to move when the plan was made; absent when the nodes could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Keys that were to move when the plan was made; absent when the nodes could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_total: Option<i64>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<String>,
}

/// Slots that go from one shard to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedMove {
    /// Slots, as in 0-99,200.
    pub slots: String,
    /// Shard they leave.
    pub from: i32,
    /// Shard they go to.
    pub to: i32,
}
