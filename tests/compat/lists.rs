//! Lists beside those of a real redis-server.

use anyhow::ensure;
use proptest::prelude::*;
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::family::{self, Family, Words, key, on_key, tail, value, words};

struct Lists;

/// Few enough that elements repeat.
fn element() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[a-d]", 1 => value()]
}

fn elements() -> impl Strategy<Value = Words> {
    prop_oneof![9 => prop::collection::vec(element(), 1..9), 1 => prop::collection::vec(element(), 70..200)]
}

fn index() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (-12i64..12).prop_map(|index| index.to_string()),
        2 => (-200i64..200).prop_map(|index| index.to_string()),
        1 => prop::sample::select(vec!["x", "", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1.5"]).prop_map(str::to_owned),
    ]
}

fn count() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0i64..5).prop_map(|count| count.to_string()),
        1 => (60i64..150).prop_map(|count| count.to_string()),
        1 => prop::sample::select(vec!["-1", "x", "", "9223372036854775807", "-9223372036854775808"]).prop_map(str::to_owned),
    ]
}

fn side() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["LEFT", "RIGHT", "left", "Right", "LEFT", "RIGHT", "UP"]).prop_map(str::to_owned)
}

fn options() -> impl Strategy<Value = Words> {
    let one = prop_oneof![
        3 => prop::sample::select(vec!["1", "-1", "2", "-3", "0", "x", "9223372036854775807"]).prop_map(|rank| vec!["RANK".into(), rank.to_owned()]),
        3 => count().prop_map(|count| vec!["count".into(), count]),
        3 => count().prop_map(|most| vec!["MAXLEN".into(), most]),
        1 => tail(&["COUNT", "WHAT 1"]),
    ];
    prop::collection::vec(one, 0..3).prop_map(|parts| parts.concat())
}

fn many_pop() -> impl Strategy<Value = Words> {
    let keys = prop::collection::vec(key::<Lists>(), 1..4);
    let number =
        prop_oneof![9 => Just(None), 1 => prop::sample::select(vec!["0", "-1", "5", "x", "9223372036854775807"]).prop_map(Some)];
    let rest = prop_oneof![3 => Just(vec![]), 3 => count().prop_map(|count| vec!["COUNT".to_owned(), count]), 1 => tail(&["COUNT", "WHAT 1", "COUNT 1 COUNT 2"])];
    (keys, number, side(), rest).prop_map(|(keys, number, side, rest)| {
        let number = number.map_or_else(|| keys.len().to_string(), str::to_owned);
        [vec!["LMPOP".to_owned(), number], keys, vec![side], rest].concat()
    })
}

