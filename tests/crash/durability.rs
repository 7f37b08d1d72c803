//! A writer records every acknowledged write; the store is killed; after the restart all of them are there, as the mode promises.

use std::{collections::HashMap, time::Duration};

use anyhow::ensure;
use redis::AsyncCommands as _;
use sluice_tests::store::{Setup, StoreProcess};

/// Writers at once.
const WRITERS: usize = 4;

/// How often each test kills; more with `SLUICE_CRASH_KILLS`.
fn kills() -> usize {
    std::env::var("SLUICE_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Writes until the connection breaks; returns what was acknowledged: a number of writes for each key.
async fn write_until_broken(store: &StoreProcess, writer: usize, from: u64) -> HashMap<String, u64> {
    let mut acknowledged = HashMap::new();
    let Ok(mut connection) = store.client().await else { return acknowledged };
    for number in from.. {
        let key = format!("counter:{writer}:{}", number % 50);
        match connection.incr::<_, _, u64>(&key, 1).await {
            Ok(value) => acknowledged.insert(key, value),
            Err(_) => return acknowledged,
        };
    }
    acknowledged
}

async fn check(store: &StoreProcess, acknowledged: &HashMap<String, u64>) -> anyhow::Result<()> {
    let mut connection = store.client().await?;
    for (key, value) in acknowledged {
        let found: u64 = connection.get::<_, Option<u64>>(key).await?.unwrap_or(0);
        ensure!(found >= *value, "{key} is {found}, {value} was acknowledged");
        // At most the one increment that was under way may be there without its acknowledgement, a kill.
        ensure!(found <= value + kills() as u64 + 1, "{key} is {found}, only {value} was acknowledged");
    }
    Ok(())
}

async fn kill_loop(settings: &[(&str, &str)]) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), settings)?;
    let mut acknowledged = HashMap::new();
    let mut store = setup.start().await?;
    for kill in 0..kills() {
        let writers = (0..WRITERS).map(|writer| write_until_broken(&store, writer, kill as u64 * 1000));
        let killer = async {
            tokio::time::sleep(Duration::from_millis(150 + 61 * (kill as u64 % 7))).await;
            store.kill()
        };
        let (outcomes, killed) = tokio::join!(futures::future::join_all(writers), killer);
        killed?;
        ensure!(outcomes.iter().any(|outcome| !outcome.is_empty()), "nothing was acknowledged: the test shows nothing");
        acknowledged.extend(outcomes.into_iter().flatten());
        store = setup.start().await?;
        ensure!(store.info("clean_shutdown").await? == "no", "a kill is no clean shutdown");
        check(&store, &acknowledged).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_with_sync_always() -> anyhow::Result<()> {
    kill_loop(&[("sync", "always")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_with_sync_everysec() -> anyhow::Result<()> {
    kill_loop(&[("sync", "everysec")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_with_a_row_cache() -> anyhow::Result<()> {
    kill_loop(&[("rocksdb.row_cache_size", "8mb")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_wal_everything_up_to_the_last_receipt_comes_back() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("wal", "no")])?;
    let mut store = setup.start().await?;
    for kill in 0..kills() as u64 {
        let mut connection = store.client().await?;
        for number in 0..500u64 {
            let _: () = connection.set(format!("before:{kill}:{number}"), number).await?;
        }
        let receipt = store.admin().await?.flush(Duration::from_secs(30)).await?;
        for number in 0..500u64 {
            let _: () = connection.set(format!("after:{kill}:{number}"), number).await?;
        }
        store.kill()?;
        store = setup.start().await?;
        let status = store.admin().await?.status().await?;
        ensure!(status.instance == receipt.instance, "the instance has changed");
        ensure!(status.persistence.recovered_round >= receipt.round, "{status:?} after {receipt:?}");
        let mut connection = store.client().await?;
        for number in 0..500u64 {
            let found: Option<u64> = connection.get(format!("before:{kill}:{number}")).await?;
            ensure!(found == Some(number), "before:{kill}:{number} is {found:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_flushes_everything_and_says_so_at_the_next_start() -> anyhow::Result<()> {
    for wal in ["yes", "no"] {
        let root = tempfile::tempdir()?;
        let setup = Setup::new(root.path().join("data"), &[("wal", wal)])?;
        let store = setup.start().await?;
        let writers = (0..WRITERS).map(|writer| write_until_broken(&store, writer, 0));
        let ender = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // The second one must not corrupt anything.
            store.signal("TERM")?;
            store.terminate().await
        };
        let (outcomes, status) = tokio::join!(futures::future::join_all(writers), ender);
        ensure!(status?.code() == Some(0), "{}", store.log());
        let acknowledged: HashMap<String, u64> = outcomes.into_iter().flatten().collect();
        ensure!(!acknowledged.is_empty(), "nothing was acknowledged");
        let store = setup.start().await?;
        ensure!(store.info("clean_shutdown").await? == "yes", "{}", store.log());
        check(&store, &acknowledged).await?;
        // The marker speaks of one shutdown only.
        store.kill()?;
        let store = setup.start().await?;
        ensure!(store.info("clean_shutdown").await? == "no", "{}", store.log());
    }
    Ok(())
}
