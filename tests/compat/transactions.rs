//! MULTI, EXEC and WATCH beside a real redis-server: several connections whose commands are interleaved at random, one after the other,
//! so that both servers see the same order; and on a store alone, all at once.

use std::collections::BTreeMap;

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
    let key = || prop::sample::select(vec!["a", "b", "{a}c"]);
    let control = prop::sample::select(vec!["MULTI", "MULTI", "EXEC", "EXEC", "EXEC", "UNWATCH"]);
    let rare = prop::sample::select(vec![
        "FLUSHDB",
        "FLUSHALL",
        "SWAPDB 0 1",
        "NOSUCH x",
        "GET",
        "SET a",
        "INCR a b",
        "DBSIZE",
        "PING",
        "HGET a",
        "ECHO x",
        "EXEC 1",
        "DISCARD",
        "RESET",
        "SELECT 0",
        "SELECT 1",
        "SELECT 0",
    ]);
    let one = prop::sample::select(vec!["GET", "INCR", "DEL", "HGETALL", "PERSIST", "TYPE", "EXISTS", "GETDEL", "STRLEN"]);
    let change = prop::sample::select(vec![
        "SET K 1",
        "SET K x",
        "HSET K f 1",
        "HINCRBY K f 1",
        "HDEL K f",
        "EXPIRE K 1000",
        "PEXPIREAT K 1",
        "SETNX K 2",
        "SADD K m",
        "SADD K m n",
        "SREM K m",
        "RPUSH K x",
        "APPEND K 3",
        "SET K 1 XX GET",
    ]);
    // Some leave one of their keys, or both, as they are.
    let two = prop::sample::select(vec![
        "RENAME K L",
        "RENAMENX K L",
        "COPY K L",
        "SMOVE K L m",
        "SMOVE L K m",
        "SINTERSTORE K L L",
        "SUNIONSTORE K L",
        "DEL K L",
        "MSETNX K 1 L 2",
        "LMOVE K L LEFT RIGHT",
    ]);
    let command = prop_oneof![
        8 => control.prop_map(words),
        5 => (key(), key()).prop_map(|(one, other)| vec!["WATCH".to_owned(), one.to_owned(), other.to_owned()]),
        7 => (one, key()).prop_map(|(name, key)| vec![name.to_owned(), key.to_owned()]),
        9 => (change, key()).prop_map(|(text, key)| words(text).into_iter().map(|word| if word == "K" { key.to_owned() } else { word }).collect()),
        2 => (two, key(), key()).prop_map(|(text, from, to)| {
            words(text).into_iter().map(|word| if word == "K" { from.to_owned() } else if word == "L" { to.to_owned() } else { word }).collect()
        }),
        1 => rare.prop_map(words),
    ];
    (0..CONNECTIONS, command)
}

