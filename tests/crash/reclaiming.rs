//! kill -9 while space is given back: what is dead goes in the end, what is not stays.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

/// Keys of a round, and bytes of a value.
const KEYS: usize = 20_000;
const VALUE_BYTES: usize = 1024;

/// Text that hardly compresses.
fn value(seed: usize) -> String {
    let mut noise = seed as u64;
    let mut letter = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (noise >> 57) as u8 % 75)
    };
    (0..VALUE_BYTES).map(|_| letter()).collect()
}

async fn fill(store: &StoreProcess, round: usize) -> anyhow::Result<()> {
    let mut connection = store.client().await?;
    for first in (0..KEYS).step_by(1000) {
        let mut pipeline = redis::pipe();
        for number in first..first + 1000 {
            // A handful of slots, so that each has many keys.
            pipeline.set(format!("{{{}}}:{round}:{number}", number % 5), value(number)).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await?;
    }
    store.admin().await?.flush(Duration::from_mins(1)).await?;
    Ok(())
}

fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // A file that was deleted meanwhile takes nothing.
        let Ok(data) = entry.metadata() else { continue };
        bytes += if data.is_dir() { disk_bytes(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}

async fn kill_while_reclaiming(wal: &str) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("wal", wal), ("rocksdb.write_buffer_size", "2mb")])?;
    let mut store = setup.start().await?;
    for round in 0..4usize {
        fill(&store, round).await?;
        let full = disk_bytes(&setup.directory.join("db"))?;
        ensure!(full > (KEYS * VALUE_BYTES / 2) as u64, "only {full} bytes are on disk: the test shows nothing");
        let mut connection = store.client().await?;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
        // Into the same slots, beside what is being reclaimed.
        let mut pipeline = redis::pipe();
        for number in 0..500 {
            pipeline.set(format!("{{{}}}:kept:{number}", number % 5), round).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await?;
        store.admin().await?.flush(Duration::from_mins(1)).await?;
        tokio::time::sleep(Duration::from_millis(round as u64 * 40)).await;
        store.kill()?;
        store = setup.start().await?;
        wait_for("what is dead is reclaimed", || async { Ok(store.info("reclaim_pending_generations").await? == "0") }).await?;
        wait_for("the disk shrinks", || async { Ok(disk_bytes(&setup.directory.join("db"))? < full / 4) }).await?;
        let mut connection = store.client().await?;
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
        ensure!(keys == 500, "{keys} keys are there, 500 were written after the flush");
        for number in 0..500 {
            let key = format!("{{{}}}:kept:{number}", number % 5);
            let found: Option<usize> = redis::cmd("GET").arg(&key).query_async(&mut connection).await?;
            ensure!(found == Some(round), "{key} is {found:?} in round {round}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_space_is_given_back_takes_nothing_that_lives() -> anyhow::Result<()> {
    kill_while_reclaiming("yes").await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_space_is_given_back_takes_nothing_that_lives_without_a_log() -> anyhow::Result<()> {
    kill_while_reclaiming("no").await
}
