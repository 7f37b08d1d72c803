//! Carries out a scaling plan: makes the operation, its SlotMigrations, and - with a proof - lets shards go.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
};
use sluice_topology::{NodeId, SlotRanges};
use tracing::{info, warn};

use super::{
    facts::{Facts, ShardFacts},
    observe::address,
    plan::{
        scaling::{ScalingPlan, SlotSizes, migration_name, operation},
        topology::without,
    },
    topology::Scribe,
};
use crate::{
    api::{ClusterRef, MigrationTarget, SlotMigration, SlotMigrationSpec},
    context::Context,
    error::{Error, is_status},
    names::{OPERATION, RETIRED_NODE},
    network::{self, Access},
};

/// Finished SlotMigrations kept for people to look at, a cluster.
const FINISHED_KEPT: usize = 32;

/// Carries a plan out. Returns what stands in the way, for people.
pub(super) async fn execute(
    ctx: &Context,
    facts: &Facts,
    plan: &ScalingPlan,
    scribe: &mut Scribe<'_>,
    owner: &OwnerReference,
    access: &Access,
) -> Result<Vec<String>, Error> {
    let mut blockers = Vec::new();
    let Some(record) = scribe.record.clone() else { return Ok(blockers) };
    if let Some(wanted) = plan.start {
        let sizes = sizes(ctx, facts, access).await;
        let operation = operation(facts, &record.document, wanted, sizes.as_ref());
        info!(to = wanted, moves = operation.moves.len(), "another number of shards");
        scribe.write(record.document, Some(operation)).await?;
        return Ok(blockers);
    }
    if plan.clear {
        scribe.write(record.document, None).await?;
        prune(ctx, facts).await?;
        return Ok(blockers);
    }
    let api: Api<SlotMigration> = Api::namespaced(ctx.client.clone(), &facts.names.namespace);
    for name in &plan.cancel {
        ctx.may_act()?;
        let patch = serde_json::json!({"spec": {"cancel": true}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(Error::api(format!("cancelling {name}")))?;
    }
    if let Some(operation) = record.operation.as_ref().filter(|_| !plan.migrate.is_empty()) {
        // The nodes have to know this leader before it commands them.
        scribe.lead().await?;
        for (position, step) in &plan.migrate {
            let name = migration_name(&facts.names.cluster, operation, *position);
            let migration = migration(facts, owner, name, operation.id, step.from, step.to, &step.slots);
            ctx.may_act()?;
            match api.create(&PostParams::default(), &migration).await {
                Ok(_) => info!(migration = migration.name_any(), slots = step.slots.len(), "migration made"),
                Err(error) if is_status(&error, 409) => {}
                Err(error) => return Err(Error::api(format!("creating SlotMigration {}", migration.name_any()))(error)),
            }
        }
    }
    for shard in &plan.remove {
        if let Some(seen) = facts.shards.get(shard) {
            match remove(ctx, facts, *shard, seen, scribe, access).await {
                Ok(()) => {}
                Err(Removal::Refused(why)) => blockers.push(format!("shard {shard} stays: {why}")),
                Err(Removal::Failed(error)) => return Err(*error),
            }
        }
    }
    Ok(blockers)
}

/// The SlotMigration of a move.
fn migration(
    facts: &Facts,
    owner: &OwnerReference,
    name: String,
    operation: u64,
    from: NodeId,
    to: NodeId,
    slots: &SlotRanges,
) -> SlotMigration {
    let node = |id: NodeId| MigrationTarget { shard: None, node_id: Some(id.to_string()) };
    SlotMigration {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(facts.names.namespace.clone()),
            labels: Some(facts.names.labels()),
            annotations: Some(BTreeMap::from([(OPERATION.to_owned(), operation.to_string())])),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: SlotMigrationSpec {
            cluster_ref: ClusterRef { name: facts.names.cluster.clone() },
            slots: slots.to_string(),
            source: Some(node(from)),
            target: node(to),
            paused: false,
            cancel: false,
        },
        status: None,
    }
}

/// What every slot holds, when every node can tell.
async fn sizes(ctx: &Context, facts: &Facts, access: &Access) -> Option<SlotSizes> {
    let mut sizes = SlotSizes::default();
    for (shard, seen) in &facts.shards {
        let Ok(status) = &seen.node else { continue };
        let owned = status.owned();
        if owned.is_empty() {
            continue;
        }
        let node = address(&facts.names, *shard, seen)?;
        let ask = async { network::connect(ctx.network.as_ref(), &node, access).await?.slot_stats(&owned).await };
        match ask.await {
            Ok(stats) => {
                sizes.keys.extend(owned.iter().zip(stats.keys));
                sizes.bytes.extend(owned.iter().zip(stats.bytes));
            }
            Err(error) => {
                warn!(shard, %error, "slot sizes are not known: planning by number of slots");
                return None;
            }
        }
    }
    Some(sizes)
}

/// Deletes the oldest of the operator's own finished SlotMigrations.
async fn prune(ctx: &Context, facts: &Facts) -> Result<(), Error> {
    let api: Api<SlotMigration> = Api::namespaced(ctx.client.clone(), &facts.names.namespace);
    let mut finished: Vec<&SlotMigration> = facts
        .migrations
        .iter()
        .filter(|m| m.annotations().contains_key(OPERATION) && m.status.as_ref().is_some_and(|status| status.state.is_final()))
        .collect();
    finished.sort_by_key(|m| (m.creation_timestamp().map(|time| time.0), m.name_any()));
    for migration in finished.iter().take(finished.len().saturating_sub(FINISHED_KEPT)) {
        ctx.may_act()?;
        let _ = api.delete(&migration.name_any(), &DeleteParams::default()).await;
    }
    Ok(())
}

enum Removal {
    Refused(String),
    Failed(Box<Error>),
}

impl From<Error> for Removal {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Lets a shard go: proof read live, written down, told to everybody, volume marked, StatefulSet deleted by its uid. Every step may be
/// the last before a crash; the next pass goes on from what it finds.
async fn remove(
    ctx: &Context,
    facts: &Facts,
    shard: u32,
    seen: &ShardFacts,
    scribe: &mut Scribe<'_>,
    access: &Access,
) -> Result<(), Removal> {
    let Some(set) = &seen.stateful_set else { return Ok(()) };
    let member = scribe
        .record
        .as_ref()
        .and_then(|record| record.document.nodes.iter().find(|node| node.shard == shard))
        .map(|node| node.id);
    if let Ok(status) = &seen.node {
        prove_empty(ctx, facts, shard, seen, status.node_id, access).await?;
    } else if member.is_some() {
        return Err(Removal::Refused("it cannot be asked whether it is empty".into()));
    }
    if let (Some(id), Some(record)) = (member, scribe.record.clone()) {
        scribe.write(without(record.document, &[id]), record.operation).await?;
        for problem in scribe.push(access).await {
            warn!(problem, "a node does not know yet of a shard that left");
        }
    }
    let id = member.map(|id| id.to_string()).or_else(|| seen.node.as_ref().ok().map(|status| status.node_id.to_string()));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &facts.names.namespace);
    for volume in seen.volumes.iter().filter(|volume| volume.template == set.claim_template) {
        let patch = serde_json::json!({"metadata": {"annotations": {RETIRED_NODE: id.clone().unwrap_or_else(|| "none".into())}}});
        ctx.may_act()?;
        match claims.patch(&volume.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(error) if is_status(&error, 404) => {}
            Err(error) => return Err(Error::api(format!("marking volume {}", volume.name))(error).into()),
        }
    }
    let name = facts.names.stateful_set(shard);
    let sets: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), &facts.names.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(set.uid.clone()), resource_version: None }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    ctx.may_act()?;
    match sets.delete(&name, &params).await {
        Ok(_) => info!(shard, "shard removed"),
        Err(error) if is_status(&error, 404) => {}
        Err(error) => return Err(Error::api(format!("deleting StatefulSet {name}"))(error).into()),
    }
    Ok(())
}

