//! SlotMigration: drives the store's own job, which is the truth, and shows what it says. Whatever dies here, the next pass asks the
//! nodes what runs and goes on from that.

mod decide;
mod progress;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{controller::Action, events::EventType},
};
use sluice_topology::{
    LeaderEpoch, NodeEntry, NodeId, SlotRanges, TopologyDocument,
    admin::{MigrationState, NodeStatus},
};
use tracing::{info, warn};

pub use decide::{Seen, Step, Verdict, decide};
pub use progress::{Progress, progress};

use crate::{
    api::{MigrationPhase, MigrationTarget, SlotMigration, SluiceCluster},
    context::Context,
    controllers::cluster::{ask, build::ADMIN_PASSWORD_KEY, pod_facts},
    error::Error,
    names::{JOB_FINALIZER, Names, STATUS_MANAGER},
    network::{self, NodeAddress},
    topology_record::TopologyRecord,
};

/// When something is left to be done at once.
const SOON: Duration = Duration::from_millis(200);
/// How often a running job is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often a waiting migration is looked at.
const WAIT_INTERVAL: Duration = Duration::from_secs(3);
/// Progress alone is written no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// Longest delay between a job that failed and the next.
const RETRY_DELAY_MAX: Duration = Duration::from_mins(1);

/// What a migration runs in.
struct Surroundings {
    cluster: SluiceCluster,
    document: TopologyDocument,
    password: String,
    nodes: Vec<(u32, NodeId, Result<NodeStatus, String>)>,
    addresses: Vec<(NodeId, NodeAddress)>,
}

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
    write(ctx, api, migration, &update).await?;
    if update.state.is_final() {
        forget_attempts(ctx, migration);
        let note = format!("{} slots to shard {}", update.slots_done, target.shard);
        ctx.event(&migration.object_ref(&()), EventType::Normal, &format!("Migration{:?}", update.state), note).await;
        // The next pass takes the finalizer off the object as it is then.
        return Ok(Action::requeue(SOON));
    }
    Ok(Action::requeue(next))
}

/// Reads what the migration runs in; the inner error says what is missing.
async fn surroundings(ctx: &Context, migration: &SlotMigration) -> Result<Result<Surroundings, String>, Error> {
    let namespace = migration.namespace().unwrap_or_default();
    let name = &migration.spec.cluster_ref.name;
    let clusters: Api<SluiceCluster> = Api::namespaced(ctx.client.clone(), &namespace);
    let Some(cluster) = clusters.get_opt(name).await.map_err(Error::api(format!("reading SluiceCluster {name}")))? else {
        return Ok(Err(format!("there is no SluiceCluster {name}")));
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(Err(format!("SluiceCluster {name} is being deleted")));
    }
    let names = Names::of(&cluster);
    let maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &namespace);
    let map = maps.get_opt(&names.topology()).await.map_err(Error::api("reading the topology"))?;
    let document = match map.as_ref().map(TopologyRecord::from_config_map) {
        Some(Ok(record)) => record.document,
        Some(Err(error)) => return Ok(Err(format!("the topology cannot be read: {error}"))),
        None => return Ok(Err(format!("cluster {name} is not made yet"))),
    };
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let secret = secrets.get_opt(&names.admin_secret()).await.map_err(Error::api("reading the admin Secret"))?;
    let password =
        secret.and_then(|secret| secret.data?.remove(ADMIN_PASSWORD_KEY)).and_then(|bytes| String::from_utf8(bytes.0).ok());
    let Some(password) = password else { return Ok(Err("the admin Secret is missing".into())) };
    // Only the nodes it is about: a cluster may have a thousand.
    let involved = |node: &NodeEntry| match (&migration.spec.source, &migration.spec.target) {
        (None, _) => true,
        (Some(source), target) => {
            [source, target].into_iter().any(|spec| resolve(&document, spec).is_ok_and(|found| found.id == node.id))
        }
    };
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let (pods, names, password_ref) = (&pods, &names, password.as_str());
    let asked: Vec<(u32, NodeId, Option<NodeAddress>, Result<NodeStatus, String>)> =
        stream::iter(document.nodes.iter().filter(|node| involved(node)).cloned().collect::<Vec<_>>())
            .map(|node| async move {
                let pod = pods.get_opt(&names.pod(node.shard)).await.ok().flatten();
                let ip = pod.as_ref().and_then(|pod| pod_facts(pod).ip);
                let Some(ip) = ip else { return (node.shard, node.id, None, Err("its pod does not run".to_owned())) };
                let address = NodeAddress { ip, host: node.host.clone(), admin_port: node.admin_port };
                let status = match ask(ctx, &address, password_ref).await {
                    Ok(status) if status.node_id != node.id => Err(format!("it answers as node {}", status.node_id)),
                    answer => answer,
                };
                (node.shard, node.id, Some(address), status)
            })
            .buffered(8)
            .collect()
            .await;
    let addresses = asked.iter().filter_map(|(_, id, address, _)| Some((*id, address.clone()?))).collect();
    let nodes = asked.into_iter().map(|(shard, id, _, status)| (shard, id, status)).collect();
    Ok(Ok(Surroundings { cluster, document, password, nodes, addresses }))
}

