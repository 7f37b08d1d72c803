//! The StatefulSet of a shard.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy},
        core::v1::{
            Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
            PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec,
            PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext,
            Volume, VolumeMount, VolumeResourceRequirements, WeightedPodAffinityTerm,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use sha2::{Digest as _, Sha256};

use super::{
    CONFIG_FILE, ClaimTemplate, Inputs,
    config::{TLS_FOLDER, render},
    services::metadata,
};
use crate::{
    api::{SluiceClusterSpec, VolumeRetention, parse_quantity},
    names::{ADMIN_PORT, CLIENT_PORT, SHARD_LABEL, TEMPLATE_HASH},
};

/// Key of the admin Secret.
pub const ADMIN_PASSWORD_KEY: &str = "password";
/// The pod's volume of certificates.
const TLS_VOLUME: &str = "tls";
/// The uid the image runs as.
const USER: i64 = 65532;
/// Bytes a second a flush before the end is counted with: a slow network volume.
const FLUSH_BYTES_PER_SECOND: u64 = 16 << 20;
/// Grace period while no memory limit says how much there may be to flush.
const GRACE_SECONDS_DEFAULT: i64 = 180;

/// Seconds a pod is given to flush and close: half of its memory may be memtables, and 30 s for the rest.
pub fn grace_period_seconds(spec: &SluiceClusterSpec) -> i64 {
    let limit = spec.resources.as_ref().and_then(|resources| resources.limits.get("memory"));
    let Some(bytes) = limit.and_then(|quantity| parse_quantity(&quantity.0).ok()) else { return GRACE_SECONDS_DEFAULT };
    let flush = i64::try_from(bytes / 2 / FLUSH_BYTES_PER_SECOND).unwrap_or(i64::MAX);
    flush.saturating_add(30).clamp(60, 3600)
}

/// Hash of what every pod is made from, apart from its shard's number and volume. The configuration file is part of it.
pub fn template_hash(inputs: &Inputs<'_>) -> String {
    let neutral = pod_template(inputs, 0, "data", "");
    let text = serde_json::to_vec(&neutral).unwrap_or_default();
    let digest = Sha256::new().chain_update(text).chain_update(render(inputs.spec, &inputs.defaults.settings)).finalize();
    digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

pub(super) fn stateful_set(inputs: &Inputs<'_>, shard: u32, claim: &ClaimTemplate, hash: &str) -> StatefulSet {
    let labels = inputs.names.shard_labels(shard);
    let selector = selector(inputs, shard);
    let delete = inputs.spec.storage.retention == VolumeRetention::Delete;
    StatefulSet {
        metadata: metadata(inputs, inputs.names.stateful_set(shard), labels.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(inputs.names.nodes_service()),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            // The operator deletes pods itself, one at a time, after a flush.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                ..StatefulSetUpdateStrategy::default()
            }),
            pod_management_policy: Some("OrderedReady".into()),
            revision_history_limit: Some(2),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(if delete { "Delete" } else { "Retain" }.into()),
                when_scaled: Some("Retain".into()),
            }),
            template: pod_template(inputs, shard, &claim.name, hash),
            volume_claim_templates: Some(vec![claim_template(inputs, shard, claim)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// What selects a shard's pod; cannot be changed once the StatefulSet exists.
fn selector(inputs: &Inputs<'_>, shard: u32) -> BTreeMap<String, String> {
    let mut selector = inputs.names.selector();
    selector.insert(SHARD_LABEL.into(), shard.to_string());
    selector
}

fn claim_template(inputs: &Inputs<'_>, shard: u32, claim: &ClaimTemplate) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim.name.clone()),
            // Only what never changes: this template cannot be changed either.
            labels: Some(selector(inputs, shard)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: inputs.spec.storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(claim.size.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn pod_template(inputs: &Inputs<'_>, shard: u32, claim: &str, hash: &str) -> PodTemplateSpec {
    let scheduling = &inputs.spec.scheduling;
    let mut labels = scheduling.pod_labels.clone();
    labels.extend(inputs.names.shard_labels(shard));
    let mut annotations = scheduling.pod_annotations.clone();
    if inputs.spec.monitoring.scrape_annotations {
        annotations.insert("prometheus.io/scrape".into(), "true".into());
        annotations.insert("prometheus.io/port".into(), ADMIN_PORT.to_string());
        annotations.insert("prometheus.io/path".into(), "/metrics".into());
    }
    if let Some(text) = &inputs.spec.rollout.restarted_at {
        annotations.insert("sluice.dev/restarted-at".into(), text.clone());
    }
    annotations.insert(TEMPLATE_HASH.into(), hash.into());
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            containers: vec![container(inputs, claim)],
            service_account_name: Some(inputs.names.plain()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(grace_period_seconds(inputs.spec)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
                ..PodSecurityContext::default()
            }),
            volumes: Some(volumes(inputs)),
            node_selector: some(scheduling.node_selector.clone(), BTreeMap::is_empty),
            tolerations: some(scheduling.tolerations.clone(), Vec::is_empty),
            topology_spread_constraints: some(scheduling.topology_spread_constraints.clone(), Vec::is_empty),
            affinity: Some(scheduling.affinity.clone().unwrap_or_else(|| spread(inputs))),
            priority_class_name: scheduling.priority_class_name.clone(),
            ..PodSpec::default()
        }),
    }
}

/// What is mounted beside the shard's own. The Secret's folder as a whole: a single file of it would never change.
fn volumes(inputs: &Inputs<'_>) -> Vec<Volume> {
    let config = Volume {
        name: "config".into(),
        config_map: Some(ConfigMapVolumeSource { name: inputs.names.config(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let tls = inputs.spec.tls.as_ref().map(|tls| Volume {
        name: TLS_VOLUME.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(tls.secret_name.clone()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    [config].into_iter().chain(tls).collect()
}

fn some<T>(value: T, is_empty: impl Fn(&T) -> bool) -> Option<T> {
    if is_empty(&value) { None } else { Some(value) }
}

/// Shards prefer different nodes.
fn spread(inputs: &Inputs<'_>) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".into(),
                    label_selector: Some(LabelSelector {
                        match_labels: Some(inputs.names.selector()),
                        ..LabelSelector::default()
                    }),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn container(inputs: &Inputs<'_>, claim: &str) -> Container {
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(port),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount(claim, "/data", false), mount("config", "/etc/sluice", true)];
    mounts.extend(inputs.spec.tls.as_ref().map(|_| mount(TLS_VOLUME, TLS_FOLDER, true)));
    let mut env = vec![secret_env("SLUICE_ADMIN_PASSWORD", &inputs.names.admin_secret(), ADMIN_PASSWORD_KEY)];
    if let Some(reference) = &inputs.spec.auth.password_secret_ref {
        env.push(secret_env("SLUICE_REQUIREPASS", &reference.name, &reference.key));
    }
    Container {
        name: "store".into(),
        image: Some(inputs.spec.image.clone().unwrap_or_else(|| inputs.defaults.image.clone())),
        image_pull_policy: inputs.spec.image_pull_policy.map(|policy| policy.as_str().into()),
        args: Some(vec![format!("/etc/sluice/{CONFIG_FILE}")]),
        env: Some(env),
        ports: Some(vec![port("redis", CLIENT_PORT), port("admin", ADMIN_PORT)]),
        volume_mounts: Some(mounts),
        resources: inputs.spec.resources.as_ref().map(|resources| ResourceRequirements {
            requests: some(resources.requests.clone(), BTreeMap::is_empty),
            limits: some(resources.limits.clone(), BTreeMap::is_empty),
            ..ResourceRequirements::default()
        }),
        // Opening a large database takes time; the liveness probe begins when the startup probe has passed.
        startup_probe: Some(probe("/livez", 1, 3, 1800)),
        liveness_probe: Some(probe("/livez", 10, 5, 6)),
        readiness_probe: Some(probe("/readyz", 2, 3, 2)),
        // A process that refuses to start says why; the operator shows it in a condition.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn secret_env(name: &str, secret: &str, key: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector { name: secret.into(), key: key.into(), optional: None }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, period: i32, timeout: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("admin".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
