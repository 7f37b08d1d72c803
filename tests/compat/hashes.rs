//! Hashes beside those of a real redis-server: pipelines of commands made at random, on keys that are now a hash, now a string, now
//! nothing; with kills, restarts and FLUSHDB in between.

use std::collections::{BTreeMap, BTreeSet};

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

use crate::reference::RedisServer;

const KEYS: [&str; 5] = ["h1", "h2", "{x}h3", "s", ""];

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned)
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "a", "ab", "abc", "b", "\u{1}", "field-of-some-length-0123456789-0123456789"]).prop_map(str::to_owned),
        4 => "f[0-9]",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[0-9]{1,3}",
        "-?[0-9]{1,20}",
        Just("9223372036854775807".to_owned()),
        Just(" 1".to_owned()),
        "[a-z]{0,30}",
        "[a-z]{200}",
    ]
}

/// `NAME key`, then what the strategy makes.
fn on_key(name: &'static str, rest: impl Strategy<Value = Vec<String>>) -> impl Strategy<Value = Vec<String>> {
    (key(), rest).prop_map(move |(key, rest)| [vec![name.to_owned(), key], rest].concat())
}

fn pairs() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec((field(), value()), 1..9)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(field, value)| [field, value]).collect())
}

fn fields() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(field(), 1..9)
}

