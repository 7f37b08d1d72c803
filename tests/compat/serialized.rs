//! DUMP and RESTORE: values go from a real redis-server to the store and back, in every encoding that server has; damaged payloads are
//! refused and change nothing.

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::{family::sorted, reference::RedisServer};

fn list(head: &[&str], tail: impl Iterator<Item = String>) -> Vec<String> {
    head.iter().map(|word| (*word).to_owned()).chain(tail).collect()
}

/// Commands that make keys of every kind, small and large, of numbers and texts, short and long.
fn makers() -> Vec<Vec<String>> {
    let long = "x".repeat(300);
    let mut all = vec![
        list(&["SET", "text", "a text"], std::iter::empty()),
        list(&["SET", "empty", ""], std::iter::empty()),
        list(&["SET", "repeated", &"ab".repeat(5000)], std::iter::empty()),
    ];
    for number in ["0", "-1", "127", "128", "-129", "32767", "32768", "2147483648", "-2147483649", "9223372036854775807"] {
        all.push(list(&["SET", &format!("number{number}"), number], std::iter::empty()));
    }
    for (name, count) in [("few", 5), ("some", 120), ("many", 700)] {
        let texts = |count: u64| (0..count).map(|number| format!("element {number}"));
        let numbers = |count: u64| (0..count).map(|number| (number * number * number * 977).to_string());
        all.push(list(&["RPUSH", &format!("list {name}")], texts(count)));
        all.push(list(&["RPUSH", &format!("list of numbers {name}")], numbers(count)));
        all.push(list(&["SADD", &format!("set {name}")], texts(count)));
        all.push(list(&["SADD", &format!("set of numbers {name}")], numbers(count)));
        all.push(list(&["HSET", &format!("hash {name}")], texts(2 * count)));
        all.push(list(&["HSET", &format!("hash of numbers {name}")], numbers(2 * count)));
        let scored = (0..count).flat_map(|number| [format!("{}", number as f64 / 8.0), format!("member {number}")]);
        all.push(list(&["ZADD", &format!("sorted set {name}")], scored));
        for number in 0..count {
            let fields = if number % 3 == 0 { ["a", "1", "b", "2"] } else { ["c", "text", "d", &long] };
            let id = format!("{}-{}", 1000 + number / 4, number % 4 + 1);
            all.push(list(&["XADD", &format!("stream {name}"), &id], fields.iter().map(|text| (*text).to_owned())));
        }
        all.push(list(&["XDEL", &format!("stream {name}"), "1000-2", "1001-1"], std::iter::empty()));
        for group in ["g1", "g2"] {
            all.push(list(&["XGROUP", "CREATE", &format!("stream {name}"), group, "0"], std::iter::empty()));
        }
        let read = |consumer: &str, count: &str| {
            let stream = format!("stream {name}");
            list(&["XREADGROUP", "GROUP", "g1", consumer, "COUNT", count, "STREAMS", &stream, ">"], std::iter::empty())
        };
        all.extend([read("one", "2"), read("two", "1"), read("nobody", "0")]);
        all.push(list(&["XACK", &format!("stream {name}"), "g1", "1000-1"], std::iter::empty()));
    }
    all.push(list(&["RPUSH", "list with a long element", "short", &"y".repeat(20_000)], std::iter::empty()));
    all.push(list(&["HSET", "hash with a long value", "f", &long], std::iter::empty()));
    all.push(list(&["ZADD", "sorted set of ends", "inf", "a", "-inf", "b", "0", "c", "1099511627776", "d"], std::iter::empty()));
    all
}

/// Everything a key holds, by commands that both understand.
async fn content(connection: &mut Connection, key: &str) -> anyhow::Result<Vec<Answer>> {
    let kind = connection.ask(&["TYPE", key]).await?;
    let mut all = vec![kind.clone()];
    let (commands, width): (&[&[&str]], usize) = match &kind {
        Answer::Simple(kind) => match kind.as_str() {
            "string" => (&[&["GET", key]], 0),
            "list" => (&[&["LRANGE", key, "0", "-1"]], 0),
            "set" => (&[&["SMEMBERS", key]], 1),
            "hash" => (&[&["HGETALL", key]], 2),
            "zset" => (&[&["ZRANGE", key, "0", "-1", "WITHSCORES"]], 0),
            "stream" => (
                &[
                    &["XRANGE", key, "-", "+"],
                    &["XINFO", "GROUPS", key],
                    &["XPENDING", key, "g1"],
                    &["XPENDING", key, "g1", "-", "+", "1000", "one"],
                    &["XADD", key, "1-1", "f", "v"],
                ],
                0,
            ),
            other => anyhow::bail!("{key} is {other}"),
        },
        other => anyhow::bail!("{key}: {other:?}"),
    };
    for command in commands {
        let answer = connection.ask(command).await?;
        let answer = if width > 0 { sorted(answer, width) } else { answer };
        all.push(without_idle(answer));
    }
    Ok(all)
}

