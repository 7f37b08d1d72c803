//! SluiceCluster: the spec.

// The schema derive expands to a private copy of each struct, which this lint mistakes for the struct itself.
#![allow(unreachable_pub)]
// Printer columns have the same few attributes each.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::status::SluiceClusterStatus;

/// DNS domain of a Kubernetes cluster unless told otherwise.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// Store settings that the operator writes itself; `spec.config` must not name them. The CEL rule on the field lists the same.
pub const OWNED_SETTINGS: [&str; 17] = [
    "port",
    "bind",
    "admin-port",
    "admin-bind",
    "dir",
    "cluster-enabled",
    "requirepass",
    "admin-password",
    "protected-mode",
    "wal",
    "sync",
    "tls-port",
    "tls-cluster",
    "tls-cert-file",
    "tls-key-file",
    "tls-ca-cert-file",
    "tls-auth-clients",
];

/// A setting's name, however it was written.
pub fn setting_name(key: &str) -> String {
    key.to_ascii_lowercase().replace('_', "-")
}

/// A cluster of Sluice: so many shards, each one pod with a volume of its own.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "SluiceCluster",
    plural = "sluiceclusters",
    singular = "sluicecluster",
    shortname = "slc",
    category = "sluice",
    namespaced,
    status = "SluiceClusterStatus",
    derive = "PartialEq",
    doc = "A cluster of Sluice, a Redis-protocol store on RocksDB, sharded by Redis Cluster slots.",
    scale(spec_replicas_path = ".spec.shards", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Shards", type_ = "integer", json_path = ".spec.shards", description = "Shards asked for"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyShards", description = "Shards that serve"),
    printcolumn(name = "Topology", type_ = "integer", json_path = ".status.topology.version", description = "Version of the topology document"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Progressing", type_ = "string", json_path = ".status.conditions[?(@.type=='Progressing')].reason"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type=='Degraded')].reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')").message("metadata.name has to be at most 40 characters, begin with a letter, and consist of lower-case letters, digits and '-': pod, Service and label names are made from it"),
    validation = Rule::new("has(self.spec.tls) == has(oldSelf.spec.tls) && (!has(self.spec.tls) || self.spec.tls == oldSelf.spec.tls)").message("spec.tls is set when a cluster is made and not changed: nodes with it and nodes without could not reach each other while they are restarted one by one. Make a second cluster and move the data; certificates are replaced in their Secret")
)]
#[serde(rename_all = "camelCase")]
pub struct SluiceClusterSpec {
    /// Number of shards: 1 to 1024.
    #[schemars(range(min = 1, max = 1024))]
    pub shards: i32,
    /// Image of the store; the operator's default when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the image is pulled; Kubernetes' own default when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// The volume of each shard.
    pub storage: Storage,
    /// CPU and memory of each pod. The store sizes its caches from the memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What survives what.
    #[serde(default)]
    pub durability: Durability,
    /// Passwords.
    #[serde(default)]
    pub auth: Auth,
    /// TLS for clients, for the admin plane and between nodes; in the clear when not set. Set when the cluster is made, and not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// Further settings of the store, by their names in its configuration file. Those the operator owns are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    #[x_kube(
        validation = Rule::new("!('port' in self) && !('bind' in self) && !('admin-port' in self) && !('admin-bind' in self) && !('dir' in self) && !('cluster-enabled' in self) && !('requirepass' in self) && !('admin-password' in self) && !('wal' in self) && !('sync' in self) && !('protected-mode' in self) && !('tls-port' in self) && !('tls-cluster' in self) && !('tls-cert-file' in self) && !('tls-key-file' in self) && !('tls-ca-cert-file' in self) && !('tls-auth-clients' in self)").message("port, bind, admin-port, admin-bind, dir, cluster-enabled, requirepass, admin-password, protected-mode, wal, sync, tls-port, tls-cluster, tls-auth-clients and the files of certificates are set by the operator: use spec.durability, spec.auth and spec.tls, and leave out the rest")
    )]
    pub config: BTreeMap<String, String>,
    /// Rolling restarts.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// Moving slots when the number of shards changes.
    #[serde(default)]
    pub scaling: ScalingSpec,
    /// Where pods run, and what is written on them.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Metrics.
    #[serde(default)]
    pub monitoring: MonitoringSpec,
    /// DNS domain of the Kubernetes cluster; part of the names clients are redirected to, so it cannot be changed.
    #[serde(default = "default_cluster_domain")]
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterDomain cannot be changed: nodes and clients know each other by names under it"))]
    pub cluster_domain: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: it has to be there.
    Never,
}