/// The node a spec names.
fn resolve<'a>(document: &'a TopologyDocument, spec: &MigrationTarget) -> Result<&'a NodeEntry, String> {
    let found = match (&spec.shard, &spec.node_id) {
        (Some(shard), None) => document.nodes.iter().find(|node| u32::try_from(*shard) == Ok(node.shard)),
        (None, Some(id)) => document.nodes.iter().find(|node| node.id.to_string() == *id),
        _ => return Err("name a node by shard or by nodeId: exactly one of the two".into()),
    };
    found.ok_or_else(|| "there is no such node in the cluster".into())
}

/// Why the migration shall hold: asked for, or because one of its pods is being restarted.
fn hold(
    migration: &SlotMigration,
    cluster: &SluiceCluster,
    document: &TopologyDocument,
    source: Option<NodeId>,
    target: NodeId,
) -> Option<String> {
    if migration.spec.paused {
        return Some("spec.paused is set".into());
    }
    if cluster.spec.scaling.paused && migration.annotations().contains_key(crate::names::OPERATION) {
        return Some("spec.scaling.paused of the cluster is set".into());
    }
    let current = cluster.status.as_ref()?.rollout.as_ref()?.current.as_ref()?;
    let shard = u32::try_from(current.shard).ok()?;
    let node = document.nodes.iter().find(|node| node.shard == shard)?;
    let involved = node.id == target || source.is_none_or(|source| source == node.id);
    involved.then(|| format!("pod {} is being restarted", current.pod))
}

async fn start(ctx: &Context, around: &Surroundings, source: NodeId, slots: &SlotRanges, target: NodeId) -> Result<u64, String> {
    let epoch = leader_epoch(ctx, around)?;
    let mut client = client(ctx, around, source).await?;
    client.migrate(slots, target, epoch).await.map(|job| job.0).map_err(|error| error.to_string())
}

async fn stop(ctx: &Context, around: &Surroundings, source: NodeId, job: sluice_topology::JobId) -> Result<(), String> {
    let epoch = leader_epoch(ctx, around)?;
    let mut client = client(ctx, around, source).await?;
    client.cancel(job, epoch).await.map_err(|error| error.to_string())
}

/// The epoch this process commands with; the cluster's own reconcile takes it, for every cluster with a migration that has not ended.
fn leader_epoch(ctx: &Context, around: &Surroundings) -> Result<LeaderEpoch, String> {
    let uid = around.cluster.uid().unwrap_or_default();
    ctx.remember(&uid, |memory| memory.leader_epoch)
        .filter(|epoch| *epoch == around.document.leader_epoch)
        .ok_or_else(|| "this operator has not taken the lead of the cluster yet".into())
}

async fn client(ctx: &Context, around: &Surroundings, node: NodeId) -> Result<sluice_topology::admin::AdminClient, String> {
    ctx.may_act().map_err(|error| error.to_string())?;
    let address =
        around.addresses.iter().find(|(id, _)| *id == node).map(|(_, address)| address).ok_or("its pod has no address")?;
    network::connect(ctx.network.as_ref(), address, &around.password).await.map_err(|error| error.to_string())
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
    write(ctx, api, migration, &update).await?;
    Ok(Action::requeue(WAIT_INTERVAL))
}

async fn invalid(ctx: &Context, api: &Api<SlotMigration>, migration: &SlotMigration, why: &str) -> Result<Action, Error> {
    let update = progress::invalid(migration, why, &now());
    write(ctx, api, migration, &update).await?;
    ctx.event(&migration.object_ref(&()), EventType::Warning, "MigrationInvalid", why.to_owned()).await;
    Ok(Action::requeue(SOON))
}

/// Keeps the object from going while a job of it may run: its deletion has to stop the job first.
async fn hold_object(ctx: &Context, api: &Api<SlotMigration>, migration: &SlotMigration) -> Result<(), Error> {
    if migration.finalizers().iter().any(|finalizer| finalizer == JOB_FINALIZER) {
        return Ok(());
    }
    let mut finalizers = migration.finalizers().to_vec();
    finalizers.push(JOB_FINALIZER.into());
    finalize(ctx, api, migration, &finalizers).await
}

async fn release(ctx: &Context, api: &Api<SlotMigration>, migration: &SlotMigration) -> Result<(), Error> {
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
        Err(error) if crate::error::is_status(&error, 404) => Ok(()),
        Err(error) => Err(Error::api(format!("writing the finalizers of {}", migration.name_any()))(error)),
    }
}

/// Writes a status that differs; one that differs by progress alone, not too often.
async fn write(
    ctx: &Context,
    api: &Api<SlotMigration>,
    migration: &SlotMigration,
    update: &crate::api::SlotMigrationStatus,
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
        Err(error) if crate::error::is_status(&error, 404) => {}
        Err(error) => return Err(Error::api(format!("writing the status of {}", migration.name_any()))(error)),
    }
    ctx.note(&key);
    Ok(())
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

fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}
