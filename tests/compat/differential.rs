//! The same commands, made at random, to a real redis-server and to a store: same replies, same final state, restarts in between.

use std::time::Duration;

use anyhow::ensure;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use redis::Value;
use sluice_tests::store::Setup;

use crate::reference::RedisServer;

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "{x}1", "{x}2", ""]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[0-9]{1,3}",
        "-?[0-9]{1,20}",
        "[0-9]{1,3}\\.[0-9]{1,2}",
        Just("9223372036854775807".to_owned()),
        Just("-9223372036854775808".to_owned()),
        Just(" 1".to_owned()),
        Just("01".to_owned()),
        "[a-z]{0,30}",
    ]
}

/// A time to live far enough away that a slow machine does not change the outcome.
fn seconds() -> impl Strategy<Value = String> {
    prop_oneof![
        "[1-9][0-9]{4}",
        Just("0".to_owned()),
        Just("-5".to_owned()),
        Just("x".to_owned()),
        Just("9223372036854775807".to_owned())
    ]
}

fn option() -> impl Strategy<Value = Vec<String>> {
    let words = |words: &[&str]| Just(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    prop_oneof![
        words(&[]),
        words(&["NX"]),
        words(&["XX"]),
        words(&["GET"]),
        words(&["KEEPTTL"]),
        words(&["nx", "get"]),
        words(&["XX", "NX"]),
        words(&["KEEPTTL", "EX", "10"]),
        words(&["EX"]),
        words(&["WHAT"]),
        seconds().prop_map(|seconds| vec!["EX".into(), seconds]),
        seconds().prop_map(|seconds| vec!["GET".into(), "EX".into(), seconds]),
    ]
}

/// One command of the families that exist, its arguments often wrong.
fn command() -> impl Strategy<Value = Vec<String>> {
    let one = prop::sample::select(vec![
        "GET",
        "STRLEN",
        "INCR",
        "DECR",
        "TTL",
        "PERSIST",
        "TYPE",
        "GETDEL",
        "EXISTS",
        "DEL",
        "UNLINK",
        "PEXPIRETIME",
        "EXPIRETIME",
    ]);
    let two = prop::sample::select(vec!["APPEND", "INCRBY", "DECRBY", "SETNX", "GETSET"]);
    let expiry = prop::sample::select(vec!["EXPIRE", "PEXPIREAT", "EXPIREAT"]);
    let condition = prop::sample::select(vec!["", "NX", "XX", "GT", "LT", "NX XX", "GT LT", "YY"]);
    prop_oneof![
        4 => (one, key()).prop_map(|(name, key)| vec![name.to_owned(), key]),
        3 => (two, key(), value()).prop_map(|(name, key, value)| vec![name.to_owned(), key, value]),
        4 => (key(), value(), option()).prop_map(|(key, value, option)| [vec!["SET".to_owned(), key, value], option].concat()),
        1 => (key(), seconds(), value()).prop_map(|(key, seconds, value)| vec!["SETEX".into(), key, seconds, value]),
        2 => (expiry, key(), seconds(), condition).prop_map(|(name, key, seconds, condition)| {
            // Times of the -AT forms are in the past or far ahead, never near now.
            let words = condition.split_whitespace().map(str::to_owned);
            [name.to_owned(), key, seconds].into_iter().chain(words).collect()
        }),
        1 => prop::collection::vec(key(), 0..4).prop_map(|keys| ["MGET".to_owned()].into_iter().chain(keys).collect()),
        1 => prop::collection::vec((key(), value()), 0..3)
            .prop_map(|pairs| ["MSET".to_owned()].into_iter().chain(pairs.into_iter().flat_map(|(key, value)| [key, value])).collect()),
        2 => (prop::sample::select(vec!["RENAME", "RENAMENX"]), key(), key()).prop_map(|(name, from, to)| vec![name.to_owned(), from, to]),
        1 => prop::collection::vec(key(), 1..4).prop_map(|keys| ["DEL".to_owned()].into_iter().chain(keys).collect()),
        1 => prop::collection::vec(key(), 1..4).prop_map(|keys| ["EXISTS".to_owned()].into_iter().chain(keys).collect()),
        // On a key of its own: what the others leave is often too large to be added exactly by anybody.
        1 => prop::sample::select(vec!["1.5", "-0.25", "3", "x", "", "1e2", " 1", "0.1"]).prop_map(|by| vec!["INCRBYFLOAT".into(), "f".into(), by.into()]),
        1 => "[0-9]{1,3}(\\.[0-9]{1,2})?".prop_map(|value| vec!["SET".into(), "f".into(), value]),
        1 => prop::sample::select(vec!["DBSIZE", "PING", "PING hello", "ECHO hello", "ECHO", "GET", "SET a", "SELECT 0", "SELECT x", "FLUSHDB"])
            .prop_map(|text| text.split(' ').map(str::to_owned).collect()),
    ]
}

/// A reply as it is compared: errors by their text.
async fn ask(connection: &mut redis::aio::MultiplexedConnection, words: &[String]) -> Result<Value, String> {
    let mut command = redis::cmd(&words[0]);
    command.arg(&words[1..]);
    let outcome = command.query_async::<Value>(connection).await;
    outcome.map_err(|error| format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default()))
}

