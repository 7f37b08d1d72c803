//! Streams beside those of a real redis-server. What Redis 7.4 does otherwise than the 7.0 that is compared with is left out and looked at
//! by itself: counters behind deleted entries, and when a consumer is made that finds nothing to read.

use anyhow::{Context as _, ensure};
use proptest::prelude::*;
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::{
    family::{self, Family, Words, key, on_key, tail, value, words},
    reference::RedisServer,
};

struct Streams;

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        10 => (1..40u8, 0..3u8).prop_map(|(ms, sequence)| format!("{ms}-{sequence}")),
        3 => (1..40u8).prop_map(|ms| ms.to_string()),
        1 => prop::sample::select(vec!["0-0", "x", "", "18446744073709551615-18446744073709551615", "1-x", "-1"]).prop_map(str::to_owned),
    ]
}

fn new_id() -> impl Strategy<Value = String> {
    prop_oneof![6 => id(), 4 => (1..40u8).prop_map(|ms| format!("{ms}-*")), 1 => Just("1-1-*".to_owned())]
}

fn group() -> impl Strategy<Value = String> {
    prop_oneof![8 => "g[12]", 1 => Just("nobody".to_owned()), 1 => Just(String::new())]
}

fn consumer() -> impl Strategy<Value = String> {
    prop_oneof![8 => "c[12]", 1 => Just("\u{ff}".to_owned()), 1 => Just(String::new())]
}

fn count() -> impl Strategy<Value = Words> {
    prop_oneof![4 => Just(vec![]), 4 => (0..6u8).prop_map(|count| vec!["COUNT".to_owned(), count.to_string()]), 1 => tail(&["COUNT -1", "COUNT x", "COUNT"])]
}

fn trim() -> impl Strategy<Value = Words> {
    prop_oneof![
        3 => (0..12u8).prop_map(|length| vec!["MAXLEN".to_owned(), length.to_string()]),
        2 => id().prop_map(|id| vec!["MINID".to_owned(), id]),
        1 => (0..12u8).prop_map(|length| vec!["MAXLEN".to_owned(), "=".to_owned(), length.to_string()]),
        // Too few entries for anything to go.
        1 => tail(&["MAXLEN ~ 0", "MINID ~ 5", "MAXLEN ~ 0 LIMIT 5"]),
        1 => tail(&["MAXLEN -1", "MAXLEN x", "MAXLEN 1 MINID 2", "MAXLEN 1 LIMIT 2", "LIMIT 3", "WHAT"]),
    ]
}

fn ids() -> impl Strategy<Value = Words> {
    prop::collection::vec(id(), 1..6)
}

fn edge() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("-".to_owned()), 3 => Just("+".to_owned()), 4 => id(), 2 => id().prop_map(|id| format!("({id}"))]
}

fn streams(of: impl Strategy<Value = String>) -> impl Strategy<Value = Words> {
    prop::collection::vec((key::<Streams>(), of), 1..3).prop_map(|pairs| {
        let (keys, ids): (Words, Words) = pairs.into_iter().unzip();
        [vec!["STREAMS".to_owned()], keys, ids].concat()
    })
}

fn block() -> impl Strategy<Value = Words> {
    prop_oneof![6 => Just(vec![]), 1 => tail(&["BLOCK 1", "BLOCK x", "BLOCK -1"])]
}

fn read_as_group() -> impl Strategy<Value = Words> {
    let ids = prop_oneof![5 => Just(">".to_owned()), 3 => Just("0".to_owned()), 1 => id(), 1 => Just("$".to_owned())];
    (group(), consumer(), count(), block(), any::<bool>(), streams(ids)).prop_map(
        |(group, consumer, count, block, no_ack, streams)| {
            let no_ack = if no_ack { vec!["NOACK".to_owned()] } else { vec![] };
            [vec!["XREADGROUP".into(), "GROUP".into(), group, consumer], count, block, no_ack, streams].concat()
        },
    )
}

