//! Publishing, subscribing and keyspace notifications beside a real redis-server, in RESP2 and RESP3; and what a store does with a
//! subscriber that does not take its messages.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::{
    family::{Words, words},
    reference::RedisServer,
};

const CONNECTIONS: usize = 4;

fn step() -> impl Strategy<Value = (usize, Words)> {
    let command = prop::sample::select(vec![
        "SUBSCRIBE a",
        "SUBSCRIBE a b",
        "SUBSCRIBE",
        "PSUBSCRIBE *",
        "PSUBSCRIBE a* [bc]",
        "SSUBSCRIBE a",
        "SSUBSCRIBE {a}x a",
        "UNSUBSCRIBE a",
        "UNSUBSCRIBE c a",
        "PUNSUBSCRIBE *",
        "PUNSUBSCRIBE a* x",
        "SUNSUBSCRIBE a",
        "SUNSUBSCRIBE x",
        "PUBLISH a 1",
        "PUBLISH a 2",
        "PUBLISH b 1",
        "PUBLISH abc x",
        "PUBLISH none x",
        "SPUBLISH a 1",
        "SPUBLISH {a}x 2",
        "PUBLISH a",
        "PUBSUB NUMPAT",
        "PUBSUB NUMSUB a b",
        "PUBSUB NUMSUB",
        "PUBSUB SHARDNUMSUB a",
        "PUBSUB NOSUCH",
        "PUBSUB NUMPAT x",
        "GET a",
        "SET k 1",
        "DEL k",
        "HSET h f 1",
        "HDEL h f",
        "EXPIRE k 1000",
        "RENAME k j",
        "PING",
        "PING x",
        "MULTI",
        "EXEC",
        "DISCARD",
        "RESET",
        "INCR n",
        "APPEND k x",
    ]);
    (0..CONNECTIONS, command.prop_map(words))
}

