//! Strings, their parts and bits, and `HyperLogLogs`, beside those of a real redis-server.

use proptest::prelude::*;
use sluice_tests::resp::{Answer, Connection};

use crate::family::{self, Family, Words, key, on_key, tail, value};

struct Strings;

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (-12i64..300).prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec!["x", "", "9223372036854775807", "-9223372036854775808", "99999999999", "1.5"]).prop_map(str::to_owned),
    ]
}

fn numbers(count: usize) -> impl Strategy<Value = Words> {
    prop::collection::vec(number(), count)
}

fn bit_range() -> impl Strategy<Value = Words> {
    prop_oneof![
        1 => Just(vec![]),
        1 => numbers(1),
        3 => numbers(2),
        3 => (numbers(2), tail(&["BIT", "BYTE", "bit", "WHAT"])).prop_map(|(range, unit)| [range, unit].concat()),
    ]
}

fn field_step() -> impl Strategy<Value = Words> {
    let kind = || {
        prop_oneof![
            8 => (prop::bool::ANY, 1u32..64).prop_map(|(signed, bits)| format!("{}{bits}", if signed { "i" } else { "u" })),
            1 => prop::sample::select(vec!["i64", "u63", "u64", "i0", "x8", "u", "i65"]).prop_map(str::to_owned),
        ]
    };
    let place = || {
        prop_oneof![
            4 => (0u32..200).prop_map(|at| at.to_string()),
            2 => (0u32..9).prop_map(|at| format!("#{at}")),
            1 => prop::sample::select(vec!["-1", "x", "#x", "4294967296000"]).prop_map(str::to_owned),
        ]
    };
    let amount = || {
        prop_oneof![
            any::<i64>().prop_map(|by| by.to_string()),
            (-300i64..300).prop_map(|by| by.to_string()),
            Just("x".to_owned())
        ]
    };
    prop_oneof![
        2 => (kind(), place()).prop_map(|(kind, place)| vec!["GET".to_owned(), kind, place]),
        3 => (kind(), place(), amount()).prop_map(|(kind, place, by)| vec!["SET".to_owned(), kind, place, by]),
        3 => (kind(), place(), amount()).prop_map(|(kind, place, by)| vec!["INCRBY".to_owned(), kind, place, by]),
        2 => tail(&["OVERFLOW WRAP", "OVERFLOW SAT", "OVERFLOW FAIL", "OVERFLOW X", "OVERFLOW"]),
    ]
}

fn steps() -> impl Strategy<Value = Words> {
    prop::collection::vec(field_step(), 0..5).prop_map(|steps| steps.concat())
}

fn offset() -> impl Strategy<Value = String> {
    prop_oneof![8 => (0u32..400).prop_map(|at| at.to_string()), 1 => number(), 1 => Just("4294967296".to_owned())]
}

