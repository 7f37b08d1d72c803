//! The status: composed from what was seen and done, written only when it differs.

use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use sluice_topology::NodeId;

use super::{
    facts::Facts,
    plan::{
        rollout::{RolloutPlan, Step},
        scaling::ScalingPlan,
        topology::{Decision, TopologyPlan, brief},
    },
    topology::is_behind,
};
use crate::{
    api::{
        Condition, ConditionType, PlannedMove, ScalingStatus, ShardStatus, SluiceCluster, SluiceClusterStatus, TopologyStatus,
        set_condition,
    },
    context::Context,
    error::Error,
    names::{Names, STATUS_MANAGER},
    topology_record::TopologyRecord,
};

/// Planned moves shown at most.
const MOVES_SHOWN_MAX: usize = 1000;

/// What one pass did and found.
pub(super) struct Pass<'a> {
    /// About the document.
    pub(super) topology: &'a TopologyPlan,
    /// About the number of shards.
    pub(super) scaling: &'a ScalingPlan,
    /// About restarts.
    pub(super) rollout: Option<&'a RolloutPlan>,
    /// What is written down now.
    pub(super) record: Option<&'a TopologyRecord>,
    /// Nodes that did not take the document.
    pub(super) push_problems: &'a [String],
    /// What keeps shards from leaving.
    pub(super) blockers: &'a [String],
    /// What a person has to look at: reason, message.
    pub(super) problems: &'a [(String, String)],
}

fn clamp<T: TryInto<i32>>(value: T) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

fn wide<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Composes the status. Pure, but for the time a condition that changed is given.
pub(super) fn compose(facts: &Facts, pass: &Pass<'_>, now: &str) -> SluiceClusterStatus {
    let old = facts.cluster.status.clone().unwrap_or_default();
    let document = pass.record.map(|record| &record.document);
    let recorded: Vec<(u32, NodeId)> = document.map_or_else(
        || facts.recorded_ids().into_iter().collect(),
        |document| document.nodes.iter().map(|node| (node.shard, node.id)).collect(),
    );
    let id_of = |shard: u32| recorded.iter().find(|(number, _)| *number == shard).map(|(_, id)| *id);
    let mut numbers: Vec<u32> = pass.scaling.stateful_sets.iter().copied().collect();
    numbers.retain(|shard| {
        *shard < facts.wanted_shards() || facts.shards.get(shard).is_some_and(|seen| seen.stateful_set.is_some())
    });
    let shards: Vec<ShardStatus> = numbers
        .iter()
        .map(|shard| {
            let seen = facts.shards.get(shard);
            let before = old.shards.iter().find(|entry| u32::try_from(entry.shard) == Ok(*shard));
            let live = seen.and_then(|seen| seen.node.as_ref().ok());
            let id = id_of(*shard);
            ShardStatus {
                shard: clamp(*shard),
                name: facts.names.stateful_set(*shard),
                pod: facts.names.pod(*shard),
                node_id: id.map(|id| id.to_string()),
                ready: seen.is_some_and(super::facts::ShardFacts::is_serving),
                slots: clamp(id.map_or(0, |id| facts.owned(id).len())),
                recovered_round: live
                    .map(|live| wide(live.persistence.recovered_round))
                    .or_else(|| before.and_then(|before| before.recovered_round)),
                last_receipt: before.and_then(|before| before.last_receipt.clone()),
            }
        })
        .collect();
    let mut status = SluiceClusterStatus {
        observed_generation: facts.cluster.metadata.generation,
        conditions: Vec::new(),
        replicas: clamp(shards.len()),
        ready_shards: clamp(shards.iter().filter(|shard| shard.ready).count()),
        selector: facts.names.selector_text(),
        topology: TopologyStatus {
            bootstrapped: old.topology.bootstrapped || document.is_some(),
            cluster_id: document.map(|document| document.cluster_id.to_string()).or(old.topology.cluster_id),
            leader_epoch: document.map(|document| wide(document.leader_epoch.0)).or(old.topology.leader_epoch),
            version: document.map(|document| wide(document.version.0)).or(old.topology.version),
        },
        rollout: old.rollout,
        scaling: scaling_status(facts, pass),
        shards,
    };
    for condition in conditions(facts, pass, &status) {
        let condition = Condition { observed_generation: facts.cluster.metadata.generation, ..condition };
        set_condition(&mut status.conditions, &old.conditions, condition, now);
    }
    status
}