fn claim() -> impl Strategy<Value = Words> {
    let options = prop_oneof![
        4 => Just(vec![]),
        4 => prop::collection::vec(prop::sample::select(vec!["FORCE", "JUSTID", "RETRYCOUNT 7", "IDLE 0", "LASTID 9-1"]), 1..3)
            .prop_map(|all| all.into_iter().flat_map(words).collect()),
        1 => tail(&["WHAT", "IDLE x", "TIME", "RETRYCOUNT x", "LASTID x"]),
    ];
    let idle = prop_oneof![6 => Just("0".to_owned()), 1 => Just("1000000".to_owned()), 1 => Just("x".to_owned())];
    (key::<Streams>(), group(), consumer(), idle, ids(), options).prop_map(|(key, group, consumer, idle, ids, options)| {
        [vec!["XCLAIM".into(), key, group, consumer, idle], ids, options].concat()
    })
}

/// Counts, times and numbers of Redis' own making, and what 7.4 counts otherwise than 7.0.
const LEFT_OUT: [&str; 8] =
    ["radix-tree-keys", "radix-tree-nodes", "idle", "inactive", "seen-time", "active-time", "entries-read", "lag"];

/// An answer of XINFO without them, and without consumers at which nothing is pending.
fn stripped(answer: Answer) -> Answer {
    let strip = |elements: Vec<Answer>| -> Vec<Answer> {
        let (mut kept, mut elements) = (Vec::new(), elements.into_iter().peekable());
        while let Some(element) = elements.next() {
            let name = element.text().unwrap_or_default().to_owned();
            match elements.peek() {
                Some(_) if LEFT_OUT.contains(&name.as_str()) => drop(elements.next()),
                Some(Answer::Integer(_)) if name == "consumers" => drop(elements.next()),
                _ => kept.push(stripped(element)),
            }
        }
        // A delivery: its time is before its number.
        if let [first, .., Answer::Integer(time), Answer::Integer(_)] = kept.as_mut_slice()
            && first.text().is_some_and(|id| id.contains('-'))
        {
            *time = 0;
        }
        kept.retain(|element| !is_idle_consumer(element));
        kept
    };
    match answer {
        Answer::Array(elements) => Answer::Array(strip(elements)),
        Answer::Map(elements) => Answer::Map(strip(elements)),
        other => other,
    }
}

fn is_idle_consumer(answer: &Answer) -> bool {
    let value = |name: &str| answer.elements().chunks(2).find(|pair| pair[0].text() == Some(name)).and_then(|pair| pair.get(1));
    let of_group = value("last-delivered-id").is_some();
    !of_group && (value("pel-count") == Some(&Answer::Integer(0)) || value("pending") == Some(&Answer::Integer(0)))
}

