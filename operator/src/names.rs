//! Names and labels of what a cluster consists of. A name is a function of the cluster alone, never looked up.

use std::collections::BTreeMap;

use kube::ResourceExt as _;

use crate::api::SluiceCluster;

/// Field manager of everything but status.
pub const FIELD_MANAGER: &str = "sluice-operator";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "sluice-operator-status";
/// Label: the cluster an object belongs to. Watches are scoped by it; nothing is ever destroyed by it.
pub const CLUSTER_LABEL: &str = "sluice.dev/cluster";
/// Label: the shard a StatefulSet, pod or volume belongs to.
pub const SHARD_LABEL: &str = "sluice.dev/shard";
/// Annotation of a pod template: a pod whose value differs from the wanted one has to be restarted.
pub const TEMPLATE_HASH: &str = "sluice.dev/template-hash";
/// Annotation of a volume claim: the id of the node that left it for ever. Such a volume is never mounted again.
pub const RETIRED_NODE: &str = "sluice.dev/retired-node";
/// Finalizer of a SlotMigration while a job of it runs.
pub const JOB_FINALIZER: &str = "sluice.dev/running-job";
/// Annotation of a SlotMigration: the topology operation it was made for.
pub const OPERATION: &str = "sluice.dev/operation";
/// Port for clients.
pub const CLIENT_PORT: u16 = 6379;
/// Port of the admin plane.
pub const ADMIN_PORT: u16 = 7379;

/// Names of one cluster's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The cluster's name.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// DNS domain of the Kubernetes cluster.
    pub domain: String,
}

impl Names {
    /// Names of that cluster's parts.
    pub fn of(cluster: &SluiceCluster) -> Self {
        Self {
            cluster: cluster.name_any(),
            namespace: cluster.namespace().unwrap_or_default(),
            domain: cluster.spec.cluster_domain.clone(),
        }
    }

    /// StatefulSet of a shard.
    pub fn stateful_set(&self, shard: u32) -> String {
        format!("{}-{shard}", self.cluster)
    }

    /// Pod of a shard.
    pub fn pod(&self, shard: u32) -> String {
        format!("{}-{shard}-0", self.cluster)
    }

    /// Volume claim of a shard's pod, by the name of its template.
    pub fn claim(&self, template: &str, shard: u32) -> String {
        format!("{template}-{}-{shard}-0", self.cluster)
    }

    /// Headless Service that gives every pod its name.
    pub fn nodes_service(&self) -> String {
        format!("{}-nodes", self.cluster)
    }

    /// Service for clients.
    pub fn client_service(&self) -> String {
        self.cluster.clone()
    }

    /// ConfigMap with the store's configuration file.
    pub fn config(&self) -> String {
        format!("{}-config", self.cluster)
    }

    /// ConfigMap with the topology document.
    pub fn topology(&self) -> String {
        format!("{}-topology", self.cluster)
    }

    /// Secret with the admin password.
    pub fn admin_secret(&self) -> String {
        format!("{}-admin", self.cluster)
    }

    /// PodDisruptionBudget, ServiceAccount.
    pub fn plain(&self) -> String {
        self.cluster.clone()
    }

    /// DNS name of a shard's pod.
    pub fn host(&self, shard: u32) -> String {
        format!("{}.{}.{}.svc.{}", self.pod(shard), self.nodes_service(), self.namespace, self.domain)
    }

    /// Labels of every object of the cluster.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "sluice"),
            ("app.kubernetes.io/instance", self.cluster.as_str()),
            ("app.kubernetes.io/component", "store"),
            ("app.kubernetes.io/managed-by", "sluice-operator"),
            (CLUSTER_LABEL, self.cluster.as_str()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// Labels of what belongs to one shard.
    pub fn shard_labels(&self, shard: u32) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(SHARD_LABEL.into(), shard.to_string());
        labels
    }

    /// What selects the cluster's pods; part of Services and so never changed.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [("app.kubernetes.io/name".to_owned(), "sluice".to_owned()), (CLUSTER_LABEL.to_owned(), self.cluster.clone())].into()
    }

    /// The same as text, for list calls and the scale subresource.
    pub fn selector_text(&self) -> String {
        format!("app.kubernetes.io/name=sluice,{CLUSTER_LABEL}={}", self.cluster)
    }

    /// The shard a StatefulSet of that name serves, when it is one of this cluster's.
    pub fn shard_of_stateful_set(&self, name: &str) -> Option<u32> {
        let number = name.strip_prefix(&self.cluster)?.strip_prefix('-')?;
        let plain = number == "0" || (!number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit()));
        if plain { number.parse().ok() } else { None }
    }

    /// The template name and the shard of a volume claim, when it is one of this cluster's.
    pub fn parts_of_claim<'a>(&self, name: &'a str) -> Option<(&'a str, u32)> {
        let middle = format!("-{}-", self.cluster);
        let rest = name.strip_suffix("-0")?;
        let at = rest.rfind(&middle)?;
        let shard = self.shard_of_stateful_set(rest.get(at + 1..)?)?;
        let template = rest.get(..at)?;
        (template == "data" || template.strip_prefix("data-").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
            .then_some((template, shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_are_put_together() {
        let names = Names { cluster: "demo".into(), namespace: "ns".into(), domain: "cluster.local".into() };
        assert_eq!(names.host(3), "demo-3-0.demo-nodes.ns.svc.cluster.local");
        assert_eq!(names.shard_of_stateful_set("demo-12"), Some(12));
        for other in ["demo-", "demo-01", "demo-1-2", "demo-x", "other-1", "demo"] {
            assert_eq!(names.shard_of_stateful_set(other), None, "{other}");
        }
        assert_eq!(names.parts_of_claim(&names.claim("data", 2)), Some(("data", 2)));
        assert_eq!(names.parts_of_claim(&names.claim("data-3", 0)), Some(("data-3", 0)));
        for other in ["data-other-2-0", "data-demo-2-1", "logs-demo-2-0", "data-demo-2-2-0"] {
            assert_eq!(names.parts_of_claim(other), None, "{other}");
        }
    }
}
