//! BGSAVE: a checkpoint is a data directory; a copy of it is a node as of that moment.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use redis::AsyncCommands as _;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

use super::faults::{check, value, write};

async fn saved(store: &StoreProcess) -> anyhow::Result<String> {
    wait_for("the checkpoint to be there", || async { Ok(store.info("rdb_bgsave_in_progress").await? == "0") }).await?;
    ensure!(store.info("rdb_last_bgsave_status").await? == "ok", "{}", store.log());
    store.info("last_checkpoint").await
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "{} was not copied", from.display());
    Ok(())
}

async fn a_copy_is_the_node_as_of_then(wal: &str, checkpoints: Option<PathBuf>) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut setup = Setup::new(root.path().join("data"), &[("wal", wal)])?;
    if let Some(folder) = &checkpoints {
        setup.settings.push(("checkpoint-dir".into(), folder.display().to_string()));
    }
    let folder = checkpoints.unwrap_or_else(|| setup.directory.join("checkpoints"));
    let store = setup.start().await?;
    let mut client = store.client().await?;
    ensure!(store.info("rdb_last_save_time").await? == "0" && store.info("last_checkpoint").await? == "none");
    let (keys, error) = write(&mut client, 0, 300).await;
    ensure!(error.is_none(), "{error:?}");
    ensure!(redis::cmd("BGSAVE").query_async::<String>(&mut client).await? == "Background saving started");
    let name = saved(&store).await?;
    let at: u64 = redis::cmd("LASTSAVE").query_async(&mut client).await?;
    ensure!(at > 0 && store.info("rdb_last_save_time").await? == at.to_string());
    let node = store.admin().await?.status().await?.node_id;

    let _: () = client.set("key:0", "later").await?;
    let _: () = client.set("later", 1).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut client).await?;
    store.kill()?;

    let restored = Setup::new(root.path().join("restored"), &[("wal", wal)])?;
    copy(&folder.join(&name), &restored.directory)?;
    let store = restored.start().await?;
    check(&store, keys).await?;
    let later: bool = store.client().await?.exists("later").await?;
    ensure!(!later, "what came after is in the checkpoint");
    let status = store.admin().await?.status().await?;
    ensure!(status.node_id == node, "a checkpoint is of the node it was made by");
    ensure!(name.ends_with(&format!("-round-{}", status.persistence.recovered_round)), "{name}: {status:?}");
    // It lives on.
    let (_, error) = write(&mut store.client().await?, keys, keys + 10).await;
    ensure!(error.is_none(), "{error:?}");
    store.kill()?;

    // The checkpoint has not changed by that.
    fs::remove_dir_all(&restored.directory)?;
    copy(&folder.join(&name), &restored.directory)?;
    let store = restored.start().await?;
    check(&store, keys).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_checkpoint_is_the_node_as_of_then() -> anyhow::Result<()> {
    a_copy_is_the_node_as_of_then("yes", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_a_log_has_everything_too() -> anyhow::Result<()> {
    a_copy_is_the_node_as_of_then("no", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_may_be_made_elsewhere() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    // Another file system, where links cannot go.
    let volume = sluice_tests::store::Volume::memory(root.path().join("volume"), "64m")?;
    a_copy_is_the_node_as_of_then("yes", Some(volume.path().join("checkpoints"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_made_one_at_a_time_while_writes_go_on_and_old_ones_are_removed() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("checkpoints-kept", "2")])?;
    let store = setup.start().await?;
    let mut client = store.client().await?;
    let (mut keys, mut names) = (0, Vec::new());
    for _ in 0..4 {
        keys = write(&mut client, keys, keys + 100).await.0;
        let mut callers = Vec::new();
        for _ in 0..8 {
            callers.push(store.client().await?);
        }
        let answers = callers.iter_mut().map(|client| async {
            let save = redis::cmd("BGSAVE");
            save.query_async::<String>(client).await
        });
        let (answers, (written, error)) = tokio::join!(futures::future::join_all(answers), write(&mut client, keys, keys + 20));
        ensure!(error.is_none(), "writes do not wait for a checkpoint: {error:?}");
        keys = written;
        let begun = answers.iter().filter(|answer| answer.is_ok()).count();
        ensure!(begun >= 1, "{answers:?}");
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            ensure!(refused.to_string().contains("Background save already in progress"), "{refused}");
        }
        let name = saved(&store).await?;
        ensure!(names.last() != Some(&name), "no checkpoint was made");
        names.push(name);
    }
    let mut left: Vec<String> = fs::read_dir(setup.directory.join("checkpoints"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    left.sort();
    ensure!(left.len() == 2 && left.last() == names.last(), "{left:?} of {names:?}");

    // A start knows the newest, and what a kill left half made is no checkpoint.
    fs::create_dir(setup.directory.join("checkpoints/making"))?;
    store.kill()?;
    let store = setup.start().await?;
    ensure!(Some(&store.info("last_checkpoint").await?) == names.last());
    ensure!(!setup.directory.join("checkpoints/making").exists());
    let mut client = store.client().await?;
    redis::cmd("SAVE").query_async::<()>(&mut client).await?;
    ensure!(Some(&store.info("last_checkpoint").await?) != names.last());
    check(&store, keys).await?;
    ensure!(store.terminate().await?.success(), "{}", store.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_and_empty_caches_change_nothing_but_where_things_are() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("rocksdb.row_cache_size", "8mb"), ("memory-budget", "128mb")])?;
    let store = setup.start().await?;
    let mut client = store.client().await?;
    let (keys, error) = write(&mut client, 0, 1000).await;
    ensure!(error.is_none(), "{error:?}");
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    check(&store, keys).await?;
    let used = |field: &'static str| async { anyhow::Ok(store.info(field).await?.parse::<u64>()?) };
    let (blocks, rows) = (used("block_cache_used").await?, used("row_cache_used").await?);
    ensure!(blocks > 1 << 20 && rows > 1 << 20, "{blocks} and {rows} bytes are cached");
    redis::cmd("FLUSHBLOCKCACHE").query_async::<()>(&mut client).await?;
    ensure!(used("row_cache_used").await? < rows / 4 && used("block_cache_used").await? < blocks);
    check(&store, keys).await?;
    ensure!(used("row_cache_used").await? > 1 << 20, "the cache is in use again");

    ensure!(redis::cmd("COMPACT").query_async::<String>(&mut client).await? == "OK");
    wait_for("the compaction to end", || async { Ok(store.info("compacts_completed_total").await? == "1") }).await?;
    ensure!(store.info("compact_in_progress").await? == "0");
    check(&store, keys).await?;
    let _: () = client.set("key:0", value(0)).await?;
    Ok(())
}
