//! Commands that read several keys see all of them as of one moment, whatever others change meanwhile; and no more of them than one
//! command may hold.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, StoreProcess},
};

use crate::family::{Words, words};

const MEMBERS: usize = 3000;
/// How often each of the reading commands is asked.
const ASKED: usize = 40;

fn member(number: usize) -> String {
    format!("{number:05}")
}

/// Two sets and two sorted sets of which one has even, the other odd members; and a weight of each, all of them the same number.
async fn fill(store: &StoreProcess) -> anyhow::Result<()> {
    let mut connection = Connection::open(&store.address()).await?;
    let mut commands: Vec<Words> = Vec::new();
    for number in 0..MEMBERS {
        let half = ["a", "b"][number % 2];
        commands.push(vec!["SADD".into(), format!("{{s}}{half}"), member(number)]);
        commands.push(vec!["ZADD".into(), format!("{{z}}{half}"), "1".into(), member(number)]);
    }
    for number in 0..30 {
        commands.push(words(&format!("RPUSH list {number}")));
    }
    commands.push(weights(0));
    let answers = connection.ask_all(&commands).await?;
    ensure!(!answers.iter().any(|answer| matches!(answer, Answer::Error(_))));
    Ok(())
}

/// Gives all weights that number.
fn weights(number: usize) -> Words {
    let pairs = (0..30).flat_map(|element| [format!("w_{element}"), number.to_string()]);
    std::iter::once("MSET".to_owned()).chain(pairs).collect()
}

/// Moves members to and fro, each between two keys and in one command or transaction, until told to end.
async fn move_members(store: &StoreProcess, ends: &AtomicBool) -> anyhow::Result<()> {
    let mut connection = Connection::open(&store.address()).await?;
    let mut round = 0;
    while !ends.load(Ordering::Relaxed) {
        let mut commands = Vec::new();
        for step in 0..64 {
            // Over all of the range, as the ends are read at different times.
            let number = (round * 64 + step) * 1009 % MEMBERS;
            let member = member(number);
            // If it is where it was left.
            let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
            commands.push(words(&format!("SMOVE {{s}}{from} {{s}}{to} {member}")));
            let script = "if redis.call('zrem', KEYS[1], ARGV[1]) == 1 then redis.call('zadd', KEYS[2], 1, ARGV[1]) end";
            let keys = [format!("{{z}}{from}"), format!("{{z}}{to}")];
            commands.push([vec!["EVAL".into(), script.into(), "2".into()], keys.to_vec(), vec![member]].concat());
        }
        commands.push(weights(round));
        let answers = connection.ask_all(&commands).await?;
        ensure!(!answers.iter().any(|answer| matches!(answer, Answer::Error(_))), "{answers:?}");
        round += 1;
    }
    Ok(())
}

