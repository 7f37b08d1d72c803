//! The kinds users write, group `sluice.dev/v1alpha1`. No client in here.

mod cluster;
mod condition;
mod migration;
mod quantity;
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use cluster::{
    Auth, ClientAuth, DEFAULT_CLUSTER_DOMAIN, Durability, ImagePullPolicy, MonitoringSpec, OWNED_SETTINGS, Resources,
    RolloutSpec, ScalingSpec, Scheduling, SecretKeyRef, SluiceCluster, SluiceClusterSpec, Storage, SyncPolicy, TlsSpec,
    VolumeRetention, setting_name,
};
pub use condition::{Condition, ConditionStatus, ConditionType, set_condition};
pub use migration::{ClusterRef, MigrationPhase, MigrationTarget, SlotMigration, SlotMigrationSpec, SlotMigrationStatus};
pub use quantity::{QuantityError, parse_quantity};
pub use status::{
    CurrentRestart, HaltedRollout, PlannedMove, Receipt, RolloutStatus, ScalingStatus, ShardStatus, SluiceClusterStatus,
    TopologyStatus,
};

/// API group of every kind.
pub const GROUP: &str = "sluice.dev";
/// API version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Every CustomResourceDefinition of the operator.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![SluiceCluster::crd(), SlotMigration::crd()]
}
