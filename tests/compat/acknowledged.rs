//! WAIT and WAITAOF: what they say, and that what WAITAOF says is so.

use anyhow::ensure;
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, StoreProcess},
};

use crate::{family::words, reference::RedisServer};

async fn fsyncs(store: &StoreProcess) -> anyhow::Result<u64> {
    Ok(store.info("wal_fsyncs_total").await?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_replicas_is_told_that_there_are_none() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let redis = RedisServer::start()?;
    redis.client().await?;
    let (mut ours, mut theirs) = (Connection::open(&store.address()).await?, Connection::open(&redis.address()).await?);
    let transaction = ["MULTI", "WAIT 1 0", "EXEC"];
    let requests = ["WAIT", "WAIT 0 0", "WAIT 1 10", "WAIT -1 0", "WAIT x 0", "WAIT 0 -1", "WAIT 0 x", "WAIT 1 1 1"];
    for request in requests.into_iter().chain(transaction) {
        let request = words(request);
        ours.send(std::slice::from_ref(&request)).await?;
        theirs.send(std::slice::from_ref(&request)).await?;
        let (expected, found) = (theirs.answer().await?, ours.answer().await?);
        ensure!(expected == found, "{request:?}\n redis: {expected:?}\nsluice: {found:?}");
    }
    Ok(())
}

/// The texts are those of Redis 8.0.2, which was asked for them: 7.0 does not have the command.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_on_disk_once_waitaof_says_so() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("sync", "no")])?.start().await?;
    let mut client = Connection::open(&store.address()).await?;
    let pair = |first, second| Answer::Array(vec![Answer::Integer(first), Answer::Integer(second)]);
    for (request, text) in [
        ("WAITAOF 2 0 0", "ERR value is out of range, value must between 0 and 1"),
        ("WAITAOF x 0 0", "ERR value is not an integer or out of range"),
        ("WAITAOF 0 -1 0", "ERR value is out of range, must be positive"),
        ("WAITAOF 0 0 -1", "ERR timeout is negative"),
        ("WAITAOF 0 0 x", "ERR timeout is not an integer or out of range"),
    ] {
        client.send(&[words(request)]).await?;
        ensure!(client.answer().await? == Answer::Error(text.into()), "{request}");
    }
    for limit in ["0", "60000"] {
        let before = fsyncs(&store).await?;
        client.send(&[words("SET k v"), words("WAITAOF 0 0 0"), words(&format!("WAITAOF 1 1 {limit}"))]).await?;
        ensure!(client.answer().await? == Answer::Simple("OK".into()));
        ensure!(client.answer().await? == pair(0, 0), "nobody has synced what was just written");
        ensure!(client.answer().await? == pair(1, 0));
        ensure!(fsyncs(&store).await? > before, "it said so without an fsync");
    }
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("wal", "no")])?.start().await?;
    let mut client = Connection::open(&store.address()).await?;
    let answer = client.ask(&["WAITAOF", "1", "0", "0"]).await?;
    ensure!(matches!(&answer, Answer::Error(text) if text.starts_with("ERR WAITAOF cannot be used when")), "{answer:?}");
    ensure!(client.ask(&["WAITAOF", "0", "0", "0"]).await? == pair(0, 0));
    Ok(())
}
