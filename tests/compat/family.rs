//! A family of commands beside a real redis-server: pipelines made at random, in RESP2 and RESP3, over several connections, on keys that
//! are now of this type, now of another, now nothing; with kills, restarts and FLUSHDB in between.
//!
//! A family says what its commands are, what of an answer is chance or order alone, and what of a key agrees with itself. Everything else
//! is here.

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

/// Connections to each server, which pipelines take in turn.
const CONNECTIONS: usize = 3;
/// Pipelines between two looks at everything there is.
const LOOK_EVERY: usize = 10;
/// Bytes up to which collections are packed, in turn: by these some begin packed and are unpacked, and some never are.
const PACKED_MAX: [&str; 5] = ["512", "40", "0", "4096", "120"];
/// Pipelines between two of them.
const REPACK_EVERY: usize = 7;

/// A command: its words.
pub(crate) type Words = Vec<String>;

/// See the module's text.
pub(crate) trait Family: 'static {
    /// Groups of commands it is about, as COMMAND DOCS names them.
    const GROUPS: &'static [&'static str];

    /// What differs from the server compared with on purpose, and why.
    const ON_PURPOSE: &'static [&'static str] = &[];

    /// The keys its commands are about.
    const KEYS: &'static [&'static str];

    /// Commands of the family, their arguments often wrong. Those that meet it (DEL, RENAME, SET, EXPIRE, …) are added: [`others`].
    fn command() -> BoxedStrategy<Words>;

    /// Whether a command of [`others`] is of use here.
    fn admits(_: &[String]) -> bool {
        true
    }

    /// What of an answer does not depend on chance, or on an order that nobody promises.
    fn normal(command: &[String], answer: Answer) -> Answer;

    /// Commands whose answers are all that a key holds; asked of both servers and compared.
    fn state(key: &str) -> Vec<Words>;

    /// That everything one store answers about a key agrees with itself: counts, scans in pages, members at random.
    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()>;
}

pub(crate) fn words(text: &str) -> Words {
    text.split(' ').map(str::to_owned).collect()
}

/// One of those texts, as words; an empty text is no word.
pub(crate) fn tail(choices: &[&str]) -> impl Strategy<Value = Words> + use<> {
    let choices: Vec<Words> = choices.iter().map(|text| text.split_whitespace().map(str::to_owned).collect()).collect();
    prop::sample::select(choices)
}

/// `NAME key`, then what the strategy makes.
pub(crate) fn on_key<F: Family>(name: &'static str, rest: impl Strategy<Value = Words>) -> impl Strategy<Value = Words> {
    (prop::sample::select(F::KEYS), rest).prop_map(move |(key, rest)| [vec![name.to_owned(), key.to_owned()], rest].concat())
}

/// A key of the family.
pub(crate) fn key<F: Family>() -> impl Strategy<Value = String> {
    prop::sample::select(F::KEYS).prop_map(str::to_owned)
}