impl Family for Streams {
    const GROUPS: &'static [&'static str] = &["stream"];
    const ON_PURPOSE: &'static [&'static str] =
        &["counters of groups and answers to keys that go while somebody waits are those of 7.2 and later"];
    const KEYS: &'static [&'static str] = &["x1", "x2", "{x}3", "s", ""];

    fn command() -> BoxedStrategy<Words> {
        let pairs = || prop::collection::vec(prop_oneof!["[a-c]".boxed(), value().boxed()], 2..5);
        let entries = prop_oneof![
            12 => on_key::<Self>("XADD", (new_id(), pairs()).prop_map(|(id, pairs)| [vec![id], pairs].concat())),
            2 => on_key::<Self>("XADD", (trim(), new_id(), pairs()).prop_map(|(trim, id, pairs)| [trim, vec![id], pairs].concat())),
            1 => on_key::<Self>("XADD", (new_id(), pairs()).prop_map(|(id, pairs)| [vec!["NOMKSTREAM".into(), id], pairs].concat())),
            3 => on_key::<Self>("XDEL", ids()),
            1 => on_key::<Self>("XTRIM", trim()),
            1 => on_key::<Self>("XSETID", (id(), tail(&["", "ENTRIESADDED 50", "ENTRIESADDED 60 MAXDELETEDID 5-1", "ENTRIESADDED -1", "MAXDELETEDID x"]))
                .prop_map(|(id, tail)| [vec![id], tail].concat())),
        ];
        let reading = prop_oneof![
            1 => on_key::<Self>("XLEN", Just(vec![])),
            2 => on_key::<Self>("XRANGE", (edge(), edge(), count()).prop_map(|(from, to, count)| [vec![from, to], count].concat())),
            2 => on_key::<Self>("XREVRANGE", (edge(), edge(), count()).prop_map(|(from, to, count)| [vec![from, to], count].concat())),
            3 => (count(), block(), streams(prop_oneof![4 => id(), 2 => Just("0".to_owned()), 1 => Just("$".to_owned()), 1 => Just(">".to_owned())]))
                .prop_map(|(count, block, streams)| [vec!["XREAD".to_owned()], count, block, streams].concat()),
        ];
        let groups = prop_oneof![
            5 => (key::<Self>(), group(), prop_oneof![2 => Just("0".to_owned()), 2 => Just("$".to_owned()), 1 => id()], tail(&["", "MKSTREAM", "ENTRIESREAD 3", "ENTRIESREAD -2", "WHAT"]))
                .prop_map(|(key, group, id, tail)| [words("XGROUP CREATE"), vec![key, group, id], tail].concat()),
            1 => (key::<Self>(), group(), prop_oneof![Just("0".to_owned()), Just("$".to_owned()), id()])
                .prop_map(|(key, group, id)| [words("XGROUP SETID"), vec![key, group, id]].concat()),
            1 => (key::<Self>(), group()).prop_map(|(key, group)| [words("XGROUP DESTROY"), vec![key, group]].concat()),
            1 => (prop::sample::select(vec!["CREATECONSUMER", "DELCONSUMER"]), key::<Self>(), group(), consumer())
                .prop_map(|(name, key, group, consumer)| vec!["XGROUP".into(), name.into(), key, group, consumer]),
            12 => read_as_group(),
            4 => (key::<Self>(), group(), ids()).prop_map(|(key, group, ids)| [vec!["XACK".into(), key, group], ids].concat()),
            4 => claim(),
            3 => (key::<Self>(), group(), consumer(), edge(), prop_oneof![count().boxed(), tail(&["JUSTID", "COUNT 2 JUSTID", "WHAT"]).boxed()])
                .prop_map(|(key, group, consumer, from, tail)| [vec!["XAUTOCLAIM".into(), key, group, consumer, "0".into(), from], tail].concat()),
        ];
        let looking = prop_oneof![
            1 => (key::<Self>(), group()).prop_map(|(key, group)| vec!["XPENDING".into(), key, group]),
            2 => (key::<Self>(), group(), edge(), edge(), 0..6u8, prop::option::of(consumer())).prop_map(|(key, group, from, to, count, consumer)| {
                [vec!["XPENDING".into(), key, group, from, to, count.to_string()], consumer.into_iter().collect()].concat()
            }),
            1 => (key::<Self>(), group()).prop_map(|(key, group)| [vec!["XPENDING".into(), key, group], words("IDLE 1000000 - + 5")].concat()),
            1 => key::<Self>().prop_map(|key| [words("XINFO STREAM"), vec![key]].concat()),
            1 => (key::<Self>(), tail(&["FULL", "FULL COUNT 2", "FULL COUNT 0", "WHAT", "FULL COUNT x"])).prop_map(|(key, tail)| [words("XINFO STREAM"), vec![key], tail].concat()),
            1 => key::<Self>().prop_map(|key| [words("XINFO GROUPS"), vec![key]].concat()),
            1 => (key::<Self>(), group()).prop_map(|(key, group)| [words("XINFO CONSUMERS"), vec![key, group]].concat()),
            1 => prop::sample::select(vec!["XADD x1 1-1", "XADD x1 1-1 a", "XREAD", "XREAD STREAMS", "XREAD COUNT 1 x1 0", "XINFO WHAT x1", "XGROUP WHAT x1", "XPENDING x1 g1 -",
                "XREADGROUP STREAMS x1 x2 x1 0 0 0", "XINFO STREAM", "XREAD GROUP g1 c1 STREAMS x1 0", "XREAD NOACK STREAMS x1 0"]).prop_map(words),
        ];
        prop_oneof![8 => entries, 3 => reading, 9 => groups, 3 => looking].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        match (command[0].as_str(), answer) {
            ("XINFO", answer @ (Answer::Array(_) | Answer::Map(_))) => stripped(answer),
            ("XPENDING", answer) => stripped(answer),
            // A consumer that came and found nothing is there already.
            ("XGROUP", Answer::Integer(_)) if command.get(1).is_some_and(|name| name == "CREATECONSUMER") => Answer::Integer(1),
            (_, answer) => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        let of_groups = ["g1", "g2", ""].into_iter().flat_map(|group| {
            [
                vec!["XPENDING".to_owned(), key.to_owned(), group.to_owned(), "-".to_owned(), "+".to_owned(), "1000".to_owned()],
                vec!["XPENDING".to_owned(), key.to_owned(), group.to_owned()],
            ]
        });
        [
            vec!["XRANGE".into(), key.into(), "-".into(), "+".into()],
            vec!["XINFO".into(), "STREAM".into(), key.into(), "FULL".into(), "COUNT".into(), "0".into()],
            vec!["XINFO".into(), "GROUPS".into(), key.into()],
        ]
        .into_iter()
        .chain(of_groups)
        .collect()
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let all = connection.ask(&["XRANGE", key, "-", "+"]).await?;
        if matches!(all, Answer::Error(_)) {
            return Ok(());
        }
        let size = connection.ask(&["XLEN", key]).await?;
        ensure!(size == Answer::Integer(all.elements().len() as i64), "{key}: XLEN {size:?}, entries {all:?}");
        let backwards = connection.ask(&["XREVRANGE", key, "+", "-"]).await?;
        ensure!(backwards.elements().iter().rev().eq(all.elements()), "{key}: {all:?} and backwards {backwards:?}");
        for group in ["g1", "g2", ""] {
            let Answer::Array(summary) = connection.ask(&["XPENDING", key, group]).await? else { continue };
            let pending = connection.ask(&["XPENDING", key, group, "-", "+", "100000"]).await?;
            let pending = pending.elements();
            ensure!(summary[0] == Answer::Integer(pending.len() as i64), "{key}, {group}: {summary:?}, {pending:?}");
            for (position, name) in [(1, pending.first()), (2, pending.last())] {
                let expected = name.map_or(Answer::Bulk(None), |entry| entry.elements()[0].clone());
                ensure!(summary[position] == expected, "{key}, {group}: {summary:?}, {pending:?}");
            }
            for consumer in summary[3].elements() {
                let [name, count] = consumer.elements() else { anyhow::bail!("{consumer:?}") };
                let name = name.text().context("a name")?;
                let owned = connection.ask(&["XPENDING", key, group, "-", "+", "100000", name]).await?;
                let expected: Vec<&Answer> = pending.iter().filter(|entry| entry.elements()[1].text() == Some(name)).collect();
                let ids = |entry: &Answer| entry.elements()[0].clone();
                ensure!(
                    owned.elements().iter().map(ids).eq(expected.iter().map(|entry| ids(entry))),
                    "{key}, {group}, {name}: {owned:?}"
                );
                ensure!(count.text() == Some(&owned.elements().len().to_string()), "{key}, {group}, {name}: {count:?}");
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_streams_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Streams>(6000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_agree_with_themselves_after_writers_at_once() -> anyhow::Result<()> {
    family::agrees_with_itself_after_writers_at_once::<Streams>(&[
        "XADD",
        "XDEL",
        "XTRIM",
        "XGROUP",
        "XREADGROUP",
        "XACK",
        "XCLAIM",
        "XAUTOCLAIM",
        "XRANGE",
        "XPENDING",
    ])
    .await
}

/// Counters of groups, where Redis 7.0 and 7.4 agree: nothing is deleted in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn counters_of_groups_are_those_of_redis() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let (mut theirs, mut ours) = (Connection::open(&redis.address()).await?, Connection::open(&store.address()).await?);
    let script = [
        "XGROUP CREATE x g 0 MKSTREAM",
        "XINFO GROUPS x",
        "XADD x 1-1 a 1",
        "XADD x 2-1 a 1",
        "XADD x 3-1 a 1",
        "XADD x 4-1 a 1",
        "XADD x 5-1 a 1",
        "XINFO GROUPS x",
        "XREADGROUP GROUP g c COUNT 2 STREAMS x >",
        "XINFO GROUPS x",
        "XGROUP CREATE x h 3-1",
        "XINFO GROUPS x",
        "XREADGROUP GROUP h c COUNT 1 STREAMS x >",
        "XINFO GROUPS x",
        "XREADGROUP GROUP h c COUNT 1 STREAMS x >",
        "XINFO GROUPS x",
        "XGROUP SETID x g 1-1 ENTRIESREAD 1",
        "XINFO GROUPS x",
        "XREADGROUP GROUP g c STREAMS x >",
        "XINFO GROUPS x",
        "XADD x 6-1 a 1",
        "XINFO GROUPS x",
        "XGROUP CREATE x i $",
        "XINFO GROUPS x",
        "XGROUP CREATE x j 0",
        "XINFO GROUPS x",
        "XREADGROUP GROUP j c COUNT 1 STREAMS x >",
        "XINFO GROUPS x",
        "XINFO STREAM x",
    ];
    for command in script {
        let words: Vec<&str> = command.split(' ').collect();
        let (expected, found) = (theirs.ask(&words).await?, ours.ask(&words).await?);
        let strip = |answer: Answer| if words[1] == "STREAM" { stripped(answer) } else { answer };
        ensure!(strip(expected.clone()) == strip(found.clone()), "{command}\n redis: {expected:?}\nsluice: {found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_redis_7_4_does() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    for (command, expected) in [
        ("XREAD STREAMS x +", Answer::NullArray),
        ("XADD x 1-1 a 1", Answer::Bulk(Some(b"1-1".to_vec()))),
        ("XADD x 2-1 a 2", Answer::Bulk(Some(b"2-1".to_vec()))),
        ("XGROUP CREATE x g $", Answer::Simple("OK".into())),
        // A consumer that finds nothing is there all the same.
        ("XREADGROUP GROUP g c STREAMS x >", Answer::NullArray),
        ("XGROUP CREATECONSUMER x g c", Answer::Integer(0)),
    ] {
        let found = connection.ask(&command.split(' ').collect::<Vec<_>>()).await?;
        ensure!(found == expected, "{command}: {found:?}");
    }
    let last = connection.ask(&["XREAD", "STREAMS", "x", "+"]).await?;
    ensure!(last.elements()[0].elements()[1].elements().len() == 1, "{last:?}");
    let info = connection.ask(&["XINFO", "CONSUMERS", "x", "g"]).await?;
    let fields = info.elements()[0].elements();
    ensure!(fields[6].text() == Some("inactive") && fields[7] == Answer::Integer(-1), "{fields:?}");
    Ok(())
}

/// `~` lets entries go in hundreds.
#[tokio::test(flavor = "multi_thread")]
async fn about_so_many_entries_stay() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let commands: Vec<Words> = (1..=1000).map(|number| words(&format!("XADD x MAXLEN ~ 555 {number}-1 f v"))).collect();
    connection.ask_all(&commands).await?;
    ensure!(connection.ask(&["XLEN", "x"]).await? == Answer::Integer(600));
    ensure!(connection.ask(&["XTRIM", "x", "MINID", "~", "650", "LIMIT", "100"]).await? == Answer::Integer(100));
    ensure!(connection.ask(&["XTRIM", "x", "MINID", "~", "650"]).await? == Answer::Integer(100));
    let first = connection.ask(&["XRANGE", "x", "-", "+", "COUNT", "1"]).await?;
    ensure!(first.elements()[0].elements()[0].text() == Some("601-1"), "{first:?}");
    let times = [connection.ask(&["XADD", "y", "*", "f", "v"]).await?, connection.ask(&["XADD", "y", "*", "f", "v"]).await?];
    let milliseconds = times.iter().map(|id| id.text().and_then(|id| id.split_once('-')?.0.parse::<u64>().ok()).context("an id"));
    let milliseconds: Vec<u64> = milliseconds.collect::<anyhow::Result<_>>()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    ensure!(milliseconds[0] <= milliseconds[1] && now.abs_diff(milliseconds[0]) < 60_000, "{times:?}");
    Ok(())
}
