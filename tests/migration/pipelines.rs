//! Pipelines of clients that do not know where slots are just now: sent to both nodes while slots move between them.

use anyhow::ensure;
use sluice_tests::{
    resp::{Answer, Connection},
    store::LocalCluster,
};
use sluice_topology::admin::MigrationState;
use tokio::sync::watch;

use super::ranges;

/// Hashes, and writers that each add fields to all of them in one pipeline.
const HASHES: usize = 200;
const WRITERS: usize = 3;

/// Adds a field after the other to every hash, at both nodes, until it is told to end. How many were acknowledged, of each hash.
async fn add_fields(addresses: Vec<String>, writer: usize, ending: watch::Receiver<bool>) -> anyhow::Result<Vec<i64>> {
    let (mut acknowledged, mut connections) = (vec![0; HASHES], Vec::new());
    for address in &addresses {
        connections.push(Connection::open(address).await?);
    }
    let mut field = 0u64;
    while !*ending.borrow() {
        for connection in &mut connections {
            field += 1;
            let command =
                |hash: usize| ["HSET", &format!("hash:{hash}"), &format!("{writer}.{field}"), "x"].map(str::to_owned).to_vec();
            let commands: Vec<Vec<String>> = (0..HASHES).map(command).collect();
            for (hash, answer) in connection.ask_all(&commands).await?.into_iter().enumerate() {
                match answer {
                    Answer::Integer(1) => acknowledged[hash] += 1,
                    Answer::Error(text) if text.starts_with("MOVED") || text.starts_with("TRYAGAIN") => {}
                    other => anyhow::bail!("hash:{hash} was answered {other:?}"),
                }
            }
        }
    }
    Ok(acknowledged)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pipelines_read_ahead_is_not_taken_for_what_has_arrived_meanwhile() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-unit-slots", "512")]).await?;
    let (end, ending) = watch::channel(false);
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(add_fields(cluster.addresses(), writer, ending.clone()))).collect();
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let job = cluster.migrate(from, to, &ranges("0-16383")).await?;
        let status = cluster.ended(from, job).await?;
        ensure!(status.state == MigrationState::Done, "{status:?}");
        cluster.push_truth().await?;
    }
    end.send(true)?;
    let mut acknowledged = vec![0; HASHES];
    for writer in writers {
        writer.await??.into_iter().zip(&mut acknowledged).for_each(|(count, sum)| *sum += count);
    }
    let mut reader = Connection::open(&cluster.addresses()[1]).await?;
    for (hash, count) in acknowledged.into_iter().enumerate() {
        let found = reader.ask(&["HLEN", &format!("hash:{hash}")]).await?;
        ensure!(found == Answer::Integer(count), "hash:{hash} has {found:?} of {count} fields");
    }
    Ok(())
}