/// Whether two replies are the same. Expiry is counted from each server's own now: a few seconds lie between.
fn same(name: &str, expected: &Result<Value, String>, found: &Result<Value, String>) -> bool {
    let tolerance = match name {
        "TTL" | "EXPIRETIME" => 5,
        "PEXPIRETIME" => 5000,
        _ => 0,
    };
    match (expected, found) {
        (Ok(Value::Int(expected)), Ok(Value::Int(found))) if *expected > 0 => (expected - found).abs() <= tolerance,
        _ => expected == found,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_as_redis_does() -> anyhow::Result<()> {
    let cases: usize = std::env::var("SLUICE_DIFFERENTIAL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let seed: u8 = std::env::var("SLUICE_DIFFERENTIAL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let (redis, mut store) = (RedisServer::start()?, setup.start().await?);
    let (mut theirs, mut ours) = (redis.client().await?, store.client().await?);
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let strategy = command();
    let mut history = Vec::new();
    for case in 0..cases {
        let words = strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
        let (expected, found) = (ask(&mut theirs, &words).await, ask(&mut ours, &words).await);
        history.push(format!("{words:?} -> {expected:?}"));
        let recent = &history[history.len().saturating_sub(25)..];
        ensure!(
            same(&words[0], &expected, &found),
            "case {case} of seed {seed}: {words:?}\n redis: {expected:?}\nsluice: {found:?}\nbefore:\n{}",
            recent.join("\n")
        );
        if case % (cases / 4).max(1) == cases / 8 {
            store.kill()?;
            store = setup.start().await?;
            ours = store.client().await?;
        }
    }
    for key in ["a", "b", "c", "{x}1", "{x}2", ""] {
        for name in ["GET", "PEXPIRETIME", "TYPE"] {
            let words = [name.to_owned(), key.to_owned()];
            let (expected, found) = (ask(&mut theirs, &words).await, ask(&mut ours, &words).await);
            ensure!(same(name, &expected, &found), "final {words:?}: redis {expected:?}, sluice {found:?}");
        }
    }
    println!("{cases} commands, no difference");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scan_returns_every_key_that_stays() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let mut store = setup.start().await?;
    let mut connection = store.client().await?;
    let mut expected = std::collections::BTreeSet::new();
    for number in 0..3000u32 {
        // Half of them in one slot: a cursor inside a slot is met too.
        let key = if number % 2 == 0 { format!("key:{number}") } else { format!("{{one}}:{number}") };
        redis::cmd("SET").arg(&key).arg(number).query_async::<()>(&mut connection).await?;
        expected.insert(key);
    }
    let (mut cursor, mut found, mut pages) = (0u64, std::collections::BTreeSet::new(), 0);
    loop {
        let page =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(100).query_async::<(u64, Vec<String>)>(&mut connection).await?;
        found.extend(page.1);
        cursor = page.0;
        pages += 1;
        if cursor == 0 {
            break;
        }
        if pages == 20 {
            // A cursor outlives its server.
            store.kill()?;
            store = setup.start().await?;
            connection = store.client().await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ensure!(pages < 200, "the scan does not end");
    }
    ensure!(found == expected, "{} of {} keys were found", found.len(), expected.len());
    let page: (u64, Vec<String>) =
        redis::cmd("SCAN").arg(0).arg("MATCH").arg("key:1?").arg("COUNT").arg(100_000).query_async(&mut connection).await?;
    ensure!(page.1.len() == 5, "{page:?}");
    Ok(())
}
