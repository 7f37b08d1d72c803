//! SlotMigration: drives the store's own job, which is the truth, and shows what it says. Whatever dies here, the next pass asks the
//! nodes what runs and goes on from that.

mod commands;
mod decide;
mod observe;
mod progress;
mod write;

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Resource as _, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{controller::Action, events::EventType},
};
use sluice_topology::{NodeId, SlotRanges, admin::MigrationState};
use tracing::{info, warn};

pub use decide::{Seen, Step, Verdict, decide};
pub use progress::{Progress, progress};

use self::{
    commands::{start, stop},
    observe::{Surroundings, hold, resolve, surroundings},
    write::{hold_object, release},
};
use crate::{api::SlotMigration, context::Context, controllers::cluster::now, error::Error, names::JOB_FINALIZER};

/// When something is left to be done at once.
const SOON: Duration = Duration::from_millis(200);
/// How often a running job is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often a waiting migration is looked at.
const WAIT_INTERVAL: Duration = Duration::from_secs(3);
/// Longest delay between a job that failed and the next.
const RETRY_DELAY_MAX: Duration = Duration::from_mins(1);

/// Brings one migration nearer to its end.
pub async fn reconcile(object: Arc<DeserializeGuard<SlotMigration>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    if let Err(invalid) = &object.0 {
        ctx.metrics.invalid_objects.inc();
        warn!(
            migration = name,
            namespace,
            error = invalid.error,
            "a SlotMigration cannot be read as one: left alone until it is changed"
        );
        return Ok(Action::await_change());
    }
    if !ctx.leadership.is_current() {
        return Err(Error::NotLeader);
    }
    let api: Api<SlotMigration> = Api::namespaced(ctx.client.clone(), &namespace);
    let Some(migration) = api.get_opt(&name).await.map_err(Error::api(format!("reading SlotMigration {name}")))? else {
        return Ok(Action::await_change());
    };
    let status = migration.status.clone().unwrap_or_default();
    let deleting = migration.metadata.deletion_timestamp.is_some();
    if status.state.is_final() || (deleting && !migration.finalizers().iter().any(|f| f == JOB_FINALIZER)) {
        release(&ctx, &api, &migration).await?;
        return Ok(Action::await_change());
    }
    let slots: SlotRanges = match migration.spec.slots.parse() {
        Ok(slots) => slots,
        Err(error) => return invalid(&ctx, &api, &migration, &format!("spec.slots: {error}")).await,
    };
    let surroundings = match surroundings(&ctx, &migration).await? {
        Ok(surroundings) => surroundings,
        Err(why) => {
            if deleting {
                // No cluster, or none that runs: nothing is left to stop.
                release(&ctx, &api, &migration).await?;
                return Ok(Action::await_change());
            }
            return waits(&ctx, &api, &migration, &slots, why).await;
        }
    };
    one_pass(&ctx, &api, &migration, &slots, &surroundings, deleting).await
}

