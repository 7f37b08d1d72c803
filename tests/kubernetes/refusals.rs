//! Manifests that are refused, by the API server already, with a message that says what is wrong; nothing is changed by them.

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use sluice_tests::kubernetes::{Namespace, ShardedCluster, kubectl, kubectl_with_input, manifest};

use crate::{STEP_LIMIT, in_namespace};

fn with(pointer: &str, value: Value) -> Value {
    let mut object = manifest("refused", 2);
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        parent.insert(key.into(), value);
    }
    object
}

/// Applies as a user does, with unknown fields refused; the message has to hold every one of `words`.
fn refused(namespace: &Namespace, object: &Value, words: &[&str]) -> anyhow::Result<()> {
    let arguments = ["-n", namespace.name(), "apply", "--validate=strict", "-f", "-"];
    match kubectl_with_input(&arguments, &object.to_string()) {
        Ok(_) => bail!("it was accepted: {object}"),
        Err(error) => {
            let text = format!("{error:#}");
            for word in words {
                ensure!(text.contains(word), "the refusal does not speak of {word:?}: {text}");
            }
            Ok(())
        }
    }
}

#[test]
fn bad_manifests_are_refused_and_make_nothing() {
    in_namespace("refusals", |namespace| {
        refused(namespace, &with("/spec/shards", json!(0)), &["spec.shards", "1"])?;
        refused(namespace, &with("/spec/shards", json!(1025)), &["spec.shards", "1024"])?;
        refused(namespace, &with("/spec/shards", json!("two")), &["spec.shards"])?;
        refused(namespace, &with("/spec/chards", json!(2)), &["chards"])?;
        refused(namespace, &with("/spec/storage/size", json!("10 gigabytes")), &["spec.storage.size"])?;
        refused(namespace, &with("/spec/storage/size", json!("0")), &["storage.size"])?;
        refused(namespace, &with("/spec/config", json!({"port": "7000"})), &["port"])?;
        refused(
            namespace,
            &with("/metadata/name", json!("a-name-that-is-much-too-long-to-make-pod-names-from-it")),
            &["metadata.name"],
        )?;
        let left = kubectl(&["-n", namespace.name(), "get", "sluiceclusters,statefulsets", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "refused manifests made something: {left}");
        Ok(())
    });
}

#[test]
fn a_volume_that_shrinks_is_refused_and_the_cluster_goes_on() {
    in_namespace("shrink", |namespace| {
        let mut object = manifest("demo", 1);
        let cluster = ShardedCluster::apply(namespace.name(), &object)?;
        cluster.wait_settled(1, STEP_LIMIT)?;
        let before = cluster.object()?;
        object["spec"]["storage"]["size"] = json!("512Mi");
        refused(namespace, &object, &["shrink"])?;
        let after = cluster.object()?;
        ensure!(before["spec"] == after["spec"], "the spec changed: {}", after["spec"]);
        cluster.wait_settled(1, STEP_LIMIT).map(drop)
    });
}

#[test]
fn a_setting_the_store_does_not_know_is_named_in_a_condition() {
    in_namespace("bad-setting", |namespace| {
        let mut object = manifest("demo", 1);
        object["spec"]["config"] = json!({"no-such-setting": "1"});
        let cluster = ShardedCluster::apply(namespace.name(), &object)?;
        sluice_tests::kubernetes::wait_for("a condition that names the setting", STEP_LIMIT, || {
            let object = cluster.object()?;
            let text = object["status"]["conditions"].to_string();
            Ok(if text.contains("no-such-setting") { Ok(()) } else { Err(text) })
        })
    });
}
