//! Hashes on the move: all of a hash or nothing of it, and nothing of what was there before under its name.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::ensure;
use redis::cluster_async::ClusterConnection;
use sluice_tests::{load::Target, store::LocalCluster};
use sluice_topology::admin::MigrationState;

use crate::ranges;

const HASHES: usize = 240;
const FIELDS: usize = 40;
/// The field that is counted up while the hash moves.
const COUNTER: &str = "counter";

type Fields = BTreeMap<String, String>;

fn name(number: usize) -> String {
    format!("hash:{number}")
}

async fn set(client: &mut ClusterConnection, key: &str, fields: &Fields) -> anyhow::Result<()> {
    let mut command = redis::cmd("HSET");
    command.arg(key);
    for (field, value) in fields {
        command.arg(field).arg(value);
    }
    Ok(command.query_async(client).await?)
}

/// What every hash is to hold. Some had another life before, which has to stay over.
async fn load(client: &mut ClusterConnection) -> anyhow::Result<Vec<Fields>> {
    let mut all = Vec::new();
    for number in 0..HASHES {
        let key = name(number);
        let mut fields: Fields = (0..FIELDS).map(|field| (format!("field:{field}"), format!("{number}:{field}"))).collect();
        set(client, &key, &fields).await?;
        match number % 4 {
            0 => {}
            1 => {
                redis::cmd("DEL").arg(&key).query_async::<()>(client).await?;
                fields.clear();
            }
            2 => {
                redis::cmd("SET").arg(&key).arg("a string").query_async::<()>(client).await?;
                redis::cmd("DEL").arg(&key).query_async::<()>(client).await?;
                fields = [("field:0".to_owned(), "of another life".to_owned())].into();
                set(client, &key, &fields).await?;
            }
            _ => {
                redis::cmd("HDEL").arg(&key).arg("field:0").arg("field:7").query_async::<()>(client).await?;
                fields.retain(|field, _| field != "field:0" && field != "field:7");
            }
        }
        all.push(fields);
    }
    Ok(all)
}

/// Counts up a field of one hash after the other until it is told to stop. None may be refused.
async fn count_up(mut client: ClusterConnection, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<u64>> {
    let mut counts = vec![0; HASHES];
    for number in (0..HASHES).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let count: u64 = redis::cmd("HINCRBY").arg(name(number)).arg(COUNTER).arg(1).query_async(&mut client).await?;
        counts[number] += 1;
        ensure!(count == counts[number], "{} counts {count}, {} were acknowledged", name(number), counts[number]);
    }
    Ok(counts)
}

async fn verify(client: &mut ClusterConnection, all: &[Fields]) -> anyhow::Result<()> {
    for (number, expected) in all.iter().enumerate() {
        let key = name(number);
        let found: Fields = redis::cmd("HGETALL").arg(&key).query_async(client).await?;
        ensure!(found == *expected, "{key}: found {found:?}, expected {expected:?}");
        let size: usize = redis::cmd("HLEN").arg(&key).query_async(client).await?;
        ensure!(size == expected.len(), "{key}: HLEN {size}, and {} fields", expected.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_move_whole_under_writes_and_old_lives_stay_over() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    for wal in ["yes", "no"] {
        let mut cluster = LocalCluster::start(&root.path().join(wal), 2, 1, &[("wal", wal)]).await?;
        let target = Target::new(cluster.addresses());
        let mut client = target.connect().await?;
        let mut all = load(&mut client).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let counting = tokio::spawn(count_up(target.connect().await?, stop.clone()));
        // There and, in part, back: a slot that returns shows nothing of what it held when it left.
        for (from, to, slots) in [(0, 1, "0-8191"), (1, 0, "1000-5000"), (0, 1, "2000-3000,9000-16383")] {
            let job = cluster.migrate(from, to, &ranges(slots)).await?;
            let status = cluster.ended(from, job).await?;
            ensure!(status.state == MigrationState::Done, "{status:?}");
            cluster.push_truth().await?;
        }
        stop.store(true, Ordering::Relaxed);
        let counts = counting.await??;
        ensure!(counts.iter().sum::<u64>() > 0, "nothing was written while the slots moved");
        for (fields, count) in all.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
            fields.insert(COUNTER.to_owned(), count.to_string());
        }
        verify(&mut client, &all).await?;
        if wal == "yes" {
            for number in 0..2 {
                cluster.kill(number)?;
            }
            for number in 0..2 {
                cluster.restart(number).await?;
            }
            verify(&mut target.connect().await?, &all).await?;
        }
        // New lives on the node that others' hashes came to.
        for (number, fields) in all.iter_mut().enumerate() {
            redis::cmd("DEL").arg(name(number)).query_async::<()>(&mut client).await?;
            *fields = [("new".to_owned(), number.to_string())].into();
            set(&mut client, &name(number), fields).await?;
        }
        verify(&mut client, &all).await?;
    }
    Ok(())
}
