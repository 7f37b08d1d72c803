//! Replies too large to be built whole: the same as if they had been, of one moment, at their client's pace and at nobody else's cost.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, StoreProcess, wait_for},
};

use crate::family::{Words, words};

/// What `long_readers` of INFO calls a reply that is being sent.
const READER: &str = "large reply";

/// A key of each kind, each with more than a piece.
fn collections() -> Vec<Words> {
    let mut commands = Vec::new();
    for part in 0..30_usize {
        let numbers = || (part * 100..part * 100 + 100).map(|number| format!("{number:05}"));
        let long = |number: &str| format!("{number}:{}", "x".repeat(number.parse::<usize>().unwrap_or_default() % 997));
        let tail = |each: &dyn Fn(String) -> Words| numbers().flat_map(each).collect::<Words>();
        commands.push([words("HSET hash"), tail(&|number| vec![number.clone(), long(&number)])].concat());
        commands.push([words("SADD set"), tail(&|number| vec![long(&number)])].concat());
        commands.push([words("RPUSH list"), tail(&|number| vec![long(&number)])].concat());
        commands.push([words("ZADD zset"), tail(&|number| vec![format!("{number}.5"), long(&number)])].concat());
        commands.push([words("ZADD same"), tail(&|number| vec!["1".into(), long(&number)])].concat());
        commands.extend(
            numbers().map(|number| vec!["XADD".into(), "stream".into(), format!("1{number}-1"), "f".into(), long(&number)]),
        );
    }
    // One value longer than a piece, in the middle of the others.
    let huge = "y".repeat(700_000);
    commands.push(vec!["HSET".into(), "hash".into(), "01000:huge".into(), huge.clone()]);
    commands.push(vec!["LSET".into(), "list".into(), "1500".into(), huge]);
    // Fields whose time has come are no fields; the sweep is kept from them.
    commands.push(words("HPEXPIRE hash 1 FIELDS 3 00001 00500 02999"));
    commands
}

const ASKED: [&str; 23] = [
    "HGETALL hash",
    "HKEYS hash",
    "HVALS hash",
    "SMEMBERS set",
    "LRANGE list 0 -1",
    "LRANGE list 7 -9",
    "LRANGE list -2000 2500",
    "LRANGE list 5 4",
    "ZRANGE zset 0 -1",
    "ZRANGE zset 10 -10 WITHSCORES",
    "ZRANGE zset 0 -1 REV WITHSCORES",
    "ZREVRANGE zset 5 2800",
    "ZRANGEBYSCORE zset 7 2800 WITHSCORES LIMIT 11 2500",
    "ZREVRANGEBYSCORE zset +inf (20 LIMIT 3 -1",
    "ZRANGE zset [00010 [02900 BYLEX",
    "ZRANGEBYLEX same [00010 (02900 LIMIT 2 2700",
    "ZREVRANGEBYLEX same + - LIMIT 0 2900",
    "XRANGE stream - +",
    "XRANGE stream 100010 102900 COUNT 2500",
    "XREVRANGE stream + 100100",
    "XRANGE stream - + COUNT 0",
    "HGETALL none",
    "LRANGE none 0 -1",
];

/// Everything that is asked, in one pipeline with short commands between.
async fn answers(connection: &mut Connection) -> anyhow::Result<Vec<Answer>> {
    let commands: Vec<Words> = ASKED.iter().flat_map(|asked| [words(asked), words("ECHO between")]).collect();
    connection.ask_all(&commands).await
}

