//! What can go wrong on the way, made to: links that break, change bytes or fall silent, nodes killed at each step by its name.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    proxy::{Link, Proxy, Way},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{
    SlotRanges,
    admin::{MigrationState, MigrationStatus},
};

use super::{LOADED, ranges, session, verify};

/// Two nodes that reach each other through proxies, all slots at the first.
pub(super) async fn behind_proxies(root: &Path, settings: &[(&str, &str)]) -> anyhow::Result<(LocalCluster, [Proxy; 2])> {
    let mut cluster = LocalCluster::start(root, 2, 1, settings).await?;
    let proxies = [Proxy::start(cluster.admin_address(0)).await?, Proxy::start(cluster.admin_address(1)).await?];
    (0..2).for_each(|number| cluster.reach(number, proxies[number].port()));
    cluster.push_truth().await?;
    Ok((cluster, proxies))
}

/// The value of a key of the large data set: nothing can be made of it, and every key has another.
fn value(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Keys of one slot: many small values, and some that are larger than a batch.
fn lengths() -> impl Iterator<Item = (String, u64, usize)> {
    let small = (0..6000).map(|number| (number, 2 << 10));
    small
        .chain((6000..6003).map(|number| (number, 9 << 20)))
        .map(|(number, length)| (format!("{{large}}:{number}"), number, length))
}

async fn check_all(cluster: &LocalCluster, node: usize) -> anyhow::Result<()> {
    let mut client = cluster.node(node).client().await?;
    for (key, number, length) in lengths() {
        let found: Option<Vec<u8>> = redis::cmd("GET").arg(&key).query_async(&mut client).await?;
        ensure!(found.as_deref() == Some(&value(number, length)[..]), "{key} is not what was written");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_many_batches_arrives_whole_over_links_that_break_change_bytes_and_fall_silent() -> anyhow::Result<()> {
    const MIB: u64 = 1 << 20;
    let root = tempfile::tempdir()?;
    let settings = [("migrate-timeout-ms", "1500"), ("migrate-backoff-ms-max", "200"), ("migrate-file-size", "8mb")];
    let (mut cluster, proxies) = behind_proxies(root.path(), &settings).await?;
    let mut client = cluster.node(0).client().await?;
    for (key, number, length) in lengths() {
        redis::cmd("SET").arg(&key).arg(value(number, length)).query_async::<()>(&mut client).await?;
    }
    let slot: SlotRanges = sluice_topology::Slot::of_key(b"{large}").into();
    let (mut from, mut to) = (0, 1);
    let mut resent = 0;
    for fault in 0..8u64 {
        // What the source says goes to the target's proxy, acknowledgements come back by it.
        let proxy = &proxies[to];
        match fault {
            0 => proxy.cut_after(Way::There, 5 * MIB + 13),
            1 => proxy.cut_after(Way::There, 20 * MIB),
            2 => proxy.cut_after(Way::Back, 40),
            3 => proxy.spoil_after(Way::There, 7 * MIB + 1),
            4 => proxy.spoil_after(Way::There, 30 * MIB),
            5 => proxy.spoil_after(Way::Back, 30),
            6 => proxy.set(Link { bytes_per_second: Some(16 * MIB), latency: Duration::from_millis(10), silent: false }),
            _ => proxy.set(Link { bytes_per_second: Some(20 * MIB), ..Link::default() }),
        }
        let before = proxy.carried(Way::There);
        let job = cluster.migrate(from, to, &slot).await?;
        if fault == 7 {
            wait_for("a part of the slot to be sent", || async { Ok(proxy.carried(Way::There) > before + 4 * MIB) }).await?;
            proxy.set(Link { silent: true, ..Link::default() });
            // The source finds out by itself, and comes again.
            let connections = proxy.connections();
            wait_for("the source to give the silent link up", || async { Ok(proxy.connections() > connections) }).await?;
            proxy.set(Link::default());
        }
        let status = cluster.ended(from, job).await?;
        ensure!(status.state == MigrationState::Done, "fault {fault}: {status:?}");
        resent += status.bytes_resent;
        proxy.set(Link::default());
        cluster.settled().await?;
        cluster.push_truth().await?;
        check_all(&cluster, to).await.with_context(|| format!("after fault {fault}"))?;
        (from, to) = (to, from);
    }
    ensure!(resent > 0, "no link was taken up again");
    Ok(())
}

/// Whether a job is at a step now; `None`: it is done.
async fn at_step(cluster: &LocalCluster, from: usize, step: &str, job: sluice_topology::JobId) -> anyhow::Result<Option<bool>> {
    let jobs = cluster.status(from).await?.migrations;
    let status: &MigrationStatus = jobs.iter().find(|status| status.job == job).context("the job is forgotten")?;
    match status.state {
        MigrationState::Running => Ok(Some(status.step == step)),
        MigrationState::Done => Ok(None),
        _ => anyhow::bail!("the job failed before it was seen at {step:?}: {status:?}"),
    }
}

/// Jobs that may be done without having been seen at a step: one at which there is nothing to send is over at once.
const UNSEEN_MAX: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_at_any_step_loses_nothing() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [
        ("migrate-unit-slots", "250"),
        ("migrate-units-at-once", "1"),
        ("migrate-backoff-ms-max", "200"),
        ("cluster-peer-timeout-ms", "1000"),
    ];
    let (mut cluster, proxies) = behind_proxies(root.path(), &settings).await?;
    let session = session(&cluster).await?;
    let all = ranges("0-1999");
    let (mut from, mut to) = (0, 1);
    for step in ["staging", "snapshot", "catching up", "switching", "preparing", "committed"] {
        for source_dies in [true, false] {
            // Slow, so that each step lasts long enough to be met.
            let slow = Link { latency: Duration::from_millis(40), ..Link::default() };
            proxies.iter().for_each(|proxy| proxy.set(slow));
            let (mut job, mut unseen) = (cluster.migrate(from, to, &all).await?, 0);
            loop {
                match at_step(&cluster, from, step, job).await? {
                    Some(true) => break,
                    Some(false) => {}
                    None => {
                        unseen += 1;
                        ensure!(unseen < UNSEEN_MAX, "no job was seen at {step:?}");
                        cluster.settled().await?;
                        cluster.push_truth().await?;
                        (from, to) = (to, from);
                        job = cluster.migrate(from, to, &all).await?;
                    }
                }
            }
            let number = if source_dies { from } else { to };
            cluster.kill(number)?;
            proxies.iter().for_each(|proxy| proxy.set(Link::default()));
            cluster.restart(number).await?;
            let status = cluster.ended_if_known(from, job).await?;
            let done = status.as_ref().is_none_or(|status| status.state == MigrationState::Done);
            ensure!(done, "killed at {step:?}: {status:?}\n{}", cluster.node(from).log());
            cluster.settled().await?;
            ensure!(all.difference(&cluster.status(to).await?.owned()).is_empty(), "killed at {step:?}: slots stayed behind");
            cluster.push_truth().await?;
            (from, to) = (to, from);
        }
    }
    println!("{LOADED} keys and live writes moved to and fro through twelve kills");
    verify(&session, &cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_written_as_fast_as_can_be_moves_all_the_same() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    // Slow enough that a round takes longer than the writers need to change everything again.
    let (mut cluster, proxies) = behind_proxies(root.path(), &[("migrate-switch-timeout-ms", "3000")]).await?;
    let mut client = cluster.node(0).client().await?;
    let slot: SlotRanges = sluice_topology::Slot::of_key(b"{hot}").into();
    for number in 0..3000 {
        redis::cmd("SET").arg(format!("{{hot}}:{number}")).arg(value(number, 1000)).query_async::<()>(&mut client).await?;
    }
    proxies[1].set(Link { bytes_per_second: Some(4 << 20), ..Link::default() });
    let address = cluster.node(0).address();
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let address = address.clone();
            tokio::spawn(async move {
                let client = redis::Client::open(format!("redis://{address}"))?;
                let mut connection = client.get_multiplexed_async_connection().await?;
                let mut newest = vec![0u64; 3000];
                for round in 1u64.. {
                    for number in (writer..3000).step_by(4) {
                        let stored = [round.to_be_bytes().to_vec(), value(number, 992)].concat();
                        let mut set = redis::cmd("SET");
                        match set.arg(format!("{{hot}}:{number}")).arg(stored).query_async::<()>(&mut connection).await {
                            Ok(()) => newest[number as usize] = round,
                            // The slot has left.
                            Err(error) if error.redirect_node().is_some() => return anyhow::Ok((writer, newest)),
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                anyhow::bail!("the slot never left")
            })
        })
        .collect();
    let job = cluster.migrate(0, 1, &slot).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    println!("attempts {}, longest pause {} ms", status.attempts, status.switch_pause_ms_max);
    cluster.push_truth().await?;
    let mut client = cluster.node(1).client().await?;
    for writer in writers {
        let (writer, newest) = writer.await??;
        for number in (writer..3000).step_by(4) {
            let found: Vec<u8> = redis::cmd("GET").arg(format!("{{hot}}:{number}")).query_async(&mut client).await?;
            let round = u64::from_be_bytes(found[..8].try_into()?);
            let acknowledged = newest[number as usize];
            // One that was under way when the slot left was executed, or was not.
            ensure!(
                round == acknowledged || acknowledged == 0,
                "key {number}: {acknowledged} was acknowledged, {round} is there"
            );
        }
    }
    Ok(())
}