async fn read(store: &StoreProcess) -> anyhow::Result<()> {
    let mut connection = Connection::open(&store.address()).await?;
    for round in 0..ASKED {
        for asked in ["SUNION {s}a {s}b", "SUNION {s}b {s}a", "ZUNION 2 {z}a {z}b", "ZUNION 2 {z}b {z}a"] {
            let answer = connection.ask_all(&[words(asked)]).await?.pop().context("an answer")?;
            ensure!(answer.elements().len() == MEMBERS, "{asked}: {} of {MEMBERS} members", answer.elements().len());
        }
        for asked in ["SINTER {s}a {s}b", "ZINTER 2 {z}a {z}b"] {
            let answer = connection.ask_all(&[words(asked)]).await?.pop().context("an answer")?;
            ensure!(answer.elements().is_empty(), "{asked}: {answer:?}");
        }
        let asked = ["SINTERCARD 2 {s}a {s}b", "ZINTERCARD 2 {z}a {z}b"].map(words);
        ensure!(connection.ask_all(&asked).await? == [Answer::Integer(0), Answer::Integer(0)], "round {round}");
        // In a script as well.
        let script = "return #redis.call('SUNION',KEYS[1],KEYS[2])";
        let union = connection.ask(&["EVAL", script, "2", "{s}a", "{s}b"]).await?;
        ensure!(union == Answer::Integer(MEMBERS as i64), "{union:?}");
        for asked in ["SORT list BY nosort GET w_*", "SORT_RO list BY w_* GET w_*"] {
            let answer = connection.ask_all(&[words(asked)]).await?.pop().context("an answer")?;
            let found = answer.elements();
            ensure!(found.len() == 30 && found.iter().all(|weight| *weight == found[0]), "{asked}: {found:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_from_key_to_key_is_always_in_one_of_them() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("io-threads", "3")])?.start().await?;
    fill(&store).await?;
    let ends = AtomicBool::new(false);
    let (first, second) = (move_members(&store, &ends), move_members(&store, &ends));
    let reader = async {
        let outcome = read(&store).await;
        ends.store(true, Ordering::Relaxed);
        outcome
    };
    let (one, other, read) = tokio::join!(first, second, reader);
    one.and(other).and(read)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_holds_no_more_than_it_may_and_then_changes_nothing() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("command-memory-limit", "100kb")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let members: Words = (0..2000).map(member).collect();
    let scored: Words = members.iter().flat_map(|member| [member.clone(), member.clone()]).collect();
    let made = [
        [words("SADD {k}s"), members.clone()].concat(),
        [words("ZADD {k}z"), scored.clone()].concat(),
        [words("RPUSH {k}l"), members].concat(),
        [words("HSET {k}h"), scored].concat(),
        words("SADD {k}few 00001 x"),
        words("GEOADD {k}g 2 48 near"),
    ];
    ensure!(!connection.ask_all(&made).await?.iter().any(|answer| matches!(answer, Answer::Error(_))));
    for number in 0..20 {
        let places: Words = (0..100).flat_map(|place| ["2.1".into(), "48".into(), format!("{number}:{place}")]).collect();
        ensure!(connection.ask_all(&[[words("GEOADD {k}g"), places].concat()]).await? == [Answer::Integer(100)]);
    }
    for refused in [
        "SUNIONSTORE {k}to {k}s {k}few",
        "SDIFFSTORE {k}to {k}s {k}few",
        "ZUNIONSTORE {k}to 2 {k}z {k}few",
        "ZINTERSTORE {k}to 2 {k}z {k}s",
        "ZDIFFSTORE {k}to 2 {k}z {k}few",
        "ZUNION 2 {k}z {k}few",
        "ZINTER 2 {k}z {k}s",
        "ZDIFF 2 {k}z {k}few",
        "ZRANGESTORE {k}to {k}z 0 -1",
        "SORT {k}l",
        "SORT {k}s ALPHA",
        "SORT {k}z BY nosort",
        "SORT {k}l BY nosort STORE {k}to",
        "GEOSEARCH {k}g FROMLONLAT 2 48 BYRADIUS 100 km",
        "GEOSEARCHSTORE {k}to {k}g FROMLONLAT 2 48 BYRADIUS 100 km",
        "COPY {k}h {k}to REPLACE",
        "COPY {k}s {k}to REPLACE",
        "RENAME {k}z elsewhere",
    ] {
        ensure!(connection.ask(&["SET", "{k}to", "as it was"]).await? == Answer::Simple("OK".into()));
        let answer = connection.ask_all(&[words(refused)]).await?.pop().context("an answer")?;
        ensure!(matches!(&answer, Answer::Error(text) if text.contains("command-memory-limit")), "{refused}: {answer:?}");
        ensure!(connection.ask(&["GET", "{k}to"]).await?.text() == Some("as it was"), "{refused}");
        ensure!(connection.ask(&["ZCARD", "{k}z"]).await? == Answer::Integer(2000), "{refused}");
    }
    // What is smaller is done, and so is all of it once more may be held.
    let within = [
        "SINTERSTORE {k}to {k}s {k}few",
        "ZINTERSTORE {k}to 2 {k}z {k}few",
        "ZRANGESTORE {k}to {k}z 0 99",
        "ZINTERCARD 2 {k}z {k}s",
    ];
    let within = within.map(words);
    ensure!(connection.ask_all(&within).await? == [1, 1, 100, 2000].map(Answer::Integer));
    ensure!(connection.ask(&["CONFIG", "SET", "command-memory-limit", "10mb"]).await? == Answer::Simple("OK".into()));
    let all = ["SUNIONSTORE {k}to {k}s {k}few", "ZUNIONSTORE {k}to 2 {k}z {k}few", "COPY {k}h {k}copy"].map(words);
    ensure!(connection.ask_all(&all).await? == [2001, 2001, 1].map(Answer::Integer));
    Ok(())
}

/// How long streams and lists are while others write: long enough that somebody does in the middle of a command.
const LONG: usize = 2000;

/// Lets two streams grow together, and changes all weights, until told to end.
async fn grow(store: &StoreProcess, ends: &AtomicBool) -> anyhow::Result<()> {
    let mut connection = Connection::open(&store.address()).await?;
    let mut number = LONG;
    while !ends.load(Ordering::Relaxed) {
        number += 1;
        let added = ["a", "b"].map(|stream| words(&format!("XADD {{x}}{stream} {number}-0 f v")));
        let commands = [vec![words("MULTI")], added.to_vec(), vec![words("EXEC"), weights(number)]].concat();
        let answers = connection.ask_all(&commands).await?;
        ensure!(!answers.iter().any(|answer| matches!(answer, Answer::Error(_))), "{answers:?}");
    }
    Ok(())
}

async fn read_what_grows(store: &StoreProcess) -> anyhow::Result<()> {
    let mut connection = Connection::open(&store.address()).await?;
    let in_script = "local read = redis.call('XREAD', 'STREAMS', KEYS[1], KEYS[2], 0, 0) return {#read[1][2], #read[2][2]}";
    for _ in 0..ASKED {
        for asked in ["XREAD STREAMS {x}a {x}b 0 0", "XREAD STREAMS {x}b {x}a 0 0", "XREAD BLOCK 1 STREAMS {x}a {x}b 0 0"] {
            let answer = connection.ask_all(&[words(asked)]).await?.pop().context("an answer")?;
            let lengths: Vec<usize> = answer.elements().iter().map(|stream| stream.elements()[1].elements().len()).collect();
            ensure!(lengths.len() == 2 && lengths[0] == lengths[1], "{asked}: {lengths:?} entries");
        }
        let lengths = connection.ask(&["EVAL", in_script, "2", "{x}b", "{x}a"]).await?;
        ensure!(lengths.elements()[0] == lengths.elements()[1], "in a script: {lengths:?} entries");
        let sorts = ["MULTI", "SORT long BY w_* GET w_*", "SORT_RO long BY nosort GET w_*", "EXEC"].map(words);
        let answer = connection.ask_all(&sorts).await?.pop().context("an answer")?;
        let [first, second] = answer.elements() else { anyhow::bail!("{answer:?}") };
        let of = |sorted: &Answer| sorted.elements().first().cloned();
        ensure!(of(first).is_some() && of(first) == of(second), "two SORTs of a transaction: {:?}, {:?}", of(first), of(second));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_read_together_and_the_sorts_of_a_transaction_agree() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("io-threads", "3")])?.start().await?;
    fill(&store).await?;
    let mut connection = Connection::open(&store.address()).await?;
    let entries = (1..=LONG).flat_map(|number| ["a", "b"].map(|stream| words(&format!("XADD {{x}}{stream} {number}-0 f v"))));
    let elements = [words("RPUSH long"), (0..LONG).map(|number| (number % 30).to_string()).collect()].concat();
    let answers = connection.ask_all(&entries.chain([elements]).collect::<Vec<Words>>()).await?;
    ensure!(!answers.iter().any(|answer| matches!(answer, Answer::Error(_))));
    let ends = AtomicBool::new(false);
    let reader = async {
        let outcome = read_what_grows(&store).await;
        ends.store(true, Ordering::Relaxed);
        outcome
    };
    let (wrote, read) = tokio::join!(grow(&store, &ends), reader);
    wrote.and(read)
}
