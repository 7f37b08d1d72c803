//! Conditions: what is true of an object now, since when and why. There is no phase beside them.

// The schema derive expands to a private copy of each struct, which this lint mistakes for the struct itself.
#![allow(unreachable_pub)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a condition speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ConditionType {
    /// Every shard serves, and every slot has an owner that serves.
    Available,
    /// Something is on its way to what the spec asks for.
    Progressing,
    /// Every node has taken the topology document.
    TopologyConverged,
    /// Pods are being restarted one by one, or the roll waits or is halted.
    RollingRestart,
    /// Slots are being moved for another number of shards.
    Scaling,
    /// A node came back without the volume it is recorded with.
    VolumeLost,
    /// Somebody has to look: the message says at what.
    Degraded,
    /// Of a migration: it ended with every slot at the target.
    Complete,
}

/// Whether it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// The operator cannot tell.
    Unknown,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, in one word, from the list in docs/operator.md.
    pub reason: String,
    /// Why, for people: what, where, what to do.
    #[serde(default)]
    pub message: String,
    /// Generation of the spec it was judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed, RFC 3339.
    pub last_transition_time: String,
}

impl Condition {
    /// A condition that is judged now; [`set_condition`] keeps the old time when nothing changed.
    pub fn new(type_: ConditionType, status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status,
            reason: reason.into(),
            message: message.into(),
            observed_generation: None,
            last_transition_time: String::new(),
        }
    }

    /// A condition of that truth.
    pub fn of(type_: ConditionType, is_true: bool, reason: &str, message: impl Into<String>) -> Self {
        Self::new(type_, if is_true { ConditionStatus::True } else { ConditionStatus::False }, reason, message)
    }
}

/// Puts a condition into a list kept in order of type. The time of transition is `now` only when the status changed.
pub fn set_condition(conditions: &mut Vec<Condition>, previous: &[Condition], mut condition: Condition, now: &str) {
    let before = previous.iter().find(|old| old.type_ == condition.type_);
    condition.last_transition_time = match before {
        Some(old) if old.status == condition.status => old.last_transition_time.clone(),
        _ => now.to_owned(),
    };
    conditions.retain(|old| old.type_ != condition.type_);
    let place = conditions.partition_point(|old| old.type_ < condition.type_);
    conditions.insert(place, condition);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_changes_with_the_status_alone() {
        let mut first = Vec::new();
        set_condition(&mut first, &[], Condition::of(ConditionType::Available, true, "A", "one"), "t1");
        let mut second = Vec::new();
        set_condition(&mut second, &first, Condition::of(ConditionType::Available, true, "B", "two"), "t2");
        assert_eq!((second[0].last_transition_time.as_str(), second[0].reason.as_str()), ("t1", "B"));
        let mut third = Vec::new();
        set_condition(&mut third, &second, Condition::of(ConditionType::Available, false, "B", "two"), "t3");
        assert_eq!(third[0].last_transition_time, "t3");
    }
}
