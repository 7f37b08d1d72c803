//! Faults caused for real: a full disk, one that turns read-only, rights taken away, an fsync that fails. Each has a defined state, and
//! an end that loses nothing acknowledged.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};
use sluice_tests::store::{LocalCluster, Setup, StoreProcess, Volume, wait_for};
use sluice_topology::{SlotRanges, admin::MigrationState};

/// Bytes of a value.
const VALUE: usize = 8 << 10;

/// A value that does not compress.
pub(super) fn value(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()
    };
    (0..VALUE / 8).flat_map(|_| word(&mut state)).collect()
}

/// Writes numbered keys from `from` until one is refused or `to` is reached. Returns the first that was not acknowledged, and why.
pub(super) async fn write(client: &mut MultiplexedConnection, from: u64, to: u64) -> (u64, Option<redis::RedisError>) {
    for number in from..to {
        if let Err(error) = client.set::<_, _, ()>(format!("key:{number}"), value(number)).await {
            return (number, Some(error));
        }
    }
    (to, None)
}

/// Checks that every key below `to` is there and whole.
pub(super) async fn check(store: &StoreProcess, to: u64) -> anyhow::Result<()> {
    let mut client = store.client().await?;
    for number in 0..to {
        let found: Option<Vec<u8>> = client.get(format!("key:{number}")).await?;
        ensure!(found == Some(value(number)), "key:{number} was acknowledged and is {:?}", found.map(|found| found.len()));
    }
    Ok(())
}

fn code(error: &redis::RedisError) -> String {
    error.code().unwrap_or_default().to_owned()
}

/// A small store: little is unflushed, so that little space is wanted.
fn small<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![("memory-budget", "64mb"), ("rocksdb.write_buffer_size", "4mb")];
    settings.extend_from_slice(more);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_refuses_writes_by_name_and_takes_them_again() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let volume = Volume::memory(root.path().join("volume"), "320m")?;
    // What is kept free is more than all the tables: a compaction that writes them anew does not meet a full disk either.
    let settings = small(&[("disk-free-min", "160mb"), ("reserve-file-size", "32mb")]);
    let store = Setup::new(volume.path(), &settings)?.start().await?;
    let mut client = store.client().await?;
    ensure!(store.info("reserve_file").await? == "yes", "{}", store.log());

    let (acknowledged, error) = write(&mut client, 0, 100_000).await;
    let error = error.context("800 MB went onto 320 MB")?;
    ensure!(code(&error) == "MISCONF" && error.to_string().contains("disk-free-min"), "{error}");
    // The end of a compaction may have made room again since.
    ensure!(store.log().contains("writes are refused: the disk has"), "{}", store.log());
    ensure!(store.info("refused_writes_total").await?.parse::<u64>()? > 0);
    ensure!(store.info("background_errors_total").await? == "0", "RocksDB ran into it: {}", store.log());
    // Users' writes leave the reserve alone.
    ensure!(volume.path().join("RESERVE").exists());
    check(&store, acknowledged).await?;
    let deleted: u64 = client.del("key:0").await?;
    ensure!(deleted == 1, "deletions are taken");
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;

    // Dropping everything gives the space back.
    redis::cmd("FLUSHALL").query_async::<()>(&mut client).await?;
    wait_for("writes to be taken again", || async {
        let mut client = store.client().await?;
        Ok(client.set::<_, _, ()>("after", "it").await.is_ok())
    })
    .await?;
    ensure!(store.info("storage_fault").await? == "none");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_lets_drops_and_flushes_work_on_a_disk_that_others_have_filled() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let volume = Volume::memory(root.path().join("volume"), "128m")?;
    let settings = small(&[("disk-free-min", "16mb"), ("reserve-file-size", "32mb")]);
    let store = Setup::new(volume.path(), &settings)?.start().await?;
    let mut client = store.client().await?;
    let (acknowledged, error) = write(&mut client, 0, 300).await;
    ensure!(error.is_none(), "{error:?}");
    let ballast = volume.fill(0)?;
    wait_for("the reserve file to be given up", || async { Ok(!volume.path().join("RESERVE").exists()) }).await?;
    // Blocks of a removed file may come free a moment later.
    wait_for("its blocks to be free", || async { Ok(volume.free()? > 16 << 20) }).await?;
    wait_for("writes to be refused", || async { Ok(store.info("storage_fault").await? == "low_space") }).await?;
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    check(&store, acknowledged).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut client).await?;
    let left: u64 = redis::cmd("DBSIZE").query_async(&mut client).await?;
    ensure!(left == 0, "{left} keys");
    let refused = client.set::<_, _, ()>("a", 1).await;
    ensure!(refused.is_err_and(|error| code(&error) == "MISCONF"), "the reserve is not for users' writes");

    fs::remove_file(ballast)?;
    wait_for("the reserve file to be made again", || async { Ok(store.info("reserve_file").await? == "yes") }).await?;
    let _: () = client.set("a", 1).await?;
    Ok(())
}

