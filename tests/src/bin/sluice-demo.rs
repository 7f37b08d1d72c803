//! `make demo`: the main job from beginning to end on a real Kubernetes, told step by step. Fails with what to look at.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use sluice_tests::kubernetes::{ImageReferences, LoadPod, Namespace, PhaseFigures, Release, ShardedCluster, kubectl, wait_until};

const NAMESPACE: &str = "sluice-demo";
const KEYS: u64 = 100_000;
/// Live writes a second.
const RATE: u32 = 500;
/// Live writes before each step, so that it meets a cluster at work.
const WARM_UP_WRITES: u64 = 1000;
const STEP_LIMIT: Duration = Duration::from_mins(10);

fn main() -> ExitCode {
    let began = Instant::now();
    match story() {
        Ok(failed) => {
            println!("\nThe whole story took {} s: nothing was lost, {failed} requests failed.", began.elapsed().as_secs());
            println!(
                "Look around: eval \"$(tests/kubernetes/harness/cluster env)\"; kubectl -n {NAMESPACE} get sluiceclusters,slotmigrations,pods"
            );
            println!("Remove it:   make demo-down");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nFAILED: {error:#}\n");
            match Namespace::existing_or_new(NAMESPACE) {
                Ok(mut namespace) => {
                    namespace.keep();
                    println!("{}", namespace.describe());
                }
                Err(error) => println!("nor can the namespace be looked at: {error:#}"),
            }
            println!(
                "Everything is still there: eval \"$(tests/kubernetes/harness/cluster env)\"; kubectl -n {NAMESPACE} get all"
            );
            ExitCode::FAILURE
        }
    }
}

/// Tells of a step before it is done and after.
struct Teller {
    number: u32,
    started: Instant,
}

impl Teller {
    fn begin(&mut self, text: &str) {
        self.number += 1;
        self.started = Instant::now();
        println!("\n{}. {text}", self.number);
    }

    fn done(&self, text: &str) {
        println!("   {text} ({:.1} s)", self.started.elapsed().as_secs_f64());
    }
}

fn story() -> anyhow::Result<u64> {
    let images = ImageReferences::built()?;
    let mut teller = Teller { number: 0, started: Instant::now() };

    teller.begin("The operator: helm upgrade --install sluice charts/sluice");
    Release::install(&images, &[])?;
    teller.done(&format!("it is ready; image {}", images.operator));

    teller.begin("A cluster of 2 shards: kubectl apply");
    Namespace::fresh(NAMESPACE)?.keep();
    let cluster = ShardedCluster::create(NAMESPACE, "demo", 2)?;
    let settled = cluster.wait_settled(2, STEP_LIMIT)?;
    teller.done(&format!("it is available; slots by shard {:?}", settled.slots));

    teller.begin(&format!("{KEYS} keys of real input (lines of RocksDB's own sources), by a Redis Cluster client in a pod"));
    let load = LoadPod::start(&cluster, &images, RATE)?;
    let seconds = load.load(KEYS)?;
    teller.done(&format!("loaded, {:.0} keys a second", KEYS as f64 / seconds.max(0.001)));
    let mut failed = 0;
    failed += checked(&load, &teller, None)?;

    teller.begin("Scale to 3 shards under live writes: kubectl scale sluicecluster/demo --replicas=3");
    warm_up(&load)?;
    cluster.scale(3)?;
    let settled = cluster.wait_settled(3, STEP_LIMIT)?;
    let figures = load.next_phase("after")?;
    teller.done(&format!("slots by shard {:?}", settled.slots));
    failed += checked(&load, &teller, Some(figures))?;

    teller.begin("Restart every pod under live writes: a new spec.rollout.restartedAt");
    warm_up(&load)?;
    let before = cluster.pods()?;
    cluster.restart()?;
    let settled = cluster.wait_settled(3, STEP_LIMIT)?;
    let figures = load.next_phase("after")?;
    let after = cluster.pods()?;
    let stayed: Vec<_> = before.iter().filter(|(pod, uid)| after.get(*pod) == Some(uid)).collect();
    anyhow::ensure!(stayed.is_empty(), "these pods were not restarted: {stayed:?}");
    teller.done(&format!("{} pods, each flushed first, each recovered at least what its flush had proven:", after.len()));
    for shard in settled.status["shards"].as_array().into_iter().flatten() {
        let receipt = &shard["lastReceipt"];
        println!(
            "     {}: receipt of round {} (sequence {}, {} bytes in {} ms), recovered round {}",
            shard["pod"].as_str().unwrap_or_default(),
            receipt["round"],
            receipt["sequence"],
            receipt["bytes"],
            receipt["durationMs"],
            shard["recoveredRound"]
        );
    }
    failed += checked(&load, &teller, Some(figures))?;

    teller.begin("Scale back to 2 shards under live writes: kubectl scale sluicecluster/demo --replicas=2");
    warm_up(&load)?;
    cluster.scale(2)?;
    let settled = cluster.wait_settled(2, STEP_LIMIT)?;
    let figures = load.next_phase("after")?;
    teller.done(&format!("slots by shard {:?}; the volume of shard 2 is kept", settled.slots));
    failed += checked(&load, &teller, Some(figures))?;

    println!("\n{}", kubectl(&["-n", NAMESPACE, "get", "sluiceclusters,slotmigrations"])?);
    Ok(failed)
}

/// Starts the live writers and lets them get going.
fn warm_up(load: &LoadPod) -> anyhow::Result<()> {
    let written = |status: &serde_json::Value| status["live_acknowledged"].as_u64().unwrap_or_default();
    load.start_live()?;
    let before = written(&load.status()?);
    wait_until("the live writers to get going", Duration::from_mins(1), || {
        Ok(written(&load.status()?) >= before.saturating_add(WARM_UP_WRITES))
    })?;
    load.next_phase("step").map(drop)
}

/// Tells how the live writers fared, then reads back everything acknowledged so far; the requests that failed.
fn checked(load: &LoadPod, teller: &Teller, figures: Option<PhaseFigures>) -> anyhow::Result<u64> {
    if let Some(figures) = &figures {
        println!("   meanwhile: {figures}");
    }
    let verdict = load.verify()?;
    verdict.must_be_whole()?;
    teller.done(&format!("checked: {verdict}"));
    Ok(figures.map_or(0, |figures| figures.failed))
}