/// Fields come in an order of their own.
fn normal(answer: Answer) -> Answer {
    match answer {
        Answer::Array(elements) => Answer::Array(elements.into_iter().map(normal).collect()),
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_transactions_answer_as_redis_does() -> anyhow::Result<()> {
    let seed: u8 = std::env::var("SLUICE_DIFFERENTIAL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let (mut executed, mut refused, mut dirty) = (0, 0, 0);
    for round in 0..12 {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for number in 0..CONNECTIONS {
            for (all, address) in [(&mut theirs, redis.address()), (&mut ours, store.address())] {
                let mut connection = Connection::open(&address).await?;
                let version = if (round + number) % 2 == 0 { "2" } else { "3" };
                ensure!(!matches!(connection.ask(&["HELLO", version]).await?, Answer::Error(_)));
                all.push(connection);
            }
        }
        let mut history: Vec<String> = Vec::new();
        for number in 0..400 {
            let (at, command) = step().new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
            // RESET goes back to RESP2: then nobody is surprised by what comes next.
            let asked: Vec<&str> = command.iter().map(String::as_str).collect();
            let (expected, found) = (normal(theirs[at].ask(&asked).await?), normal(ours[at].ask(&asked).await?));
            history.push(format!("{at}: {command:?} -> {expected:?}"));
            let recent = &history[history.len().saturating_sub(40)..];
            ensure!(
                expected == found,
                "round {round}, step {number} of seed {seed}: {at}: {command:?}\n redis: {expected:?}\nsluice: {found:?}\nbefore:\n{}",
                recent.join("\n")
            );
            if command[0] == "EXEC" {
                match &found {
                    Answer::Array(elements) if !elements.is_empty() => executed += 1,
                    Answer::Error(text) if text.starts_with("EXECABORT") => refused += 1,
                    Answer::Bulk(None) => dirty += 1,
                    _ => {}
                }
            }
        }
    }
    ensure!(
        executed > 20 && refused > 5 && dirty > 5,
        "too little happened: {executed} executed, {refused} refused, {dirty} dirty"
    );
    println!("{executed} transactions executed, {refused} refused, {dirty} dirty");
    Ok(())
}

/// Money moves between accounts in transactions of every kind; readers in transactions never see a sum that is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_at_once_are_whole_and_alone() -> anyhow::Result<()> {
    const ACCOUNTS: i64 = 8;
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("io-threads", "3")])?;
    let mut store = setup.start().await?;
    let mut first = Connection::open(&store.address()).await?;
    for account in 0..ACCOUNTS {
        first.ask(&["SET", &format!("account:{account}"), "100"]).await?;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for mover in 0..4i64 {
        let address = store.address();
        tasks.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let mut moved = 0;
            for turn in 0..400i64 {
                let from = format!("account:{}", (turn * 3 + mover) % ACCOUNTS);
                let to = format!("account:{}", (turn * 5 + mover * 3 + 1) % ACCOUNTS);
                if from == to {
                    continue;
                }
                if mover % 2 == 0 {
                    let commands = ["MULTI".to_owned(), format!("DECRBY {from} 7"), format!("INCRBY {to} 7"), "EXEC".to_owned()];
                    let answers = connection.ask_all(&commands.map(|text| words(&text))).await?;
                    ensure!(answers[3].elements().len() == 2, "{answers:?}");
                    moved += 1;
                    continue;
                }
                // Optimistic: read, compute, write if nobody else did.
                connection.ask(&["WATCH", &from, &to]).await?;
                let mut balances = [0i64; 2];
                for (balance, key) in balances.iter_mut().zip([&from, &to]) {
                    *balance = connection.ask(&["GET", key]).await?.text().context("a balance")?.parse()?;
                }
                let [one, other] = balances;
                let commands =
                    ["MULTI".to_owned(), format!("SET {from} {}", one - 5), format!("SET {to} {}", other + 5), "EXEC".to_owned()];
                let answers = connection.ask_all(&commands.map(|text| words(&text))).await?;
                moved += i64::from(answers[3].elements().len() == 2);
            }
            anyhow::Ok(moved)
        });
    }
    for apart in [false, true] {
        let address = store.address();
        tasks.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for _ in 0..if apart { 30 } else { 1000 } {
                let mut commands = vec![words("MULTI")];
                commands.extend((0..ACCOUNTS).map(|account| words(&format!("GET account:{account}"))));
                if apart {
                    // Executed by a future: the transaction is in pieces, and still alone.
                    commands.insert(4, words("DBSIZE"));
                }
                commands.push(words("EXEC"));
                let answers = connection.ask_all(&commands).await?;
                let balances = answers.last().context("an answer")?.elements();
                let sum: i64 = balances.iter().filter_map(|balance| balance.text()?.parse::<i64>().ok()).sum();
                ensure!(sum == 100 * ACCOUNTS, "{sum}: {balances:?}");
            }
            anyhow::Ok(0)
        });
    }
    let mut moved = 0;
    while let Some(outcome) = tasks.join_next().await {
        moved += outcome??;
    }
    ensure!(moved > 300, "{moved} moves came through");
    store.kill()?;
    store = setup.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let mut sum = 0;
    for account in 0..ACCOUNTS {
        sum += connection.ask(&["GET", &format!("account:{account}")]).await?.text().context("a balance")?.parse::<i64>()?;
    }
    ensure!(sum == 100 * ACCOUNTS, "after a kill: {sum}");
    Ok(())
}

