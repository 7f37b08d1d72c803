//! kill -9 while keys expire and are swept: what has no expiry stays, what has expired never comes back.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::ensure;
use redis::AsyncCommands as _;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

const KILLS: u64 = 4;

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// When a key that was acknowledged expires; `None`: never.
type Acknowledged = HashMap<String, Option<u64>>;

async fn write_until_broken(store: &StoreProcess, round: u64) -> Acknowledged {
    let mut acknowledged = HashMap::new();
    let Ok(mut connection) = store.client().await else { return acknowledged };
    for number in 0u64.. {
        let key = format!("{round}:{number}");
        let at = unix_ms() + number % 300;
        let mut written: Result<(), _> =
            redis::cmd("SET").arg(&key).arg("value").arg("PXAT").arg(at).query_async(&mut connection).await;
        let mut expires = Some(at);
        if written.is_ok() && number % 3 == 0 {
            // Whether that came in time is the reply's to say.
            match redis::cmd("PERSIST").arg(&key).query_async::<i64>(&mut connection).await {
                Ok(1) => expires = None,
                Ok(_) => {}
                Err(error) => written = Err(error),
            }
        }
        if written.is_err() {
            return acknowledged;
        }
        acknowledged.insert(key, expires);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_during_the_sweep_keeps_what_stays_and_brings_nothing_expired_back() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("expire-sweep-keys-per-second", "10000000"), ("rocksdb.write_buffer_size", "1mb")];
    let setup = Setup::new(root.path().join("data"), &settings)?;
    let mut store = setup.start().await?;
    let mut all: Acknowledged = HashMap::new();
    let mut swept = 0;
    for round in 0..KILLS {
        let killer = async {
            tokio::time::sleep(Duration::from_millis(1700 + 300 * round)).await;
            let swept: u64 = store.info("expired_keys").await?.parse()?;
            store.kill()?;
            anyhow::Ok(swept)
        };
        let (acknowledged, killed) = tokio::join!(write_until_broken(&store, round), killer);
        swept += killed?;
        ensure!(!acknowledged.is_empty(), "nothing was acknowledged: the test shows nothing");
        all.extend(acknowledged);
        store = setup.start().await?;
        let mut connection = store.client().await?;
        for (key, expires) in &all {
            let now = unix_ms();
            let there: bool = connection.exists(key).await?;
            match expires {
                None => ensure!(there, "{key} was made to stay and is gone"),
                Some(at) if *at < now => ensure!(!there, "{key} expired {} ms ago and is there", now - at),
                Some(_) => {}
            }
        }
    }
    ensure!(swept > 0, "nothing was swept before a kill: the test shows nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_rests_begins_when_it_is_told_to_and_commands_count_what_they_find_expired() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("expire-sweep-keys-per-second", "0")])?;
    let store = setup.start().await?;
    let mut connection = store.client().await?;
    for key in ["incremented", "deleted", "read", "left alone"] {
        redis::cmd("SET").arg(key).arg(5).arg("PX").arg(1).query_async::<()>(&mut connection).await?;
    }
    wait_for("they expire", || async { Ok(store.client().await?.exists::<_, u64>("read").await? == 0) }).await?;
    ensure!(connection.incr::<_, _, u64>("incremented", 1).await? == 1, "it began with what had expired");
    ensure!(connection.del::<_, u64>("deleted").await? == 0, "it was gone");
    ensure!(store.info("expired_keys").await? == "2", "reading counts nothing, writing what it finds expired");
    redis::cmd("CONFIG").arg(&["SET", "expire-sweep-keys-per-second", "100000"]).query_async::<()>(&mut connection).await?;
    wait_for("the others are swept", || async { Ok(store.info("expired_keys").await? == "4") }).await?;
    ensure!(connection.get::<_, u64>("incremented").await? == 1, "it has no expiry");
    Ok(())
}
