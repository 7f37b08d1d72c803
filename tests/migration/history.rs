//! What clients saw while slots moved and nodes were killed is explained by one order of their calls, key by key.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use sluice_tests::{
    history::{Plan, Recording},
    proxy::{Link, Proxy},
    store::LocalCluster,
};
use sluice_topology::{SlotRanges, admin::MigrationState};

use super::ranges;

/// Calls answered between two events, so that there is something to lose.
const BETWEEN: u64 = 300;

/// What happens to a cluster while its slots move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// kill -9 of the node that slots leave, and its restart.
    KillSource,
    /// The same of the node that they come to.
    KillTarget,
    /// The connections between them are closed.
    Cut,
    /// They are slow.
    Slow,
    Nothing,
}

/// Moves slots to and fro between the nodes 0 and 1 as long as there are events, while clients work. `SLUICE_HISTORY_ROUNDS`: how often all
/// of the events.
async fn history(root: &Path, settings: &[(&str, &str)], depth: usize, events: &[Event]) -> anyhow::Result<()> {
    let rounds: usize = std::env::var("SLUICE_HISTORY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seed = std::env::var("SLUICE_HISTORY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let fixed = [
        ("migrate-unit-slots", "512"),
        ("migrate-backoff-ms-max", "200"),
        ("cluster-peer-timeout-ms", "1000"),
        ("migrate-timeout-ms", "2000"),
    ];
    let settings: Vec<(&str, &str)> = fixed.into_iter().chain(settings.iter().copied()).collect();
    let mut cluster = LocalCluster::start(root, 3, 3, &settings).await?;
    let proxies = [Proxy::start(cluster.admin_address(0)).await?, Proxy::start(cluster.admin_address(1)).await?];
    (0..2).for_each(|number| cluster.reach(number, proxies[number].port()));
    cluster.push_truth().await?;
    let recording = Recording::start(cluster.addresses(), Plan { seed, depth, ..Plan::default() });
    // Those of node 0 and of node 1: whichever has them.
    let all: SlotRanges = ranges("0-10922");
    let (mut from, mut to) = (0, 1);
    for event in events.iter().cycle().take(events.len() * rounds) {
        recording.more(BETWEEN).await?;
        let moving = all.intersection(&cluster.status(from).await?.owned());
        if moving.is_empty() {
            (from, to) = (to, from);
            continue;
        }
        let job = cluster.migrate(from, to, &moving).await?;
        let link = |link: Link| proxies.iter().for_each(|proxy| proxy.set(link));
        match event {
            Event::KillSource | Event::KillTarget => {
                let number = if *event == Event::KillSource { from } else { to };
                cluster.kill(number)?;
                cluster.restart(number).await?;
            }
            Event::Cut => {
                for _ in 0..5 {
                    recording.more(BETWEEN / 10).await?;
                    proxies.iter().for_each(Proxy::cut);
                }
            }
            Event::Slow => link(Link { latency: Duration::from_millis(15), bytes_per_second: Some(2 << 20), silent: false }),
            Event::Nothing => {}
        }
        let status = cluster.ended_if_known(from, job).await?;
        ensure!(status.as_ref().is_none_or(|status| status.state == MigrationState::Done), "{event:?}: {status:?}");
        link(Link::default());
        cluster.settled().await?;
        cluster.push_truth().await?;
        (from, to) = (to, from);
    }
    recording.more(BETWEEN).await?;
    let history = recording.end().await?;
    let (calls, open) = history.size();
    println!("{calls} calls, {open} of them open, {} keys, other errors {:?}", history.calls.len(), history.errors);
    Ok(history.check()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_explains_what_clients_saw_while_slots_moved_and_nodes_were_killed() -> anyhow::Result<()> {
    use Event::{Cut, KillSource, KillTarget, Nothing, Slow};
    let events = [Nothing, KillSource, KillTarget, Cut, KillTarget, KillSource, Slow, KillSource];
    history(tempfile::tempdir()?.path(), &[], 1, &events).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_and_without_kills_one_order_explains_it_as_well() -> anyhow::Result<()> {
    let events = [Event::Nothing, Event::Cut, Event::Slow, Event::Nothing];
    history(tempfile::tempdir()?.path(), &[("wal", "no")], 1, &events).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_explains_what_pipelines_saw() -> anyhow::Result<()> {
    let events = [Event::Nothing, Event::KillTarget, Event::Nothing, Event::KillSource, Event::Cut, Event::Nothing];
    history(tempfile::tempdir()?.path(), &[], 8, &events).await
}

/// The positive control: without its log a node that is killed does lose what it had acknowledged, and that is found.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_lost_are_found() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 2, &[("wal", "no")]).await?;
    let recording = Recording::start(cluster.addresses(), Plan::default());
    recording.more(3 * BETWEEN).await?;
    cluster.kill(0)?;
    cluster.restart(0).await?;
    recording.more(BETWEEN).await?;
    let violation = recording.end().await?.check().expect_err("acknowledged writes are gone");
    println!("{violation}");
    Ok(())
}