fn scaling_status(facts: &Facts, pass: &Pass<'_>) -> Option<ScalingStatus> {
    let mut blockers = pass.scaling.blockers.clone();
    blockers.extend(pass.blockers.iter().cloned());
    let operation = pass.record.and_then(|record| record.operation.as_ref());
    if operation.is_none() && blockers.is_empty() {
        return None;
    }
    let owners = pass.record.map_or(0, |record| record.document.nodes.len());
    Some(ScalingStatus {
        from_shards: clamp(operation.map_or(owners, |operation| operation.from_shards as usize)),
        to_shards: operation.map_or(facts.cluster.spec.shards, |operation| clamp(operation.to_shards)),
        moves: operation
            .iter()
            .flat_map(|operation| &operation.moves)
            .take(MOVES_SHOWN_MAX)
            .map(|step| PlannedMove { slots: step.slots.to_string(), from: clamp(step.from_shard), to: clamp(step.to_shard) })
            .collect(),
        slots_total: clamp(pass.scaling.slots_total),
        slots_done: clamp(pass.scaling.slots_done),
        bytes_total: operation.and_then(|operation| operation.bytes_total).map(wide),
        keys_total: operation.and_then(|operation| operation.keys_total).map(wide),
        blockers,
    })
}

fn conditions(facts: &Facts, pass: &Pass<'_>, status: &SluiceClusterStatus) -> Vec<Condition> {
    use ConditionType as T;
    let plan = pass.topology;
    let lost: Vec<String> = plan
        .lost_volumes
        .iter()
        .map(|lost| format!("shard {} is recorded as node {} and came back as {}", lost.shard, lost.recorded, lost.found))
        .collect();
    let down: Vec<String> = facts
        .shards
        .iter()
        .filter(|(number, seen)| {
            status.shards.iter().any(|entry| u32::try_from(entry.shard) == Ok(**number)) && !seen.is_serving()
        })
        .take(5)
        .map(|(number, seen)| format!("shard {number}: {}", seen.trouble()))
        .collect();
    let available = if pass.record.is_none() {
        Condition::of(T::Available, false, "NotBootstrapped", "the cluster has no slots assigned yet")
    } else if !lost.is_empty() {
        Condition::of(T::Available, false, "VolumeLost", lost.join("; "))
    } else if !down.is_empty() {
        Condition::of(T::Available, false, "ShardsDown", down.join("; "))
    } else if !plan.orphaned.is_empty() {
        Condition::of(
            T::Available,
            false,
            "SlotsWithoutOwner",
            format!("slots {} have no owner that runs", brief(&plan.orphaned)),
        )
    } else {
        Condition::of(T::Available, true, "AllShardsServe", "")
    };
    let behind: Vec<u32> = pass.record.map_or_else(Vec::new, |record| {
        let behind = |shard: &u32| {
            let seen = facts.shards.get(shard).and_then(|seen| seen.node.as_ref().ok());
            seen.is_none_or(|status| is_behind(status, &record.document))
        };
        record.document.nodes.iter().map(|node| node.shard).filter(behind).collect()
    });
    let converged = match (&plan.decision, pass.record) {
        (Decision::Refuse { reason, message }, _) => Condition::of(T::TopologyConverged, false, reason, message.clone()),
        (Decision::Wait { reason, message }, _) => Condition::of(T::TopologyConverged, false, reason, message.clone()),
        (_, None) => Condition::of(T::TopologyConverged, false, "NotBootstrapped", ""),
        _ if !plan.contested.is_empty() => Condition::of(
            T::TopologyConverged,
            false,
            "ContestedSlots",
            format!("slots {} are claimed by two nodes", brief(&plan.contested)),
        ),
        _ if !lost.is_empty() => Condition::of(T::TopologyConverged, false, "VolumeLost", lost.join("; ")),
        _ if !pass.push_problems.is_empty() => {
            Condition::of(T::TopologyConverged, false, "PushFailed", pass.push_problems.join("; "))
        }
        _ if !behind.is_empty() => {
            Condition::of(T::TopologyConverged, false, "Pushing", format!("shards {behind:?} have an older document"))
        }
        _ => Condition::of(T::TopologyConverged, true, "Converged", ""),
    };
    let rolling = rolling_condition(pass.rollout, status);
    let scaling = scaling_condition(pass, status);
    let volume_lost = if lost.is_empty() {
        Condition::of(T::VolumeLost, false, "VolumesPresent", "")
    } else {
        let advice = "bring the volume back; nothing is assigned to the new node by itself";
        Condition::of(T::VolumeLost, true, "NodeIdChanged", format!("{}; {advice}", lost.join("; ")))
    };
    let degraded = degraded_condition(pass, status, &lost);
    let progressing = if pass.record.is_none() {
        Condition::of(T::Progressing, true, "Creating", down.join("; "))
    } else if !lost.is_empty() {
        // Nothing goes on by itself.
        Condition::of(T::Progressing, false, "VolumeLost", lost.join("; "))
    } else if scaling.reason != "Settled" {
        Condition::of(T::Progressing, true, "Scaling", scaling.message.clone())
    } else if rolling.reason != "UpToDate" {
        let going = !matches!(rolling.reason.as_str(), "Halted" | "Paused");
        Condition::of(T::Progressing, going, if going { "RollingRestart" } else { &rolling.reason }, rolling.message.clone())
    } else if converged.reason == "Pushing" {
        Condition::of(T::Progressing, true, "Topology", converged.message.clone())
    } else if !down.is_empty() {
        Condition::of(T::Progressing, true, "AwaitingShards", down.join("; "))
    } else {
        Condition::of(T::Progressing, false, "UpToDate", "")
    };
    vec![available, progressing, converged, rolling, scaling, volume_lost, degraded]
}

