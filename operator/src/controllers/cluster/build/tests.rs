//! The objects of a cluster, against specs and expectations in YAML.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::{api::SluiceCluster, controllers::cluster::apply::covers};

fn cluster(spec: &str) -> SluiceCluster {
    let text = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: SluiceCluster\nmetadata: {{name: demo, namespace: ns, uid: u1}}\nspec:\n{spec}"
    );
    serde_norway::from_str(&text).unwrap()
}

fn objects(cluster: &SluiceCluster) -> Objects {
    let shards = BTreeMap::from([
        (0, ClaimTemplate { name: "data".into(), size: "1Gi".into() }),
        (7, ClaimTemplate { name: "data-2".into(), size: "1Gi".into() }),
    ]);
    let owner = kube::Resource::controller_owner_ref(cluster, &()).unwrap();
    build(&Inputs {
        names: &Names::of(cluster),
        spec: &cluster.spec,
        owner,
        defaults: &StoreDefaults { image: "sluice-store:default".into(), settings: BTreeMap::new() },
        shards: &shards,
    })
}

fn assert_covers(what: &str, object: &impl serde::Serialize, expected: &str) {
    let (live, wanted): (Value, Value) = (serde_json::to_value(object).unwrap(), serde_norway::from_str(expected).unwrap());
    assert!(covers(&live, &wanted), "{what}: {live:#}\nlacks {wanted:#}");
}

const SMALL: &str = "  shards: 2\n  storage: {size: 1Gi}\n";

#[test]
fn a_pod_is_restricted_and_keeps_its_volume() {
    let objects = objects(&cluster(SMALL));
    assert_covers(
        "StatefulSet",
        &objects.stateful_sets[&7],
        r"
metadata: {name: demo-7, namespace: ns, labels: {sluice.dev/cluster: demo, sluice.dev/shard: '7'}, ownerReferences: [{uid: u1, controller: true}]}
spec:
  replicas: 1
  serviceName: demo-nodes
  updateStrategy: {type: OnDelete}
  selector: {matchLabels: {app.kubernetes.io/name: sluice, sluice.dev/cluster: demo, sluice.dev/shard: '7'}}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  volumeClaimTemplates:
  - metadata: {name: data-2}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
    spec:
      automountServiceAccountToken: false
      serviceAccountName: demo
      terminationGracePeriodSeconds: 180
      securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: store
        image: sluice-store:default
        args: [/etc/sluice/sluice.conf]
        env:
        - {name: SLUICE_ADMIN_PASSWORD, valueFrom: {secretKeyRef: {name: demo-admin, key: password}}}
        volumeMounts: [{name: data-2, mountPath: /data}, {name: config, mountPath: /etc/sluice, readOnly: true}]
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        livenessProbe: {httpGet: {path: /livez, port: admin}}
        readinessProbe: {httpGet: {path: /readyz, port: admin}}
        startupProbe: {httpGet: {path: /livez, port: admin}}
",
    );
}

#[test]
fn services_name_every_pod_and_lead_clients_to_ready_ones() {
    let objects = objects(&cluster(SMALL));
    let selector = "{app.kubernetes.io/name: sluice, sluice.dev/cluster: demo}";
    assert_covers(
        "headless",
        &objects.nodes_service,
        &format!(
            "metadata: {{name: demo-nodes}}\nspec: {{clusterIP: None, publishNotReadyAddresses: true, selector: {selector}, ports: [{{port: 6379}}, {{port: 7379}}]}}"
        ),
    );
    assert_covers(
        "client",
        &objects.client_service,
        &format!("metadata: {{name: demo}}\nspec: {{selector: {selector}, ports: [{{port: 6379}}]}}"),
    );
    assert_covers(
        "budget",
        &objects.disruption_budget,
        &format!("spec: {{maxUnavailable: 1, selector: {{matchLabels: {selector}}}}}"),
    );
    assert_covers("account", &objects.service_account, "automountServiceAccountToken: false");
}

#[test]
fn the_configuration_file_has_everything_but_passwords() {
    let defaults = [("maxclients", "7"), ("otlp-endpoint", "http://collector:4318")];
    let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let text = |spec: &str| render(&cluster(spec).spec, &defaults);
    let plain = text(SMALL);
    for line in [
        "port 6379",
        "admin-port 7379",
        "dir /data",
        "cluster-enabled yes",
        "protected-mode no",
        "wal yes",
        "sync everysec",
        "maxclients 7",
        "otlp-endpoint http://collector:4318",
    ] {
        assert!(plain.lines().any(|found| found == line), "{line} in\n{plain}");
    }
    let full = text(&format!(
        "{SMALL}  durability: {{wal: false, sync: \"no\"}}\n  auth: {{passwordSecretRef: {{name: mine}}}}\n  config: {{MaxClients: '50', loglevel: debug, odd: 'a \"b\"'}}\n"
    ));
    for line in ["protected-mode yes", "wal no", "sync no", "MaxClients 50", "loglevel debug", r#"odd "a \"b\"""#] {
        assert!(full.lines().any(|found| found == line), "{line} in\n{full}");
    }
    assert!(!full.contains("maxclients") && full.contains("otlp-endpoint"), "the user's word counts, once:\n{full}");
    assert!(!full.contains("requirepass") && !full.contains("password"));
}

