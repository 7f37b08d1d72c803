//! Files damaged or lost while the store was down: what a kill leaves is gone on with, everything else is refused or named, and nothing
//! is ever begun anew over what is left of a database.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use redis::AsyncCommands as _;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

use super::faults::{check, write};

const KEYS: u64 = 500;

/// The largest file of the database with that ending.
fn largest(setup: &Setup, ending: &str) -> anyhow::Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(setup.directory.join("db"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            found.push((entry.metadata()?.len(), entry.path()));
        }
    }
    found.into_iter().max().map(|(_, path)| path).with_context(|| format!("there is no file *{ending}"))
}

/// Turns the bits of a few bytes around.
fn flip(path: &Path, offset: u64) -> anyhow::Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, offset)?;
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    Ok(file.write_all_at(&bytes, offset)?)
}

/// A store with keys in its log alone, killed.
async fn killed(root: &Path) -> anyhow::Result<Setup> {
    let setup = Setup::new(root.join("data"), &[])?;
    let store = setup.start().await?;
    let (written, error) = write(&mut store.client().await?, 0, KEYS).await;
    ensure!(written == KEYS, "{error:?}");
    store.kill()?;
    Ok(setup)
}

fn refused(setup: &Setup) -> anyhow::Result<String> {
    let output = setup.command()?.output()?;
    ensure!(!output.status.success(), "it was not refused");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_loses_no_more_than_the_torn_record() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = killed(root.path()).await?;
    let log = largest(&setup, ".log")?;
    let length = fs::metadata(&log)?.len();
    fs::File::options().write(true).open(&log)?.set_len(length - 100)?;
    let store = setup.start().await?;
    check(&store, KEYS - 1).await?;
    let last: bool = store.client().await?.exists(format!("key:{}", KEYS - 1)).await?;
    ensure!(!last, "half a record was taken for a whole one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_inside_the_log_is_refused_and_nothing_is_changed() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut setup = killed(root.path()).await?;
    let log = largest(&setup, ".log")?;
    let middle = fs::metadata(&log)?.len() / 2;
    flip(&log, middle)?;
    for _ in 0..2 {
        let said = refused(&setup)?;
        ensure!(said.contains("is damaged: Corruption") && said.contains("point_in_time"), "{said}");
    }
    // Mended, it is whole: the refusals have changed nothing.
    flip(&log, middle)?;
    let store = setup.start().await?;
    check(&store, KEYS).await?;
    ensure!(store.terminate().await?.success(), "{}", store.log());

    // Who says so goes on with what is before the damage.
    let store = setup.start().await?;
    let (written, error) = write(&mut store.client().await?, KEYS, 2 * KEYS).await;
    ensure!(written == 2 * KEYS, "{error:?}");
    store.kill()?;
    let log = largest(&setup, ".log")?;
    flip(&log, fs::metadata(&log)?.len() / 2)?;
    setup.settings.push(("rocksdb.wal_recovery_mode".into(), "point_in_time".into()));
    let store = setup.start().await?;
    check(&store, KEYS + KEYS / 3).await?;
    let left: u64 = redis::cmd("DBSIZE").query_async(&mut store.client().await?).await?;
    ensure!(left < 2 * KEYS, "the log was not damaged at all");
    Ok(())
}

/// How many of the keys can be read, and what is said of those that cannot.
async fn readable(store: &StoreProcess) -> anyhow::Result<(u64, Option<String>)> {
    let (mut client, mut good, mut said) = (store.client().await?, 0, None);
    for number in 0..KEYS {
        match client.get::<_, Option<Vec<u8>>>(format!("key:{number}")).await {
            Ok(Some(found)) => {
                ensure!(found == super::faults::value(number), "a damaged value was served");
                good += 1;
            }
            Ok(None) => anyhow::bail!("key:{number} is said not to be there, its block is damaged"),
            Err(error) => said = Some(error.to_string()),
        }
    }
    Ok((good, said))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_fails_the_reads_that_meet_it_and_no_others() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let store = setup.start().await?;
    let mut client = store.client().await?;
    write(&mut client, 0, KEYS).await;
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    ensure!(store.terminate().await?.success(), "{}", store.log());
    let table = largest(&setup, ".sst")?;
    flip(&table, fs::metadata(&table)?.len() / 2)?;

    let store = setup.start().await?;
    let (good, said) = readable(&store).await?;
    ensure!(good > KEYS / 2 && good < KEYS, "{good} of {KEYS} can be read");
    let said = said.context("no read failed")?;
    ensure!(said.contains("the stored data is damaged where this was read") && said.contains(".sst"), "{said}");
    let scanned = redis::cmd("DBSIZE").query_async::<u64>(&mut store.client().await?).await;
    ensure!(scanned.is_err(), "a scan that met damage took it for the end: {scanned:?}");
    let mut client = store.client().await?;
    let _: () = client.set("a", 1).await?;

    // A compaction that meets it stops RocksDB: writes are refused by the file's name, reads go on.
    redis::cmd("COMPACT").query_async::<()>(&mut client).await?;
    wait_for("the damage to be known", || async { Ok(store.info("storage_fault").await? == "damaged") }).await?;
    let refused = client.set::<_, _, ()>("b", 1).await.expect_err("RocksDB has stopped").to_string();
    ensure!(refused.contains("MISCONF") && refused.contains(".sst"), "{refused}");
    ensure!(store.info("last_background_error").await?.contains("Corruption"));
    ensure!(readable(&store).await?.0 == good, "reads go on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_current_or_manifest_is_refused_and_not_begun_anew() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = killed(root.path()).await?;
    let database = setup.directory.join("db");
    let manifest = fs::read_to_string(database.join("CURRENT"))?.trim().to_owned();
    for name in ["CURRENT", manifest.as_str()] {
        let (path, aside) = (database.join(name), root.path().join("aside"));
        fs::rename(&path, &aside)?;
        let said = refused(&setup)?;
        ensure!(said.contains(&format!("holds a database without {name}")), "{said}");
        fs::rename(&aside, &path)?;
    }
    let aside = root.path().join("aside");
    fs::rename(&database, &aside)?;
    let said = refused(&setup)?;
    ensure!(said.contains("holds a database without db"), "{said}");
    fs::rename(&aside, &database)?;
    let store = setup.start().await?;
    check(&store, KEYS).await?;
    Ok(())
}
