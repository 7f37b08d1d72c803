//! What happens when something dies at the wrong moment, under live writes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sluice_tests::kubernetes::{Release, get, kubectl, wait_for};

use crate::{Busy, STEP_LIMIT, images, in_namespace, none_failed};

const SECOND: Duration = Duration::from_secs(1);

/// Deletes pods at once, without the time to end in order: what a lost node looks like.
fn kill_pods(namespace: &str, selector: &str) -> anyhow::Result<()> {
    kubectl(&["-n", namespace, "delete", "pods", "-l", selector, "--grace-period=0", "--force", "--wait=false"]).map(drop)
}

#[test]
fn operator_killed_mid_scale_finishes_it_when_it_is_back() {
    in_namespace("operator-killed", |namespace| {
        let busy = Busy::start(namespace, 2)?;
        busy.cluster.scale(3)?;
        busy.cluster.wait_moving(120 * SECOND)?;
        kill_pods("sluice-system", "app.kubernetes.io/name=sluice-operator")?;
        busy.cluster.wait_settled(3, STEP_LIMIT)?;
        // The data path does not need the operator: nobody noticed.
        let (figures, _) = busy.finish()?;
        none_failed(&figures)
    });
}

#[test]
fn source_killed_mid_migration_loses_nothing() {
    in_namespace("source-killed", |namespace| {
        let busy = Busy::start(namespace, 2)?;
        busy.cluster.scale(3)?;
        busy.cluster.wait_moving(120 * SECOND)?;
        kill_pods(namespace.name(), "sluice.dev/shard=0")?;
        busy.cluster.wait_settled(3, STEP_LIMIT)?;
        busy.finish().map(drop)
    });
}

#[test]
fn target_killed_mid_migration_loses_nothing() {
    in_namespace("target-killed", |namespace| {
        let busy = Busy::start(namespace, 2)?;
        busy.cluster.scale(3)?;
        busy.cluster.wait_moving(120 * SECOND)?;
        kill_pods(namespace.name(), "sluice.dev/shard=2")?;
        busy.cluster.wait_settled(3, STEP_LIMIT)?;
        busy.finish().map(drop)
    });
}

#[test]
fn scale_turned_back_half_way_settles_where_it_was() {
    in_namespace("turned-back", |namespace| {
        let busy = Busy::start(namespace, 2)?;
        busy.cluster.scale(3)?;
        busy.cluster.wait_moving(120 * SECOND)?;
        busy.cluster.scale(2)?;
        busy.cluster.wait_settled(2, STEP_LIMIT)?;
        let (figures, _) = busy.finish()?;
        none_failed(&figures)
    });
}

#[test]
fn a_stand_by_takes_over_from_a_dead_leader() {
    in_namespace("stand-by", |namespace| {
        let release = Release::install(images(), &["replicas=2"])?;
        let holder = || {
            let lease = get(&release.namespace, "lease", &release.name)?.context("there is no lease")?;
            anyhow::Ok(lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned())
        };
        let busy = Busy::start(namespace, 1)?;
        let leader = holder()?;
        let pod = leader.rsplit_once('_').map_or(leader.as_str(), |(pod, _)| pod);
        ensure!(!pod.is_empty(), "nobody leads");
        kubectl(&["-n", &release.namespace, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"])?;
        busy.cluster.scale(2)?;
        wait_for("another leader", 120 * SECOND, || {
            let now = holder()?;
            Ok(if now.is_empty() || now == leader { Err(format!("the lease is held by {now:?}")) } else { Ok(()) })
        })?;
        busy.cluster.wait_settled(2, STEP_LIMIT)?;
        let (figures, _) = busy.finish()?;
        Release::install(images(), &[])?;
        none_failed(&figures)
    });
}
