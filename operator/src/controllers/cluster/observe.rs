//! Reads everything, live: the API for objects, the nodes for themselves. Caches and labels decide nothing that destroys.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret},
};
use kube::{Api, ResourceExt as _, api::ListParams, core::DeserializeGuard};
use sluice_topology::{NodeId, admin::NodeStatus, tls::ClientTls};

use super::{
    build::ADMIN_PASSWORD_KEY,
    facts::{Facts, PodFacts, RecordFacts, ShardFacts, StatefulSetFacts, VolumeFacts},
};
use crate::{
    api::{SlotMigration, SluiceCluster},
    context::Context,
    controllers::tls::client_tls,
    error::Error,
    names::{ADMIN_PORT, Names, RETIRED_NODE, TEMPLATE_HASH},
    network::{self, Access, NodeAddress},
    topology_record::TopologyRecord,
};

/// Nodes asked at once, for one cluster.
const NODES_AT_ONCE: usize = 16;
/// Longest wait for one node, connection and answer together.
const NODE_TIMEOUT: Duration = Duration::from_secs(6);
/// Longest text taken from a pod's last words.
const LAST_WORDS_LEN_MAX: usize = 300;

/// Everything one reconcile works from.
pub struct Observation {
    /// What was seen.
    pub facts: Facts,
    /// The admin password; `None` before its Secret is made.
    pub admin_password: Option<String>,
    /// What is spoken with nodes, or what the Secret of certificates lacks.
    pub tls: Result<Option<ClientTls>, String>,
    /// The StatefulSets as they were listed, by name: what is there already is not read once more.
    pub stateful_sets: BTreeMap<String, StatefulSet>,
}

/// The address of a shard's node, when its pod has one.
pub fn address(names: &Names, shard: u32, seen: &ShardFacts) -> Option<NodeAddress> {
    let ip = seen.pod.as_ref()?.ip.clone()?;
    Some(NodeAddress { ip, host: names.host(shard), admin_port: ADMIN_PORT })
}

/// Reads everything.
pub async fn observe(ctx: &Context, cluster: SluiceCluster) -> Result<Observation, Error> {
    let names = Names::of(&cluster);
    let namespace = names.namespace.as_str();
    let (sets, pods, claims, maps, secrets) = (
        Api::<StatefulSet>::namespaced(ctx.client.clone(), namespace),
        Api::<Pod>::namespaced(ctx.client.clone(), namespace),
        Api::<PersistentVolumeClaim>::namespaced(ctx.client.clone(), namespace),
        Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace),
        Api::<Secret>::namespaced(ctx.client.clone(), namespace),
    );
    let labelled = ListParams::default().labels(&names.selector_text());
    let (sets_seen, pods_seen, claims_seen, map, secret, migrations, tls) = futures::try_join!(
        async { sets.list(&labelled).await.map_err(Error::api("listing StatefulSets")) },
        async { pods.list(&labelled).await.map_err(Error::api("listing pods")) },
        async { claims.list(&labelled).await.map_err(Error::api("listing volume claims")) },
        async { maps.get_opt(&names.topology()).await.map_err(Error::api(format!("reading ConfigMap {}", names.topology()))) },
        async {
            secrets.get_opt(&names.admin_secret()).await.map_err(Error::api(format!("reading Secret {}", names.admin_secret())))
        },
        migrations(ctx, &names),
        client_tls(ctx, &cluster, &names),
    )?;
    let record = match map.as_ref().map(TopologyRecord::from_config_map) {
        None => RecordFacts::Missing,
        Some(Ok(record)) => RecordFacts::Present(Box::new(record)),
        Some(Err(error)) => RecordFacts::Unreadable(error.to_string()),
    };
    let mut facts =
        Facts { cluster, names, shards: BTreeMap::new(), record, migrations, now_ms: Timestamp::now().as_millisecond() };
    let names = facts.names.clone();
    for set in &sets_seen {
        if let Some(shard) = names.shard_of_stateful_set(&set.name_any()) {
            facts.shards.entry(shard).or_default().stateful_set = Some(set_facts(set));
        }
    }
    for pod in &pods_seen {
        let name = pod.name_any();
        if let Some(shard) = name.strip_suffix("-0").and_then(|set| names.shard_of_stateful_set(set)) {
            facts.shards.entry(shard).or_default().pod = Some(pod_facts(pod));
        }
    }
    for claim in &claims_seen {
        let name = claim.name_any();
        if let Some((template, shard)) = names.parts_of_claim(&name) {
            facts.shards.entry(shard).or_default().volumes.push(volume_facts(claim, template));
        }
    }
    by_name(&mut facts, &sets, &pods).await?;
    let admin_password = secret
        .and_then(|secret| secret.data)
        .and_then(|data| data.get(ADMIN_PASSWORD_KEY).cloned())
        .and_then(|bytes| String::from_utf8(bytes.0).ok());
    let access = match (&admin_password, &tls) {
        (Some(password), Ok(tls)) => Some(Access { password: password.clone(), tls: tls.clone() }),
        _ => None,
    };
    ask_nodes(ctx, &mut facts, access.as_ref()).await;
    let stateful_sets = sets_seen.items.into_iter().map(|set| (set.name_any(), set)).collect();
    Ok(Observation { facts, admin_password, tls, stateful_sets })
}

