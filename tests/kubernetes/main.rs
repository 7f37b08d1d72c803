//! The operator and the stores on a real Kubernetes. `make test-kubernetes` gets one, loads the images and runs these one by one;
//! needed are KUBECONFIG, kubectl and helm on the path, and the images of `make images` on the nodes.
//!
//! A test that fails prints what there is to see and leaves its namespace behind.

mod chart;
mod disasters;
mod lifecycle;
mod monitoring;
mod refusals;

use std::{sync::OnceLock, time::Duration};

use sluice_tests::kubernetes::{ImageReferences, LoadPod, Namespace, PhaseFigures, Release, ShardedCluster, Verdict, wait_until};

/// Keys loaded before a test goes on.
const KEYS: u64 = 50_000;
/// Live writes a second.
const RATE: u32 = 500;
/// A scale or a roll of a few small shards.
const STEP_LIMIT: Duration = Duration::from_mins(5);

/// The operator, installed once for all tests, and the images.
fn images() -> &'static ImageReferences {
    static IMAGES: OnceLock<ImageReferences> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let images = ImageReferences::built().unwrap_or_else(|error| panic!("{error:#}"));
        // `restricted` holds for the operator's own namespace as well; the namespace stays for every later test.
        let installed = Namespace::existing_or_new("sluice-system").and_then(|mut namespace| {
            namespace.keep();
            Release::install(&images, &[])
        });
        if let Err(error) = installed {
            panic!("the operator could not be installed: {error:#}");
        }
        images
    })
}

/// Runs a test in a namespace of its own; when it fails, shows everything there is to see.
fn in_namespace(name: &str, test: impl FnOnce(&Namespace) -> anyhow::Result<()>) {
    images();
    let namespace = Namespace::fresh(&format!("sluice-{name}")).unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = test(&namespace) {
        panic!("{error:#}\n{}", namespace.describe());
    }
}

/// A cluster with keys in it and writers at work.
struct Busy {
    cluster: ShardedCluster,
    load: LoadPod,
}

impl Busy {
    fn start(namespace: &Namespace, shards: i64) -> anyhow::Result<Self> {
        Self::on(ShardedCluster::create(namespace.name(), "demo", shards)?)
    }

    fn on(cluster: ShardedCluster) -> anyhow::Result<Self> {
        let load = LoadPod::start(&cluster, images(), RATE)?;
        load.load(KEYS)?;
        load.start_live()?;
        let busy = Self { cluster, load };
        busy.wait_written(500)?;
        busy.load.next_phase("step")?;
        Ok(busy)
    }

    /// Waits until so many more live writes were acknowledged: the cluster takes writes now.
    fn wait_written(&self, more: u64) -> anyhow::Result<()> {
        let written = || anyhow::Ok(self.load.status()?["live_acknowledged"].as_u64().unwrap_or_default());
        let before = written()?;
        wait_until("live writes to be acknowledged", Duration::from_mins(3), || Ok(written()? >= before + more))
    }

    /// Ends the step; every acknowledged write has to be there.
    fn finish(&self) -> anyhow::Result<(PhaseFigures, Verdict)> {
        // Writes go through after the step, too: not only those that were under way.
        self.wait_written(200)?;
        let figures = self.load.next_phase("after")?;
        let verdict = self.load.verify()?;
        println!("    {figures}\n    {verdict}");
        verdict.must_be_whole()?;
        anyhow::ensure!(
            verdict.loaded_checked == KEYS,
            "{} loaded keys were checked, {KEYS} were loaded",
            verdict.loaded_checked
        );
        Ok((figures, verdict))
    }
}

/// No request may fail in what an operator does by itself.
fn none_failed(figures: &PhaseFigures) -> anyhow::Result<()> {
    anyhow::ensure!(figures.failed == 0, "requests failed although nothing broke: {figures}");
    Ok(())
}