async fn rocksdb_meets_a_full_disk(wal: &str, sync: &str) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let volume = Volume::memory(root.path().join("volume"), "128m")?;
    // Without the low-water mark and the reserve RocksDB runs into it.
    let settings = small(&[("disk-free-min", "0"), ("reserve-file-size", "0"), ("sync", sync), ("wal", wal)]);
    let setup = Setup::new(volume.path(), &settings)?;
    let store = setup.start().await?;
    let mut client = store.client().await?;
    let (flushed, error) = write(&mut client, 0, 300).await;
    ensure!(error.is_none(), "{error:?}");
    let ballast = volume.fill(0)?;
    let (acknowledged, error) = write(&mut client, flushed, flushed + 20_000).await;
    let mut error = error.context("160 MB went onto a full disk")?;
    if error.is_io_error() {
        // It was applied, and cannot be synced: no answer is right, so the connection ends.
        ensure!(sync == "always", "{error}: {}", store.log());
        client = store.client().await?;
        error = client.set::<_, _, ()>("a", 1).await.err().context("nothing can be written")?;
    }
    ensure!(code(&error) == "MISCONF" && error.to_string().contains("No space left on device"), "{error}");
    wait_for("the fault to be known", || async { Ok(store.info("storage_fault").await? == "no_space") }).await?;
    let refused = client.set::<_, _, ()>("a", 1).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("free space or grow the volume")), "{}", store.log());
    check(&store, acknowledged).await?;

    fs::remove_file(ballast)?;
    wait_for("RocksDB to resume", || async {
        let mut client = store.client().await?;
        Ok(client.set::<_, _, ()>(format!("key:{acknowledged}"), value(acknowledged)).await.is_ok())
    })
    .await?;
    ensure!(store.info("storage_fault").await? == "none");
    if wal == "no" {
        // Only a receipt promises anything then; what was acknowledged while the disk was full is under it.
        redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut store.client().await?).await?;
    }
    store.kill()?;
    let store = setup.start().await?;
    check(&store, acknowledged + 1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_resumes_from_a_full_disk_without_a_restart() -> anyhow::Result<()> {
    rocksdb_meets_a_full_disk("yes", "everysec").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_resumes_from_a_full_disk_under_sync_always() -> anyhow::Result<()> {
    rocksdb_meets_a_full_disk("yes", "always").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_resumes_from_a_full_disk_without_a_log() -> anyhow::Result<()> {
    rocksdb_meets_a_full_disk("no", "everysec").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_uses_the_reserve_and_serves_reads() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let volume = Volume::memory(root.path().join("volume"), "128m")?;
    let settings = small(&[("disk-free-min", "16mb"), ("reserve-file-size", "32mb")]);
    let setup = Setup::new(volume.path(), &settings)?;
    let store = setup.start().await?;
    let (acknowledged, error) = write(&mut store.client().await?, 0, 1000).await;
    ensure!(error.is_none(), "{error:?}");
    // Killed with a log to replay, which writes tables; and no room for them but the reserve.
    store.kill()?;
    let ballast = volume.fill(0)?;
    ensure!(volume.path().join("RESERVE").exists());
    let store = setup.start().await?;
    ensure!(store.info("storage_fault").await? == "low_space" && store.info("reserve_file").await? == "no");
    check(&store, acknowledged).await?;
    fs::remove_file(ballast)?;
    wait_for("writes to be taken", || async { Ok(store.client().await?.set::<_, _, ()>("a", 1).await.is_ok()) }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_refuses_writes_and_serves_reads() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut volume = Volume::ext4(root.path().join("volume"), root.path().join("image"), 128 << 20)?;
    let settings = small(&[("disk-free-min", "8mb"), ("reserve-file-size", "16mb"), ("sync", "no")]);
    let setup = Setup::new(volume.path(), &settings)?;
    let store = setup.start().await?;
    let mut client = store.client().await?;
    let (acknowledged, error) = write(&mut client, 0, 200).await;
    ensure!(error.is_none(), "{error:?}");
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;

    volume.break_it()?;
    let (_, error) = write(&mut client, acknowledged, acknowledged + 1000).await;
    let error = error.context("a read-only disk was written to")?;
    ensure!(code(&error) == "MISCONF" && error.to_string().contains("Read-only file system"), "{error}");
    wait_for("the fault to be known", || async { Ok(store.info("storage_fault").await? == "device") }).await?;
    check(&store, acknowledged).await?;
    let flush = redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await;
    ensure!(flush.is_err(), "nothing can be flushed");
    let status = store.terminate().await?;
    ensure!(!status.success() && store.log().contains("the memtables were not flushed"), "{}", store.log());

    // A start on it is refused, by name.
    let output = setup.command()?.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("mount it for writing"), "{said}");

    volume.unmount()?;
    volume.mount()?;
    let store = setup.start().await?;
    check(&store, acknowledged).await?;
    let _: () = store.client().await?.set("a", 1).await?;
    drop(store);
    Ok(())
}

/// A store without root's right to pass over permissions; nothing to take away for others.
fn unprivileged(mut setup: Setup) -> Setup {
    let words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"];
    setup.wrapper = words.map(str::to_owned).to_vec();
    setup
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_taken_away_stop_writes_and_given_back_end_in_a_start_that_has_everything() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = unprivileged(Setup::new(root.path().join("data"), &small(&[]))?);
    let store = setup.start().await?;
    let database = setup.directory.join("db");
    let mut client = store.client().await?;
    let (acknowledged, error) = write(&mut client, 0, 200).await;
    ensure!(error.is_none(), "{error:?}");

    // No new file can be made, so that the next flush fails; the probe of the directory fails as well.
    set_mode(&database, 0o500)?;
    set_mode(&setup.directory, 0o500)?;
    let flush = redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await;
    ensure!(flush.is_err_and(|error| error.to_string().contains("Permission denied")), "{}", store.log());
    wait_for("the fault to be known", || async { Ok(store.info("storage_fault").await? == "device") }).await?;
    let refused = client.set::<_, _, ()>("a", 1).await;
    ensure!(refused.is_err_and(|error| code(&error) == "MISCONF"), "{}", store.log());
    check(&store, acknowledged).await?;

    set_mode(&setup.directory, 0o700)?;
    set_mode(&database, 0o700)?;
    let status = store.ended().await?;
    ensure!(status.code() == Some(1) && store.log().contains("can be written again"), "{status:?}: {}", store.log());
    let store = setup.start().await?;
    check(&store, acknowledged).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_rights_is_refused_by_name() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = unprivileged(Setup::new(root.path().join("data"), &[])?);
    let store = setup.start().await?;
    ensure!(store.terminate().await?.success(), "{}", store.log());
    for path in [setup.directory.join("db"), setup.directory.clone()] {
        set_mode(&path, 0o000)?;
        let output = setup.command()?.output()?;
        set_mode(&path, 0o700)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("cannot be used: "), "{said}");
        ensure!(said.contains("Permission denied") && said.contains(path.to_str().unwrap_or_default()), "{said}");
    }
    let lock = setup.directory.join("db/LOCK");
    set_mode(&lock, 0o000)?;
    let output = setup.command()?.output()?;
    set_mode(&lock, 0o600)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("give the user this process runs as the right"), "{said}");
    setup.start().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_acknowledges_nobody_and_ends_the_process() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let below = Volume::memory(root.path().join("below"), "512m")?;
    let mut volume = Volume::thin(root.path().join("volume"), &below, 256 << 20, 48 << 20)?;
    let settings = small(&[("disk-free-min", "0"), ("reserve-file-size", "0"), ("sync", "always")]);
    let setup = Setup::new(volume.path(), &settings)?;
    let store = setup.start().await?;
    let mut client = store.client().await?;
    let (acknowledged, error) = write(&mut client, 0, 20_000).await;
    ensure!(error.is_some() && acknowledged > 10, "{acknowledged}: {error:?}");
    let status = store.ended().await?;
    ensure!(status.code() == Some(1) && store.log().contains("an fsync failed"), "{status:?}: {}", store.log());

    // With blocks behind it again, what was acknowledged is there. What was not synced may have holes.
    volume.unmount()?;
    below.remount("size=512m")?;
    volume.mount()?;
    let mut setup = setup;
    setup.settings.push(("rocksdb.wal_recovery_mode".into(), "point_in_time".into()));
    let store = setup.start().await?;
    // The write that failed began in the page in which the last acknowledged one ends: a disk that fails a page may take all of it.
    check(&store, acknowledged - 1).await?;
    store.kill()?;
    volume.unmount()?;
    Ok(())
}

async fn set(store: &StoreProcess, name: &str, value: &str) -> anyhow::Result<()> {
    Ok(redis::cmd("CONFIG").arg(&["SET", name, value]).query_async(&mut store.client().await?).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_runs_out_of_room_takes_no_slots_until_it_has_some() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    // Slow enough to be met in the middle.
    let settings = [("migrate-backoff-ms-max", "200"), ("migrate-rate", "64kb")];
    let cluster = LocalCluster::start(root.path(), 2, 1, &settings).await?;
    let (keys, error) = write(&mut cluster.node(0).client().await?, 0, 200).await;
    ensure!(error.is_none(), "{error:?}");
    let job = cluster.migrate(0, 1, &SlotRanges::full()).await?;
    wait_for("a part to be sent", || async {
        let jobs = cluster.status(0).await?.migrations;
        Ok(jobs.iter().any(|status| status.job == job && status.batches > 0))
    })
    .await?;
    // More than any disk has.
    set(cluster.node(1), "disk-free-min", "1000000gb").await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Failed && status.last_error.contains("the disk has"), "{status:?}");
    ensure!(cluster.status(1).await?.owned().union(&cluster.status(0).await?.owned()) == SlotRanges::full(), "a slot is lost");
    set(cluster.node(1), "disk-free-min", "0").await?;
    set(cluster.node(0), "migrate-rate", "0").await?;
    let left = cluster.status(0).await?.owned();
    let job = cluster.migrate(0, 1, &left).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    check(cluster.node(1), keys).await?;
    Ok(())
}