async fn pieces_sent(store: &StoreProcess) -> anyhow::Result<u64> {
    Ok(store.info("large_replies_total").await?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_in_pieces_is_the_reply_that_is_built_whole() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("reply-stream-from", "0"), ("expire-sweep-keys-per-second", "0")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let made = connection.ask_all(&collections()).await?;
    ensure!(!made.iter().any(|answer| matches!(answer, Answer::Error(_))), "{made:?}");
    wait_for("three fields have expired", async || {
        let mut connection = Connection::open(&store.address()).await?;
        Ok(connection.ask(&["HLEN", "hash"]).await? == Answer::Integer(2998))
    })
    .await?;
    for protocol in ["2", "3"] {
        ensure!(!matches!(connection.ask(&["HELLO", protocol]).await?, Answer::Error(_)));
        ensure!(connection.ask(&["CONFIG", "SET", "reply-stream-from", "0"]).await? == Answer::Simple("OK".into()));
        let (whole, before) = (answers(&mut connection).await?, pieces_sent(&store).await?);
        ensure!(whole[0].elements().len() == 2 * 2998 && whole[6].elements().len() == 3000, "not what was stored");
        // Even one byte more than that comes in pieces; and with a limit for whole replies that it is past.
        for setting in [["reply-stream-from", "1"], ["reply-stream-from", "100kb"], ["client-output-buffer-limit", "50kb"]] {
            ensure!(connection.ask(&["CONFIG", "SET", setting[0], setting[1]]).await? == Answer::Simple("OK".into()));
            let pieces = answers(&mut connection).await?;
            for ((asked, whole), piece) in ASKED.iter().flat_map(|asked| [*asked, "ECHO between"]).zip(&whole).zip(&pieces) {
                ensure!(whole == piece, "{asked} in RESP{protocol}, {setting:?}: {} elements", piece.elements().len());
            }
        }
        ensure!(connection.ask(&["CONFIG", "SET", "client-output-buffer-limit", "0"]).await? == Answer::Simple("OK".into()));
        ensure!(
            pieces_sent(&store).await? >= before + 3 * 18,
            "{} of them were sent in pieces",
            pieces_sent(&store).await? - before
        );
    }
    ensure!(store.info("long_readers").await?.is_empty(), "nothing is kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_sees_its_own_writes_in_a_large_reply_and_transactions_and_scripts_answer_whole() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("reply-stream-from", "1kb")])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let members = |prefix: &str| (0..500).map(|number| format!("{prefix}{number:04}")).collect::<Words>();
    let all =
        |prefix: &str| Answer::Array(members(prefix).into_iter().map(|text| Answer::Bulk(Some(text.into_bytes()))).collect());
    let push = |prefix: &str| [words("RPUSH list"), members(prefix)].concat();
    let (del, all_of_it) = (words("DEL list"), words("LRANGE list 0 -1"));
    let asked = [push("a"), all_of_it.clone(), del.clone(), push("b"), all_of_it.clone(), words("LLEN list")];
    let answers = connection.ask_all(&asked).await?;
    ensure!(answers[1] == all("a") && answers[4] == all("b") && answers[5] == Answer::Integer(500), "{answers:?}");
    let before = pieces_sent(&store).await?;
    ensure!(before == 2);
    let asked = [words("MULTI"), del, push("a"), all_of_it.clone(), words("EXEC")];
    let executed = connection.ask_all(&asked).await?.pop().context("EXEC's answer")?;
    ensure!(executed.elements()[2] == all("a"), "{executed:?}");
    let script = connection.ask(&["EVAL", "return redis.call('LRANGE', KEYS[1], 0, -1)", "1", "list"]).await?;
    ensure!(script == all("a"), "{script:?}");
    // A client that wants no replies gets none, and what comes behind is in its place.
    let silent = [words("CLIENT REPLY SKIP"), all_of_it, words("PING")];
    connection.send(&silent).await?;
    ensure!(connection.answer().await? == Answer::Simple("PONG".into()));
    ensure!(pieces_sent(&store).await? == before);
    // A key of another type, or none any more, is refused as ever.
    ensure!(matches!(connection.ask(&["HGETALL", "list"]).await?, Answer::Error(text) if text.starts_with("WRONGTYPE")));
    Ok(())
}

/// A value of 60 kB that says whose it is.
fn value(number: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = format!("{number:08}").into_bytes().repeat(7500);
    // Not to be compressed away.
    let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    for byte in bytes.iter_mut().skip(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    bytes
}

/// Makes a hash of that many values of 60 kB, on the disk.
async fn make_hash(store: &StoreProcess, key: &str, fields: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(&store.address()).await?;
    for number in 0..fields {
        let added = connection.ask_bytes(&[b"HSET", key.as_bytes(), format!("{number:06}").as_bytes(), &value(number)]).await?;
        ensure!(added == Answer::Integer(1), "{added:?}");
    }
    ensure!(connection.ask(&["FLUSHMEMTABLE"]).await? == Answer::Simple("OK".into()));
    Ok(())
}

/// Whether an answer is all of that hash.
fn is_hash(answer: &Answer, fields: usize) -> bool {
    let elements = answer.elements();
    elements.len() == 2 * fields
        && elements.chunks(2).enumerate().all(|(number, pair)| {
            pair[0].text() == Some(format!("{number:06}").as_str())
                && matches!(&pair[1], Answer::Bulk(Some(bytes)) if *bytes == value(number))
        })
}

/// A client that takes nothing of its reply.
struct Stalled {
    connection: Connection,
    id: String,
}

/// Asks, and waits until the first piece of the reply is on its way: from then on it is of one moment. That its place is held says less:
/// the thread that reads it may not have begun.
async fn ask_and_stall(store: &StoreProcess, words: &[&str]) -> anyhow::Result<Stalled> {
    let mut connection = Connection::open(&store.address()).await?;
    ensure!(connection.ask(&["CLIENT", "SETNAME", "sleepy"]).await? == Answer::Simple("OK".into()));
    let Answer::Integer(id) = connection.ask(&["CLIENT", "ID"]).await? else { anyhow::bail!("CLIENT ID is no number") };
    let mut stalled = Stalled { connection, id: id.to_string() };
    stalled.connection.send(&[words.iter().map(|word| (*word).to_owned()).collect()]).await?;
    wait_for("a reply is being sent", async || Ok(held(store, &stalled.id).await?.is_some_and(|held| held > 0))).await?;
    ensure!(store.info("long_readers").await?.contains(READER));
    Ok(stalled)
}

async fn resident(store: &StoreProcess) -> anyhow::Result<u64> {
    Ok(store.info("used_memory_rss").await?.parse()?)
}

/// Bytes of replies that are held for a client; `None`: it is not connected any more.
async fn held(store: &StoreProcess, id: &str) -> anyhow::Result<Option<u64>> {
    let mut connection = Connection::open(&store.address()).await?;
    let list = connection.ask(&["CLIENT", "LIST", "ID", id]).await?;
    let line = list.text().context("a text")?.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let value = line.split(' ').find_map(|part| part.strip_prefix("rbs="));
    Ok(Some(value.with_context(|| format!("no rbs in {line}"))?.parse()?))
}

/// 300 MB for a client that reads slowly: the store holds a few pieces of it, others are served, and whatever becomes of the key
/// meanwhile, the reply is of the moment at which it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_300_mb_costs_a_few_pieces_of_memory_and_is_of_one_moment() -> anyhow::Result<()> {
    const FIELDS: usize = 5000;
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("reply-stream-timeout-ms", "600000")])?.start().await?;
    make_hash(&store, "hash", FIELDS).await?;
    let before = resident(&store).await?;
    let mut slow = ask_and_stall(&store, &["HGETALL", "hash"]).await?;
    let mut other = Connection::open(&store.address()).await?;
    // Fields are changed, taken and added, then the key is gone, then the database, and the name is another hash's.
    ensure!(other.ask(&["HSET", "hash", "000007", "changed", "added", "1"]).await? == Answer::Integer(1));
    ensure!(other.ask(&["HDEL", "hash", "004999", "000000"]).await? == Answer::Integer(2));
    ensure!(other.ask(&["HGET", "hash", "000007"]).await?.text() == Some("changed"));
    ensure!(other.ask(&["DEL", "hash"]).await? == Answer::Integer(1));
    ensure!(other.ask(&["HSET", "hash", "new", "1"]).await? == Answer::Integer(1));
    ensure!(other.ask(&["FLUSHDB"]).await? == Answer::Simple("OK".into()));
    ensure!(other.ask(&["FLUSHMEMTABLE"]).await? == Answer::Simple("OK".into()));
    ensure!(other.ask(&["COMPACT"]).await? == Answer::Simple("OK".into()));
    wait_for("everything was compacted", async || Ok(store.info("compact_in_progress").await? == "0")).await?;
    ensure!(other.ask(&["EXISTS", "hash"]).await? == Answer::Integer(0));
    // What the system takes for the client is not held: until that is full, between two pieces nothing is.
    let held_now = async || held(&store, &slow.id).await?.context("the client is there");
    wait_for("pieces wait for the client", async || Ok(held_now().await? > 0)).await?;
    let held = held_now().await?;
    ensure!(held <= 2 << 20, "{held} bytes of replies are held");
    // Half of what the reply is would be three times as much.
    let grown = resident(&store).await?.saturating_sub(before);
    ensure!(grown < 60 << 20, "the store has grown by {grown} bytes");
    ensure!(store.info("reclaim_pending_generations").await? != "0", "the generation is kept");
    let answer = slow.connection.answer().await?;
    ensure!(is_hash(&answer, FIELDS), "{} elements", answer.elements().len());
    ensure!(slow.connection.ask(&["HGETALL", "hash"]).await? == Answer::Array(Vec::new()), "and then it is gone");
    wait_for("the generation is given back", async || {
        Ok(store.info("long_readers").await?.is_empty() && store.info("reclaim_pending_generations").await? == "0")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_or_does_not_take_its_reply_keeps_nothing() -> anyhow::Result<()> {
    const FIELDS: usize = 700;
    let root = tempfile::tempdir()?;
    let settings = [("reply-stream-timeout-ms", "600000"), ("reply-streams-max", "1")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    make_hash(&store, "hash", FIELDS).await?;
    let mut other = Connection::open(&store.address()).await?;
    let nothing_kept = async || Ok(store.info("long_readers").await?.is_empty());
    // It is ended by another.
    let slow = ask_and_stall(&store, &["HGETALL", "hash"]).await?;
    ensure!(other.ask(&["CLIENT", "KILL", "ID", &slow.id]).await? == Answer::Integer(1));
    wait_for("a client that was ended keeps nothing", nothing_kept).await?;
    drop(slow);
    // It goes.
    drop(ask_and_stall(&store, &["HGETALL", "hash"]).await?);
    wait_for("a client that has gone keeps nothing", nothing_kept).await?;
    // As many as may be are being sent: another one is refused, and what is small is answered.
    let slow = ask_and_stall(&store, &["HGETALL", "hash"]).await?;
    ensure!(other.ask(&["CONFIG", "SET", "reply-stream-timeout-ms", "300"]).await? == Answer::Simple("OK".into()));
    let refused = other.ask(&["HGETALL", "hash"]).await?;
    ensure!(
        matches!(&refused, Answer::Error(text) if text.starts_with("TRYAGAIN") && text.contains("reply-streams-max")),
        "{refused:?}"
    );
    ensure!(other.ask(&["HLEN", "hash"]).await? == Answer::Integer(FIELDS as i64));
    drop(slow);
    wait_for("a client that has gone keeps nothing", nothing_kept).await?;
    // It stays, and takes nothing.
    let mut slow = ask_and_stall(&store, &["HVALS", "hash"]).await?;
    wait_for("a client that takes nothing is ended", async || Ok(held(&store, &slow.id).await?.is_none())).await?;
    wait_for("and keeps nothing", nothing_kept).await?;
    ensure!(store.info("client_output_buffer_limit_disconnections").await? == "1");
    let log = store.log();
    ensure!(log.contains("did not take its replies in time") && log.contains("sleepy"), "{log}");
    ensure!(slow.connection.answer().await.is_err(), "a reply that is cut off is no reply");
    // With one that takes it all is well.
    ensure!(is_hash(&other.ask(&["HGETALL", "hash"]).await?, FIELDS));
    tokio::time::timeout(Duration::from_secs(30), store.terminate()).await??;
    Ok(())
}
