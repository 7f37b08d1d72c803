//! Writes of a migration's own object: status, and the finalizer that is on it while a job of it may run.

use std::time::Duration;

use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};

use crate::{
    api::{MigrationPhase, SlotMigration, SlotMigrationStatus},
    context::Context,
    error::{Error, is_status},
    names::{JOB_FINALIZER, STATUS_MANAGER},
};

/// Progress alone is written no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// Keeps the object from going while a job of it may run: its deletion has to stop the job first.
pub(super) async fn hold_object(ctx: &Context, api: &Api<SlotMigration>, migration: &SlotMigration) -> Result<(), Error> {
    if migration.finalizers().iter().any(|finalizer| finalizer == JOB_FINALIZER) {
        return Ok(());
    }
    let mut finalizers = migration.finalizers().to_vec();
    finalizers.push(JOB_FINALIZER.into());
    finalize(ctx, api, migration, &finalizers).await
}

pub(super) async fn release(ctx: &Context, api: &Api<SlotMigration>, migration: &SlotMigration) -> Result<(), Error> {
    if !migration.finalizers().iter().any(|finalizer| finalizer == JOB_FINALIZER) {
        return Ok(());
    }
    let finalizers: Vec<String> =
        migration.finalizers().iter().filter(|finalizer| *finalizer != JOB_FINALIZER).cloned().collect();
    finalize(ctx, api, migration, &finalizers).await
}

async fn finalize(
    ctx: &Context,
    api: &Api<SlotMigration>,
    migration: &SlotMigration,
    finalizers: &[String],
) -> Result<(), Error> {
    // With the version it was read at: another's finalizer that came meanwhile is not taken away.
    let patch =
        serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": migration.metadata.resource_version}});
    ctx.may_act()?;
    match api.patch(&migration.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(Error::api(format!("writing the finalizers of {}", migration.name_any()))(error)),
    }
}

/// Writes a status that differs; one that differs by progress alone, not too often.
pub(super) async fn status(
    ctx: &Context,
    api: &Api<SlotMigration>,
    migration: &SlotMigration,
    update: &SlotMigrationStatus,
) -> Result<(), Error> {
    let old = migration.status.clone().unwrap_or_default();
    if old == *update {
        return Ok(());
    }
    let key = format!("progress/{}", migration.uid().unwrap_or_default());
    let only_progress = old.state == update.state && old.state == MigrationPhase::Running && old.job == update.job;
    if only_progress && ctx.seen_within(&key, PROGRESS_INTERVAL) {
        return Ok(());
    }
    ctx.may_act()?;
    let patch = serde_json::json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "SlotMigration", "status": update});
    match api.patch_status(&migration.name_any(), &PatchParams::apply(STATUS_MANAGER).force(), &Patch::Apply(&patch)).await {
        Ok(_) => {}
        Err(error) if is_status(&error, 404) => {}
        Err(error) => return Err(Error::api(format!("writing the status of {}", migration.name_any()))(error)),
    }
    ctx.note(&key);
    Ok(())
}
