//! Services, disruption budget, service account.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::Inputs;
use crate::names::{ADMIN_PORT, CLIENT_PORT};

pub(super) fn metadata(inputs: &Inputs<'_>, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(inputs.names.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![inputs.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn port(inputs: &Inputs<'_>, name: &str, port: u16) -> ServicePort {
    let protocol = if inputs.spec.tls.is_some() { "tls" } else { "redis" };
    ServicePort {
        name: Some(name.into()),
        port: i32::from(port),
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        app_protocol: (name == "redis").then(|| protocol.into()),
        ..ServicePort::default()
    }
}

pub(super) fn service_account(inputs: &Inputs<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(inputs, inputs.names.plain(), inputs.names.labels()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Names every pod, ready or not: peers and operator have to reach a node that does not serve yet.
pub(super) fn nodes_service(inputs: &Inputs<'_>) -> Service {
    Service {
        metadata: metadata(inputs, inputs.names.nodes_service(), inputs.names.labels()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(inputs.names.selector()),
            ports: Some(vec![port(inputs, "redis", CLIENT_PORT), port(inputs, "admin", ADMIN_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

pub(super) fn client_service(inputs: &Inputs<'_>) -> Service {
    Service {
        metadata: metadata(inputs, inputs.names.client_service(), inputs.names.labels()),
        spec: Some(ServiceSpec {
            selector: Some(inputs.names.selector()),
            ports: Some(vec![port(inputs, "redis", CLIENT_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

pub(super) fn disruption_budget(inputs: &Inputs<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(inputs, inputs.names.plain(), inputs.names.labels()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(inputs.names.selector()), ..LabelSelector::default() }),
            // A pod that does not serve protects nothing: it may always be evicted.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