impl ImagePullPolicy {
    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The volume of each shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot be changed: volumes do not move between classes")
)]
pub struct Storage {
    /// Size of the volume, as in 10Gi. It may grow, where the storage class can, and never shrink.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]{1,19}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$"))]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("storage.size has to be a quantity above 0, as in 10Gi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0").message("storage.size cannot shrink: volumes only grow. Make a second cluster with smaller volumes and move the data")
    )]
    pub size: String,
    /// Storage class; the default one when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of a volume when its shard is scaled away or the cluster is deleted.
    #[serde(default)]
    pub retention: VolumeRetention,
}

/// What becomes of volumes nobody uses any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum VolumeRetention {
    /// They are kept; a person deletes them.
    #[default]
    Retain,
    /// They are deleted with the shard or the cluster.
    Delete,
}

/// CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What is never exceeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// What survives what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Durability {
    /// Whether writes go to a write-ahead log. Without it a crash loses what came after the last flush; restarts by the operator flush first.
    #[serde(default = "yes")]
    pub wal: bool,
    /// When the log is synced. Quote "no" in YAML, which reads a bare no as false.
    #[serde(default)]
    pub sync: SyncPolicy,
}

impl Default for Durability {
    fn default() -> Self {
        Self { wal: true, sync: SyncPolicy::default() }
    }
}

/// When the log is synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// Before every acknowledgement.
    Always,
    /// Once a second.
    #[default]
    Everysec,
    /// When the operating system likes.
    No,
}

impl SyncPolicy {
    /// The store's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::No => "no",
        }
    }
}

/// Passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Where clients' password stands; none is asked for when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
}

/// TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// A Secret of type kubernetes.io/tls in the cluster's namespace, with tls.crt, tls.key and ca.crt, as cert-manager writes it. The
    /// certificate has to be for the names of the nodes, `*.NAME-nodes.NAMESPACE.svc.CLUSTERDOMAIN`. It may be replaced at any time.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Whether clients show a certificate of the same authorities. Nodes and operator show theirs when it is required.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; one that is shown has to be good.
    Optional,
    /// They have to.
    Required,
}

impl ClientAuth {
    /// The store's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "no",
            Self::Optional => "optional",
            Self::Required => "yes",
        }
    }
}

/// A key of a Secret in the cluster's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Rolling restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Any text; a new one restarts every pod. A time is customary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restarted_at: Option<String>,
    /// Holds a roll before its next pod.
    #[serde(default)]
    pub paused: bool,
    /// How long a flush before a restart may take, in seconds.
    #[serde(default = "default_flush_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub flush_timeout_seconds: i32,
    /// How long a restarted pod may take to serve again, in seconds; past it the roll is halted.
    #[serde(default = "default_ready_timeout_seconds")]
    #[schemars(range(min = 10, max = 86400))]
    pub ready_timeout_seconds: i32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            restarted_at: None,
            paused: false,
            flush_timeout_seconds: default_flush_timeout_seconds(),
            ready_timeout_seconds: default_ready_timeout_seconds(),
        }
    }
}

/// Moving slots when the number of shards changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingSpec {
    /// Holds a running scale at the next unit of slots, and starts no new one.
    #[serde(default)]
    pub paused: bool,
    /// How many migrations of this cluster run at once.
    #[serde(default = "default_max_concurrent_migrations")]
    #[schemars(range(min = 1, max = 16))]
    pub max_concurrent_migrations: i32,
}

impl Default for ScalingSpec {
    fn default() -> Self {
        Self { paused: false, max_concurrent_migrations: default_max_concurrent_migrations() }
    }
}