/// How long an entry has been pending, which goes on.
fn without_idle(answer: Answer) -> Answer {
    match answer {
        Answer::Array(elements) => match elements.as_slice() {
            [id @ Answer::Bulk(_), consumer @ Answer::Bulk(_), Answer::Integer(_), count @ Answer::Integer(_)] => {
                Answer::Array(vec![id.clone(), consumer.clone(), count.clone()])
            }
            _ => Answer::Array(elements.into_iter().map(without_idle).collect()),
        },
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_from_redis_to_the_store_and_back() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let (mut theirs, mut ours) = (Connection::open(&redis.address()).await?, Connection::open(&store.address()).await?);
    let makers = makers();
    for answer in theirs.ask_all(&makers).await? {
        ensure!(!matches!(answer, Answer::Error(_)), "{answer:?}");
    }
    let keys: std::collections::BTreeSet<&str> = makers
        .iter()
        .map(|words| if words[0] == "XGROUP" { words[2].as_str() } else { words[1].as_str() })
        .filter(|key| *key != "GROUP")
        .collect();
    for key in keys {
        let Answer::Bulk(Some(payload)) = theirs.ask(&["DUMP", key]).await? else { anyhow::bail!("{key} is not there") };
        let restored = ours.ask_bytes(&[b"RESTORE", key.as_bytes(), b"0", &payload]).await?;
        ensure!(restored == Answer::Simple("OK".into()), "{key} from redis: {restored:?}");
        let expected = content(&mut theirs, key).await?;
        let found = content(&mut ours, key).await?;
        ensure!(found == expected, "{key} from redis:\n redis {expected:?}\nsluice {found:?}");
        let again = ours.ask_bytes(&[b"RESTORE", key.as_bytes(), b"0", &payload]).await?;
        ensure!(matches!(&again, Answer::Error(text) if text.starts_with("BUSYKEY")), "{key}: {again:?}");
        let Answer::Bulk(Some(payload)) = ours.ask(&["DUMP", key]).await? else { anyhow::bail!("{key} is not there") };
        let restored = theirs.ask_bytes(&[b"RESTORE", key.as_bytes(), b"0", &payload, b"REPLACE"]).await?;
        ensure!(restored == Answer::Simple("OK".into()), "{key} to redis: {restored:?}");
        let back = content(&mut theirs, key).await?;
        ensure!(back == expected, "{key} to redis:\nbefore {expected:?}\n after {back:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_refuses_as_redis_does_and_changes_nothing() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) =
        (RedisServer::start()?, Setup::new(root.path().join("data"), &[("enable-debug-command", "yes")])?.start().await?);
    redis.client().await?;
    let (mut theirs, mut ours) = (Connection::open(&redis.address()).await?, Connection::open(&store.address()).await?);
    theirs.ask(&["HSET", "h", "field", "value", "other", "1"]).await?;
    let Answer::Bulk(Some(payload)) = theirs.ask(&["DUMP", "h"]).await? else { anyhow::bail!("no payload") };
    for (at, words) in [
        vec![&b"RESTORE"[..], b"k", b"-1", &payload],
        vec![b"RESTORE", b"k", b"x", &payload],
        vec![b"RESTORE", b"k", b"0", b"nonsense"],
        vec![b"RESTORE", b"k", b"0", b""],
        vec![b"RESTORE", b"k", b"0", &payload, b"WHAT"],
        vec![b"RESTORE", b"k", b"0", &payload, b"FREQ", b"256"],
        vec![b"RESTORE", b"k", b"0", &payload, b"IDLETIME", b"-1"],
        vec![b"RESTORE", b"k", b"0", &payload, b"IDLETIME"],
        vec![b"RESTORE", b"k", b"100000", &payload],
        vec![b"RESTORE", b"k", b"0", &payload],
        vec![b"RESTORE", b"k", b"1", &payload, b"REPLACE", b"ABSTTL"],
        vec![b"EXISTS", b"k"],
        vec![b"RESTORE", b"k", b"99999999999999", &payload, b"ABSTTL", b"FREQ", b"5"],
        vec![b"PEXPIRETIME", b"k"],
        vec![b"DUMP", b"none"],
        vec![b"OBJECT", b"ENCODING", b"none"],
        vec![b"OBJECT", b"REFCOUNT", b"k"],
        vec![b"OBJECT", b"FREQ", b"k"],
        vec![b"OBJECT", b"NOSUCH", b"k"],
    ]
    .into_iter()
    .enumerate()
    {
        let (expected, found) = (theirs.ask_bytes(&words).await?, ours.ask_bytes(&words).await?);
        ensure!(expected == found, "{at}: redis {expected:?}, sluice {found:?}");
    }
    // As tools read it.
    ours.ask(&["SET", "small", "12"]).await?;
    ensure!(ours.ask(&["OBJECT", "REFCOUNT", "small"]).await? == Answer::Integer(i64::from(i32::MAX)));
    let Answer::Simple(line) = ours.ask(&["DEBUG", "OBJECT", "k"]).await? else { anyhow::bail!("DEBUG OBJECT answers a line") };
    ensure!(line.contains(" refcount:1 encoding:listpack serializedlength:"), "{line}");
    ensure!(matches!(ours.ask(&["DEBUG", "OBJECT", "none"]).await?, Answer::Error(text) if text == "ERR no such key"));
    // Every byte of a payload counts: changed, or with a sum of zero that says "unchecked", it is refused or means something whole.
    let before = ours.ask(&["HGETALL", "k"]).await?;
    for position in 0..payload.len() {
        let mut spoiled = payload.clone();
        spoiled[position] ^= 0x41;
        let answer = ours.ask_bytes(&[b"RESTORE", b"k", b"0", &spoiled, b"REPLACE"]).await?;
        ensure!(matches!(&answer, Answer::Error(text) if text.contains("DUMP payload")), "{position}: {answer:?}");
        let body = spoiled.len() - 8;
        spoiled[body..].fill(0);
        let answer = ours.ask_bytes(&[b"RESTORE", b"spoiled", b"0", &spoiled, b"REPLACE"]).await?;
        let sound = answer == Answer::Simple("OK".into())
            || matches!(&answer, Answer::Error(text) if text.contains("Bad data") || text.contains("DUMP payload"));
        ensure!(sound, "{position}: {answer:?}");
        ours.ask(&["HGETALL", "spoiled"]).await.with_context(|| format!("{position}"))?;
    }
    ensure!(ours.ask(&["HGETALL", "k"]).await? == before);
    Ok(())
}