#[test]
fn the_hash_changes_with_what_a_pod_is_made_from_and_with_nothing_else() {
    let hash = |more: &str| objects(&cluster(&format!("{SMALL}{more}"))).template_hash;
    let first = hash("");
    assert_eq!(first, hash("  scaling: {maxConcurrentMigrations: 5}\n"));
    assert_eq!(first, hash("  rollout: {flushTimeoutSeconds: 5, paused: true}\n"));
    let mut seen = vec![first];
    for change in [
        "  image: other\n",
        "  rollout: {restartedAt: now}\n",
        "  durability: {sync: always}\n",
        "  config: {maxclients: '5'}\n",
        "  resources: {limits: {memory: 2Gi}}\n",
        "  scheduling: {nodeSelector: {disk: fast}}\n",
        "  scheduling: {podLabels: {team: a}}\n",
        "  auth: {passwordSecretRef: {name: mine}}\n",
        "  monitoring: {scrapeAnnotations: true}\n",
        "  tls: {secretName: demo-tls}\n",
        "  tls: {secretName: demo-tls, clientAuth: Required}\n",
        "  tls: {secretName: other}\n",
    ] {
        let hash = hash(change);
        assert!(!seen.contains(&hash), "{change}");
        seen.push(hash);
    }
    let objects = objects(&cluster(SMALL));
    for set in objects.stateful_sets.values() {
        assert_covers(
            "annotation",
            set,
            &format!(
                "spec: {{template: {{metadata: {{annotations: {{sluice.dev/template-hash: {}}}}}}}}}",
                objects.template_hash
            ),
        );
    }
}

#[test]
fn the_grace_period_follows_the_memory_limit() {
    for (limit, seconds) in
        [("", 180), ("memory: 256Mi", 60), ("memory: 4Gi", 158), ("memory: 64Gi", 2078), ("memory: 1Ti", 3600)]
    {
        let spec = cluster(&format!("{SMALL}  resources: {{limits: {{{limit}}}}}\n")).spec;
        assert_eq!(grace_period_seconds(&spec), seconds, "{limit}");
    }
}

#[test]
fn labels_the_operator_owns_win_and_delete_means_delete() {
    let objects = objects(&cluster(
        "  shards: 1\n  storage: {size: 1Gi, retention: Delete}\n  scheduling: {podLabels: {sluice.dev/cluster: other, team: a}}\n",
    ));
    assert_covers(
        "StatefulSet",
        &objects.stateful_sets[&0],
        "spec: {persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}, template: {metadata: {labels: {sluice.dev/cluster: demo, team: a}}}}",
    );
}

#[test]
fn with_tls_clients_have_one_port_and_the_whole_secret_is_mounted() {
    let text = |client_auth: &str| format!("{SMALL}  tls: {{secretName: demo-tls, clientAuth: {client_auth}}}\n");
    let encrypted = objects(&cluster(&text("Required")));
    assert_covers(
        "StatefulSet",
        &encrypted.stateful_sets[&0],
        r"
spec:
  template:
    spec:
      containers:
      - volumeMounts:
        - {name: data, mountPath: /data}
        - {name: config, mountPath: /etc/sluice, readOnly: true}
        - {name: tls, mountPath: /etc/sluice-tls, readOnly: true}
        ports: [{name: redis, containerPort: 6379}, {name: admin, containerPort: 7379}]
        livenessProbe: {httpGet: {path: /livez, port: admin}}
      volumes:
      - {name: config, configMap: {name: demo-config}}
      - {name: tls, secret: {secretName: demo-tls, defaultMode: 288}}
",
    );
    assert_covers("client", &encrypted.client_service, "spec: {ports: [{port: 6379, appProtocol: tls}]}");
    for (client_auth, setting) in [("None", "no"), ("Optional", "optional"), ("Required", "yes")] {
        let file = render(&cluster(&text(client_auth)).spec, &BTreeMap::new());
        let asked = format!("tls-auth-clients {setting}");
        for line in [
            "port 0",
            "tls-port 6379",
            "tls-cluster yes",
            "tls-cert-file /etc/sluice-tls/tls.crt",
            "tls-key-file /etc/sluice-tls/tls.key",
            "tls-ca-cert-file /etc/sluice-tls/ca.crt",
            &asked,
        ] {
            assert!(file.lines().any(|found| found == line), "{line} in\n{file}");
        }
    }
    let plain = objects(&cluster(SMALL));
    assert!(!serde_json::to_string(&plain.stateful_sets).unwrap().contains("tls"), "pods without it are as they were");
    assert!(!render(&cluster(SMALL).spec, &BTreeMap::new()).contains("tls"));
}
