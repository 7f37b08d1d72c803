//! Sorted sets beside those of a real redis-server.
//!
//! Scores are compared as numbers: Redis 7.4 writes the fewest digits that mean one, and 7.0, which is what is beside, writes 17.
//! WITHSCORE of ZRANK is of 7.2: it is looked at here alone.

use std::collections::{BTreeMap, BTreeSet};

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

use crate::family::{self, Family, Words, key, numbers, on_key, scan_whole, scanned, shape, tail, words};
use crate::reference::RedisServer;

struct SortedSets;

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "a", "ab", "abc", "b", "\u{1}", "12", "member-of-some-length-0123456789-0123456789"])
            .prop_map(str::to_owned),
        4 => "m[0-9]",
    ]
}

fn score() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "-?[0-9]",
        3 => "-?[0-9]{1,3}\\.[0-9]{1,3}",
        2 => prop::sample::select(vec!["inf", "-inf", "+Infinity", "1e20", "-1.5e-10", "0.1", "-0", "5.", ".5", "0x10", "123456789012345678"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["", "x", "nan", "1e400", " 1", "1 ", "1e-400"]).prop_map(str::to_owned),
    ]
}

fn end_of_scores() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ("\\(?", "-?[0-9](\\.[0-9])?").prop_map(|(open, number)| open + &number),
        3 => prop::sample::select(vec!["-inf", "+inf", "inf", "(inf", "(-inf", "(5", " 1", ""]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["x", "nan", "1 ", "((1", "[1"]).prop_map(str::to_owned),
    ]
}

fn end_of_members() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec!["-", "+", "[", "(", "(m5", "[m5", "[a", "(ab"]).prop_map(str::to_owned),
        2 => ("[\\[(]", member()).prop_map(|(open, member)| open + &member),
        1 => prop::sample::select(vec!["", "a", "--", "+1"]).prop_map(str::to_owned),
    ]
}

fn place() -> impl Strategy<Value = String> {
    prop_oneof![8 => "-?[0-9]", 1 => prop::sample::select(vec!["x", "", "-9223372036854775808", "9223372036854775807", "-100", "1000"]).prop_map(str::to_owned)]
}

fn limit() -> impl Strategy<Value = Words> {
    prop_oneof![
        3 => Just(vec![]),
        2 => ("-?[0-3]", "-?[0-5]").prop_map(|(offset, count)| vec!["LIMIT".to_owned(), offset, count]),
        1 => tail(&["LIMIT", "LIMIT 1", "LIMIT x 1", "limit 0 -1"]),
    ]
}

fn two(end: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = Words> {
    (end.clone(), end).prop_map(|(min, max)| vec![min, max])
}

fn concat<const N: usize>(parts: [Words; N]) -> Words {
    parts.concat()
}

fn members() -> impl Strategy<Value = Words> {
    prop::collection::vec(member(), 1..9)
}

fn pairs() -> impl Strategy<Value = Words> {
    prop::collection::vec((score(), member()), 1..7)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(score, member)| [score, member]).collect())
}

/// `numkeys key …`, the number sometimes wrong.
fn counted() -> impl Strategy<Value = (usize, Words)> {
    (
        prop::collection::vec(key::<SortedSets>(), 1..4),
        prop::sample::select(vec!["", "", "", "", "", "", "", "0", "-1", "9", "x"]),
    )
        .prop_map(|(keys, number)| {
            let count = keys.len();
            let number = if number.is_empty() { count.to_string() } else { number.to_owned() };
            (count, [vec![number], keys].concat())
        })
}

fn combination(with_scores: bool) -> impl Strategy<Value = Words> {
    (
        counted(),
        prop::collection::vec("-?[0-3](\\.5)?|inf|x", 3),
        prop::sample::select(vec!["", "", "WEIGHTS"]),
        tail(&["", "", "AGGREGATE SUM", "AGGREGATE MIN", "aggregate max", "AGGREGATE", "AGGREGATE x"]),
        tail(if with_scores { &["", "WITHSCORES", "WITHSCORES", "WHAT"] } else { &["", "", "WITHSCORES"] }),
    )
        .prop_map(|((count, keys), weights, word, aggregate, rest)| {
            let weights = if word.is_empty() { vec![] } else { [vec![word.to_owned()], weights[..count].to_vec()].concat() };
            [keys, weights, aggregate, rest].concat()
        })
}

