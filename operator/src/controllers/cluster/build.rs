//! The objects a cluster consists of, from its spec alone. Pure: the same spec gives the same objects, to the byte.

mod config;
mod services;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{api::SluiceClusterSpec, context::StoreDefaults, names::Names};

pub use config::{CONFIG_FILE, render};
pub use stateful_set::{ADMIN_PASSWORD_KEY, grace_period_seconds, template_hash};

/// The volume claim template of a shard's StatefulSet: neither can be changed once it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTemplate {
    /// Its name.
    pub name: String,
    /// The size new volumes are made with.
    pub size: String,
}

/// What the objects are made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Names of the parts.
    pub names: &'a Names,
    /// The spec.
    pub spec: &'a SluiceClusterSpec,
    /// The cluster, as owner of everything.
    pub owner: OwnerReference,
    /// What stores are where the spec does not say.
    pub defaults: &'a StoreDefaults,
    /// The shards that shall have a StatefulSet, and their claim templates.
    pub shards: &'a BTreeMap<u32, ClaimTemplate>,
}

/// Everything that is applied. Taken apart without `..` where it is, so that nothing is forgotten.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The pods' identity; it may do nothing.
    pub service_account: ServiceAccount,
    /// The configuration file.
    pub config: ConfigMap,
    /// The Service that names the pods.
    pub nodes_service: Service,
    /// The Service for clients.
    pub client_service: Service,
    /// At most one pod at a time is evicted.
    pub disruption_budget: PodDisruptionBudget,
    /// One a shard.
    pub stateful_sets: BTreeMap<u32, StatefulSet>,
    /// What every pod's template hash shall be.
    pub template_hash: String,
}

/// Builds everything.
pub fn build(inputs: &Inputs<'_>) -> Objects {
    let template_hash = template_hash(inputs);
    Objects {
        service_account: services::service_account(inputs),
        config: config::config_map(inputs),
        nodes_service: services::nodes_service(inputs),
        client_service: services::client_service(inputs),
        disruption_budget: services::disruption_budget(inputs),
        stateful_sets: inputs
            .shards
            .iter()
            .map(|(shard, claim)| (*shard, stateful_set::stateful_set(inputs, *shard, claim, &template_hash)))
            .collect(),
        template_hash,
    }
}

/// Metadata of an object that belongs to the whole cluster.
pub fn owned_metadata(inputs: &Inputs<'_>, name: String) -> ObjectMeta {
    services::metadata(inputs, name, inputs.names.labels())
}

#[cfg(test)]
mod tests;
