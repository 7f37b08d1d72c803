//! A target whose disk others fill in the middle of a migration: the source keeps what it has and serves it, the job says why it stopped, and
//! with room again the rest goes.

use anyhow::{Context as _, ensure};
use sluice_tests::{
    dice::Dice,
    store::{LocalCluster, Volume, wait_for},
};
use sluice_topology::{SlotRanges, admin::MigrationState};

use crate::{session, verify};

/// Values that are moved while the disk fills up, and bytes of each.
const VALUES: usize = 1500;
const VALUE: usize = 32 << 10;

fn value(number: usize) -> Vec<u8> {
    let mut dice = Dice::new(number as u64);
    (0..VALUE).map(|_| dice.below(256) as u8).collect()
}

async fn fills_up(guards: &[(&str, &str)]) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let volume = Volume::memory(root.path().join("node-1"), "256m")?;
    let settings = [
        ("memory-budget", "128mb"),
        ("migrate-unit-slots", "512"),
        ("migrate-rate", "10mb"),
        ("migrate-attempts-max", "3"),
        ("migrate-backoff-ms-max", "200"),
    ];
    let settings: Vec<(&str, &str)> = settings.into_iter().chain(guards.iter().copied()).collect();
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &settings).await?;
    let mut client = cluster.node(0).client().await?;
    for number in 0..VALUES {
        redis::cmd("SET").arg(format!("large:{number}")).arg(value(number)).query_async::<()>(&mut client).await?;
    }
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    let session = session(&cluster).await?;
    let job = cluster.migrate(0, 1, &SlotRanges::full()).await?;
    // In the middle: something is there already, something is on its way.
    wait_for("some slots to have moved", || async {
        let status = cluster.status(0).await?;
        let job = status.migrations.iter().find(|status| status.job == job).context("the job is gone")?;
        ensure!(job.state == MigrationState::Running, "it ended before its time: {job:?}");
        Ok(job.slots_done > 0 && job.bytes_sent > 4 << 20)
    })
    .await?;
    let ballast = volume.fill(0)?;
    let status = cluster.ended(0, job).await?;
    println!("{status:?}");
    ensure!(status.state == MigrationState::Failed, "nothing can go onto a full disk: {status:?}");
    let bytes = (VALUES * VALUE) as u64;
    ensure!(status.bytes_total > bytes / 10 * 8 && status.bytes_total < bytes / 10 * 12, "{bytes} in values: {status:?}");
    let said = status.last_error.to_lowercase();
    ensure!(said.contains("no space left") || said.contains("disk"), "{status:?}");
    ensure!(status.slots_done > 0 && status.slots_done < status.slots_total, "{status:?}");
    // What had not moved is the source's, whole, and takes writes.
    let kept = cluster.status(0).await?.owned();
    ensure!(kept.len() as u32 == status.slots_total - status.slots_done, "{kept} of {status:?}");
    std::fs::remove_file(ballast)?;
    wait_for("the target to take writes", || async { Ok(cluster.node(1).info("storage_fault").await? == "none") }).await?;
    cluster.push_truth().await?;
    let job = cluster.migrate(0, 1, &kept).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}\n{}", cluster.node(1).log());
    cluster.push_truth().await?;
    let mut client = cluster.node(1).client().await?;
    for number in 0..VALUES {
        let found: Option<Vec<u8>> = redis::cmd("GET").arg(format!("large:{number}")).query_async(&mut client).await?;
        ensure!(found == Some(value(number)), "large:{number} is {:?} bytes", found.map(|found| found.len()));
    }
    verify(&session, &cluster).await?;
    wait_for("what was staged in vain to be given back", || async {
        Ok(cluster.node(1).info("reclaim_pending_generations").await? == "0")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_disk_fills_up_says_so_and_takes_the_rest_once_it_has_room() -> anyhow::Result<()> {
    fills_up(&[("disk-free-min", "32mb"), ("reserve-file-size", "32mb")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_runs_into_a_full_disk_loses_nothing_and_takes_the_rest_once_it_has_room() -> anyhow::Result<()> {
    fills_up(&[("disk-free-min", "0"), ("reserve-file-size", "0")]).await
}
