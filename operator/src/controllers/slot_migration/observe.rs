//! Reads what a migration runs in: its cluster, the document, and the nodes it is about, live.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, ResourceExt as _};
use sluice_topology::{NodeEntry, NodeId, TopologyDocument, admin::NodeStatus};

use crate::{
    api::{MigrationTarget, SlotMigration, SluiceCluster},
    context::Context,
    controllers::{
        cluster::{ask, build::ADMIN_PASSWORD_KEY, pod_facts},
        tls::client_tls,
    },
    error::Error,
    names::{Names, OPERATION},
    network::{Access, NodeAddress},
    topology_record::TopologyRecord,
};

/// What a migration runs in.
pub(super) struct Surroundings {
    pub(super) cluster: SluiceCluster,
    pub(super) document: TopologyDocument,
    pub(super) access: Access,
    pub(super) nodes: Vec<(u32, NodeId, Result<NodeStatus, String>)>,
    pub(super) addresses: Vec<(NodeId, NodeAddress)>,
}

/// Reads what the migration runs in; the inner error says what is missing.
pub(super) async fn surroundings(ctx: &Context, migration: &SlotMigration) -> Result<Result<Surroundings, String>, Error> {
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
    let access = match client_tls(ctx, &cluster, &names).await? {
        Ok(tls) => Access { password, tls },
        Err(why) => return Ok(Err(why)),
    };
    // Only the nodes it is about: a cluster may have a thousand.
    let involved = |node: &NodeEntry| match (&migration.spec.source, &migration.spec.target) {
        (None, _) => true,
        (Some(source), target) => {
            [source, target].into_iter().any(|spec| resolve(&document, spec).is_ok_and(|found| found.id == node.id))
        }
    };
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let (pods, names, with) = (&pods, &names, &access);
    let asked: Vec<(u32, NodeId, Option<NodeAddress>, Result<NodeStatus, String>)> =
        stream::iter(document.nodes.iter().filter(|node| involved(node)).cloned().collect::<Vec<_>>())
            .map(|node| async move {
                let pod = pods.get_opt(&names.pod(node.shard)).await.ok().flatten();
                let ip = pod.as_ref().and_then(|pod| pod_facts(pod).ip);
                let Some(ip) = ip else { return (node.shard, node.id, None, Err("its pod does not run".to_owned())) };
                let address = NodeAddress { ip, host: node.host.clone(), admin_port: node.admin_port };
                let status = match ask(ctx, &address, with).await {
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
    Ok(Ok(Surroundings { cluster, document, access, nodes, addresses }))
}

/// The node a spec names.
pub(super) fn resolve<'a>(document: &'a TopologyDocument, spec: &MigrationTarget) -> Result<&'a NodeEntry, String> {
    let found = match (&spec.shard, &spec.node_id) {
        (Some(shard), None) => document.nodes.iter().find(|node| u32::try_from(*shard) == Ok(node.shard)),
        (None, Some(id)) => document.nodes.iter().find(|node| node.id.to_string() == *id),
        _ => return Err("name a node by shard or by nodeId: exactly one of the two".into()),
    };
    found.ok_or_else(|| "there is no such node in the cluster".into())
}

/// Why the migration shall hold: asked for, or because one of its pods is being restarted.
pub(super) fn hold(
    migration: &SlotMigration,
    cluster: &SluiceCluster,
    document: &TopologyDocument,
    source: Option<NodeId>,
    target: NodeId,
) -> Option<String> {
    if migration.spec.paused {
        return Some("spec.paused is set".into());
    }
    if cluster.spec.scaling.paused && migration.annotations().contains_key(OPERATION) {
        return Some("spec.scaling.paused of the cluster is set".into());
    }
    let current = cluster.status.as_ref()?.rollout.as_ref()?.current.as_ref()?;
    let shard = u32::try_from(current.shard).ok()?;
    let node = document.nodes.iter().find(|node| node.shard == shard)?;
    let involved = node.id == target || source.is_none_or(|source| source == node.id);
    involved.then(|| format!("pod {} is being restarted", current.pod))
}