impl Family for Lists {
    const GROUPS: &'static [&'static str] = &["list"];
    const KEYS: &'static [&'static str] = &["l1", "l2", "{x}l3", "s", ""];

    fn command() -> BoxedStrategy<Words> {
        let growing = prop_oneof![
            4 => on_key::<Self>("LPUSH", elements()),
            5 => on_key::<Self>("RPUSH", elements()),
            1 => on_key::<Self>("LPUSHX", elements()),
            1 => on_key::<Self>("RPUSHX", elements()),
            4 => on_key::<Self>("LINSERT", (prop::sample::select(vec!["BEFORE", "after", "AFTER", "before", "WHAT"]), element(), element())
                .prop_map(|(place, pivot, value)| vec![place.to_owned(), pivot, value])),
            2 => on_key::<Self>("LSET", (index(), element()).prop_map(|(index, value)| vec![index, value])),
        ];
        let shrinking = prop_oneof![
            2 => prop::sample::select(vec!["LPOP", "RPOP"]).prop_flat_map(|name| on_key::<Self>(name, Just(vec![]))),
            3 => prop::sample::select(vec!["LPOP", "RPOP"]).prop_flat_map(|name| on_key::<Self>(name, count().prop_map(|count| vec![count]))),
            2 => on_key::<Self>("LTRIM", (index(), index()).prop_map(|(start, stop)| vec![start, stop])),
            4 => on_key::<Self>("LREM", (index(), element()).prop_map(|(count, value)| vec![count, value])),
            2 => many_pop(),
        ];
        let moving = prop_oneof![
            3 => (key::<Self>(), key::<Self>(), side(), side()).prop_map(|(from, to, off, onto)| vec!["LMOVE".into(), from, to, off, onto]),
            1 => (key::<Self>(), key::<Self>()).prop_map(|(from, to)| vec!["RPOPLPUSH".into(), from, to]),
        ];
        let reading = prop_oneof![
            1 => on_key::<Self>("LLEN", Just(vec![])),
            2 => on_key::<Self>("LINDEX", index().prop_map(|index| vec![index])),
            3 => on_key::<Self>("LRANGE", (index(), index()).prop_map(|(start, stop)| vec![start, stop])),
            3 => on_key::<Self>("LPOS", (element(), options()).prop_map(|(element, options)| [vec![element], options].concat())),
            1 => prop::sample::select(vec!["LPUSH", "LPUSH l1", "LPOP l1 1 2", "LPOP", "LMOVE l1 l2 LEFT", "LMPOP 1 l1", "LREM l1 1", "LINSERT l1 BEFORE a"])
                .prop_map(words),
        ];
        prop_oneof![7 => growing, 5 => shrinking, 2 => moving, 4 => reading].boxed()
    }

    fn normal(_: &[String], answer: Answer) -> Answer {
        answer
    }

    fn state(key: &str) -> Vec<Words> {
        vec![vec!["LRANGE".into(), key.into(), "0".into(), "-1".into()]]
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let all = connection.ask(&["LRANGE", key, "0", "-1"]).await?;
        if matches!(all, Answer::Error(_)) {
            return Ok(());
        }
        let all = all.elements();
        let size = connection.ask(&["LLEN", key]).await?;
        ensure!(size == Answer::Integer(all.len() as i64), "{key}: LLEN {size:?}, and {} elements", all.len());
        for index in [0, all.len() / 2, all.len().saturating_sub(1), all.len()] {
            let (front, back) = (index.to_string(), (index as i64 - all.len() as i64).to_string());
            let expected = all.get(index).cloned().unwrap_or(Answer::Bulk(None));
            ensure!(connection.ask(&["LINDEX", key, &front]).await? == expected, "{key}: element {front} is not {expected:?}");
            if index < all.len() {
                ensure!(connection.ask(&["LINDEX", key, &back]).await? == expected, "{key}: element {back} is not {expected:?}");
                let part = connection.ask(&["LRANGE", key, &front, &back]).await?;
                ensure!(part.elements() == &all[index..=index], "{key}: element {front} is not {expected:?}");
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_lists_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Lists>(6000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_agree_with_themselves_after_writers_at_once() -> anyhow::Result<()> {
    family::agrees_with_itself_after_writers_at_once::<Lists>(&[
        "LPUSH",
        "RPUSH",
        "LPOP",
        "RPOP",
        "LTRIM",
        "LREM",
        "LINSERT",
        "LSET",
        "LMOVE",
        "RPOPLPUSH",
        "LMPOP",
        "LRANGE",
        "LPOS",
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_off_a_long_list_is_never_seen_again() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("client-output-buffer-limit", "1mb"), ("reply-stream-from", "0")])?;
    let mut store = setup.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let element = |number: usize| format!("{number:05}:{}", "v".repeat(100));
    let commands: Vec<Words> = (0..20)
        .map(|part| ["RPUSH".into(), "big".into()].into_iter().chain((part * 1000..part * 1000 + 1000).map(element)).collect())
        .collect();
    let sizes = connection.ask_all(&commands).await?;
    ensure!(sizes.last() == Some(&Answer::Integer(20_000)), "{sizes:?}");
    // An answer that does not fit takes nothing away.
    for whole in [&["LRANGE", "big", "0", "-1"][..], &["LPOP", "big", "20000"], &["LMPOP", "1", "big", "RIGHT", "COUNT", "20000"]]
    {
        let refused = connection.ask(whole).await?;
        ensure!(matches!(&refused, Answer::Error(text) if text.contains("client-output-buffer-limit")), "{whole:?}: {refused:?}");
    }
    ensure!(connection.ask(&["LLEN", "big"]).await? == Answer::Integer(20_000));
    ensure!(connection.ask(&["EXPIRE", "big", "10000"]).await? == Answer::Integer(1));
    // More goes than stays: the list gets another version, and keeps its time to live.
    ensure!(connection.ask(&["LTRIM", "big", "100", "199"]).await? == Answer::Simple("OK".into()));
    store.kill()?;
    store = setup.start().await?;
    connection = Connection::open(&store.address()).await?;
    let kept = connection.ask(&["LRANGE", "big", "0", "-1"]).await?;
    ensure!(
        kept.elements().iter().map(|element| element.text().map(str::to_owned)).eq((100..200).map(element).map(Some)),
        "{kept:?}"
    );
    ensure!(matches!(connection.ask(&["TTL", "big"]).await?, Answer::Integer(9000..=10_000)));
    ensure!(connection.ask(&["RPUSH", "big", "new"]).await? == Answer::Integer(101));
    ensure!(connection.ask(&["LINDEX", "big", "100"]).await?.text() == Some("new"));
    ensure!(connection.ask(&["LPOP", "big", "101"]).await?.elements().len() == 101);
    ensure!(connection.ask(&["EXISTS", "big"]).await? == Answer::Integer(0));
    ensure!(connection.ask(&["RPUSH", "big", "a"]).await? == Answer::Integer(1));
    ensure!(connection.ask(&["LRANGE", "big", "0", "-1"]).await?.elements().len() == 1);
    Ok(())
}