fn tail(choices: &[&str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let choices: Vec<Vec<String>> = choices.iter().map(|text| text.split_whitespace().map(str::to_owned).collect()).collect();
    prop::sample::select(choices)
}

/// A command of hashes, or one of others that meets them; its arguments often wrong.
fn command() -> BoxedStrategy<Vec<String>> {
    let hashes = prop_oneof![
        6 => on_key("HSET", pairs()),
        1 => on_key("HSET", fields()),
        1 => on_key("HMSET", pairs()),
        2 => on_key("HSETNX", (field(), value()).prop_map(|(field, value)| vec![field, value])),
        2 => on_key("HGET", field().prop_map(|field| vec![field])),
        2 => on_key("HMGET", fields()),
        4 => on_key("HDEL", fields()),
        1 => on_key("HLEN", Just(vec![])),
        1 => on_key("HEXISTS", field().prop_map(|field| vec![field])),
        1 => on_key("HSTRLEN", field().prop_map(|field| vec![field])),
        2 => on_key("HINCRBY", (field(), value()).prop_map(|(field, by)| vec![field, by])),
        2 => on_key("HGETALL", Just(vec![])),
        1 => on_key("HKEYS", Just(vec![])),
        1 => on_key("HVALS", Just(vec![])),
    ];
    let random = prop_oneof![
        1 => on_key("HRANDFIELD", tail(&["", "3", "-7", "0", "1000", "x", "-9223372036854775808", "2 WITHVALUES", "-5 withvalues", "3 WHAT",
            "9223372036854775807 WITHVALUES", "1 WITHVALUES 2"])),
        1 => on_key("HSCAN", tail(&["0 COUNT 1000", "0 MATCH f* COUNT 1000", "x", "0 COUNT 0", "0 COUNT", "0 WHAT 1", "0 COUNT x"])),
        // On a key of its own: what the others leave is often too large to be added exactly by anybody.
        1 => prop::sample::select(vec!["1.5", "-0.25", "3", "x", "", "1e2", " 1", "0.1", "inf"])
            .prop_map(|by| vec!["HINCRBYFLOAT".into(), "floats".into(), "f".into(), by.into()]),
        1 => "[0-9]{1,3}(\\.[0-9]{1,2})?".prop_map(|value| vec!["HSET".into(), "floats".into(), "f".into(), value]),
        1 => Just(words("HSET floats f no-number")),
    ];
    let others = prop_oneof![
        1 => on_key("SET", value().prop_map(|value| vec![value])),
        1 => on_key("SET", value().prop_map(|value| vec![value, "GET".into(), "EX".into(), "10000".into()])),
        1 => on_key("SET", value().prop_map(|value| vec![value, "KEEPTTL".into()])),
        1 => (key(), value(), key(), value()).prop_map(|(a, one, b, other)| vec!["MSET".into(), a, one, b, other]),
        4 => on_key("DEL", key().prop_map(|key| vec![key])),
        3 => (prop::sample::select(vec!["RENAME", "RENAMENX"]), key(), key()).prop_map(|(name, from, to)| vec![name.to_owned(), from, to]),
        2 => prop::sample::select(vec!["GET", "GETDEL", "STRLEN", "INCR", "TYPE", "TTL", "PERSIST", "EXISTS", "MGET", "PEXPIRETIME"])
            .prop_flat_map(|name| on_key(name, Just(vec![]))),
        1 => on_key("APPEND", value().prop_map(|value| vec![value])),
        2 => on_key("EXPIRE", tail(&["10000", "20000 NX", "0", "-1"])),
        1 => on_key("PEXPIREAT", tail(&["1", "99999999999999"])),
        1 => prop::sample::select(vec!["HSET", "HGET h1", "HMSET h1 a", "HDEL h1", "HINCRBY h1 a", "HSCAN h1", "DBSIZE"]).prop_map(words),
    ];
    prop_oneof![10 => hashes, 3 => random, 6 => others].boxed()
}

/// What does not depend on the order of fields, or on chance.
fn normal(command: &[String], answer: Answer) -> Answer {
    let sorted_pairs = |elements: Vec<Answer>| -> Vec<Answer> {
        let mut pairs: Vec<_> = elements.chunks(2).map(<[_]>::to_vec).collect();
        pairs.sort();
        pairs.concat()
    };
    match (command[0].as_str(), answer) {
        ("HGETALL", Answer::Map(elements)) => Answer::Map(sorted_pairs(elements)),
        ("HGETALL", Answer::Array(elements)) => Answer::Array(sorted_pairs(elements)),
        ("HKEYS" | "HVALS", Answer::Array(mut elements)) => {
            elements.sort();
            Answer::Array(elements)
        }
        ("HSCAN", Answer::Array(elements)) => match <[Answer; 2]>::try_from(elements) {
            Ok([cursor, Answer::Array(found)]) => Answer::Array(vec![cursor, Answer::Array(sorted_pairs(found))]),
            other => Answer::Error(format!("no answer of HSCAN: {other:?}")),
        },
        // How many there are, and in which form; which ones they are is looked at elsewhere.
        ("HRANDFIELD", Answer::Bulk(found)) => Answer::Bulk(found.map(|_| Vec::new())),
        ("HRANDFIELD", Answer::Array(elements)) => Answer::Array(elements.into_iter().map(shape).collect()),
        (_, answer) => answer,
    }
}

fn shape(answer: Answer) -> Answer {
    match answer {
        Answer::Array(elements) => Answer::Array(elements.into_iter().map(shape).collect()),
        _ => Answer::Bulk(None),
    }
}

/// Times to live are counted from each server's own now.
fn same(command: &[String], expected: &Answer, found: &Answer) -> bool {
    match (expected, found) {
        (Answer::Integer(expected), Answer::Integer(found)) if command[0] == "TTL" || command[0] == "PEXPIRETIME" => {
            (expected - found).abs() <= if command[0] == "TTL" { 5 } else { 5000 }
        }
        _ => expected == found,
    }
}

/// Everything a key's hash answers agrees with itself: HLEN, HGETALL, a scan of several pages, fields at random.
async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
    let all = connection.ask(&["HGETALL", key]).await?;
    if matches!(all, Answer::Error(_)) {
        return Ok(());
    }
    let all: BTreeMap<Answer, Answer> = all.elements().chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let size = connection.ask(&["HLEN", key]).await?;
    ensure!(size == Answer::Integer(all.len() as i64), "{key}: HLEN {size:?}, and {} fields", all.len());
    let (mut cursor, mut scanned) = ("0".to_owned(), BTreeMap::new());
    loop {
        let page = connection.ask(&["HSCAN", key, &cursor, "COUNT", "3"]).await?;
        let [next, found] = page.elements() else { anyhow::bail!("{key}: {page:?}") };
        ensure!(found.elements().len() <= 6, "{key}: a page is longer than was asked for: {found:?}");
        scanned.extend(found.elements().chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
        next.text().context("a cursor")?.clone_into(&mut cursor);
        if cursor == "0" {
            break;
        }
    }
    ensure!(scanned == all, "{key}: scanned {scanned:?}, there are {all:?}");
    for count in [1, 3, 7, 1000] {
        let chosen = connection.ask(&["HRANDFIELD", key, &count.to_string()]).await?;
        let distinct: BTreeSet<&Answer> = chosen.elements().iter().collect();
        ensure!(
            distinct.len() == chosen.elements().len() && distinct.len() == all.len().min(count),
            "{key}, {count}: {chosen:?}"
        );
        ensure!(distinct.iter().all(|field| all.contains_key(*field)), "{key}, {count}: {chosen:?}");
        let repeated = connection.ask(&["HRANDFIELD", key, &format!("-{count}"), "WITHVALUES"]).await?;
        let pairs: Vec<Answer> = match repeated.elements() {
            [Answer::Array(_), ..] => repeated.elements().iter().flat_map(|pair| pair.elements().to_vec()).collect(),
            flat => flat.to_vec(),
        };
        ensure!(pairs.len() == if all.is_empty() { 0 } else { 2 * count }, "{key}, -{count}: {repeated:?}");
        ensure!(pairs.chunks(2).all(|pair| all.get(&pair[0]) == Some(&pair[1])), "{key}, -{count}: {repeated:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_hashes_answers_as_redis_does() -> anyhow::Result<()> {
    let cases: usize = std::env::var("SLUICE_DIFFERENTIAL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6000);
    let seed: u8 = std::env::var("SLUICE_DIFFERENTIAL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let (redis, mut store) = (RedisServer::start()?, setup.start().await?);
    redis.client().await?;
    let mut theirs = Connection::open(&redis.address()).await?;
    let mut ours = Connection::open(&store.address()).await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let strategy = prop::collection::vec(command(), 1..25);
    let (mut done, mut pipelines, mut history) = (0, 0, Vec::new());
    while done < cases {
        let mut commands = strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
        pipelines += 1;
        if pipelines % 97 == 0 {
            commands.push(words("FLUSHDB"));
        }
        if pipelines % 61 == 0 {
            if pipelines % 2 == 0 {
                store.kill()?;
            } else {
                store.terminate().await?;
            }
            store = setup.start().await?;
            ours = Connection::open(&store.address()).await?;
        }
        if pipelines % 40 == 20 || pipelines % 61 == 0 {
            let version = if pipelines % 80 < 40 { "2" } else { "3" };
            for connection in [&mut theirs, &mut ours] {
                ensure!(!matches!(connection.ask(&["HELLO", version]).await?, Answer::Error(_)), "HELLO {version} is refused");
            }
        }
        let (expected, found) = (theirs.ask_all(&commands).await?, ours.ask_all(&commands).await?);
        for ((command, expected), found) in commands.iter().zip(expected).zip(found) {
            let (expected, found) = (normal(command, expected), normal(command, found));
            history.push(format!("{command:?} -> {expected:?}"));
            let recent = &history[history.len().saturating_sub(40)..];
            ensure!(
                same(command, &expected, &found),
                "pipeline {pipelines} of seed {seed}: {command:?}\n redis: {expected:?}\nsluice: {found:?}\nbefore:\n{}",
                recent.join("\n")
            );
        }
        done += commands.len();
        if pipelines % 10 == 0 {
            for key in KEYS {
                look(&mut ours, key).await?;
            }
        }
    }
    println!("{done} commands in {pipelines} pipelines, no difference");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_of_many_fields_is_read_in_pages_and_refused_past_the_limit() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("client-output-buffer-limit", "1mb")])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let fields: Vec<String> = (0..20_000).map(|number| format!("field:{number:05}")).collect();
    let commands: Vec<Vec<String>> = fields
        .chunks(500)
        .map(|fields| {
            let pairs = fields.iter().flat_map(|field| [field.clone(), "v".repeat(100)]);
            ["HSET".to_owned(), "big".to_owned()].into_iter().chain(pairs).collect()
        })
        .collect();
    ensure!(connection.ask_all(&commands).await?.iter().all(|answer| *answer == Answer::Integer(500)));
    for whole in [&["HGETALL", "big"][..], &["HVALS", "big"], &["HRANDFIELD", "big", "-9223372036854775807"]] {
        let refused = connection.ask(whole).await?;
        ensure!(matches!(&refused, Answer::Error(text) if text.contains("client-output-buffer-limit")), "{whole:?}: {refused:?}");
    }
    let keys = connection.ask(&["HKEYS", "big"]).await?;
    ensure!(keys.elements().len() == fields.len(), "what fits is answered");
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    loop {
        let page = connection.ask(&["HSCAN", "big", &cursor, "COUNT", "1000"]).await?;
        let [next, pairs] = page.elements() else { anyhow::bail!("{page:?}") };
        found.extend(pairs.elements().chunks(2).filter_map(|pair| pair[0].text().map(str::to_owned)));
        next.text().context("a cursor")?.clone_into(&mut cursor);
        if cursor == "0" {
            break;
        }
    }
    ensure!(found.iter().eq(&fields), "{} of {} fields were scanned", found.len(), fields.len());
    // The same name again: nothing of the hash that was there is seen.
    for replaced in [&["SET", "big", "1"][..], &["DEL", "big"]] {
        ensure!(!matches!(connection.ask(replaced).await?, Answer::Error(_)));
    }
    ensure!(connection.ask(&["HSET", "big", "field:00000", "new"]).await? == Answer::Integer(1));
    ensure!(connection.ask(&["HLEN", "big"]).await? == Answer::Integer(1));
    ensure!(connection.ask(&["HGET", "big", "field:00001"]).await? == Answer::Bulk(None));
    ensure!(connection.ask(&["HKEYS", "big"]).await?.elements().len() == 1);
    Ok(())
}

/// Several connections change and read the same hashes at once: every answer is whole, no error but the expected, and in the end each
/// hash agrees with itself.
#[tokio::test(flavor = "multi_thread")]
async fn hashes_agree_with_themselves_after_writers_at_once() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let only = |names: &'static [&'static str]| move |command: &Vec<String>| names.contains(&command[0].as_str());
    let strategy = prop::collection::vec(
        command()
            .prop_filter("hashes alone", only(&["HSET", "HDEL", "DEL", "HGETALL", "HKEYS", "HRANDFIELD", "HINCRBY", "HSCAN"])),
        1..25,
    );
    let mut connections = tokio::task::JoinSet::new();
    for number in 0..6u8 {
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[number; 32]));
        let pipelines: Vec<Vec<Vec<String>>> = (0..60)
            .map(|_| Ok(strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current()))
            .collect::<anyhow::Result<_>>()?;
        let address = store.address();
        connections.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for commands in pipelines {
                for (command, answer) in commands.iter().zip(connection.ask_all(&commands).await?) {
                    // What is wrong with the command itself is looked at elsewhere; the store has nothing else to complain of.
                    let refused = matches!(&answer, Answer::Error(text) if text.contains("damaged") || text.contains("TRYAGAIN"));
                    ensure!(!refused, "{command:?}: {answer:?}");
                    let pairs = command[0] != "HGETALL" || answer.elements().len().is_multiple_of(2);
                    ensure!(pairs, "{command:?}: {answer:?}");
                }
            }
            anyhow::Ok(connection)
        });
    }
    let mut last = None;
    while let Some(connection) = connections.join_next().await {
        last = Some(connection??);
    }
    let mut connection = last.context("a connection")?;
    for key in KEYS {
        look(&mut connection, key).await?;
    }
    Ok(())
}