/// Reads live, now, that the node owns no slot and holds no key.
async fn prove_empty(
    ctx: &Context,
    facts: &Facts,
    shard: u32,
    seen: &ShardFacts,
    id: NodeId,
    access: &Access,
) -> Result<(), Removal> {
    let refused = |why: String| Removal::Refused(why);
    let node = address(&facts.names, shard, seen).ok_or_else(|| refused("its pod has no address".into()))?;
    let mut client = network::connect(ctx.network.as_ref(), &node, access).await.map_err(|error| refused(error.to_string()))?;
    let status = client.status().await.map_err(|error| refused(error.to_string()))?;
    if status.node_id != id {
        return Err(refused(format!("it answers as node {} now", status.node_id)));
    }
    if status.retired {
        // What a retired node still holds is dead already: it owns nothing, for ever.
        return Ok(());
    }
    if !status.owned().is_empty() || !status.fenced.is_empty() {
        return Err(refused(format!("it owns {} slots, {} of them fenced", status.owned().len(), status.fenced.len())));
    }
    let stats = client.slot_stats(&SlotRanges::full()).await.map_err(|error| refused(error.to_string()))?;
    let keys: u64 = stats.keys.iter().sum();
    if keys > 0 {
        return Err(refused(format!("it still holds {keys} keys")));
    }
    Ok(())
}
