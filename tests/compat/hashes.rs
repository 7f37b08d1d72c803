//! Hashes beside those of a real redis-server.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use proptest::prelude::*;
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::family::{self, Family, Words, on_key, scan_whole, scanned, shape, sorted, tail, value, words};

struct Hashes;

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "a", "ab", "abc", "b", "\u{1}", "field-of-some-length-0123456789-0123456789"]).prop_map(str::to_owned),
        4 => "f[0-9]",
    ]
}

fn pairs() -> impl Strategy<Value = Words> {
    prop::collection::vec((field(), value()), 1..9)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(field, value)| [field, value]).collect())
}

fn fields() -> impl Strategy<Value = Words> {
    prop::collection::vec(field(), 1..9)
}

impl Family for Hashes {
    const GROUPS: &'static [&'static str] = &["hash"];
    const ON_PURPOSE: &'static [&'static str] = &["which fields expire is compared with a model: 7.0 has no such fields"];
    const KEYS: &'static [&'static str] = &["h1", "h2", "{x}h3", "s", ""];

    fn command() -> BoxedStrategy<Words> {
        let hashes = prop_oneof![
            6 => on_key::<Self>("HSET", pairs()),
            1 => on_key::<Self>("HSET", fields()),
            1 => on_key::<Self>("HMSET", pairs()),
            2 => on_key::<Self>("HSETNX", (field(), value()).prop_map(|(field, value)| vec![field, value])),
            2 => on_key::<Self>("HGET", field().prop_map(|field| vec![field])),
            2 => on_key::<Self>("HMGET", fields()),
            4 => on_key::<Self>("HDEL", fields()),
            1 => on_key::<Self>("HLEN", Just(vec![])),
            1 => on_key::<Self>("HEXISTS", field().prop_map(|field| vec![field])),
            1 => on_key::<Self>("HSTRLEN", field().prop_map(|field| vec![field])),
            2 => on_key::<Self>("HINCRBY", (field(), value()).prop_map(|(field, by)| vec![field, by])),
            2 => on_key::<Self>("HGETALL", Just(vec![])),
            1 => on_key::<Self>("HKEYS", Just(vec![])),
            1 => on_key::<Self>("HVALS", Just(vec![])),
        ];
        let random = prop_oneof![
            1 => on_key::<Self>("HRANDFIELD", tail(&["", "3", "-7", "0", "1000", "x", "-9223372036854775808", "2 WITHVALUES", "-5 withvalues",
                "3 WHAT", "9223372036854775807 WITHVALUES", "1 WITHVALUES 2"])),
            1 => on_key::<Self>("HSCAN", tail(&["0 COUNT 1000", "0 MATCH f* COUNT 1000", "x", "0 COUNT 0", "0 COUNT", "0 WHAT 1", "0 COUNT x"])),
            // On a key of its own: what the others leave is often too large to be added exactly by anybody.
            1 => prop::sample::select(vec!["1.5", "-0.25", "3", "x", "", "1e2", " 1", "0.1", "inf"])
                .prop_map(|by| vec!["HINCRBYFLOAT".into(), "floats".into(), "f".into(), by.into()]),
            1 => "[0-9]{1,3}(\\.[0-9]{1,2})?".prop_map(|value| vec!["HSET".into(), "floats".into(), "f".into(), value]),
            1 => Just(words("HSET floats f no-number")),
            1 => prop::sample::select(vec!["HSET", "HGET h1", "HMSET h1 a", "HDEL h1", "HINCRBY h1 a", "HSCAN h1"]).prop_map(words),
        ];
        prop_oneof![10 => hashes, 3 => random].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        match command[0].as_str() {
            "HGETALL" => sorted(answer, 2),
            "HKEYS" | "HVALS" => sorted(answer, 1),
            "HSCAN" => scanned(answer, 2),
            "HRANDFIELD" => shape(answer),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![vec!["HGETALL".into(), key.into()], vec!["HLEN".into(), key.into()]]
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let all = connection.ask(&["HGETALL", key]).await?;
        if matches!(all, Answer::Error(_)) {
            return Ok(());
        }
        let all: BTreeMap<Answer, Answer> = all.elements().chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let size = connection.ask(&["HLEN", key]).await?;
        ensure!(size == Answer::Integer(all.len() as i64), "{key}: HLEN {size:?}, and {} fields", all.len());
        let pages = scan_whole(connection, "HSCAN", key, 3, 2).await?;
        let scanned: BTreeMap<Answer, Answer> = pages.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
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
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_hashes_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Hashes>(6000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_agree_with_themselves_after_writers_at_once() -> anyhow::Result<()> {
    let names = &["HSET", "HDEL", "HGETALL", "HKEYS", "HRANDFIELD", "HINCRBY", "HSCAN"];
    family::agrees_with_itself_after_writers_at_once::<Hashes>(names).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_of_many_fields_is_read_in_pages_and_refused_past_the_limit() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("client-output-buffer-limit", "1mb"), ("reply-stream-from", "0")])?
        .start()
        .await?;
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
