//! The load client in a pod of its own, inside the cluster's network, ordered about through the API server.

use std::{fmt, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    helm::ImageReferences,
    kubectl::{get, get_raw, kubectl, kubectl_with_input, post_raw},
    shards::ShardedCluster,
    wait::wait_until,
};

const PORT: u16 = 8090;

/// A pod that runs `sluice-load serve` against one cluster.
pub struct LoadPod {
    namespace: String,
    name: String,
}

/// Requests of one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseFigures {
    /// Requests that were answered or failed.
    pub requests: u64,
    /// Those that failed, after all retries of the client.
    pub failed: u64,
    /// What the client said, and how often.
    pub failures: Value,
    /// Half of the requests took at most this long, in milliseconds.
    pub p50_ms: f64,
    /// Ninety-nine of a hundred took at most this long, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub longest_ms: f64,
}

impl fmt::Display for PhaseFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} live requests, {} failed; p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms",
            self.requests, self.failed, self.p50_ms, self.p99_ms, self.longest_ms
        )?;
        if self.failed > 0 {
            write!(f, "; {}", self.failures)?;
        }
        Ok(())
    }
}

/// What reading everything back found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Loaded keys read.
    pub loaded_checked: u64,
    /// Live writes that were acknowledged.
    pub acknowledged: u64,
    /// Live requests whose outcome the client could not tell.
    pub unknown: u64,
    /// Keys of the live writers read.
    pub live_keys_read: u64,
    /// Acknowledged writes that are not there.
    pub missing: u64,
    /// Values nobody wrote, deleted keys that came back, reads that showed an older value.
    pub wrong: u64,
    /// Increments and appends found twice: retries by the client.
    pub applied_again: u64,
    /// All of it.
    pub report: Value,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read back {} loaded keys and {} live keys ({} acknowledged writes): {} missing, {} wrong",
            self.loaded_checked, self.live_keys_read, self.acknowledged, self.missing, self.wrong
        )?;
        if self.unknown + self.applied_again > 0 {
            write!(f, "; {} of unknown outcome, {} applied again by a retry of the client", self.unknown, self.applied_again)?;
        }
        Ok(())
    }
}

impl Verdict {
    /// Refuses anything lost or wrong.
    pub fn must_be_whole(&self) -> anyhow::Result<()> {
        ensure!(self.missing == 0 && self.wrong == 0, "{self}\n{:#}", self.report);
        Ok(())
    }
}

impl LoadPod {
    /// Starts it and waits until it is connected.
    pub fn start(cluster: &ShardedCluster, images: &ImageReferences, rate: u32) -> anyhow::Result<Self> {
        let name = format!("load-{}", cluster.name);
        let pod = Self { namespace: cluster.namespace.clone(), name };
        kubectl(&["-n", &pod.namespace, "delete", "pod", &pod.name, "--ignore-not-found", "--wait=true"])?;
        let address = cluster.client_address();
        let mut args = vec!["serve", "--node", &address, "--rate"].into_iter().map(str::to_owned).collect::<Vec<_>>();
        args.push(rate.to_string());
        // Of the Secret, only what is no secret.
        let (volumes, mounts) = match &cluster.tls_secret {
            None => (json!([]), json!([])),
            Some(secret) => {
                args.extend(["--ca-file".to_owned(), "/tls/ca.crt".to_owned()]);
                let items = json!([{"key": "ca.crt", "path": "ca.crt"}]);
                (
                    json!([{"name": "tls", "secret": {"secretName": secret, "items": items}}]),
                    json!([{"name": "tls", "mountPath": "/tls", "readOnly": true}]),
                )
            }
        };
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "labels": {"app.kubernetes.io/name": "sluice-load"}},
            "spec": {
                // A client that dies takes its account with it: better the test fails than that it begins anew.
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 2,
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": volumes,
                "containers": [{
                    "name": "load",
                    "image": images.load,
                    "imagePullPolicy": "IfNotPresent",
                    "args": args,
                    "volumeMounts": mounts,
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/status", "port": PORT}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        kubectl_with_input(&["-n", &pod.namespace, "apply", "-f", "-"], &manifest.to_string())?;
        wait_until("the load client to be connected", Duration::from_mins(1), || {
            let object = get(&pod.namespace, "pod", &pod.name)?.context("its pod is gone")?;
            if object.pointer("/status/phase").and_then(Value::as_str) == Some("Failed") {
                anyhow::bail!("it ended: {}", kubectl(&["-n", &pod.namespace, "logs", &pod.name]).unwrap_or_default());
            }
            let ready = object.pointer("/status/containerStatuses/0/ready").and_then(Value::as_bool);
            Ok(ready == Some(true))
        })?;
        Ok(pod)
    }

    fn path(&self, order: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{}:{PORT}/proxy/{order}", self.namespace, self.name)
    }

    fn order(&self, order: &str) -> anyhow::Result<Value> {
        let text = post_raw(&self.path(order)).with_context(|| format!("the order {order:?} to the load client"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Everything the client knows.
    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&get_raw(&self.path("status"))?)?)
    }

    /// Writes that many keys of the input; how long it took, in seconds.
    pub fn load(&self, keys: u64) -> anyhow::Result<f64> {
        self.order(&format!("load?keys={keys}"))?;
        Ok(self.status()?["load_seconds"].as_f64().unwrap_or_default())
    }

    /// Begins to write on.
    pub fn start_live(&self) -> anyhow::Result<()> {
        self.order("live/start").map(drop)
    }

    /// Ends the phase that runs, whose figures are returned, and begins another.
    pub fn next_phase(&self, name: &str) -> anyhow::Result<PhaseFigures> {
        let figures = self.order(&format!("phase?name={name}"))?;
        let number = |field: &str| figures[field].as_u64().unwrap_or_default();
        let time = |field: &str| figures[field].as_f64().unwrap_or_default();
        Ok(PhaseFigures {
            requests: number("requests"),
            failed: number("failed"),
            failures: figures["failures"].clone(),
            p50_ms: time("p50_ms"),
            p99_ms: time("p99_ms"),
            longest_ms: time("longest_ms"),
        })
    }

    /// Stops writing, and reads back every acknowledged write.
    pub fn verify(&self) -> anyhow::Result<Verdict> {
        let report = self.order("verify")?;
        let number = |path: &str| report.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path} in {report}"));
        Ok(Verdict {
            loaded_checked: number("/loaded_checked")?,
            acknowledged: number("/live/acknowledged")?,
            unknown: number("/live/unknown")?,
            live_keys_read: number("/live/keys_read")?,
            missing: number("/loaded_missing")? + number("/live/missing")?,
            wrong: number("/loaded_wrong")? + number("/live/wrong")? + number("/live/stale")?,
            applied_again: number("/live/applied_again")?,
            report,
        })
    }
}