/// Commands about members of one score: of others their order is nobody's promise.
fn lexical() -> BoxedStrategy<Words> {
    let on_lex =
        |name: &'static str, rest: BoxedStrategy<Words>| rest.prop_map(move |rest| [words(name), words("lex"), rest].concat());
    let reversed = two(end_of_members().boxed()).prop_map(|ends| vec![ends[1].clone(), ends[0].clone()]);
    prop_oneof![
        4 => members().prop_map(|members| {
            [words("ZADD lex"), members.into_iter().flat_map(|member| ["0".to_owned(), member]).collect()].concat()
        }),
        2 => on_lex("ZLEXCOUNT", two(end_of_members().boxed()).boxed()),
        2 => on_lex("ZRANGEBYLEX", (two(end_of_members().boxed()), limit()).prop_map(|(ends, limit)| concat([ends, limit])).boxed()),
        2 => on_lex("ZREVRANGEBYLEX", (reversed, limit()).prop_map(|(ends, limit)| concat([ends, limit])).boxed()),
        2 => on_lex("ZRANGE", (two(end_of_members().boxed()), limit(), tail(&["BYLEX", "BYLEX REV", "BYLEX WITHSCORES", "BYLEX BYSCORE"]))
            .prop_map(|(ends, limit, tail)| concat([ends, limit, tail])).boxed()),
        1 => on_lex("ZREMRANGEBYLEX", two(end_of_members().boxed()).boxed()),
        1 => (two(end_of_members().boxed()), limit()).prop_map(|(ends, limit)| concat([words("ZRANGESTORE z4 lex"), ends, limit, words("BYLEX")])),
        1 => Just(words("ZRANGE lex 0 -1")),
    ]
    .boxed()
}

