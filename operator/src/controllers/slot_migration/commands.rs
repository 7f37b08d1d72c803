//! What a source node is told: start a job, stop one. Under the leader's epoch, which nodes check.

use kube::ResourceExt as _;
use sluice_topology::{JobId, LeaderEpoch, NodeId, SlotRanges, admin::AdminClient};

use super::observe::Surroundings;
use crate::{context::Context, network};

pub(super) async fn start(
    ctx: &Context,
    around: &Surroundings,
    source: NodeId,
    slots: &SlotRanges,
    target: NodeId,
) -> Result<u64, String> {
    let epoch = leader_epoch(ctx, around)?;
    let mut client = client(ctx, around, source).await?;
    client.migrate(slots, target, epoch).await.map(|job| job.0).map_err(|error| error.to_string())
}

pub(super) async fn stop(ctx: &Context, around: &Surroundings, source: NodeId, job: JobId) -> Result<(), String> {
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

async fn client(ctx: &Context, around: &Surroundings, node: NodeId) -> Result<AdminClient, String> {
    ctx.may_act().map_err(|error| error.to_string())?;
    let address =
        around.addresses.iter().find(|(id, _)| *id == node).map(|(_, address)| address).ok_or("its pod has no address")?;
    network::connect(ctx.network.as_ref(), address, &around.access).await.map_err(|error| error.to_string())
}