impl Family for Strings {
    const GROUPS: &'static [&'static str] = &["string", "bitmap"];
    const ON_PURPOSE: &'static [&'static str] = &["BITCOUNT and BITPOS look at their range before the key, as 7.2"];
    const KEYS: &'static [&'static str] = &["s1", "s2", "{s}3", "s4", ""];

    fn command() -> BoxedStrategy<Words> {
        let strings = prop_oneof![
            6 => on_key::<Self>("SET", value().prop_map(|value| vec![value])),
            3 => on_key::<Self>("GETRANGE", numbers(2)),
            1 => on_key::<Self>("SUBSTR", numbers(2)),
            3 => on_key::<Self>("SETRANGE", (prop_oneof![4 => (0u32..60).prop_map(|at| at.to_string()), 1 => number()], value())
                .prop_filter("of a length that both can hold", |(at, _)| at.parse().unwrap_or(0i64) < 1 << 20 || at.len() > 12)
                .prop_map(|(at, value)| vec![at, value])),
            1 => (key::<Self>(), value(), key::<Self>(), value()).prop_map(|(a, one, b, other)| vec!["MSETNX".into(), a, one, b, other]),
            1 => on_key::<Self>("MSETNX", tail(&["v", "v w", "v s9 v"])),
            3 => on_key::<Self>("GETEX", tail(&["", "PERSIST", "EX 10000", "PX 99999999", "EXAT 99999999999", "PXAT 1", "EX 0", "EX x", "EX",
                "PERSIST EX 1", "WHAT", "EX 9223372036854775807"])),
            2 => (key::<Self>(), key::<Self>(), tail(&["", "LEN", "IDX", "IDX WITHMATCHLEN", "IDX MINMATCHLEN 2", "LEN IDX",
                "IDX MINMATCHLEN 2 WITHMATCHLEN", "WHAT", "MINMATCHLEN", "IDX MINMATCHLEN x"]))
                .prop_map(|(a, b, rest)| [vec!["LCS".to_owned(), a, b], rest].concat()),
            1 => on_key::<Self>("SETNX", value().prop_map(|value| vec![value])),
            1 => on_key::<Self>("INCRBY", numbers(1)),
            1 => on_key::<Self>("DECRBY", numbers(1)),
        ];
        let bits = prop_oneof![
            3 => on_key::<Self>("SETBIT", (offset(), tail(&["0", "1", "1", "2", "x"])).prop_map(|(at, bit)| [vec![at], bit].concat()))
                .prop_filter("of a length that both can hold", |words| words[2].parse().unwrap_or(0i64) < 1 << 20 || words[2].len() > 10),
            2 => on_key::<Self>("GETBIT", offset().prop_map(|at| vec![at])),
            3 => on_key::<Self>("BITCOUNT", bit_range()),
            3 => on_key::<Self>("BITPOS", (tail(&["0", "1", "1", "2", "x"]), bit_range()).prop_map(|(bit, range)| [bit, range].concat())),
            3 => (prop::sample::select(vec!["AND", "or", "XOR", "NOT", "NOT", "X"]), prop::collection::vec(key::<Self>(), 2..4))
                .prop_map(|(operation, keys)| [vec!["BITOP".to_owned(), operation.to_owned()], keys].concat()),
            6 => on_key::<Self>("BITFIELD", steps()),
            1 => on_key::<Self>("BITFIELD_RO", steps()),
        ];
        prop_oneof![6 => strings, 6 => bits].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        // Since 7.2 a range is looked at before the key: the server compared with answers 0 when there is none.
        let wrong = |word: &String| word.parse::<i64>().is_err() && !["BIT", "BYTE", "bit"].contains(&word.as_str());
        let words = if command[0] == "BITPOS" { command.get(3..) } else { command.get(2..) };
        match command[0].as_str() {
            "BITCOUNT" if command.len() == 3 => Answer::Integer(0),
            "BITCOUNT" | "BITPOS" if words.is_some_and(|words| words.iter().any(wrong)) => Answer::Integer(0),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![vec!["GET".to_owned(), key.to_owned()]]
    }

    async fn look(_: &mut Connection, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What is counted is the same; the runs it is stored as are each server's own.
struct Counted;

impl Family for Counted {
    const GROUPS: &'static [&'static str] = &["hyperloglog"];
    const ON_PURPOSE: &'static [&'static str] =
        &["the runs a HyperLogLog is stored as are not those of Redis, the registers are"];
    const KEYS: &'static [&'static str] = &["h1", "h2", "{h1}", "h4"];

    fn command() -> BoxedStrategy<Words> {
        let things = || prop::collection::vec((0u32..100_000).prop_map(|thing| format!("thing {thing}")), 0..60);
        let keys = || prop::collection::vec(key::<Self>(), 0..4);
        prop_oneof![
            12 => on_key::<Self>("PFADD", things()),
            4 => on_key::<Self>("PFCOUNT", keys()),
            3 => on_key::<Self>("PFMERGE", keys()),
            1 => on_key::<Self>("SET", tail(&["HYLL", "x", "HYLLx"])),
        ]
        .boxed()
    }

    fn admits(command: &[String]) -> bool {
        // What reads of spoiled runs each server notices is its own affair.
        command[0] != "APPEND"
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        match (command[0].as_str(), answer) {
            ("GET" | "GETDEL" | "SET", Answer::Bulk(found)) => Answer::Bulk(found.map(|_| Vec::new())),
            ("MGET", Answer::Array(found)) => Answer::Integer(found.len() as i64),
            ("STRLEN", Answer::Integer(_)) => Answer::Integer(0),
            (_, answer) => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![vec!["PFCOUNT".to_owned(), key.to_owned()]]
    }

    async fn look(_: &mut Connection, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_strings_and_bits_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Strings>(12_000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hyperloglogs_count_is_what_redis_counts() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Counted>(5000).await
}