async fn one_pass(
    ctx: &Context,
    api: &Api<SlotMigration>,
    migration: &SlotMigration,
    slots: &SlotRanges,
    around: &Surroundings,
    deleting: bool,
) -> Result<Action, Error> {
    let document = &around.document;
    let target = match resolve(document, &migration.spec.target) {
        Ok(node) => node.clone(),
        Err(why) => return invalid(ctx, api, migration, &format!("spec.target: {why}")).await,
    };
    let source = match migration.spec.source.as_ref().map(|source| resolve(document, source)).transpose() {
        Ok(source) => source.map(|node| node.id),
        Err(why) => return invalid(ctx, api, migration, &format!("spec.source: {why}")).await,
    };
    if source == Some(target.id) {
        return invalid(ctx, api, migration, "spec.source and spec.target are the same node").await;
    }
    let hold = hold(migration, &around.cluster, document, source, target.id);
    let seen = Seen { slots, target: target.id, source, nodes: &around.nodes, cancel: migration.spec.cancel || deleting, hold };
    let verdict = decide(&seen);
    let mut error = None;
    let mut next = WAIT_INTERVAL;
    let mut started = None;
    match &verdict.step {
        Step::Start { source, slots } => {
            let shown = migration.status.as_ref().is_some_and(|status| !status.last_error.is_empty());
            let failed = verdict.last.as_ref().is_some_and(|job| job.state == MigrationState::Failed);
            if let Some(wait) = retry_wait(ctx, migration, shown || failed) {
                next = wait;
            } else {
                hold_object(ctx, api, migration).await?;
                match start(ctx, around, *source, slots, target.id).await {
                    Ok(job) => {
                        info!(job, slots = slots.len(), "job started");
                        ctx.metrics.migration_jobs.inc();
                        started = Some((*source, job));
                        next = WATCH_INTERVAL;
                    }
                    Err(why) => error = Some(why),
                }
                note_attempt(ctx, migration);
            }
        }
        Step::Stop { source, job } => {
            if let Err(why) = stop(ctx, around, *source, job.job).await {
                error = Some(why);
            }
            next = WATCH_INTERVAL;
        }
        Step::Watch(_) => next = WATCH_INTERVAL,
        Step::Complete | Step::Cancelled | Step::Held(_) | Step::Wait(_) => {}
    }
    let shard_of = |id: NodeId| document.node(id).map(|node| node.shard);
    let update = progress(&Progress {
        migration,
        slots,
        verdict: &verdict,
        target: (target.id, target.shard),
        source: source.and_then(|id| Some((id, shard_of(id)?))),
        started: started.and_then(|(id, job)| Some((id, shard_of(id)?, job))),
        error,
        now: &now(),
    });
    ctx.metrics.longest_pause_ms.set(ctx.metrics.longest_pause_ms.get().max(update.longest_pause_ms));
    write::status(ctx, api, migration, &update).await?;
    if update.state.is_final() {
        forget_attempts(ctx, migration);
        let note = format!("{} slots to shard {}", update.slots_done, target.shard);
        ctx.event(&migration.object_ref(&()), EventType::Normal, &format!("Migration{:?}", update.state), note).await;
        // The next pass takes the finalizer off the object as it is then.
        return Ok(Action::requeue(SOON));
    }
    Ok(Action::requeue(next))
}

async fn waits(
    ctx: &Context,
    api: &Api<SlotMigration>,
    migration: &SlotMigration,
    slots: &SlotRanges,
    why: String,
) -> Result<Action, Error> {
    let step = if migration.spec.cancel { Step::Cancelled } else { Step::Wait(why) };
    let done = migration.status.as_ref().map_or(0, |status| usize::try_from(status.slots_done).unwrap_or(0));
    let verdict = Verdict { step, done, last: None };
    let update = progress(&Progress {
        migration,
        slots,
        verdict: &verdict,
        target: (NodeId::from_bytes([0; NodeId::LEN]), 0),
        source: None,
        started: None,
        error: None,
        now: &now(),
    });
    write::status(ctx, api, migration, &update).await?;
    Ok(Action::requeue(WAIT_INTERVAL))
}

async fn invalid(ctx: &Context, api: &Api<SlotMigration>, migration: &SlotMigration, why: &str) -> Result<Action, Error> {
    let update = progress::invalid(migration, why, &now());
    write::status(ctx, api, migration, &update).await?;
    ctx.event(&migration.object_ref(&()), EventType::Warning, "MigrationInvalid", why.to_owned()).await;
    Ok(Action::requeue(SOON))
}

/// How long to wait before another job, after one that failed or could not be started.
fn retry_wait(ctx: &Context, migration: &SlotMigration, failed_before: bool) -> Option<Duration> {
    let key = format!("job/{}", migration.uid().unwrap_or_default());
    let jobs = ctx.attempts(&key);
    if jobs == 0 || !failed_before {
        return None;
    }
    let delay = Duration::from_secs(1 << jobs.min(6)).min(RETRY_DELAY_MAX);
    ctx.left_of(&key, delay)
}

fn note_attempt(ctx: &Context, migration: &SlotMigration) {
    ctx.note(&format!("job/{}", migration.uid().unwrap_or_default()));
}

fn forget_attempts(ctx: &Context, migration: &SlotMigration) {
    let uid = migration.uid().unwrap_or_default();
    ctx.forget_marks(&[format!("job/{uid}"), format!("progress/{uid}")]);
}
