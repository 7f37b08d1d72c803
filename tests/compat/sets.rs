//! Sets beside those of a real redis-server.

use std::collections::BTreeSet;

use anyhow::ensure;
use proptest::prelude::*;
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::family::{self, Family, Words, key, on_key, scan_whole, scanned, shape, sorted, tail, words};

struct Sets;

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "a", "ab", "abc", "b", "\u{1}", "12", "-3", "member-of-some-length-0123456789-0123456789"])
            .prop_map(str::to_owned),
        4 => "m[0-9]",
        1 => "[0-9]{1,2}",
    ]
}

fn members() -> impl Strategy<Value = Words> {
    prop::collection::vec(member(), 1..9)
}

fn keys() -> impl Strategy<Value = Words> {
    prop::collection::vec(key::<Sets>(), 1..4)
}

/// `NAME`, then what the strategy makes.
fn of(name: &'static str, rest: impl Strategy<Value = Words>) -> impl Strategy<Value = Words> {
    rest.prop_map(move |rest| [vec![name.to_owned()], rest].concat())
}

impl Family for Sets {
    const GROUPS: &'static [&'static str] = &["set"];
    const KEYS: &'static [&'static str] = &["s1", "s2", "{x}s3", "s4", "string", ""];

    fn command() -> BoxedStrategy<Words> {
        let single = prop_oneof![
            8 => on_key::<Self>("SADD", members()),
            3 => on_key::<Self>("SREM", members()),
            1 => on_key::<Self>("SISMEMBER", member().prop_map(|member| vec![member])),
            1 => on_key::<Self>("SMISMEMBER", members()),
            1 => on_key::<Self>("SCARD", Just(vec![])),
            2 => on_key::<Self>("SMEMBERS", Just(vec![])),
            3 => on_key::<Self>("SMOVE", (key::<Self>(), member()).prop_map(|(to, member)| vec![to, member])),
            1 => on_key::<Self>("SRANDMEMBER", tail(&["", "3", "-7", "0", "1000", "x", "-9223372036854775808", "1 2", "-0"])),
            1 => on_key::<Self>("SPOP", tail(&["0", "x", "-1", "1000", "1 2", "9223372036854775808", "9223372036854775807"])),
            1 => on_key::<Self>("SSCAN", tail(&["0 COUNT 1000", "0 MATCH m* COUNT 1000", "x", "0 COUNT 0", "0 COUNT", "0 WHAT 1", "0 COUNT x"])),
        ];
        let several = prop_oneof![
            2 => of("SINTER", keys()),
            2 => of("SUNION", keys()),
            2 => of("SDIFF", keys()),
            2 => on_key::<Self>("SINTERSTORE", keys()),
            2 => on_key::<Self>("SUNIONSTORE", keys()),
            2 => on_key::<Self>("SDIFFSTORE", keys()),
            2 => (keys(), tail(&["", "LIMIT 0", "LIMIT 2", "limit 1 LIMIT 3", "LIMIT -1", "LIMIT x", "LIMIT", "WHAT 1"]))
                .prop_map(|(keys, tail)| [vec!["SINTERCARD".to_owned(), keys.len().to_string()], keys, tail].concat()),
            1 => prop::sample::select(vec!["SINTERCARD 0 s1", "SINTERCARD x s1", "SINTERCARD 3 s1 s2", "SINTERCARD -1 s1", "SINTERCARD 1",
                "SADD s1", "SREM s1", "SMOVE s1 s2", "SINTER", "SUNIONSTORE s1", "SPOP", "SMISMEMBER s1", "SSCAN s1"]).prop_map(words),
        ];
        prop_oneof![3 => single, 2 => several].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        match command[0].as_str() {
            "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" | "SPOP" => sorted(answer, 1),
            "SSCAN" => scanned(answer, 1),
            "SRANDMEMBER" => shape(answer),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![vec!["SMEMBERS".into(), key.into()], vec!["SCARD".into(), key.into()]]
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let all = connection.ask(&["SMEMBERS", key]).await?;
        if matches!(all, Answer::Error(_)) {
            return Ok(());
        }
        let all: BTreeSet<Answer> = all.elements().iter().cloned().collect();
        let size = connection.ask(&["SCARD", key]).await?;
        ensure!(size == Answer::Integer(all.len() as i64), "{key}: SCARD {size:?}, and {} members", all.len());
        let scanned: BTreeSet<Answer> = scan_whole(connection, "SSCAN", key, 3, 1).await?.into_iter().collect();
        ensure!(scanned == all, "{key}: scanned {scanned:?}, there are {all:?}");
        for count in [1, 3, 7, 1000] {
            let chosen = connection.ask(&["SRANDMEMBER", key, &count.to_string()]).await?;
            let distinct: BTreeSet<&Answer> = chosen.elements().iter().collect();
            ensure!(
                distinct.len() == chosen.elements().len() && distinct.len() == all.len().min(count),
                "{key}, {count}: {chosen:?}"
            );
            ensure!(distinct.iter().all(|member| all.contains(*member)), "{key}, {count}: {chosen:?}");
            let repeated = connection.ask(&["SRANDMEMBER", key, &format!("-{count}")]).await?;
            ensure!(repeated.elements().len() == if all.is_empty() { 0 } else { count }, "{key}, -{count}: {repeated:?}");
            ensure!(repeated.elements().iter().all(|member| all.contains(member)), "{key}, -{count}: {repeated:?}");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_sets_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Sets>(6000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_agree_with_themselves_after_writers_at_once() -> anyhow::Result<()> {
    let names =
        &["SADD", "SREM", "SMEMBERS", "SMOVE", "SPOP", "SRANDMEMBER", "SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE", "SSCAN"];
    family::agrees_with_itself_after_writers_at_once::<Sets>(names).await
}

/// Members are popped one by one, some and all: each once, and what is left is what was not popped. Of a large set as well, whose members
/// are not gone over for one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_popped_is_gone_and_nothing_else() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("client-output-buffer-limit", "1mb")])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    for (key, count) in [("small", 300), ("large", 20_000)] {
        let mut left: BTreeSet<String> = (0..count).map(|number| format!("member:{number:06}:{}", "x".repeat(60))).collect();
        let commands: Vec<Words> = left
            .iter()
            .cloned()
            .collect::<Vec<_>>()
            .chunks(500)
            .map(|members| [vec!["SADD".to_owned(), key.to_owned()], members.to_vec()].concat())
            .collect();
        ensure!(connection.ask_all(&commands).await?.iter().all(|answer| matches!(answer, Answer::Integer(300 | 500))));
        let mut hundreds = BTreeSet::new();
        for count in [1, 1, 1, 1, 1, 20, 50, 100] {
            let chosen = connection.ask(&["SRANDMEMBER", key, &count.to_string()]).await?;
            let repeated = connection.ask(&["SRANDMEMBER", key, &format!("-{count}")]).await?;
            for member in chosen.elements().iter().chain(repeated.elements()) {
                ensure!(left.contains(member.text().unwrap_or_default()), "{member:?} is no member");
            }
            let popped = connection.ask(&["SPOP", key, &count.to_string()]).await?;
            ensure!(popped.elements().len() == count, "{popped:?}");
            for member in popped.elements() {
                let member = member.text().unwrap_or_default();
                ensure!(left.remove(member), "{member} was popped twice, or never there");
                hundreds.insert(member[7..11].to_owned());
            }
        }
        // 175 of them: those of one corner alone would be in two or three hundreds.
        ensure!(key == "small" || hundreds.len() > 60, "{hundreds:?}");
        ensure!(connection.ask(&["SCARD", key]).await? == Answer::Integer(left.len() as i64));
        let found: BTreeSet<String> = scan_whole(&mut connection, "SSCAN", key, 1000, 1)
            .await?
            .iter()
            .filter_map(|member| member.text().map(str::to_owned))
            .collect();
        ensure!(found == left, "{} are left of {}", found.len(), left.len());
    }
    // What cannot be answered is not taken.
    let refused = connection.ask(&["SPOP", "large", "18000"]).await?;
    ensure!(matches!(&refused, Answer::Error(text) if text.contains("client-output-buffer-limit")), "{refused:?}");
    ensure!(connection.ask(&["SCARD", "large"]).await? == Answer::Integer(19_825));
    let all = connection.ask(&["SPOP", "small", "300"]).await?;
    ensure!(all.elements().len() == 125 && connection.ask(&["EXISTS", "small"]).await? == Answer::Integer(0));
    Ok(())
}