async fn migrations(ctx: &Context, names: &Names) -> Result<Vec<SlotMigration>, Error> {
    // Guarded: one that cannot be read is not the cluster's business to fail on.
    let api: Api<DeserializeGuard<SlotMigration>> = Api::namespaced(ctx.client.clone(), &names.namespace);
    let list = api.list(&ListParams::default()).await.map_err(Error::api("listing SlotMigrations"))?;
    Ok(list.items.into_iter().filter_map(|guard| guard.0.ok()).filter(|m| m.spec.cluster_ref.name == names.cluster).collect())
}

/// Shards that are wanted or recorded and did not show up by label are asked for by name: a label somebody took away hides nothing.
async fn by_name(facts: &mut Facts, sets: &Api<StatefulSet>, pods: &Api<Pod>) -> Result<(), Error> {
    let status_shards =
        facts.cluster.status.iter().flat_map(|status| &status.shards).filter_map(|shard| u32::try_from(shard.shard).ok());
    let expected: BTreeSet<u32> =
        (0..facts.wanted_shards()).chain(facts.recorded_ids().into_keys()).chain(status_shards).collect();
    for shard in expected {
        let seen = facts.shards.entry(shard).or_default();
        if seen.stateful_set.is_none() {
            let name = facts.names.stateful_set(shard);
            let set = sets.get_opt(&name).await.map_err(Error::api(format!("reading StatefulSet {name}")))?;
            seen.stateful_set = set.as_ref().map(set_facts);
        }
        if seen.pod.is_none() && seen.stateful_set.is_some() {
            let name = facts.names.pod(shard);
            let pod = pods.get_opt(&name).await.map_err(Error::api(format!("reading pod {name}")))?;
            seen.pod = pod.as_ref().map(pod_facts);
        }
    }
    // What is left of a shard that is gone: a volume is no shard.
    facts.shards.retain(|shard, seen| {
        *shard < u32::try_from(facts.cluster.spec.shards).unwrap_or(0)
            || seen.stateful_set.is_some()
            || seen.pod.is_some()
            || !seen.volumes.is_empty()
    });
    Ok(())
}