/// A string's value, a member, a field: numbers at the edges, blanks, nothing, something long.
pub(crate) fn value() -> impl Strategy<Value = String> {
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

/// Commands of other families that meet one: on the same keys.
pub(crate) fn others<F: Family>() -> BoxedStrategy<Words> {
    prop_oneof![
        1 => on_key::<F>("SET", value().prop_map(|value| vec![value])),
        1 => on_key::<F>("SET", value().prop_map(|value| vec![value, "GET".into(), "EX".into(), "10000".into()])),
        1 => on_key::<F>("SET", value().prop_map(|value| vec![value, "KEEPTTL".into()])),
        1 => (key::<F>(), value(), key::<F>(), value()).prop_map(|(a, one, b, other)| vec!["MSET".into(), a, one, b, other]),
        1 => on_key::<F>("HSET", Just(words("field value"))),
        4 => on_key::<F>("DEL", key::<F>().prop_map(|key| vec![key])),
        3 => (prop::sample::select(vec!["RENAME", "RENAMENX"]), key::<F>(), key::<F>())
            .prop_map(|(name, from, to)| vec![name.to_owned(), from, to]),
        2 => prop::sample::select(vec!["GET", "GETDEL", "STRLEN", "INCR", "TYPE", "TTL", "PERSIST", "EXISTS", "MGET", "PEXPIRETIME"])
            .prop_flat_map(|name| on_key::<F>(name, Just(vec![]))),
        1 => on_key::<F>("APPEND", value().prop_map(|value| vec![value])),
        2 => on_key::<F>("EXPIRE", tail(&["10000", "20000 NX", "0", "-1"])),
        1 => on_key::<F>("PEXPIREAT", tail(&["1", "99999999999999"])),
        1 => Just(words("DBSIZE")),
    ]
    .boxed()
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

/// Elements in an order of their own, taken `width` at a time.
pub(crate) fn sorted(answer: Answer, width: usize) -> Answer {
    let sort = |elements: Vec<Answer>| -> Vec<Answer> {
        let mut groups: Vec<_> = elements.chunks(width).map(<[_]>::to_vec).collect();
        groups.sort();
        groups.concat()
    };
    match answer {
        Answer::Array(elements) => Answer::Array(sort(elements)),
        Answer::Set(elements) => Answer::Set(sort(elements)),
        Answer::Map(elements) => Answer::Map(sort(elements)),
        other => other,
    }
}

/// How many there are, and in which form; which ones they are is chance.
pub(crate) fn shape(answer: Answer) -> Answer {
    match answer {
        Answer::Bulk(found) => Answer::Bulk(found.map(|_| Vec::new())),
        Answer::Double(_) => Answer::Double(String::new()),
        Answer::Array(elements) => Answer::Array(elements.into_iter().map(shape).collect()),
        Answer::Set(elements) => Answer::Set(elements.into_iter().map(shape).collect()),
        other => other,
    }
}

/// Every text that is a number as this one number; members that are numbers too, alike on both sides.
pub(crate) fn numbers(answer: Answer) -> Answer {
    let same = |text: &str| text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| number.to_string());
    match answer {
        Answer::Bulk(Some(bytes)) => match std::str::from_utf8(&bytes) {
            Ok(text) => Answer::Bulk(Some(same(text).into_bytes())),
            Err(_) => Answer::Bulk(Some(bytes)),
        },
        Answer::Double(text) => Answer::Double(same(&text)),
        Answer::Array(elements) => Answer::Array(elements.into_iter().map(numbers).collect()),
        other => other,
    }
}

/// An answer of SSCAN and its kin, of a scan that is done in one page: its elements in an order of their own.
pub(crate) fn scanned(answer: Answer, width: usize) -> Answer {
    match answer {
        Answer::Array(elements) => match <[Answer; 2]>::try_from(elements) {
            Ok([cursor, found]) => Answer::Array(vec![cursor, sorted(found, width)]),
            Err(other) => Answer::Error(format!("no answer of a scan: {other:?}")),
        },
        other => other,
    }
}

/// All elements of a scan in pages of `count`, each at most `width` times as long.
pub(crate) async fn scan_whole(
    connection: &mut Connection,
    name: &str,
    key: &str,
    count: usize,
    width: usize,
) -> anyhow::Result<Vec<Answer>> {
    let (mut cursor, mut all) = ("0".to_owned(), Vec::new());
    loop {
        let page = connection.ask(&[name, key, &cursor, "COUNT", &count.to_string()]).await?;
        let [next, found] = page.elements() else { anyhow::bail!("{key}: {page:?}") };
        ensure!(found.elements().len() <= count * width, "{key}: a page is longer than was asked for: {found:?}");
        all.extend(found.elements().iter().cloned());
        next.text().context("a cursor")?.clone_into(&mut cursor);
        if cursor == "0" {
            return Ok(all);
        }
    }
}

pub(crate) fn number_of_environment<N: std::str::FromStr>(name: &str, otherwise: N) -> N {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

async fn connections(address: &str, version: &str) -> anyhow::Result<Vec<Connection>> {
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(address).await?;
        let hello = connection.ask(&["HELLO", version]).await?;
        ensure!(!matches!(hello, Answer::Error(_)), "HELLO {version} is refused: {hello:?}");
        all.push(connection);
    }
    Ok(all)
}

/// Every command of the family answers as redis-server does. `SLUICE_DIFFERENTIAL_CASES` commands (else `cases`) made from
/// `SLUICE_DIFFERENTIAL_SEED`.
pub(crate) async fn answers_as_redis_does<F: Family>(cases: usize) -> anyhow::Result<()> {
    let cases = number_of_environment("SLUICE_DIFFERENTIAL_CASES", cases);
    let seed: u8 = number_of_environment("SLUICE_DIFFERENTIAL_SEED", 1);
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let (redis, mut store) = (RedisServer::start()?, setup.start().await?);
    redis.client().await?;
    let (mut theirs, mut ours) = (connections(&redis.address(), "2").await?, connections(&store.address(), "2").await?);
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let strategy = prop::collection::vec(
        prop_oneof![13 => F::command(), 6 => others::<F>().prop_filter("not of use here", |words| F::admits(words))],
        1..25,
    );
    let (mut done, mut pipelines, mut history) = (0, 0, Vec::new());
    while done < cases {
        let mut commands = strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
        pipelines += 1;
        if pipelines % 97 == 0 {
            commands.push(words("FLUSHDB"));
        }
        let restart = pipelines % 61 == 0;
        if restart {
            if pipelines % 2 == 0 {
                store.kill()?;
            } else {
                store.terminate().await?;
            }
            store = setup.start().await?;
        }
        if restart || pipelines % 40 == 20 {
            let version = if pipelines % 80 < 40 { "2" } else { "3" };
            theirs = connections(&redis.address(), version).await?;
            ours = connections(&store.address(), version).await?;
        }
        let turn = pipelines % CONNECTIONS;
        if pipelines % REPACK_EVERY == 0 {
            let bytes = PACKED_MAX[pipelines / REPACK_EVERY % PACKED_MAX.len()];
            let set = ours[turn].ask(&["CONFIG", "SET", "collection-packed-max-bytes", bytes]).await?;
            ensure!(set == Answer::Simple("OK".into()), "{set:?}");
        }
        compare::<F>(&mut theirs[turn], &mut ours[turn], &commands, &mut history)
            .await
            .with_context(|| format!("pipeline {pipelines} of seed {seed}"))?;
        done += commands.len();
        if pipelines % LOOK_EVERY == 0 || restart {
            for key in F::KEYS {
                let state = [vec![words("TYPE"), words("PEXPIRETIME")], F::state(key)].concat();
                let state: Vec<Words> = state
                    .into_iter()
                    .map(|words| if words.len() == 1 { [words, vec![(*key).to_owned()]].concat() } else { words })
                    .collect();
                compare::<F>(&mut theirs[turn], &mut ours[turn], &state, &mut history)
                    .await
                    .with_context(|| format!("what {key:?} holds after pipeline {pipelines} of seed {seed}"))?;
                F::look(&mut ours[turn], key).await.with_context(|| format!("after pipeline {pipelines} of seed {seed}"))?;
            }
        }
    }
    println!("compat {}: {done} commands compared, in {pipelines} pipelines", F::GROUPS.join(", "));
    for difference in F::ON_PURPOSE {
        println!("compat {}: on purpose: {difference}", F::GROUPS[0]);
    }
    Ok(())
}

/// Sends a pipeline to both; an error names the first command that is answered differently, and those before it.
pub(crate) async fn compare<F: Family>(
    theirs: &mut Connection,
    ours: &mut Connection,
    commands: &[Words],
    history: &mut Vec<String>,
) -> anyhow::Result<()> {
    let (expected, found) = (theirs.ask_all(commands).await?, ours.ask_all(commands).await?);
    for ((command, expected), found) in commands.iter().zip(expected).zip(found) {
        let (expected, found) = (F::normal(command, expected), F::normal(command, found));
        history.push(format!("{command:?} -> {expected:?}"));
        let recent = &history[history.len().saturating_sub(40)..];
        ensure!(
            same(command, &expected, &found),
            "{command:?}\n redis: {expected:?}\nsluice: {found:?}\nbefore:\n{}",
            recent.join("\n")
        );
    }
    Ok(())
}

/// Several connections change and read the same keys at once, with those commands of the family and DEL: nothing is damaged, and in the
/// end each key agrees with itself.
pub(crate) async fn agrees_with_itself_after_writers_at_once<F: Family>(names: &'static [&'static str]) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let of_those = F::command().prop_filter("those alone", |command: &Words| names.contains(&command[0].as_str()));
    let one = prop_oneof![12 => of_those, 1 => on_key::<F>("DEL", Just(vec![]))];
    let strategy = prop::collection::vec(one, 1..25);
    let mut connections = tokio::task::JoinSet::new();
    for number in 0..6u8 {
        let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[number; 32]));
        let pipelines: Vec<Vec<Words>> = (0..60)
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
    for key in F::KEYS {
        F::look(&mut connection, key).await?;
    }
    Ok(())
}