/// Where pods run, and what is written on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels a node has to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity; when not set, shards prefer different nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spreading over zones and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Further annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Further labels of the pods; those the operator owns win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
}

/// Metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// Writes the `prometheus.io/scrape` annotations on the pods.
    #[serde(default)]
    pub scrape_annotations: bool,
}

const fn yes() -> bool {
    true
}

fn default_cluster_domain() -> String {
    DEFAULT_CLUSTER_DOMAIN.into()
}

fn default_secret_key() -> String {
    "password".into()
}

const fn default_flush_timeout_seconds() -> i32 {
    120
}

const fn default_ready_timeout_seconds() -> i32 {
    600
}

const fn default_max_concurrent_migrations() -> i32 {
    2
}

#[cfg(test)]
mod tests {
    use kube::core::cel::{validate_cel, validate_cel_update};

    use super::*;

    type Change = fn(&mut SluiceCluster);

    fn cluster(change: impl FnOnce(&mut SluiceCluster)) -> SluiceCluster {
        let mut cluster: SluiceCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "SluiceCluster", "metadata": {"name": "demo"},
            "spec": {"shards": 2, "storage": {"size": "10Gi", "storageClassName": "fast"}},
        }))
        .unwrap();
        change(&mut cluster);
        cluster
    }

    #[test]
    fn rules_of_the_schema_refuse_what_cannot_be_carried_out() {
        validate_cel(&cluster(|_| {})).unwrap();
        for setting in OWNED_SETTINGS {
            assert!(validate_cel(&cluster(|c| _ = c.spec.config.insert(setting.into(), "x".into()))).is_err(), "{setting}");
        }
        validate_cel(&cluster(|c| _ = c.spec.config.insert("maxclients".into(), "5".into()))).unwrap();
        for bad in ["Demo", "1demo", "a.b", &"a".repeat(41), "demo-"] {
            assert!(validate_cel(&cluster(|c| c.metadata.name = Some(bad.into()))).is_err(), "{bad}");
        }
        for bad in ["0", "0Gi", "ten"] {
            assert!(validate_cel(&cluster(|c| c.spec.storage.size = bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_never_shrink_and_what_cannot_change_does_not() {
        let old = cluster(|_| {});
        let allowed: [Change; 3] = [|_| {}, |c| c.spec.storage.size = "20Gi".into(), |c| c.spec.shards = 5];
        for change in allowed {
            validate_cel_update(&cluster(change), &old).unwrap();
        }
        let refused: [Change; 6] = [
            |c| c.spec.tls = Some(tls("demo-tls", ClientAuth::None)),
            |c| c.spec.storage.size = "9Gi".into(),
            |c| c.spec.storage.size = "10G".into(),
            |c| c.spec.storage.storage_class_name = Some("slow".into()),
            |c| c.spec.storage.storage_class_name = None,
            |c| c.spec.cluster_domain = "other.local".into(),
        ];
        for (number, change) in refused.into_iter().enumerate() {
            assert!(validate_cel_update(&cluster(change), &old).is_err(), "{number}");
        }
    }

    fn tls(secret: &str, client_auth: ClientAuth) -> TlsSpec {
        TlsSpec { secret_name: secret.into(), client_auth }
    }

    #[test]
    fn tls_is_chosen_once() {
        let old = cluster(|c| c.spec.tls = Some(tls("demo-tls", ClientAuth::Required)));
        validate_cel(&old).unwrap();
        validate_cel_update(&old, &old).unwrap();
        let refused: [Change; 3] = [
            |c| c.spec.tls = None,
            |c| c.spec.tls = Some(tls("other", ClientAuth::Required)),
            |c| c.spec.tls = Some(tls("demo-tls", ClientAuth::None)),
        ];
        for (number, change) in refused.into_iter().enumerate() {
            let error = validate_cel_update(&cluster(change), &old).unwrap_err();
            assert!(format!("{error:?}").contains("spec.tls is set when a cluster is made"), "{number}: {error:?}");
        }
    }
}
