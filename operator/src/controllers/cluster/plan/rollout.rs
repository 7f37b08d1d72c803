//! Rolling restarts: one pod at a time; flushed before it goes, checked when it is back.

use sluice_topology::admin::NodeStatus;

use crate::{
    api::{CurrentRestart, HaltedRollout, RolloutStatus},
    controllers::cluster::facts::{Facts, PodFacts, ShardFacts},
};

/// How old a receipt may be when its pod is deleted, in milliseconds; an older one is taken again.
const RECEIPT_AGE_MAX_MS: i64 = 30_000;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every pod is as it should be.
    Idle,
    /// Nothing, for now.
    Wait {
        /// In one word.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// It is this pod's turn: written down first, so that its migrations pause.
    Begin {
        /// Its shard.
        shard: u32,
        /// Its uid.
        uid: String,
    },
    /// Flush it, write the receipt down, delete it.
    FlushAndDelete {
        /// Its shard.
        shard: u32,
        /// Its uid.
        uid: String,
    },
    /// Delete it: it was flushed just now, or is too broken to be.
    Delete {
        /// Its shard.
        shard: u32,
        /// Its uid.
        uid: String,
    },
    /// It came back with all it had.
    Passed {
        /// Its shard.
        shard: u32,
    },
    /// Something is wrong that a person has to see.
    Halt {
        /// In one word.
        reason: &'static str,
        /// For people.
        message: String,
        /// Its shard.
        shard: u32,
    },
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutPlan {
    /// What to do next.
    pub step: Step,
    /// Pods that are as they should be.
    pub done: usize,
    /// Pods in all.
    pub total: usize,
}

/// Decides. `hash` is the template every pod shall be made from; `trouble` says why the cluster as a whole is not fit for a restart.
pub fn plan(facts: &Facts, hash: &str, trouble: Option<&str>) -> RolloutPlan {
    let pods = || facts.shards.iter().filter(|(_, shard)| shard.stateful_set.as_ref().is_some_and(|set| !set.deleting));
    let total = pods().count();
    let done =
        pods().filter(|(_, shard)| shard.is_serving() && shard.pod.as_ref().is_some_and(|pod| is_current(pod, hash))).count();
    let status = facts.cluster.status.as_ref().and_then(|status| status.rollout.as_ref());
    let step = match status.and_then(|status| status.current.as_ref().map(|current| (status, current))) {
        Some((status, current)) => go_on(facts, status, current, hash),
        None => next(facts, status, hash, trouble),
    };
    RolloutPlan { step, done, total }
}

fn is_current(pod: &PodFacts, hash: &str) -> bool {
    pod.template_hash.as_deref() == Some(hash)
}

fn wait(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait { reason, message: message.into() }
}

fn halted_for<'a>(status: &'a RolloutStatus, hash: &str) -> Option<&'a HaltedRollout> {
    status.halted.as_ref().filter(|halted| halted.template_hash == hash)
}

/// The pod whose turn it is.
fn go_on(facts: &Facts, status: &RolloutStatus, current: &CurrentRestart, hash: &str) -> Step {
    let shard = u32::try_from(current.shard).unwrap_or(u32::MAX);
    let Some(seen) = facts.shards.get(&shard).filter(|seen| seen.stateful_set.is_some()) else {
        return Step::Passed { shard };
    };
    let spec = &facts.cluster.spec.rollout;
    let waited_ms = facts.now_ms.saturating_sub(current.since_ms);
    let overdue = waited_ms > i64::from(spec.ready_timeout_seconds) * 1000;
    let late = |what: String| Step::Halt {
        reason: "ReadyTimeout",
        message: format!(
            "pod {} does not serve again after {} s: {what}; correct the spec, and the roll goes on",
            current.pod,
            waited_ms / 1000
        ),
        shard,
    };
    match &seen.pod {
        None if overdue => late("it was not made again".into()),
        None => wait("AwaitingPod", format!("pod {} is being made again", current.pod)),
        Some(pod) if pod.uid == current.old_uid => old_pod(facts, status, current, shard, seen, pod, hash),
        Some(pod) if pod.deleting => wait("AwaitingPod", format!("pod {} is going", current.pod)),
        Some(pod) => match &seen.node {
            Ok(node) if pod.ready => match check(current, node, facts, shard) {
                Ok(()) if seen.name_resolves == Some(false) && !overdue => {
                    wait("AwaitingName", format!("the name of pod {} does not lead to its new address yet", current.pod))
                }
                Ok(()) => Step::Passed { shard },
                // Somebody saw the halt and asked for another template: that is their word to go on.
                Err(_) if status.halted.as_ref().is_some_and(|halted| halted.template_hash != hash) => Step::Passed { shard },
                Err((reason, message)) => Step::Halt { reason, message, shard },
            },
            _ if !is_current(pod, hash) && is_observed(seen) => Step::Delete { shard, uid: pod.uid.clone() },
            _ if overdue => late(seen.trouble()),
            _ => wait("AwaitingReady", format!("pod {}: {}", current.pod, seen.trouble())),
        },
    }
}

fn is_observed(seen: &ShardFacts) -> bool {
    seen.stateful_set.as_ref().is_some_and(|set| set.observed)
}

