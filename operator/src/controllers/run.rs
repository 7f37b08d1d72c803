//! Wires the controllers to what they watch. Owned objects are watched by label and as metadata alone: they are reasons to look, and
//! what is looked at is read live.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures::{StreamExt as _, future::join_all};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{DeserializeGuard, NamespaceResourceScope, PartialObjectMeta},
    runtime::{Config, Controller, controller::Action, reflector::ObjectRef, watcher},
};
use tokio::sync::watch;
use tracing::{Instrument as _, debug, info_span, warn};

use super::{cluster, slot_migration};
use crate::{
    api::{SlotMigration, SluiceCluster},
    context::Context,
    error::Error,
    names::CLUSTER_LABEL,
    signals::until,
};

/// What is watched, and how much at once.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Namespaces; all of them when empty.
    pub namespaces: Vec<String>,
    /// Reconciles of a kind at once.
    pub concurrency: u16,
}

type Guarded<K> = DeserializeGuard<K>;
type Meta<K> = PartialObjectMeta<K>;

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

/// The cluster a labelled object belongs to.
fn to_cluster<K>(object: PartialObjectMeta<K>) -> Option<ObjectRef<Guarded<SluiceCluster>>>
where
    K: Resource<DynamicType = ()>,
{
    let name = object.metadata.labels.as_ref()?.get(CLUSTER_LABEL)?.clone();
    Some(ObjectRef::new(&name).within(object.metadata.namespace.as_ref()?))
}

/// Runs both controllers until `stop` says true.
pub async fn run(ctx: Arc<Context>, scope: Scope, stop: watch::Receiver<bool>) {
    let namespaces: Vec<Option<String>> =
        if scope.namespaces.is_empty() { vec![None] } else { scope.namespaces.iter().cloned().map(Some).collect() };
    let runs = namespaces.into_iter().map(|namespace| {
        let (ctx, stop) = (Arc::clone(&ctx), stop.clone());
        async move {
            futures::join!(
                clusters(Arc::clone(&ctx), namespace.as_deref(), scope.concurrency, stop.clone()),
                migrations(Arc::clone(&ctx), namespace.as_deref(), scope.concurrency, stop),
            );
        }
    });
    join_all(runs).await;
}

fn wait_for(mut stop: watch::Receiver<bool>) -> impl Future<Output = ()> + Send + Sync + 'static {
    let waiting = async move { until(&mut stop, true).await };
    SyncFuture(std::sync::Mutex::new(Box::pin(waiting)))
}

/// A future that may be shared between threads because only one of them polls it at a time.
struct SyncFuture(std::sync::Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for SyncFuture {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.get_mut().0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut().poll(cx)
    }
}

async fn clusters(ctx: Arc<Context>, namespace: Option<&str>, concurrency: u16, stop: watch::Receiver<bool>) {
    let client = ctx.client.clone();
    let labelled = || watcher::Config::default().labels(CLUSTER_LABEL);
    // Migrations that end are a reason to look at their cluster; people's own have no label, so all of them are watched.
    let migrations = api::<Guarded<SlotMigration>>(&client, namespace);
    let controller = Controller::new(api::<Guarded<SluiceCluster>>(&client, namespace), watcher::Config::default())
        .with_config(Config::default().concurrency(concurrency))
        .watches(api::<Meta<StatefulSet>>(&client, namespace), labelled(), to_cluster)
        .watches(api::<Meta<Pod>>(&client, namespace), labelled(), to_cluster)
        .watches(api::<Meta<ConfigMap>>(&client, namespace), labelled(), to_cluster)
        .watches(api::<Meta<Service>>(&client, namespace), labelled(), to_cluster)
        .watches(api::<Meta<Secret>>(&client, namespace), labelled(), to_cluster)
        .watches(api::<Meta<PodDisruptionBudget>>(&client, namespace), labelled(), to_cluster)
        .watches(migrations, watcher::Config::default(), |migration| {
            let migration = migration.0.ok()?;
            Some(
                ObjectRef::<Guarded<SluiceCluster>>::new(&migration.spec.cluster_ref.name)
                    .within(migration.metadata.namespace.as_ref()?),
            )
        })
        .graceful_shutdown_on(wait_for(stop));
    controller
        .run(
            |object, ctx| timed("cluster", object, ctx, cluster::reconcile),
            |object, error, ctx| failed("cluster", &object, error, &ctx),
            ctx,
        )
        .for_each(|result| async move { note(result.map(|(object, _)| object)) })
        .await;
}

async fn migrations(ctx: Arc<Context>, namespace: Option<&str>, concurrency: u16, stop: watch::Receiver<bool>) {
    let client = ctx.client.clone();
    Controller::new(api::<Guarded<SlotMigration>>(&client, namespace), watcher::Config::default())
        .with_config(Config::default().concurrency(concurrency))
        .graceful_shutdown_on(wait_for(stop))
        .run(
            |object, ctx| timed("slot_migration", object, ctx, slot_migration::reconcile),
            |object, error, ctx| failed("slot_migration", &object, error, &ctx),
            ctx,
        )
        .for_each(|result| async move { note(result.map(|(object, _)| object)) })
        .await;
}

fn key<K: Resource<DynamicType = ()>>(controller: &str, object: &K) -> String {
    format!("{controller}/{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

async fn timed<K, F>(
    controller: &'static str,
    object: Arc<K>,
    ctx: Arc<Context>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Result<Action, Error>>,
{
    let start = Instant::now();
    let key = key(controller, object.as_ref());
    let span = info_span!("reconcile", kind = controller, namespace = object.namespace(), name = object.name_any());
    let result = reconcile(object, Arc::clone(&ctx)).instrument(span).await;
    ctx.metrics.reconciled(controller, result.is_ok(), start.elapsed());
    if result.is_ok() {
        ctx.succeeded(&key);
    }
    debug!(key, took_ms = start.elapsed().as_millis(), "reconciled");
    result
}

fn failed<K: Resource<DynamicType = ()>>(controller: &'static str, object: &Arc<K>, error: &Error, ctx: &Context) -> Action {
    let key = key(controller, object.as_ref());
    let delay = ctx.failed(&key);
    warn!(key, %error, retry_in_s = delay.as_secs(), "reconcile failed");
    Action::requeue(delay)
}

fn note<T, E: std::error::Error>(result: Result<T, E>) {
    // Failed reconciles are logged where they are counted; this is what is left: watches that broke, and objects gone meanwhile.
    if let Err(error) = result {
        debug!(%error, "controller");
    }
}
