//! SlotMigration: slots that shall be at another node.

// The schema derive expands to a private copy of each struct, which this lint mistakes for the struct itself.
#![allow(unreachable_pub)]
// Printer columns have the same few attributes each.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::condition::Condition;

/// Slots that shall be at another node. The operator makes these when the number of shards changes; people may make them as well.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "SlotMigration",
    plural = "slotmigrations",
    singular = "slotmigration",
    shortname = "slm",
    category = "sluice",
    namespaced,
    status = "SlotMigrationStatus",
    derive = "PartialEq",
    doc = "Slots that shall be at another node of a SluiceCluster.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "From", type_ = "integer", json_path = ".status.sourceShard"),
    printcolumn(name = "To", type_ = "integer", json_path = ".status.targetShard"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.slotsDone"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".status.slotsTotal"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.percent"),
    printcolumn(name = "Pause-Ms", type_ = "integer", json_path = ".status.longestPauseMs", priority = "1"),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.lastError", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.clusterRef == oldSelf.clusterRef && self.slots == oldSelf.slots && self.target == oldSelf.target && has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)").message("cluster, slots, source and target of a migration cannot be changed: cancel it and make another"),
    validation = Rule::new("!oldSelf.cancel || self.cancel").message("a cancelled migration cannot be taken up again: make another")
)]
pub struct SlotMigrationSpec {
    /// The cluster, in the same namespace.
    pub cluster_ref: ClusterRef,
    /// Slots, as in 0-99,200.
    #[schemars(length(min = 1, max = 65536), regex(pattern = r"^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$"))]
    pub slots: String,
    /// Where the slots are; every node that owns some of them when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<MigrationTarget>,
    /// Where they shall be.
    pub target: MigrationTarget,
    /// Holds it at the next unit of slots.
    #[serde(default)]
    pub paused: bool,
    /// Ends it; slots already moved stay where they are.
    #[serde(default)]
    pub cancel: bool,
}

/// The cluster a migration belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

/// A node: by the shard it serves, or by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.shard) != has(self.nodeId)").message("name a node by shard or by nodeId: exactly one of the two"))]
pub struct MigrationTarget {
    /// Its shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1023))]
    pub shard: Option<i32>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{40}$"))]
    pub node_id: Option<String>,
}

/// Where a migration stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum MigrationPhase {
    /// It waits; the message of its condition Progressing says what for.
    #[default]
    Waiting,
    /// A job at the source moves slots.
    Running,
    /// Held, by its spec or by a restart of one of its pods.
    Paused,
    /// Every slot is at the target.
    Complete,
    /// It ended by `spec.cancel`.
    Cancelled,
    /// It can never run as it is written; the message of its condition Degraded says why.
    Invalid,
}

impl MigrationPhase {
    /// Whether it ended: nothing more will be done.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Cancelled | Self::Invalid)
    }
}

/// Progress of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotMigrationStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(default)]
    pub state: MigrationPhase,
    /// What is true, since when and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The job's number at the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<i64>,
    /// The node the job runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_node: Option<String>,
    /// The shard the job runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_shard: Option<i32>,
    /// The node slots go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node: Option<String>,
    /// The shard slots go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_shard: Option<i32>,
    /// The step the current unit of slots is at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Slots at the target.
    #[serde(default)]
    pub slots_done: i32,
    /// Slots in all.
    #[serde(default)]
    pub slots_total: i32,
    /// Slots at the target, of a hundred.
    #[serde(default)]
    pub percent: i32,
    /// Bytes of keys and values moved, over all jobs.
    #[serde(default)]
    pub bytes: i64,
    /// Keys moved, over all jobs.
    #[serde(default)]
    pub keys: i64,
    /// What earlier jobs of this migration had moved: keys, then bytes. The current job's figures are added to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<i64>,
    /// Attempts the current job made, over its units.
    #[serde(default)]
    pub attempts: i64,
    /// Jobs started.
    #[serde(default)]
    pub jobs: i64,
    /// The last error met.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Longest time for which writes of a unit waited, in milliseconds.
    #[serde(default)]
    pub longest_pause_ms: i64,
}

#[cfg(test)]
mod tests {
    use kube::core::cel::{validate_cel, validate_cel_update};

    use super::*;

    fn migration(change: impl FnOnce(&mut SlotMigrationSpec)) -> SlotMigration {
        let target = MigrationTarget { shard: Some(1), node_id: None };
        let mut spec = SlotMigrationSpec {
            cluster_ref: ClusterRef { name: "demo".into() },
            slots: "0-99".into(),
            source: None,
            target,
            paused: false,
            cancel: false,
        };
        change(&mut spec);
        SlotMigration::new("mine", spec)
    }

    #[test]
    fn a_migration_is_paused_and_cancelled_and_otherwise_stays_what_it_is() {
        let old = migration(|_| {});
        validate_cel(&old).unwrap();
        validate_cel_update(&migration(|m| m.paused = true), &old).unwrap();
        validate_cel_update(&migration(|m| m.cancel = true), &old).unwrap();
        assert!(validate_cel_update(&old, &migration(|m| m.cancel = true)).is_err());
        assert!(validate_cel_update(&migration(|m| m.slots = "0-9".into()), &old).is_err());
        assert!(validate_cel_update(&migration(|m| m.target.shard = Some(2)), &old).is_err());
        assert!(
            validate_cel_update(&migration(|m| m.source = Some(MigrationTarget { shard: Some(0), node_id: None })), &old)
                .is_err()
        );
        assert!(validate_cel(&migration(|m| m.target = MigrationTarget::default())).is_err());
    }
}