/// What no command of a client does, and EXEC has to see all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_watched_key_that_expires_or_is_flushed_stops_exec() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let (mut one, mut other) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    let cases: BTreeMap<&str, (&[&str], bool)> = BTreeMap::from([
        ("expired", (&["PEXPIRE k 60"][..], false)),
        ("flushed", (&["FLUSHDB"], false)),
        ("flushed and set again", (&["FLUSHALL", "SET k v"], false)),
        ("swapped for the same value", (&["SWAPDB 0 1"], false)),
        ("read", (&["GET k", "TTL k"], true)),
        ("not changed", (&["SET k2 v", "SETNX k w", "PERSIST k"], true)),
        ("refused", (&["LPUSH k x", "INCR k"], true)),
    ]);
    for (name, (changes, executes)) in cases {
        for setting in ["FLUSHALL", "SELECT 1", "SET k v", "SELECT 0", "SET k v"] {
            other.ask_all(&[words(setting)]).await?;
        }
        one.ask(&["WATCH", "k"]).await?;
        for change in changes {
            other.ask_all(&[words(change)]).await?;
        }
        if name == "expired" {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let answers = one.ask_all(&["MULTI", "SET done yes", "EXEC"].map(words)).await?;
        ensure!((answers[2].elements().len() == 1) == executes, "{name}: {answers:?}");
    }
    Ok(())
}

/// A script inside EXEC claims keys as it comes upon them: where somebody else has one, all of the transaction is executed again.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_inside_transactions_use_keys_that_nobody_named() -> anyhow::Result<()> {
    const CLIENTS: i64 = 6;
    const ROUNDS: i64 = 60;
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("io-threads", "3")])?.start().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let address = store.address();
        tasks.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for round in 0..ROUNDS {
                // In different orders, so that each has what another wants.
                let (one, other) = if (client + round) % 2 == 0 { ("x", "y") } else { ("y", "x") };
                let script = format!("return {{redis.call('INCR', '{one}'), redis.call('INCR', '{other}')}}");
                let commands = [words("MULTI"), words("INCR named"), vec!["EVAL".into(), script, "0".into()], words("EXEC")];
                let answers = connection.ask_all(&commands).await?;
                let done = answers[3].elements();
                ensure!(done.len() == 2 && done[1].elements().len() == 2, "{answers:?}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    let mut connection = Connection::open(&store.address()).await?;
    for key in ["named", "x", "y"] {
        let count = connection.ask(&["GET", key]).await?;
        ensure!(count.text() == Some(&(CLIENTS * ROUNDS).to_string()), "{key}: {count:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_has_a_bound() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let limits = [("proto-max-bulk-len", "1mb"), ("client-query-buffer-limit", "1mb")];
    let store = Setup::new(root.path().join("data"), &limits)?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    connection.ask(&["MULTI"]).await?;
    let (value, mut refused) = ("x".repeat(100_000), 0);
    for number in 0..20 {
        let answer = connection.ask(&["SET", &format!("key:{number}"), &value]).await?;
        refused += usize::from(matches!(&answer, Answer::Error(text) if text.contains("client-query-buffer-limit")));
    }
    ensure!(refused >= 9, "only {refused} were refused");
    let executed = connection.ask(&["EXEC"]).await?;
    ensure!(matches!(&executed, Answer::Error(text) if text.starts_with("EXECABORT")), "{executed:?}");
    ensure!(connection.ask(&["DBSIZE"]).await? == Answer::Integer(0));
    let many: Vec<String> = std::iter::once("WATCH".to_owned()).chain((0..5000).map(|key| key.to_string())).collect();
    let watched = connection.ask_all(&[many]).await?;
    ensure!(matches!(&watched[0], Answer::Error(text) if text.contains("watches at most")), "{watched:?}");
    Ok(())
}