/// Everything that has reached a connection, up to the answer to a PING of its own.
async fn heard(connection: &mut Connection, token: &str) -> anyhow::Result<Vec<Answer>> {
    connection.send(&[vec!["PING".into(), token.into()]]).await?;
    let mut all = Vec::new();
    loop {
        let answer = tokio::time::timeout(Duration::from_secs(30), connection.answer()).await.context("no answer to PING")??;
        let is_pong = match &answer {
            Answer::Bulk(_) => answer.text() == Some(token),
            Answer::Array(elements) => elements.len() == 2 && elements[1].text() == Some(token),
            // Queued in MULTI: there is nothing behind it.
            Answer::Simple(text) => text == "QUEUED",
            _ => false,
        };
        if is_pong {
            // Messages of several patterns have an order that nobody promises, and a message to oneself comes before or behind the reply.
            all.sort();
            return Ok(all);
        }
        all.push(answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_notifications_are_those_of_redis() -> anyhow::Result<()> {
    let seed: u8 = std::env::var("SLUICE_DIFFERENTIAL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let mut messages = 0;
    for round in 0..8 {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for (all, address) in [(&mut theirs, redis.address()), (&mut ours, store.address())] {
            let mut control = Connection::open(&address).await?;
            control.ask(&["FLUSHALL"]).await?;
            let events = ["", "KEA", "Kg$", "Eh"][round % 4];
            ensure!(control.ask(&["CONFIG", "SET", "notify-keyspace-events", events]).await? == Answer::Simple("OK".into()));
            for number in 0..CONNECTIONS {
                let mut connection = Connection::open(&address).await?;
                connection.ask(&["HELLO", if (round / 4 + number) % 2 == 0 { "2" } else { "3" }]).await?;
                all.push(connection);
            }
        }
        let mut history: Vec<String> = Vec::new();
        // Inside MULTI a subscription is made by EXEC, whose array its confirmations interleave: then nothing is asked between.
        for number in 0..300 {
            let (at, command) = step().new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
            if command[0] == "MULTI" || command[0] == "EXEC" || command[0] == "DISCARD" {
                continue;
            }
            let command = [command];
            theirs[at].send(&command).await?;
            ours[at].send(&command).await?;
            // Who asked first: others hear of it once it is done.
            let order = (at..CONNECTIONS).chain(0..at);
            for hearer in order {
                let token = format!("token-{number}");
                let expected = heard(&mut theirs[hearer], &token).await?;
                let found = heard(&mut ours[hearer], &token).await?;
                history.push(format!("{at}: {command:?}: {hearer} hears {expected:?}"));
                let recent = &history[history.len().saturating_sub(30)..];
                ensure!(
                    expected == found,
                    "round {round}, step {number} of seed {seed}: {at}: {command:?}, heard by {hearer}\n redis: {expected:?}\nsluice: {found:?}\nbefore:\n{}",
                    recent.join("\n")
                );
                messages += expected.len();
            }
        }
    }
    println!("{messages} answers and messages, no difference");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_publish_what_was_applied_and_nothing_else() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let mut heard_by = Vec::new();
    for address in [redis.address(), store.address()] {
        let (mut hearer, mut writer) = (Connection::open(&address).await?, Connection::open(&address).await?);
        writer.ask(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]).await?;
        hearer.ask(&["HELLO", "3"]).await?;
        hearer.ask(&["PSUBSCRIBE", "*"]).await?;
        let commands = [
            "MULTI",
            "SET k 1",
            "PUBLISH c one",
            "LPUSH k x",
            "HSET k f v",
            "INCR k",
            "PUBLISH c two",
            "EXEC",
            "MULTI",
            "SET never 1",
            "DISCARD",
            "MULTI",
            "SET never 1",
            "NOSUCH",
            "EXEC",
            "DEL k",
            "PUBLISH c end",
        ];
        writer.ask_all(&commands.map(words)).await?;
        let mut all = Vec::new();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(30), hearer.answer()).await.context("no message")??;
            let last = message.elements().last().and_then(Answer::text) == Some("end");
            all.push(message);
            if last {
                break;
            }
        }
        heard_by.push(all);
    }
    ensure!(heard_by[0] == heard_by[1], " redis: {:#?}\nsluice: {:#?}", heard_by[0], heard_by[1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expires_is_told_though_nobody_asks_for_it() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("notify-keyspace-events", "Ex")])?.start().await?;
    let (mut hearer, mut writer) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    hearer.ask(&["SUBSCRIBE", "__keyevent@0__:expired"]).await?;
    writer.ask(&["SET", "gone", "1", "PX", "20"]).await?;
    let message = tokio::time::timeout(Duration::from_mins(1), hearer.answer()).await.context("nothing was told")??;
    let expected = ["message", "__keyevent@0__:expired", "gone"];
    ensure!(message.elements().iter().map(|word| word.text().unwrap_or_default()).eq(expected), "{message:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_reads_nothing_is_ended_and_the_others_hear_all() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("client-output-buffer-limit", "pubsub 1mb 0 0")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let address = store.address();
    let open = || Connection::open(&address);
    let (mut slow, mut quick, mut writer) = (open().await?, open().await?, open().await?);
    for subscriber in [&mut slow, &mut quick] {
        subscriber.ask(&["SUBSCRIBE", "news"]).await?;
    }
    let text = "x".repeat(64 << 10);
    for number in 0..400 {
        let receivers = writer.ask(&["PUBLISH", "news", &format!("{number}:{text}")]).await?;
        ensure!(receivers != Answer::Integer(0));
        let message = tokio::time::timeout(Duration::from_secs(30), quick.answer()).await.context("a message is missing")??;
        let payload = message.elements()[2].text().unwrap_or_default();
        ensure!(payload.starts_with(&format!("{number}:")), "{number} was lost or out of order");
    }
    ensure!(writer.ask(&["PUBSUB", "NUMSUB", "news"]).await?.elements()[1] == Answer::Integer(1));
    // What the system had taken for it may be there; then the end.
    let ended = async { while slow.answer().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.context("the slow subscriber is still connected")?;
    Ok(())
}
