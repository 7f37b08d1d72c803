//! Carries out one step of a rolling restart.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource as _,
    api::{DeleteParams, Preconditions},
    runtime::events::EventType,
};
use sluice_topology::admin::FlushReceipt;
use tracing::info;

use super::{
    facts::Facts,
    observe::address,
    plan::rollout::{RolloutPlan, Step},
    status,
};
use crate::{
    api::{CurrentRestart, HaltedRollout, Receipt, RolloutStatus},
    context::Context,
    error::{Error, is_status},
    network::{self, Access},
};

/// Carries a step out. The rollout part of `facts.cluster.status` is kept current; it is written before anything is destroyed by it.
/// Returns what stands in the way, for people.
pub(super) async fn execute(
    ctx: &Context,
    facts: &mut Facts,
    plan: &RolloutPlan,
    hash: &str,
    access: &Access,
) -> Result<Option<String>, Error> {
    match &plan.step {
        Step::Idle => {
            facts.cluster.status.get_or_insert_default().rollout = None;
        }
        Step::Wait { .. } => {
            let rollout = rollout(facts, plan, hash);
            facts.cluster.status.get_or_insert_default().rollout = Some(rollout);
        }
        Step::Begin { shard, uid } => {
            let mut rollout = rollout(facts, plan, hash);
            rollout.halted = None;
            rollout.current = Some(CurrentRestart {
                shard: i32::try_from(*shard).unwrap_or(i32::MAX),
                pod: facts.names.pod(*shard),
                old_uid: uid.clone(),
                since_ms: facts.now_ms,
                receipt: None,
                deleting: false,
            });
            keep(ctx, facts, rollout).await?;
        }
        Step::FlushAndDelete { shard, uid } => {
            let receipt = match flush(ctx, facts, *shard, access).await {
                Ok(receipt) => receipt,
                Err(why) => return Ok(Some(format!("pod {} could not be flushed: {why}", facts.names.pod(*shard)))),
            };
            let now_ms = jiff::Timestamp::now().as_millisecond();
            let mut rollout = rollout(facts, plan, hash);
            rollout.halted = None;
            if let Some(current) = &mut rollout.current {
                (current.receipt, current.since_ms, current.deleting) = (Some(receipt.clone()), now_ms, true);
            }
            let shards = &mut facts.cluster.status.get_or_insert_default().shards;
            if let Some(entry) = shards.iter_mut().find(|entry| u32::try_from(entry.shard) == Ok(*shard)) {
                entry.last_receipt = Some(receipt);
            }
            keep(ctx, facts, rollout).await?;
            delete(ctx, facts, *shard, uid).await?;
        }
        Step::Delete { shard, uid } => {
            let mut rollout = rollout(facts, plan, hash);
            rollout.halted = None;
            if let Some(current) = &mut rollout.current {
                if current.old_uid != *uid || !current.deleting {
                    current.since_ms = facts.now_ms;
                }
                (current.old_uid, current.deleting) = (uid.clone(), true);
            }
            keep(ctx, facts, rollout).await?;
            delete(ctx, facts, *shard, uid).await?;
        }
        Step::Passed { shard } => {
            info!(shard, "restarted, with all it had");
            let mut rollout = rollout(facts, plan, hash);
            (rollout.current, rollout.halted) = (None, None);
            facts.cluster.status.get_or_insert_default().rollout = Some(rollout);
        }
        Step::Halt { reason, message, shard } => {
            let mut rollout = rollout(facts, plan, hash);
            let halted = HaltedRollout {
                reason: (*reason).into(),
                message: message.clone(),
                shard: i32::try_from(*shard).unwrap_or(i32::MAX),
                template_hash: hash.into(),
            };
            let is_new = rollout
                .halted
                .as_ref()
                .is_none_or(|old| (&old.reason, &old.template_hash) != (&halted.reason, &halted.template_hash));
            if is_new {
                ctx.metrics.halts.inc();
                ctx.event(&facts.cluster.object_ref(&()), EventType::Warning, "RolloutHalted", message.clone()).await;
                rollout.halted = Some(halted);
            }
            facts.cluster.status.get_or_insert_default().rollout = Some(rollout);
        }
    }
    Ok(None)
}

fn rollout(facts: &Facts, plan: &RolloutPlan, hash: &str) -> RolloutStatus {
    let old = facts.cluster.status.as_ref().and_then(|status| status.rollout.clone()).unwrap_or_default();
    RolloutStatus {
        template_hash: hash.into(),
        done: i32::try_from(plan.done).unwrap_or(i32::MAX),
        total: i32::try_from(plan.total).unwrap_or(i32::MAX),
        ..old
    }
}

/// Writes the rollout into the status at once: what follows destroys something, and a crash must not forget why.
async fn keep(ctx: &Context, facts: &mut Facts, rollout: RolloutStatus) -> Result<(), Error> {
    let before = facts.cluster.status.clone();
    let mut wanted = before.clone().unwrap_or_default();
    wanted.rollout = Some(rollout);
    // The receipt of the shard was put into `facts` by the caller; it differs from what was read, so this writes.
    status::write(ctx, &facts.names, None, &wanted).await?;
    facts.cluster.status = Some(wanted);
    Ok(())
}

async fn flush(ctx: &Context, facts: &Facts, shard: u32, access: &Access) -> Result<Receipt, String> {
    let limit = Duration::from_secs(u64::try_from(facts.cluster.spec.rollout.flush_timeout_seconds).unwrap_or(120));
    let seen = facts.shards.get(&shard).ok_or("it is gone")?;
    let expected = seen.node.as_ref().map_err(Clone::clone)?.node_id;
    let node = address(&facts.names, shard, seen).ok_or("its pod has no address")?;
    let work = async {
        let mut client = network::connect(ctx.network.as_ref(), &node, access).await.map_err(|error| error.to_string())?;
        let id = client.status().await.map_err(|error| error.to_string())?.node_id;
        if id != expected {
            return Err(format!("it answers as node {id} instead of {expected}"));
        }
        client.flush(limit).await.map_err(|error| error.to_string())
    };
    let receipt =
        tokio::time::timeout(limit + Duration::from_secs(10), work).await.map_err(|_| "it took too long".to_owned())??;
    ctx.metrics.flushes.inc();
    info!(shard, round = receipt.round, bytes = receipt.bytes, "flushed");
    Ok(to_status(&receipt))
}

fn to_status(receipt: &FlushReceipt) -> Receipt {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Receipt {
        instance: receipt.instance.to_string(),
        round: signed(receipt.round),
        sequence: signed(receipt.sequence),
        durable_at_ms: signed(receipt.durable_at_ms),
        bytes: signed(receipt.bytes),
        duration_ms: signed(receipt.duration_ms),
    }
}

async fn delete(ctx: &Context, facts: &Facts, shard: u32, uid: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &facts.names.namespace);
    let name = facts.names.pod(shard);
    // Only the pod that was looked at: its successor is another's business.
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    ctx.may_act()?;
    match api.delete(&name, &params).await {
        Ok(_) => {
            ctx.metrics.restarts.inc();
            info!(pod = name, "pod deleted");
            Ok(())
        }
        // It is gone, or another took its place: the next pass sees.
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(()),
        Err(error) => Err(Error::api(format!("deleting pod {name}"))(error)),
    }
}