fn rolling_condition(plan: Option<&RolloutPlan>, status: &SluiceClusterStatus) -> Condition {
    use ConditionType as T;
    let Some(plan) = plan else { return Condition::of(T::RollingRestart, false, "UpToDate", "") };
    let progress = format!("{} of {} pods done", plan.done, plan.total);
    let pod = status
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.current.as_ref())
        .map(|current| current.pod.clone())
        .unwrap_or_default();
    match &plan.step {
        Step::Idle => Condition::of(T::RollingRestart, false, "UpToDate", ""),
        Step::Wait { reason, message } => Condition::of(T::RollingRestart, true, reason, format!("{message}; {progress}")),
        Step::Begin { .. } | Step::FlushAndDelete { .. } | Step::Delete { .. } | Step::Passed { .. } => {
            Condition::of(T::RollingRestart, true, "Restarting", format!("{pod}; {progress}").trim_start_matches("; ").to_owned())
        }
        Step::Halt { message, .. } => Condition::of(T::RollingRestart, true, "Halted", format!("{message}; {progress}")),
    }
}

fn scaling_condition(pass: &Pass<'_>, status: &SluiceClusterStatus) -> Condition {
    use ConditionType as T;
    let Some(scaling) = &status.scaling else {
        let busy = pass.scaling.is_busy();
        return Condition::of(T::Scaling, busy, if busy { "Finishing" } else { "Settled" }, "");
    };
    let progress = format!(
        "{} of {} slots moved, {} to {} shards",
        scaling.slots_done, scaling.slots_total, scaling.from_shards, scaling.to_shards
    );
    if !scaling.blockers.is_empty() {
        let prefix = if scaling.slots_total > 0 { format!("{progress}; ") } else { String::new() };
        return Condition::of(T::Scaling, true, "Waiting", format!("{prefix}{}", scaling.blockers.join("; ")));
    }
    Condition::of(T::Scaling, true, "MovingSlots", progress)
}

fn degraded_condition(pass: &Pass<'_>, status: &SluiceClusterStatus, lost: &[String]) -> Condition {
    use ConditionType as T;
    let plan = pass.topology;
    let of = |reason: &str, message: String| Condition::of(T::Degraded, true, reason, message);
    if let Some((reason, message)) = pass.problems.first() {
        return of(reason, message.clone());
    }
    if let Decision::Refuse { reason, message } = &plan.decision {
        return of(reason, message.clone());
    }
    if let Some(first) = lost.first() {
        return of("VolumeLost", first.clone());
    }
    if let Some((shard, why)) = plan.foreign.first_key_value() {
        return of("ForeignNode", format!("shard {shard}: {why}"));
    }
    if !plan.contested.is_empty() {
        return of("ContestedSlots", format!("slots {} are claimed by two nodes", brief(&plan.contested)));
    }
    if let Some(halted) = status.rollout.as_ref().and_then(|rollout| rollout.halted.as_ref()) {
        return of("RolloutHalted", format!("{}: {}", halted.reason, halted.message));
    }
    Condition::of(T::Degraded, false, "AsExpected", "")
}

/// The status of a spec that is not carried out: everything stays as it was, and one condition says why.
pub(super) fn refused(cluster: &SluiceCluster, reason: &str, message: &str, now: &str) -> SluiceClusterStatus {
    let old = cluster.status.clone().unwrap_or_default();
    let mut status = old.clone();
    status.observed_generation = cluster.metadata.generation;
    let condition = Condition {
        observed_generation: cluster.metadata.generation,
        ..Condition::of(ConditionType::Degraded, true, reason, message)
    };
    set_condition(&mut status.conditions, &old.conditions, condition, now);
    status
}

/// The time of now, as conditions carry it: whole seconds.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Writes a status unless it is what `before` says already.
pub(super) async fn write(
    ctx: &Context,
    names: &Names,
    before: Option<&SluiceClusterStatus>,
    status: &SluiceClusterStatus,
) -> Result<(), Error> {
    if before == Some(status) {
        return Ok(());
    }
    ctx.may_act()?;
    let api: Api<SluiceCluster> = Api::namespaced(ctx.client.clone(), &names.namespace);
    let patch = serde_json::json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "SluiceCluster", "status": status});
    api.patch_status(&names.cluster, &PatchParams::apply(STATUS_MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(Error::api(format!("writing the status of {}", names.cluster)))?;
    Ok(())
}
