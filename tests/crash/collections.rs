//! Hashes that are deleted, the process killed before or while their fields are reclaimed.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::ensure;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

/// Fewer than make a hash large enough for its range to be compacted, which would flush.
const FIELDS: usize = 20_000;

fn value(number: usize) -> String {
    // Hardly any of it compresses.
    let mut noise = number as u64 + 1;
    let mut letter = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (noise >> 57) as u8 % 75)
    };
    (0..64).map(|_| letter()).collect()
}

async fn fill(store: &StoreProcess, key: &str, fields: usize) -> anyhow::Result<()> {
    let mut connection = store.client().await?;
    for first in (0..fields).step_by(10_000) {
        let mut pipeline = redis::pipe();
        for start in (first..fields.min(first + 10_000)).step_by(100) {
            let pairs: Vec<(String, String)> =
                (start..fields.min(start + 100)).map(|number| (number.to_string(), value(number))).collect();
            pipeline.cmd("HSET").arg(key).arg(&pairs).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

async fn command(store: &StoreProcess, words: &[&str]) -> anyhow::Result<()> {
    let mut connection = store.client().await?;
    redis::cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut connection).await?;
    Ok(())
}

async fn length(store: &StoreProcess, key: &str) -> anyhow::Result<usize> {
    Ok(redis::cmd("HLEN").arg(key).query_async(&mut store.client().await?).await?)
}

async fn await_reclaimed(store: &StoreProcess) -> anyhow::Result<()> {
    wait_for("fields are reclaimed", || async { Ok(store.info("reclaim_pending_collections").await? == "no") }).await
}

/// Bytes of RocksDB's table files.
fn table_bytes(setup: &Setup) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(setup.directory.join("db"))? {
        let path = entry?.path();
        if path.extension() == Some("sst".as_ref()) {
            // One that was deleted meanwhile takes nothing.
            bytes += path.metadata().map_or(0, |data| data.len());
        }
    }
    Ok(bytes)
}

async fn start(root: &Path, settings: &[(&str, &str)]) -> anyhow::Result<(Setup, StoreProcess)> {
    let setup = Setup::new(root.join("data"), settings)?;
    let store = setup.start().await?;
    Ok((setup, store))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_a_hash_whose_deletion_is_lost_comes_back_whole() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (setup, store) = start(root.path(), &[("wal", "no")]).await?;
    fill(&store, "h", FIELDS).await?;
    store.admin().await?.flush(Duration::from_mins(1)).await?;
    command(&store, &["DEL", "h"]).await?;
    // Every field is deleted, in memory alone, as is the key.
    wait_for("its fields are deleted", || async { Ok(store.info("reclaimed_subkeys_total").await? == FIELDS.to_string()) })
        .await?;
    ensure!(length(&store, "h").await? == 0);
    store.kill()?;
    let store = setup.start().await?;
    ensure!(length(&store, "h").await? == FIELDS, "the deletion was flushed by something: the test shows nothing");
    let all: HashMap<String, String> = redis::cmd("HGETALL").arg("h").query_async(&mut store.client().await?).await?;
    ensure!(all.len() == FIELDS, "the key came back with {} of {FIELDS} fields", all.len());
    ensure!((0..FIELDS).all(|number| all.get(&number.to_string()) == Some(&value(number))));
    // Deleted again, and flushed this time: it stays gone, and so do its fields.
    command(&store, &["DEL", "h"]).await?;
    store.admin().await?.flush(Duration::from_mins(1)).await?;
    store.kill()?;
    let store = setup.start().await?;
    await_reclaimed(&store).await?;
    ensure!(length(&store, "h").await? == 0);
    command(&store, &["COMPACT"]).await?;
    wait_for("the disk shrinks", || async { Ok(table_bytes(&setup)? < (FIELDS * 64 / 8) as u64) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_a_deletion_and_its_reclaiming_leaves_no_field_behind() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (setup, mut store) = start(root.path(), &[]).await?;
    fill(&store, "kept", 100).await?;
    for round in 0..4u64 {
        fill(&store, "h", FIELDS).await?;
        store.admin().await?.flush(Duration::from_mins(1)).await?;
        // Replaced, expired, deleted: each leaves its fields behind.
        match round % 3 {
            0 => command(&store, &["DEL", "h"]).await?,
            1 => command(&store, &["SET", "h", "a string"]).await?,
            _ => command(&store, &["PEXPIRE", "h", "1"]).await?,
        }
        tokio::time::sleep(Duration::from_millis(round * 25)).await;
        store.kill()?;
        store = setup.start().await?;
        wait_for("the hash is gone", || async {
            let kind: String = redis::cmd("TYPE").arg("h").query_async(&mut store.client().await?).await?;
            Ok(kind == if round % 3 == 1 { "string" } else { "none" })
        })
        .await?;
        command(&store, &["DEL", "h"]).await?;
        if round % 3 == 2 {
            wait_for("it is swept", || async {
                Ok(store.info("expired_keys").await? != "0" || store.info("reclaimed_subkeys_total").await? != "0")
            })
            .await?;
        }
        await_reclaimed(&store).await?;
        ensure!(length(&store, "kept").await? == 100, "another hash lost fields");
    }
    command(&store, &["COMPACT"]).await?;
    wait_for("the disk shrinks", || async { Ok(table_bytes(&setup)? < (FIELDS * 64 / 8) as u64) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_hash_of_a_million_fields_leave_the_disk() -> anyhow::Result<()> {
    const MILLION: usize = 1_000_000;
    let root = tempfile::tempdir()?;
    let (setup, store) = start(root.path(), &[]).await?;
    fill(&store, "other", 100).await?;
    fill(&store, "h", MILLION).await?;
    store.admin().await?.flush(Duration::from_mins(1)).await?;
    let full = table_bytes(&setup)?;
    ensure!(length(&store, "h").await? == MILLION && full > (MILLION * 40) as u64, "{full} bytes are on disk");
    command(&store, &["DEL", "h"]).await?;
    await_reclaimed(&store).await?;
    wait_for("the disk shrinks", || async { Ok(table_bytes(&setup)? < full / 20) }).await?;
    println!("{full} bytes on disk, {} left", table_bytes(&setup)?);
    ensure!(length(&store, "other").await? == 100);
    Ok(())
}
