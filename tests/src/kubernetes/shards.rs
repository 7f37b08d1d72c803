//! A SluiceCluster: applied, scaled, restarted, and waited for.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    kubectl::{get, kubectl, kubectl_with_input},
    wait::wait_for,
};

/// Slots of every cluster.
const SLOTS: i64 = 16384;

/// A SluiceCluster.
pub struct ShardedCluster {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Secret of its certificates, where clients connect by TLS.
    pub tls_secret: Option<String>,
}

/// What a settled cluster looks like.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Slots by shard.
    pub slots: BTreeMap<i64, i64>,
    /// The status as it is.
    pub status: Value,
}

/// The manifest of a small cluster, as a user would write it.
pub fn manifest(name: &str, shards: i64) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "SluiceCluster",
        "metadata": {"name": name},
        "spec": {
            "shards": shards,
            "storage": {"size": "1Gi"},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        },
    })
}

impl ShardedCluster {
    /// Applies a manifest.
    pub fn apply(namespace: &str, manifest: &Value) -> anyhow::Result<Self> {
        kubectl_with_input(&["-n", namespace, "apply", "-f", "-"], &manifest.to_string())?;
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).context("the manifest has no name")?;
        let tls_secret = manifest.pointer("/spec/tls/secretName").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { namespace: namespace.into(), name: name.into(), tls_secret })
    }

    /// Applies a small cluster and waits for it.
    pub fn create(namespace: &str, name: &str, shards: i64) -> anyhow::Result<Self> {
        let cluster = Self::apply(namespace, &manifest(name, shards))?;
        cluster.wait_settled(shards, Duration::from_mins(5))?;
        Ok(cluster)
    }

    /// Asks for another number of shards, through the scale subresource.
    pub fn scale(&self, shards: i64) -> anyhow::Result<()> {
        kubectl(&["-n", &self.namespace, "scale", "sluicecluster", &self.name, &format!("--replicas={shards}")])?;
        Ok(())
    }

    /// Changes the spec.
    pub fn patch(&self, patch: &Value) -> anyhow::Result<()> {
        kubectl(&["-n", &self.namespace, "patch", "sluicecluster", &self.name, "--type=merge", "-p", &patch.to_string()])?;
        Ok(())
    }

    /// Asks for a restart of every pod.
    pub fn restart(&self) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        self.patch(&json!({"spec": {"rollout": {"restartedAt": now.to_string()}}}))
    }

    /// The object.
    pub fn object(&self) -> anyhow::Result<Value> {
        get(&self.namespace, "sluicecluster", &self.name)?.with_context(|| format!("sluicecluster {} is gone", self.name))
    }

    /// A condition's status, reason and message.
    pub fn condition(&self, kind: &str) -> anyhow::Result<Option<(String, String, String)>> {
        let object = self.object()?;
        let found = object.pointer("/status/conditions").and_then(Value::as_array).and_then(|conditions| {
            let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            Some((text("status"), text("reason"), text("message")))
        });
        Ok(found)
    }

    /// Waits until the operator has done all that the spec asks for, and every slot is owned by a shard that serves.
    pub fn wait_settled(&self, shards: i64, limit: Duration) -> anyhow::Result<Settled> {
        wait_for(&format!("sluicecluster {} to settle at {shards} shards", self.name), limit, || {
            let object = self.object()?;
            Ok(settled(&object, shards))
        })
    }

    /// The uid of every pod, by name.
    pub fn pods(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let selector = format!("sluice.dev/cluster={}", self.name);
        let text = kubectl(&["-n", &self.namespace, "get", "pods", "-l", &selector, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let pods = list["items"].as_array().into_iter().flatten().filter_map(|pod| {
            Some((pod.pointer("/metadata/name")?.as_str()?.to_owned(), pod.pointer("/metadata/uid")?.as_str()?.to_owned()))
        });
        Ok(pods.collect())
    }

    /// Where clients begin: every pod's name, then the Service.
    pub fn client_address(&self) -> String {
        format!("{}.{}.svc:6379", self.name, self.namespace)
    }

    /// Waits until slots are on their way: some have arrived, and not all.
    pub fn wait_moving(&self, limit: Duration) -> anyhow::Result<i64> {
        wait_for("slots to be on their way", limit, || {
            let object = self.object()?;
            let Some(scaling) = object.pointer("/status/scaling") else { return Ok(Err("no scaling in the status".into())) };
            let number = |field: &str| scaling[field].as_i64().unwrap_or(0);
            let (done, total) = (number("slotsDone"), number("slotsTotal"));
            Ok(if total > 0 { Ok(done) } else { Err(format!("{done} of {total} slots moved")) })
        })
    }
}

fn settled(object: &Value, shards: i64) -> Result<Settled, String> {
    let status = &object["status"];
    let generation = object.pointer("/metadata/generation");
    if status.get("observedGeneration") != generation {
        return Err(format!("the operator has seen generation {} of {generation:?}", status["observedGeneration"]));
    }
    for (kind, wanted) in [("Degraded", "False"), ("Available", "True"), ("Progressing", "False"), ("TopologyConverged", "True")]
    {
        let condition = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == kind);
        let is = condition.map_or("absent", |condition| condition["status"].as_str().unwrap_or_default());
        if is != wanted {
            let why = condition.map_or(String::new(), |condition| format!("{}: {}", condition["reason"], condition["message"]));
            return Err(format!("{kind} is {is}, {why}"));
        }
    }
    let slots: BTreeMap<i64, i64> = status["shards"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|shard| Some((shard["shard"].as_i64()?, shard["slots"].as_i64()?)))
        .collect();
    if status["readyShards"] != json!(shards) || slots.len() as i64 != shards {
        return Err(format!("{} shards ready, {} there", status["readyShards"], slots.len()));
    }
    if slots.values().sum::<i64>() != SLOTS || slots.values().any(|count| *count == 0) {
        return Err(format!("slots by shard: {slots:?}"));
    }
    Ok(Settled { slots, status: status.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(available: &str, generation: i64) -> Value {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m"});
        json!({
            "metadata": {"generation": 2},
            "status": {
                "observedGeneration": generation, "readyShards": 2,
                "conditions": [condition("Available", available), condition("Progressing", "False"),
                    condition("TopologyConverged", "True"), condition("Degraded", "False")],
                "shards": [{"shard": 0, "slots": 8192}, {"shard": 1, "slots": 8192}],
            },
        })
    }

    #[test]
    fn settled_means_seen_available_and_every_slot_owned() {
        assert!(settled(&object("True", 2), 2).is_ok());
        assert!(settled(&object("True", 1), 2).is_err_and(|why| why.contains("generation")));
        assert!(settled(&object("False", 2), 2).is_err_and(|why| why.contains("Available")));
        assert!(settled(&object("True", 2), 3).is_err());
    }
}