async fn ask_nodes(ctx: &Context, facts: &mut Facts, access: Option<&Access>) {
    let members: BTreeSet<NodeId> = facts.record().iter().flat_map(|record| &record.document.nodes).map(|node| node.id).collect();
    let restarting = facts.cluster.status.as_ref().and_then(|s| s.rollout.as_ref()?.current.as_ref().map(|c| c.shard));
    let restarting = restarting.and_then(|shard| u32::try_from(shard).ok());
    let names = facts.names.clone();
    let asked: Vec<(u32, Option<NodeAddress>, bool)> = facts
        .shards
        .iter()
        .map(|(shard, seen)| {
            let running = seen.pod.as_ref().is_some_and(|pod| !pod.pending);
            (*shard, address(&names, *shard, seen), running)
        })
        .collect();
    let members = &members;
    let answers: Vec<(u32, Result<NodeStatus, String>, Option<bool>)> = stream::iter(asked)
        .map(|(shard, node, running)| async move {
            let Some((node, access)) = node.filter(|_| running).zip(access) else {
                return (shard, Err("its pod does not run".to_owned()), None);
            };
            let status = ask(ctx, &node, access).await;
            let check_name = restarting == Some(shard) || status.as_ref().is_ok_and(|status| !members.contains(&status.node_id));
            let name_resolves = if check_name { Some(ctx.network.name_leads_to(node).await) } else { None };
            (shard, status, name_resolves)
        })
        .buffer_unordered(NODES_AT_ONCE)
        .collect()
        .await;
    for (shard, node, name_resolves) in answers {
        if let Some(seen) = facts.shards.get_mut(&shard) {
            (seen.node, seen.name_resolves) = (node, name_resolves);
        }
    }
}

/// Reads one node's status, within a bound.
pub async fn ask(ctx: &Context, node: &NodeAddress, access: &Access) -> Result<NodeStatus, String> {
    let question = async { network::connect(ctx.network.as_ref(), node, access).await?.status().await };
    match tokio::time::timeout(NODE_TIMEOUT, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("its node does not answer within {} s", NODE_TIMEOUT.as_secs())),
    }
}

fn set_facts(set: &StatefulSet) -> StatefulSetFacts {
    let spec = set.spec.as_ref();
    let claim = spec.and_then(|spec| spec.volume_claim_templates.as_ref()?.first());
    let observed = set.status.as_ref().and_then(|status| status.observed_generation);
    StatefulSetFacts {
        uid: set.uid().unwrap_or_default(),
        claim_template: claim.and_then(|claim| claim.metadata.name.clone()).unwrap_or_else(|| "data".into()),
        claim_size: claim.and_then(size_of).unwrap_or_default(),
        deleting: set.metadata.deletion_timestamp.is_some(),
        observed: observed.is_some() && observed >= set.metadata.generation,
    }
}

fn size_of(claim: &PersistentVolumeClaim) -> Option<String> {
    Some(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
}

fn volume_facts(claim: &PersistentVolumeClaim, template: &str) -> VolumeFacts {
    VolumeFacts {
        name: claim.name_any(),
        template: template.to_owned(),
        size: size_of(claim).unwrap_or_default(),
        retired_node: claim.annotations().get(RETIRED_NODE).cloned(),
    }
}

/// Reads a pod.
pub fn pod_facts(pod: &Pod) -> PodFacts {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let started = containers.iter().any(|container| {
        container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || container.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
    });
    let waiting = containers.iter().find_map(|container| {
        let reason = container.state.as_ref()?.waiting.as_ref()?;
        let last_words = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()?.message.clone());
        let detail: String = match (last_words, &reason.message) {
            // The end of a log says why, its beginning does not.
            (Some(log), _) => log.trim().chars().skip(log.trim().chars().count().saturating_sub(LAST_WORDS_LEN_MAX)).collect(),
            (None, Some(message)) => message.chars().take(LAST_WORDS_LEN_MAX).collect(),
            (None, None) => String::new(),
        };
        Some(format!("{}: {detail}", reason.reason.clone().unwrap_or_default()))
    });
    let unscheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .map(|condition| format!("not scheduled: {}", condition.message.clone().unwrap_or_default()));
    PodFacts {
        uid: pod.uid().unwrap_or_default(),
        ip: status.pod_ip.filter(|ip| !ip.is_empty()),
        ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        pending: !started,
        template_hash: pod.annotations().get(TEMPLATE_HASH).cloned(),
        trouble: waiting
            .filter(|text| !text.starts_with("ContainerCreating") && !text.starts_with("PodInitializing"))
            .or(unscheduled),
    }
}