impl Family for SortedSets {
    const GROUPS: &'static [&'static str] = &["sorted-set"];
    const ON_PURPOSE: &'static [&'static str] = &["scores are written with the fewest digits, as 7.4"];
    const KEYS: &'static [&'static str] = &["z1", "z2", "{x}z3", "z4", "set", ""];

    fn command() -> BoxedStrategy<Words> {
        let single = prop_oneof![
            10 => on_key::<Self>("ZADD", pairs()),
            4 => on_key::<Self>("ZADD", (tail(&["NX", "XX", "GT", "LT", "CH", "XX CH", "GT CH", "NX XX", "GT LT", "NX GT", "xx lt ch", "NX CH XX"]), pairs())
                .prop_map(|(options, pairs)| concat([options, pairs]))),
            3 => on_key::<Self>("ZADD", (tail(&["INCR", "INCR NX", "INCR XX", "INCR GT", "LT INCR CH"]), score(), member())
                .prop_map(|(options, score, member)| concat([options, vec![score, member]]))),
            2 => on_key::<Self>("ZINCRBY", (score(), member()).prop_map(|(by, member)| vec![by, member])),
            3 => on_key::<Self>("ZREM", members()),
            1 => on_key::<Self>("ZCARD", Just(vec![])),
            1 => on_key::<Self>("ZSCORE", member().prop_map(|member| vec![member])),
            1 => on_key::<Self>("ZMSCORE", members()),
            2 => (prop::sample::select(vec!["ZRANK", "ZREVRANK"]), key::<Self>(), member())
                .prop_map(|(name, key, member)| vec![name.to_owned(), key, member]),
            2 => on_key::<Self>("ZCOUNT", two(end_of_scores().boxed())),
            1 => on_key::<Self>("ZRANDMEMBER", tail(&["", "3", "-7", "0", "1000", "x", "-9223372036854775808", "2 WITHSCORES", "-5 withscores",
                "3 WHAT", "9223372036854775807 WITHSCORES", "1 WITHSCORES 2"])),
            1 => on_key::<Self>("ZSCAN", tail(&["0 COUNT 1000", "0 MATCH m* COUNT 1000", "x", "0 COUNT 0", "0 COUNT", "0 WHAT 1", "0 COUNT x"])),
            1 => on_key::<Self>("SADD", members()),
        ];
        let ranges = prop_oneof![
            3 => on_key::<Self>("ZRANGE", (two(place().boxed()), tail(&["", "", "WITHSCORES", "REV", "REV WITHSCORES", "LIMIT 0 1", "LIMIT 0 -1", "WHAT"]))
                .prop_map(|(ends, tail)| concat([ends, tail]))),
            3 => on_key::<Self>("ZRANGE", (two(end_of_scores().boxed()), limit(), tail(&["BYSCORE", "BYSCORE WITHSCORES", "BYSCORE REV", "byscore rev REV"]))
                .prop_map(|(ends, limit, tail)| concat([ends, limit, tail]))),
            2 => on_key::<Self>("ZREVRANGE", (two(place().boxed()), tail(&["", "WITHSCORES", "REV"])).prop_map(|(ends, tail)| concat([ends, tail]))),
            2 => (prop::sample::select(vec!["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"]), key::<Self>(), two(end_of_scores().boxed()), limit(),
                tail(&["", "WITHSCORES", "WHAT"])).prop_map(|(name, key, ends, limit, tail)| concat([vec![name.to_owned(), key], ends, limit, tail])),
            1 => on_key::<Self>("ZREMRANGEBYRANK", two(place().boxed())),
            1 => on_key::<Self>("ZREMRANGEBYSCORE", two(end_of_scores().boxed())),
            2 => on_key::<Self>("ZRANGESTORE", (key::<Self>(), two(place().boxed()), tail(&["", "REV", "WITHSCORES", "BYSCORE", "BYSCORE LIMIT 1 2"]))
                .prop_map(|(from, ends, tail)| concat([vec![from], ends, tail]))),
            2 => (prop::sample::select(vec!["ZPOPMIN", "ZPOPMAX"]), key::<Self>(), tail(&["", "", "1", "2", "0", "100", "x", "-1", "1 2"]))
                .prop_map(|(name, key, tail)| concat([vec![name.to_owned(), key], tail])),
            2 => (counted(), tail(&["MIN", "MAX", "min COUNT 2", "MAX COUNT 100", "MIN COUNT 0", "MIN COUNT x", "WHAT", "", "MAX COUNT", "MIN COUNT 1 COUNT 1"]))
                .prop_map(|((_, keys), tail)| concat([words("ZMPOP"), keys, tail])),
        ];
        let several = prop_oneof![
            2 => combination(true).prop_map(|rest| concat([words("ZUNION"), rest])),
            2 => combination(true).prop_map(|rest| concat([words("ZINTER"), rest])),
            2 => (counted(), tail(&["", "WITHSCORES", "WEIGHTS 1", "WHAT"])).prop_map(|((_, keys), tail)| concat([words("ZDIFF"), keys, tail])),
            2 => on_key::<Self>("ZUNIONSTORE", combination(false)),
            2 => on_key::<Self>("ZINTERSTORE", combination(false)),
            2 => on_key::<Self>("ZDIFFSTORE", counted().prop_map(|(_, keys)| keys)),
            2 => (counted(), tail(&["", "LIMIT 0", "LIMIT 2", "LIMIT -1", "LIMIT x", "LIMIT", "WITHSCORES"]))
                .prop_map(|((_, keys), tail)| concat([words("ZINTERCARD"), keys, tail])),
            1 => prop::sample::select(vec!["ZADD z1", "ZADD z1 1", "ZADD z1 NX CH", "ZADD z1 1 a 2", "ZREM z1", "ZRANGE z1 0", "ZUNION 1", "ZUNIONSTORE z1 1",
                "ZINCRBY z1 1", "ZRANGESTORE z1 z2 0", "ZPOPMIN", "ZSCAN z1", "ZMPOP 1 z1"]).prop_map(words),
        ];
        prop_oneof![5 => single, 4 => ranges, 3 => several, 2 => lexical()].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        match command[0].as_str() {
            "ZSCAN" => numbers(scanned(answer, 2)),
            "ZRANDMEMBER" => shape(answer),
            name if name.starts_with('Z') => numbers(answer),
            "SMEMBERS" => family::sorted(answer, 1),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![
            ["ZRANGE", key, "0", "-1", "WITHSCORES"].map(str::to_owned).to_vec(),
            ["ZREVRANGEBYSCORE", key, "+inf", "-inf", "WITHSCORES"].map(str::to_owned).to_vec(),
            vec!["ZCARD".into(), key.into()],
        ]
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let all = connection.ask(&["ZRANGE", key, "0", "-1", "WITHSCORES"]).await?;
        if matches!(all, Answer::Error(_)) {
            return Ok(());
        }
        let all: Vec<(Answer, f64)> = flat(&all).chunks(2).map(|pair| (pair[0].clone(), number(&pair[1]))).collect();
        let by_member: BTreeMap<&Answer, f64> = all.iter().map(|(member, score)| (member, *score)).collect();
        let size = connection.ask(&["ZCARD", key]).await?;
        ensure!(size == Answer::Integer(all.len() as i64) && by_member.len() == all.len(), "{key}: ZCARD {size:?}, and {all:?}");
        let scanned = scan_whole(connection, "ZSCAN", key, 3, 2).await?;
        let scanned: BTreeMap<&Answer, f64> = scanned.chunks(2).map(|pair| (&pair[0], number(&pair[1]))).collect();
        ensure!(scanned == by_member, "{key}: scanned {scanned:?}, there are {all:?}");
        for (place, (member, score)) in all.iter().enumerate() {
            let name = member.text().unwrap_or_default();
            for (command, place) in [("ZRANK", place), ("ZREVRANK", all.len() - 1 - place)] {
                let rank = connection.ask(&[command, key, name, "WITHSCORE"]).await?;
                let right = rank.elements().len() == 2
                    && rank.elements()[0] == Answer::Integer(place as i64)
                    && number(&rank.elements()[1]).total_cmp(score).is_eq();
                ensure!(right, "{key}: {command} of {name:?} at {place} with {score}: {rank:?}");
            }
        }
        for count in [1, 3, 7, 1000] {
            let chosen = connection.ask(&["ZRANDMEMBER", key, &count.to_string()]).await?;
            let distinct: BTreeSet<&Answer> = chosen.elements().iter().collect();
            ensure!(
                distinct.len() == chosen.elements().len() && distinct.len() == all.len().min(count),
                "{key}, {count}: {chosen:?}"
            );
            ensure!(distinct.iter().all(|member| by_member.contains_key(*member)), "{key}, {count}: {chosen:?}");
            let repeated = flat(&connection.ask(&["ZRANDMEMBER", key, &format!("-{count}"), "WITHSCORES"]).await?);
            ensure!(repeated.len() == if all.is_empty() { 0 } else { 2 * count }, "{key}, -{count}: {repeated:?}");
            let known = |pair: &[Answer]| by_member.get(&pair[0]).is_some_and(|score| score.total_cmp(&number(&pair[1])).is_eq());
            ensure!(repeated.chunks(2).all(known), "{key}, -{count}: {repeated:?}");
        }
        Ok(())
    }
}