/// The pod whose turn it is, not yet deleted.
fn old_pod(
    facts: &Facts,
    status: &RolloutStatus,
    current: &CurrentRestart,
    shard: u32,
    seen: &ShardFacts,
    pod: &PodFacts,
    hash: &str,
) -> Step {
    if pod.deleting {
        return wait("AwaitingPod", format!("pod {} is flushing and going", current.pod));
    }
    if is_current(pod, hash) {
        // The spec went back to what this pod runs already.
        return Step::Passed { shard };
    }
    if let Some(halted) = halted_for(status, hash) {
        return wait("Halted", halted.message.clone());
    }
    if facts.cluster.spec.rollout.paused {
        return wait("Paused", "spec.rollout.paused is set");
    }
    if !is_observed(seen) {
        return wait("AwaitingStatefulSet", format!("the StatefulSet of shard {shard} has not taken the new template yet"));
    }
    let down =
        facts.shards.iter().find(|(number, other)| **number != shard && other.stateful_set.is_some() && !other.is_serving());
    if let Some((number, other)) = down.filter(|_| pod.ready && !current.deleting) {
        return wait("AwaitingHealth", format!("shard {number}: {}", other.trouble()));
    }
    let uid = pod.uid.clone();
    match &seen.node {
        Ok(node) if facts.is_migrating(node.node_id) => {
            wait("PausingMigrations", format!("slots on their way from or to shard {shard} come to a halt first"))
        }
        Ok(_) => {
            let fresh = current.receipt.is_some() && facts.now_ms.saturating_sub(current.since_ms) <= RECEIPT_AGE_MAX_MS;
            if fresh { Step::Delete { shard, uid } } else { Step::FlushAndDelete { shard, uid } }
        }
        Err(_) if !pod.ready => Step::Delete { shard, uid },
        Err(why) => wait("NodeUnreachable", format!("pod {} is ready and cannot be flushed: {why}", current.pod)),
    }
}

/// Whether the node came back with everything its receipt speaks of.
fn check(current: &CurrentRestart, node: &NodeStatus, facts: &Facts, shard: u32) -> Result<(), (&'static str, String)> {
    if let Some(recorded) = facts.recorded_ids().get(&shard).filter(|id| **id != node.node_id) {
        return Err((
            "VolumeLost",
            format!("pod {} came back as node {} instead of {recorded}: its volume is another", current.pod, node.node_id),
        ));
    }
    let Some(receipt) = &current.receipt else { return Ok(()) };
    let found = i64::try_from(node.persistence.recovered_round).unwrap_or(i64::MAX);
    if receipt.instance != node.instance.to_string() {
        return Err((
            "InstanceChanged",
            format!(
                "pod {} came back with database {} instead of {}: its volume is another",
                current.pod, node.instance, receipt.instance
            ),
        ));
    }
    if found < receipt.round {
        return Err((
            "WritesLost",
            format!(
                "pod {} found flush round {found} on its volume, its receipt says {}: acknowledged writes are missing; look at the volume before anything else is restarted",
                current.pod, receipt.round
            ),
        ));
    }
    if !node.persistence.clean_shutdown {
        return Err((
            "UncleanShutdown",
            format!(
                "pod {} was killed before it had flushed and closed in order; everything in its receipt is there{}; set spec.rollout.restartedAt anew to go on",
                current.pod,
                if node.persistence.wal {
                    ", and later writes are in the write-ahead log"
                } else {
                    ", writes after it may be lost"
                }
            ),
        ));
    }
    Ok(())
}

/// Nobody's turn yet.
fn next(facts: &Facts, status: Option<&RolloutStatus>, hash: &str, trouble: Option<&str>) -> Step {
    let outdated: Vec<(u32, &ShardFacts, &PodFacts)> = facts
        .shards
        .iter()
        .filter(|(_, seen)| seen.stateful_set.as_ref().is_some_and(|set| !set.deleting))
        .filter_map(|(shard, seen)| Some((*shard, seen, seen.pod.as_ref().filter(|pod| !is_current(pod, hash))?)))
        .collect();
    if outdated.is_empty() {
        return Step::Idle;
    }
    if let Some(halted) = status.and_then(|status| halted_for(status, hash)) {
        return wait("Halted", halted.message.clone());
    }
    if facts.cluster.spec.rollout.paused {
        return wait("Paused", "spec.rollout.paused is set");
    }
    let ready_to_go: Vec<_> = outdated.iter().filter(|(_, seen, pod)| is_observed(seen) && !pod.deleting).collect();
    // What does not run anyway is replaced first and whatever the rest is like: a bad image has to be correctable.
    if let Some((shard, _, pod)) = ready_to_go.iter().find(|(_, _, pod)| !pod.ready) {
        return Step::Begin { shard: *shard, uid: pod.uid.clone() };
    }
    if let Some(trouble) = trouble {
        return wait("AwaitingHealth", trouble);
    }
    if let Some((shard, seen)) = facts.shards.iter().find(|(_, seen)| seen.stateful_set.is_some() && !seen.is_serving()) {
        return wait("AwaitingHealth", format!("shard {shard}: {}", seen.trouble()));
    }
    match ready_to_go.first() {
        Some((shard, _, pod)) => Step::Begin { shard: *shard, uid: pod.uid.clone() },
        None => wait("AwaitingStatefulSet", "the StatefulSets have not taken the new template yet"),
    }
}
