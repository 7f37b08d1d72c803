//! What a cluster goes through in a good life, under live writes.

use anyhow::ensure;
use serde_json::json;
use sluice_tests::{
    certificates::Authority,
    kubernetes::{LoadPod, Namespace, ShardedCluster, get, kubectl_with_input, manifest, wait_until},
};

use crate::{Busy, RATE, STEP_LIMIT, images, in_namespace, none_failed};

#[test]
fn scale_out_under_writes_keeps_every_key() {
    in_namespace("scale-out", |namespace| {
        let busy = Busy::start(namespace, 2)?;
        busy.cluster.scale(3)?;
        let settled = busy.cluster.wait_settled(3, STEP_LIMIT)?;
        let (most, least) = (settled.slots.values().max(), settled.slots.values().min());
        ensure!(settled.slots.values().all(|slots| (4000..7000).contains(slots)), "slots are not spread: {most:?} and {least:?}");
        let (figures, _) = busy.finish()?;
        none_failed(&figures)
    });
}

#[test]
fn scale_in_under_writes_keeps_every_key_and_the_volume() {
    in_namespace("scale-in", |namespace| {
        let busy = Busy::start(namespace, 3)?;
        busy.cluster.scale(2)?;
        busy.cluster.wait_settled(2, STEP_LIMIT)?;
        ensure!(get(namespace.name(), "statefulset", "demo-2")?.is_none(), "the StatefulSet of shard 2 is still there");
        ensure!(get(namespace.name(), "persistentvolumeclaim", "data-demo-2-0")?.is_some(), "the volume of shard 2 is gone");
        let (figures, _) = busy.finish()?;
        none_failed(&figures)
    });
}

#[test]
fn rolling_restart_under_writes_keeps_every_key_and_proves_each_flush() {
    in_namespace("restart", |namespace| {
        let busy = Busy::start(namespace, 2)?;
        let before = busy.cluster.pods()?;
        busy.cluster.restart()?;
        let settled = busy.cluster.wait_settled(2, STEP_LIMIT)?;
        let after = busy.cluster.pods()?;
        ensure!(before.len() == 2 && after.len() == 2, "pods before {before:?}, after {after:?}");
        ensure!(
            before.iter().all(|(pod, uid)| after.get(pod).is_some_and(|now| now != uid)),
            "not every pod was restarted: {before:?} {after:?}"
        );
        for shard in settled.status["shards"].as_array().into_iter().flatten() {
            let (receipt, recovered) = (shard["lastReceipt"]["round"].as_i64(), shard["recoveredRound"].as_i64());
            ensure!(receipt.is_some() && recovered >= receipt, "no proof for {shard}");
        }
        let (figures, _) = busy.finish()?;
        none_failed(&figures)
    });
}

#[test]
fn a_cluster_that_speaks_tls_is_scaled_and_restarted_under_writes_and_keeps_every_key() {
    in_namespace("tls", |namespace| {
        let authority = Authority::new("the cluster's")?;
        let domain = format!("{}.svc", namespace.name());
        let nodes = format!("*.demo-nodes.{domain}.cluster.local");
        let pair = authority.sign(&[&nodes, &format!("demo.{domain}")], 2090)?;
        let mut object = manifest("demo", 2);
        object["spec"]["tls"] = json!({"secretName": "demo-tls", "clientAuth": "Optional"});
        let cluster = ShardedCluster::apply(namespace.name(), &object)?;
        wait_until("the operator to miss the certificates", STEP_LIMIT, || {
            Ok(cluster.condition("Degraded")?.is_some_and(|(_, reason, _)| reason == "TlsSecretUnusable"))
        })?;
        ensure!(get(namespace.name(), "statefulset", "demo-0")?.is_none(), "something was started without certificates");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "demo-tls"},
            "stringData": {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.pem()},
        });
        kubectl_with_input(&["-n", namespace.name(), "apply", "-f", "-"], &secret.to_string())?;
        cluster.wait_settled(2, STEP_LIMIT)?;
        let busy = Busy::on(cluster)?;
        busy.cluster.scale(3)?;
        busy.cluster.wait_settled(3, STEP_LIMIT)?;
        busy.cluster.restart()?;
        busy.cluster.wait_settled(3, STEP_LIMIT)?;
        let off = busy.cluster.patch(&json!({"spec": {"tls": null}}));
        ensure!(
            off.is_err_and(|error| format!("{error:#}").contains("spec.tls is set when a cluster is made")),
            "it was turned off"
        );
        let (figures, _) = busy.finish()?;
        none_failed(&figures)
    });
}

#[test]
fn clusters_of_one_name_in_two_namespaces_do_not_meet() {
    in_namespace("twin-a", |first| {
        let busy = Busy::start(first, 1)?;
        let second = Namespace::fresh("sluice-twin-b")?;
        let other = ShardedCluster::create(second.name(), &busy.cluster.name, 2)?;
        let load = LoadPod::start(&other, images(), RATE)?;
        load.load(1000)?;
        let verdict = load.verify()?;
        verdict.must_be_whole()?;
        ensure!(verdict.loaded_checked == 1000, "{verdict}");
        // The second one goes, with everything of its own and nothing of the first's.
        drop(second);
        let (figures, _) = busy.finish()?;
        none_failed(&figures)?;
        busy.cluster.wait_settled(1, STEP_LIMIT)?;
        Ok(())
    });
}
