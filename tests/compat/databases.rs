//! Databases beside those of a real redis-server: SELECT, MOVE, COPY, SWAPDB, FLUSHDB and FLUSHALL among ordinary commands.

use proptest::prelude::*;
use sluice_tests::resp::{Answer, Connection};

use crate::family::{self, Family, Words, key, on_key, tail, value, words};

struct Databases;

impl Family for Databases {
    const GROUPS: &'static [&'static str] = &["generic", "server"];
    const KEYS: &'static [&'static str] = &["a", "b", "{a}c", "d", ""];

    fn command() -> BoxedStrategy<Words> {
        let copy = (
            key::<Self>(),
            key::<Self>(),
            tail(&["", "REPLACE", "DB 1", "DB 2 REPLACE", "replace db 0", "DB", "DB 16", "DB x", "WHAT"]),
        )
            .prop_map(|(from, to, rest)| [vec!["COPY".to_owned(), from, to], rest].concat());
        prop_oneof![
            8 => tail(&["SELECT 0", "SELECT 1", "SELECT 2", "SELECT 15", "SELECT 16", "SELECT -1", "SELECT x", "SELECT"]),
            6 => on_key::<Self>("MOVE", tail(&["0", "1", "2", "16", "-1", "x"])),
            8 => copy,
            2 => tail(&["SWAPDB 0 1", "SWAPDB 1 2", "SWAPDB 0 0", "SWAPDB 0 16", "SWAPDB x 1", "SWAPDB 1 x", "SWAPDB 1"]),
            1 => tail(&["FLUSHDB", "FLUSHALL", "FLUSHALL ASYNC", "FLUSHDB SYNC", "FLUSHALL WHAT"]),
            4 => on_key::<Self>("SET", value().prop_map(|value| vec![value])),
            4 => on_key::<Self>("HSET", (value(), value()).prop_map(|(field, value)| vec![field, value])),
            3 => on_key::<Self>("GET", Just(vec![])),
            2 => on_key::<Self>("HGETALL", Just(vec![])),
            2 => on_key::<Self>("HLEN", Just(vec![])),
            2 => Just(words("DBSIZE")),
        ]
        .boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        match command[0].as_str() {
            "HGETALL" => family::sorted(answer, 2),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        let mut all = Vec::new();
        // As the connection left them: each database in turn, and back to one they all begin with.
        for database in ["2", "1", "0"] {
            all.push(vec!["SELECT".to_owned(), database.to_owned()]);
            for name in ["GET", "HGETALL", "EXISTS"] {
                all.push(vec![name.to_owned(), key.to_owned()]);
            }
        }
        all
    }

    async fn look(_: &mut Connection, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_hold_what_those_of_redis_hold() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Databases>(5000).await
}
