//! Makes the objects be as they were built: server-side apply by one manager, and only of what differs.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Secret},
    },
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::info;

use super::{
    build::{ADMIN_PASSWORD_KEY, ClaimTemplate, Inputs, Objects},
    facts::Facts,
};
use crate::{
    api::parse_quantity,
    context::Context,
    error::{Error, is_status},
    names::FIELD_MANAGER,
};

/// Applies everything. StatefulSets that are not built any more are left alone: removing one takes a proof.
pub(super) async fn apply(
    ctx: &Context,
    uid: &str,
    objects: &Objects,
    mut listed: BTreeMap<String, StatefulSet>,
) -> Result<(), Error> {
    let Objects { service_account, config, nodes_service, client_service, disruption_budget, stateful_sets, template_hash: _ } =
        objects;
    ensure(ctx, uid, service_account, None).await?;
    ensure(ctx, uid, config, None).await?;
    ensure(ctx, uid, nodes_service, None).await?;
    ensure(ctx, uid, client_service, None).await?;
    ensure(ctx, uid, disruption_budget, None).await?;
    for set in stateful_sets.values() {
        let live = listed.remove(&set.name_any());
        ensure(ctx, uid, set, live).await?;
    }
    Ok(())
}

/// The admin password, made once and never changed. Returned, and nowhere written but to its Secret.
pub(super) async fn admin_password(
    ctx: &Context,
    facts: &Facts,
    inputs: &Inputs<'_>,
    known: Option<String>,
) -> Result<String, Error> {
    if let Some(password) = known {
        return Ok(password);
    }
    let mut bytes = [0u8; 24];
    getrandom::fill(&mut bytes)?;
    let password = bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let names = &facts.names;
    let secret = Secret {
        metadata: super::build::owned_metadata(inputs, names.admin_secret()),
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([(ADMIN_PASSWORD_KEY.to_owned(), ByteString(password.clone().into_bytes()))])),
        ..Secret::default()
    };
    ctx.may_act()?;
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &names.namespace);
    api.create(&PostParams::default(), &secret).await.map_err(Error::api(format!("creating Secret {}", names.admin_secret())))?;
    Ok(password)
}

/// Claim templates of the shards that shall have a StatefulSet: what exists keeps its own; a new one never takes a retired volume.
pub(super) fn claim_templates(facts: &Facts, shards: impl Iterator<Item = u32>) -> BTreeMap<u32, ClaimTemplate> {
    let size = &facts.cluster.spec.storage.size;
    shards
        .map(|shard| {
            let seen = facts.shards.get(&shard);
            if let Some(set) = seen.and_then(|seen| seen.stateful_set.as_ref()) {
                return (shard, ClaimTemplate { name: set.claim_template.clone(), size: set.claim_size.clone() });
            }
            let volumes = seen.map(|seen| seen.volumes.as_slice()).unwrap_or_default();
            let retired = |name: &str| volumes.iter().any(|volume| volume.template == name && volume.retired_node.is_some());
            // One more than there are volumes is enough to find a name that none of them has.
            let names =
                (1..=volumes.len() + 1).map(|number| if number == 1 { "data".to_owned() } else { format!("data-{number}") });
            let name = names.into_iter().find(|name| !retired(name)).unwrap_or_default();
            (shard, ClaimTemplate { name, size: size.clone() })
        })
        .collect()
}

/// Applies one object unless it is so already. It is read unless it was a moment ago.
async fn ensure<K>(ctx: &Context, uid: &str, wanted: &K, live: Option<K>) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let (kind, name) = (K::kind(&()), wanted.name_any());
    let key = format!("{kind}/{name}");
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &wanted.namespace().unwrap_or_default());
    let live = match live {
        Some(live) => Some(live),
        None => api.get_opt(&name).await.map_err(Error::api(format!("reading {key}")))?,
    };
    let desired = serde_json::to_value(wanted)?;
    if let Some(live) = &live {
        if !live.owner_references().iter().any(|owner| owner.uid == uid) {
            return Err(Error::NameTaken { kind: kind.into_owned(), name });
        }
        let seen = serde_json::to_value(live)?;
        let hashes = (hash(&desired), fingerprint(seen.clone()));
        if covers(&seen, &desired) || ctx.remember(uid, |memory| memory.applied.get(&key) == Some(&hashes)) {
            return Ok(());
        }
    }
    ctx.may_act()?;
    let applied = api
        .patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&desired))
        .await
        .map_err(Error::api(format!("applying {key}")))?;
    info!(object = key, "applied");
    // What the API writes in its own way (quantities, defaults) is not applied again for that.
    let hashes = (hash(&desired), fingerprint(serde_json::to_value(&applied)?));
    ctx.remember(uid, |memory| memory.applied.insert(key, hashes));
    Ok(())
}

/// Whether everything that is wanted is there; what else is there is the API's or somebody else's.
pub(super) fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).map_or_else(|| is_empty(value), |live| covers(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Hash of what an object is, without what changes by itself.
fn fingerprint(mut object: Value) -> u64 {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        }
    }
    hash(&object)
}

fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Lets volumes grow to the size of the spec. Says what a storage class refused.
pub(super) async fn grow_volumes(ctx: &Context, facts: &Facts) -> Result<Vec<String>, Error> {
    let size = &facts.cluster.spec.storage.size;
    let Ok(wanted) = parse_quantity(size) else { return Ok(Vec::new()) };
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &facts.names.namespace);
    let mut refused = Vec::new();
    let mounted = facts.shards.values().filter_map(|shard| Some((shard.stateful_set.as_ref()?, &shard.volumes)));
    for (set, volumes) in mounted {
        for volume in volumes.iter().filter(|volume| volume.template == set.claim_template && volume.retired_node.is_none()) {
            if parse_quantity(&volume.size).is_ok_and(|has| has >= wanted) {
                continue;
            }
            ctx.may_act()?;
            let patch = serde_json::json!({"spec": {"resources": {"requests": {"storage": size}}}});
            match api.patch(&volume.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => info!(volume = volume.name, size, "volume asked to grow"),
                Err(error) if is_status(&error, 403) || is_status(&error, 422) => {
                    refused.push(format!("{}: {error}", volume.name));
                }
                Err(error) => return Err(Error::api(format!("growing volume {}", volume.name))(error)),
            }
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_wanted_has_to_be_there() {
        let live = json!({"a": 1, "list": [{"name": "x", "extra": true}], "map": {"k": "v", "other": 1}});
        for (wanted, expected) in [
            (json!({"a": 1}), true),
            (json!({"a": 2}), false),
            (json!({"b": 1}), false),
            (json!({"b": {}}), true),
            (json!({"list": [{"name": "x"}]}), true),
            (json!({"list": [{"name": "y"}]}), false),
            (json!({"list": []}), false),
            (json!({"map": {"k": "v"}}), true),
        ] {
            assert_eq!(covers(&live, &wanted), expected, "{wanted}");
        }
    }
}
