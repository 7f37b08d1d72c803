//! Flush rounds that take their time: what callers are told meanwhile, and what goes on.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use sluice_tests::store::{LocalCluster, Setup, StoreProcess, wait_for};
use sluice_topology::{SlotRanges, admin::MigrationState};

use super::faults::{check, value, write};

/// Twenty-four megabytes in memtables, and a disk that takes four a second: a round runs for seconds.
const KEYS: u64 = 3000;
const SLOW: [(&str, &str); 3] =
    [("rocksdb.max_io_bytes_per_sec", "4mb"), ("rocksdb.compression", "no"), ("memory-budget", "512mb")];

async fn slow(settings: &[(&str, &str)], root: &std::path::Path) -> anyhow::Result<StoreProcess> {
    let settings: Vec<_> = SLOW.iter().chain(settings).copied().collect();
    let store = Setup::new(root.join("data"), &settings)?.start().await?;
    let (written, error) = write(&mut store.client().await?, 0, KEYS).await;
    ensure!(written == KEYS, "{error:?}");
    Ok(store)
}

async fn flush(client: &mut MultiplexedConnection, words: &[&str]) -> Result<String, String> {
    redis::cmd("FLUSHMEMTABLE").arg(words).query_async(client).await.map_err(|error| error.to_string())
}

/// What NOWAIT says while the round runs; an error when it does not run.
async fn running(client: &mut MultiplexedConnection) -> anyhow::Result<String> {
    flush(client, &["NOWAIT"]).await.err().context("no round is running: the disk was not slow enough for this test")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_round_runs_callers_are_told_and_reads_and_writes_go_on() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = slow(&[], root.path()).await?;
    let mut client = store.client().await?;
    let mut admin = store.admin().await?;
    let first = tokio::spawn(async move { admin.flush(Duration::from_mins(1)).await });
    wait_for("the round to begin", || async { Ok(store.info("flush_waiters").await? == "1") }).await?;

    let round = store.info("last_flush_round").await?.parse::<u64>()? + 1;
    let named = format!("BUSY\": flush round {round} is running");
    let said = running(&mut client).await?;
    ensure!(said.contains(&named), "{said}");
    // A time-out detaches its caller alone: the round it had joined comes all the same.
    let said = flush(&mut client, &["TIMEOUT", "1", "RECEIPT"]).await.expect_err("the round takes seconds");
    ensure!(said.contains(&format!("TIMEOUT\": flush round {} did not complete", round + 1)), "{said}");
    ensure!(said.contains("it goes on"), "{said}");
    ensure!(flush(&mut client, &["ASYNC"]).await == Ok("OK".into()));
    redis::cmd("CONFIG").arg(&["SET", "flush-wait", "no"]).query_async::<()>(&mut client).await?;
    ensure!(flush(&mut client, &[]).await == Ok("OK".into()), "flush-wait no does not wait");
    for number in 0..100 {
        let _: () = client.set(format!("meanwhile:{number}"), number).await?;
        let found: Option<Vec<u8>> = client.get(format!("key:{number}")).await?;
        ensure!(found == Some(value(number)));
    }
    // All that while the first round has run.
    let said = running(&mut client).await?;
    ensure!(said.contains(&named), "{said}");

    let receipt = first.await??;
    ensure!(receipt.round == round && receipt.waiters == 1 && receipt.bytes > 20 << 20, "{receipt:?}");
    wait_for("the round of the caller that has gone", || async {
        Ok(store.info("last_flush_round").await?.parse::<u64>()? > round)
    })
    .await?;
    ensure!(store.info("last_flush_round").await? == (round + 1).to_string(), "one more round serves all who came meanwhile");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_in_the_middle_of_the_last_round_harms_nothing() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    // Without a log only that round can have saved them.
    let store = slow(&[("wal", "no")], root.path()).await?;
    store.signal("TERM")?;
    wait_for("the shutdown to begin", || async { Ok(store.log().contains("shutting down")) }).await?;
    let found: Option<Vec<u8>> = store.client().await?.get("key:1").await?;
    ensure!(found == Some(value(1)), "reads go on");
    for _ in 0..3 {
        store.signal("TERM")?;
    }
    wait_for("the second signal to be seen", || async { Ok(store.log().contains("already shutting down")) }).await?;
    ensure!(store.ended().await?.code() == Some(0), "{}", store.log());
    let store = store.setup().start().await?;
    ensure!(store.info("clean_shutdown").await? == "yes", "{}", store.log());
    check(&store, KEYS).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_and_checkpoints_do_not_wait_for_each_other_for_ever() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut keys = 0;
    for _ in 0..5 {
        let (mut saver, mut writer, mut admin) = (store.client().await?, store.client().await?, store.admin().await?);
        let save = async { redis::cmd("SAVE").query_async::<String>(&mut saver).await };
        let (saved, receipt, (written, error)) =
            tokio::join!(save, admin.flush(Duration::from_secs(30)), write(&mut writer, keys, keys + 50));
        ensure!(error.is_none(), "{error:?}");
        let (saved, receipt) = (saved?, receipt?);
        ensure!(saved == "OK" && receipt.round > 0);
        keys = written;
    }
    store.kill()?;
    let store = store.setup().start().await?;
    check(&store, keys).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_complete_while_slots_move() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-unit-slots", "64")]).await?;
    let (keys, error) = write(&mut cluster.node(0).client().await?, 0, 1000).await;
    ensure!(error.is_none(), "{error:?}");
    let job = cluster.migrate(0, 1, &SlotRanges::full()).await?;
    let (mut source, mut target) = (cluster.node(0).admin().await?, cluster.node(1).admin().await?);
    let mut meanwhile = 0;
    loop {
        let limit = Duration::from_secs(30);
        let (from, to) = tokio::join!(source.flush(limit), target.flush(limit));
        let (from, to) = (from?, to?);
        ensure!(from.round > meanwhile && to.round > meanwhile, "{from:?} {to:?}");
        let jobs = source.migrations().await?;
        if jobs.iter().any(|status| status.job == job && status.state != MigrationState::Running) {
            break;
        }
        meanwhile += 1;
    }
    ensure!(meanwhile > 0, "the migration was over before a round was");
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    check(cluster.node(1), keys).await?;
    Ok(())
}