/// Members and scores in turn, in RESP3 as in RESP2.
fn flat(answer: &Answer) -> Vec<Answer> {
    match answer.elements() {
        [Answer::Array(_), ..] => answer.elements().iter().flat_map(|pair| pair.elements().to_vec()).collect(),
        elements => elements.to_vec(),
    }
}

fn number(answer: &Answer) -> f64 {
    let text = match answer {
        Answer::Double(text) => text.as_str(),
        other => other.text().unwrap_or("nan"),
    };
    text.parse().unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_sorted_sets_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<SortedSets>(8000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sorted_sets_agree_with_themselves_after_writers_at_once() -> anyhow::Result<()> {
    let names =
        &["ZADD", "ZINCRBY", "ZREM", "ZRANGE", "ZPOPMIN", "ZPOPMAX", "ZREMRANGEBYSCORE", "ZUNIONSTORE", "ZRANGESTORE", "ZSCAN"];
    family::agrees_with_itself_after_writers_at_once::<SortedSets>(names).await
}

/// Ranks of large sorted sets, which are not counted out, beside those of a real redis-server: while members come and go, singly and by the
/// hundred, at the ends and in between, in pipelines that ask for what they have just changed, and after restarts.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_of_large_sorted_sets_are_those_of_redis() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let (redis, mut store) = (RedisServer::start()?, setup.start().await?);
    redis.client().await?;
    let (mut theirs, mut ours) = (Connection::open(&redis.address()).await?, Connection::open(&store.address()).await?);
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let member = || (0u32..40_000).prop_map(|number| format!("member:{number}"));
    let score = || prop_oneof![3 => (-5000i32..5000).prop_map(|score| score.to_string()), 1 => Just("0".to_owned())];
    let place = || prop_oneof![(-20_000i32..20_000), (-30i32..30)];
    let many =
        (score(), 0u32..40_000, 1u32..900, prop::sample::select(vec![0, 1, -1])).prop_map(|(score, first, count, step)| {
            let base: i32 = score.parse().unwrap_or(0);
            let pairs = (0..count)
                .flat_map(|at| [(base + step * at.cast_signed()).to_string(), format!("member:{}", (first + at) % 40_000)]);
            [words("ZADD big"), pairs.collect()].concat()
        });
    let one = prop_oneof![
        4 => many,
        6 => (score(), member()).prop_map(|(score, member)| vec!["ZADD".to_owned(), "big".to_owned(), score, member]),
        3 => (score(), member()).prop_map(|(by, member)| vec!["ZINCRBY".to_owned(), "big".to_owned(), by, member]),
        3 => member().prop_map(|member| vec!["ZREM".to_owned(), "big".to_owned(), member]),
        1 => (score(), 1u32..40).prop_map(|(from, width)| {
            let to = from.parse::<i32>().unwrap_or(0) + width.cast_signed();
            vec!["ZREMRANGEBYSCORE".to_owned(), "big".to_owned(), from, to.to_string()]
        }),
        1 => (place(), 0i32..50).prop_map(|(from, width)| vec!["ZREMRANGEBYRANK".to_owned(), "big".to_owned(), from.to_string(), (from + width).to_string()]),
        1 => prop::sample::select(vec!["ZPOPMIN big 20", "ZPOPMAX big 20", "RENAME big other", "RENAME other big"]).prop_map(words),
        8 => member().prop_map(|member| vec!["ZRANK".to_owned(), "big".to_owned(), member]),
        4 => member().prop_map(|member| vec!["ZREVRANK".to_owned(), "big".to_owned(), member]),
        4 => (score(), score()).prop_map(|(min, max)| vec!["ZCOUNT".to_owned(), "big".to_owned(), min, format!("({max}")]),
        4 => (prop::sample::select(vec!["ZRANGE", "ZREVRANGE"]), place(), 0i32..5)
            .prop_map(|(name, from, width)| vec![name.to_owned(), "big".to_owned(), from.to_string(), (from + width).to_string(), "WITHSCORES".to_owned()]),
    ];
    let strategy = prop::collection::vec(one, 1..30);
    let mut history = Vec::new();
    for pipeline in 1..=250 {
        let commands = strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
        family::compare::<SortedSets>(&mut theirs, &mut ours, &commands, &mut history)
            .await
            .with_context(|| format!("pipeline {pipeline}"))?;
        if pipeline % 90 == 0 {
            store.kill()?;
            store = setup.start().await?;
            ours = Connection::open(&store.address()).await?;
        }
    }
    let whole = [words("ZRANGE big 0 -1 WITHSCORES"), words("ZCARD big")];
    family::compare::<SortedSets>(&mut theirs, &mut ours, &whole, &mut history).await
}

/// Several connections, on threads of their own, change a large sorted set and ask it for ranks: in the end every rank is the one that the
/// whole set shows.
#[tokio::test(flavor = "multi_thread")]
async fn ranks_stay_exact_under_writers_at_once() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("io-threads", "4")])?.start().await?;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6u32 {
        let address = store.address();
        writers.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for round in 0..40u32 {
                let score = |at: u32| ((at * 7919 + round * 104_729 + writer * 31) % 9973).to_string();
                let add = (0..200u32).flat_map(|at| [score(at), format!("member:{writer}:{}", (at * 13 + round * 50) % 3000)]);
                let commands = vec![
                    [words("ZADD big"), add.collect()].concat(),
                    words(&format!("ZRANK big member:{writer}:{}", round * 50)),
                    words(&format!("ZREM big member:{writer}:{}", (round * 91) % 3000)),
                    words(&format!("ZCOUNT big {} 7000", round * 10)),
                    words("ZRANGE big 3000 3003"),
                ];
                for (command, answer) in commands.iter().zip(connection.ask_all(&commands).await?) {
                    ensure!(!matches!(answer, Answer::Error(_)), "{}: {answer:?}", command[0]);
                }
            }
            anyhow::Ok(connection)
        });
    }
    let mut last = None;
    while let Some(connection) = writers.join_next().await {
        last = Some(connection??);
    }
    let mut connection = last.context("a connection")?;
    let all = connection.ask(&["ZRANGE", "big", "0", "-1"]).await?.elements().to_vec();
    ensure!(all.len() > 6000, "{} members are too few", all.len());
    for at in (0..all.len()).step_by(101) {
        let name = all[at].text().context("a member")?;
        let ranks = [connection.ask(&["ZRANK", "big", name]).await?, connection.ask(&["ZREVRANK", "big", name]).await?];
        ensure!(ranks == [at, all.len() - 1 - at].map(|rank| Answer::Integer(rank as i64)), "{name} at {at}: {ranks:?}");
        let place = at.to_string();
        ensure!(connection.ask(&["ZRANGE", "big", &place, &place]).await?.elements() == [all[at].clone()], "at {at}");
    }
    let counted = connection.ask(&["ZCOUNT", "big", "-inf", "+inf"]).await?;
    ensure!(counted == Answer::Integer(all.len() as i64), "{counted:?} of {}", all.len());
    Ok(())
}
