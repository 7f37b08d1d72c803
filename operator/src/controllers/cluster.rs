//! SluiceCluster: observe → validate → plan → build → apply → status.

mod apply;
pub mod build;
pub mod facts;
mod observe;
pub mod plan;
mod restart;
mod scale;
mod status;
mod topology;
mod validate;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{api::apps::v1::StatefulSet, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Resource as _, ResourceExt as _, core::DeserializeGuard, runtime::controller::Action, runtime::events::EventType,
};
use sluice_topology::{ClusterId, tls::ClientTls};
use tracing::{info, warn};

pub use observe::{Observation, address, ask, observe, pod_facts};
pub(crate) use status::now;
pub use validate::check_settings;

use self::{
    facts::Facts,
    plan::{
        rollout::{self, RolloutPlan, Step},
        scaling::{self, ScalingPlan},
        topology::{Decision, TopologyPlan},
    },
    topology::Scribe,
};
use crate::{api::SluiceCluster, api::SluiceClusterStatus, context::Context, error::Error, network::Access};

/// How often a cluster where nothing happens is looked at.
const STEADY_INTERVAL: Duration = Duration::from_mins(1);
/// How often one is looked at while it waits for something outside.
const WAITING_INTERVAL: Duration = Duration::from_secs(3);
/// How often one is looked at while something of the operator's runs.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// Brings one cluster nearer to its spec.
pub async fn reconcile(object: Arc<DeserializeGuard<SluiceCluster>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    if let Err(invalid) = &object.0 {
        ctx.metrics.invalid_objects.inc();
        warn!(
            cluster = name,
            namespace,
            error = invalid.error,
            "a SluiceCluster cannot be read as one: left alone until it is changed"
        );
        return Ok(Action::await_change());
    }
    if !ctx.leadership.is_current() {
        return Err(Error::NotLeader);
    }
    // Live: the cache may not have the status that was written a moment ago, and with it the receipt of a pod already deleted.
    let api: Api<SluiceCluster> = Api::namespaced(ctx.client.clone(), &namespace);
    let Some(cluster) = api.get_opt(&name).await.map_err(Error::api(format!("reading SluiceCluster {name}")))? else {
        ctx.forget(&object.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        // Everything has the cluster as its owner; volumes go or stay by the StatefulSets' own policy. No finalizer is needed.
        ctx.forget(&cluster.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    Box::pin(one_pass(&ctx, cluster)).await
}

/// Why nothing new may begin, for people.
fn hold(facts: &Facts, topology: &TopologyPlan) -> Option<String> {
    if facts.cluster.spec.scaling.paused {
        return Some("spec.scaling.paused is set".into());
    }
    if let Decision::Refuse { message, .. } = &topology.decision {
        return Some(message.clone());
    }
    if let Some(lost) = topology.lost_volumes.first() {
        return Some(format!("shard {} lost its volume", lost.shard));
    }
    if let Some((shard, why)) = topology.foreign.first_key_value() {
        return Some(format!("shard {shard}: {why}"));
    }
    if !topology.contested.is_empty() {
        return Some("two nodes claim the same slots".into());
    }
    let restarting = facts.cluster.status.as_ref().and_then(|status| status.rollout.as_ref()?.current.as_ref());
    if let Some(current) = restarting {
        return Some(format!("pod {} is being restarted", current.pod));
    }
    let silent = facts.record().and_then(|record| {
        record.document.nodes.iter().find(|node| facts.shards.get(&node.shard).is_none_or(|seen| !seen.is_serving()))
    });
    silent.map(|node| {
        let trouble = facts.shards.get(&node.shard).map_or_else(|| "it does not exist".to_owned(), facts::ShardFacts::trouble);
        format!("shard {}: {trouble}", node.shard)
    })
}

async fn one_pass(ctx: &Context, cluster: SluiceCluster) -> Result<Action, Error> {
    let before = cluster.status.clone();
    let uid = cluster.uid().unwrap_or_default();
    let owner = cluster.controller_owner_ref(&()).ok_or_else(|| Error::Unexpected("a SluiceCluster without uid".into()))?;
    let Observation { mut facts, admin_password, tls, stateful_sets } = Box::pin(observe(ctx, cluster)).await?;
    if let Err(message) = validate::validate(&facts) {
        let refused = status::refused(&facts.cluster, "InvalidSpec", &message, &status::now());
        status::write(ctx, &facts.names, before.as_ref(), &refused).await?;
        return Ok(Action::requeue(STEADY_INTERVAL));
    }
    let tls = match tls {
        Ok(tls) => tls,
        Err(message) => {
            let refused = status::refused(&facts.cluster, "TlsSecretUnusable", &message, &status::now());
            status::write(ctx, &facts.names, before.as_ref(), &refused).await?;
            return Ok(Action::requeue(WAITING_INTERVAL));
        }
    };
    let live = Live { admin_password, tls, stateful_sets };
    match Box::pin(steps(ctx, &uid, &owner, &mut facts, before.as_ref(), live)).await {
        Ok(action) => Ok(action),
        Err(error) if error.is_namespace_going() => {
            info!(%error, "left alone");
            Ok(Action::requeue(STEADY_INTERVAL))
        }
        Err(error) => {
            // What went wrong is shown; the status of the last good pass stays otherwise.
            if !error.is_passing() {
                let shown = status::refused(&facts.cluster, "ReconcileFailed", &error.to_string(), &status::now());
                status::write(ctx, &facts.names, before.as_ref(), &shown).await?;
            }
            Err(error)
        }
    }
}

/// What was read and is no plain fact.
struct Live {
    admin_password: Option<String>,
    tls: Option<ClientTls>,
    stateful_sets: BTreeMap<String, StatefulSet>,
}

async fn steps(
    ctx: &Context,
    uid: &str,
    owner: &OwnerReference,
    facts: &mut Facts,
    before: Option<&SluiceClusterStatus>,
    live: Live,
) -> Result<Action, Error> {
    let mut id = [0u8; ClusterId::LEN];
    getrandom::fill(&mut id)?;
    let topology = plan::topology::plan(facts, ClusterId::from_bytes(id));
    let hold = hold(facts, &topology);
    let document = facts.record().map(|record| record.document.clone());
    let scaling = scaling::plan(facts, document.as_ref(), hold.as_deref());

    let names = facts.names.clone();
    let spec = facts.cluster.spec.clone();
    let shards =
        apply::claim_templates(facts, scaling.stateful_sets.iter().copied().filter(|shard| !scaling.remove.contains(shard)));
    let inputs = build::Inputs { names: &names, spec: &spec, owner: owner.clone(), defaults: &ctx.store, shards: &shards };
    let objects = build::build(&inputs);
    let password = apply::admin_password(ctx, facts, &inputs, live.admin_password).await?;
    let access = Access { password, tls: live.tls };
    apply::apply(ctx, uid, &objects, live.stateful_sets).await?;
    let mut problems: Vec<(String, String)> = Vec::new();
    if let Some(refused) = apply::grow_volumes(ctx, facts).await?.first() {
        problems.push(("VolumeResizeRefused".into(), format!("the storage class does not let a volume grow: {refused}")));
    }

    let mut scribe = Scribe::new(ctx, facts, uid, owner);
    match &topology.decision {
        Decision::Bootstrap(document) => {
            scribe.write(document.clone(), None).await?;
            info!(shards = document.nodes.len(), "cluster made");
        }
        Decision::Rebuild(document) => {
            warn!("the topology was lost, and is rebuilt from the nodes");
            scribe.write(document.clone(), None).await?;
        }
        Decision::Write(document) => scribe.follow(document.clone()).await?,
        Decision::Keep if must_lead(facts, &scaling) => {
            scribe.lead().await?;
        }
        Decision::Keep | Decision::Wait { .. } | Decision::Refuse { .. } => {}
    }
    let refused = matches!(topology.decision, Decision::Refuse { .. });
    let push_problems = if refused { Vec::new() } else { scribe.push(&access).await };
    let blockers = if refused { Vec::new() } else { scale::execute(ctx, facts, &scaling, &mut scribe, owner, &access).await? };
    let record = scribe.record.clone();

    let trouble = rollout_trouble(facts, &topology);
    let rollout = rollout::plan(facts, &objects.template_hash, trouble.as_deref());
    if let Some(message) = restart::execute(ctx, facts, &rollout, &objects.template_hash, &access).await? {
        problems.push(("FlushFailed".into(), message));
    }

    let pass = status::Pass {
        topology: &topology,
        scaling: &scaling,
        rollout: Some(&rollout),
        record: record.as_ref(),
        push_problems: &push_problems,
        blockers: &blockers,
        problems: &problems,
    };
    let composed = status::compose(facts, &pass, &status::now());
    status::write(ctx, &names, before, &composed).await?;
    events(ctx, facts, before, &composed).await;
    Ok(next_look(facts, &topology, &scaling, &rollout, &push_problems))
}

/// Whether nodes are about to be commanded, or have heard of a leader this document does not know.
fn must_lead(facts: &Facts, scaling: &ScalingPlan) -> bool {
    let Some(record) = facts.record() else { return false };
    let newer = facts.statuses().any(|(_, status)| {
        (status.leader_epoch, status.topology_version) > (record.document.leader_epoch, record.document.version)
    });
    let migrating =
        facts.migrations.iter().any(|migration| !migration.status.as_ref().is_some_and(|status| status.state.is_final()));
    newer || migrating || !scaling.migrate.is_empty()
}

/// Why no pod may be restarted, beyond what is seen of the pods themselves.
fn rollout_trouble(facts: &Facts, topology: &TopologyPlan) -> Option<String> {
    match &topology.decision {
        Decision::Refuse { message, .. } | Decision::Wait { message, .. } => return Some(message.clone()),
        _ => {}
    }
    if let Some(lost) = topology.lost_volumes.first() {
        return Some(format!("shard {} lost its volume", lost.shard));
    }
    facts.record().is_none().then(|| "the cluster is not made yet".to_owned())
}

fn next_look(
    facts: &Facts,
    topology: &TopologyPlan,
    scaling: &ScalingPlan,
    rollout: &RolloutPlan,
    push_problems: &[String],
) -> Action {
    let busy = !scaling.migrate.is_empty()
        || scaling.start.is_some()
        || scaling.clear
        || !scaling.remove.is_empty()
        || matches!(topology.decision, Decision::Bootstrap(_) | Decision::Rebuild(_) | Decision::Write(_))
        || matches!(rollout.step, Step::Begin { .. } | Step::FlushAndDelete { .. } | Step::Delete { .. } | Step::Passed { .. })
        || matches!(&rollout.step, Step::Wait { reason, .. } if *reason == "PausingMigrations" || *reason == "AwaitingReady");
    let waiting = scaling.is_busy()
        || matches!(topology.decision, Decision::Wait { .. } | Decision::Refuse { .. })
        || matches!(rollout.step, Step::Wait { .. } | Step::Halt { .. })
        || !push_problems.is_empty()
        || facts.shards.values().any(|seen| seen.stateful_set.is_some() && !seen.is_serving())
        || facts.migrations.iter().any(|migration| !migration.status.as_ref().is_some_and(|status| status.state.is_final()));
    Action::requeue(if busy {
        BUSY_INTERVAL
    } else if waiting {
        WAITING_INTERVAL
    } else {
        STEADY_INTERVAL
    })
}

/// Tells people what changed, once: reasons of conditions are what changes, progress stands in the status.
async fn events(ctx: &Context, facts: &Facts, before: Option<&SluiceClusterStatus>, after: &SluiceClusterStatus) {
    use crate::api::{ConditionStatus, ConditionType as T};
    let old = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    for condition in &after.conditions {
        let previous = old.iter().find(|old| old.type_ == condition.type_);
        if previous.is_some_and(|previous| previous.status == condition.status) {
            continue;
        }
        let is_true = condition.status == ConditionStatus::True;
        let bad = match condition.type_ {
            T::VolumeLost | T::Degraded => is_true,
            T::Available => !is_true && previous.is_some(),
            _ => false,
        };
        // What a new cluster is not yet is no news.
        if previous.is_none() && !is_true {
            continue;
        }
        let type_ = if bad { EventType::Warning } else { EventType::Normal };
        let reason = if is_true { format!("{:?}", condition.type_) } else { format!("Not{:?}", condition.type_) };
        let note = format!("{}: {}", condition.reason, condition.message);
        ctx.event(&facts.cluster.object_ref(&()), type_, &reason, note).await;
    }
}
