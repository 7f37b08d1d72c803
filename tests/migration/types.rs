//! What the other tests do not move: sets, sorted sets with what is known of their ranks, fields that expire, HyperLogLogs, bits. There and
//! back, with a kill in between.

use anyhow::ensure;
use sluice_tests::{
    resp::{Answer, Connection},
    store::LocalCluster,
};
use sluice_topology::admin::MigrationState;

use crate::ranges;

const KEYS: usize = 30;
/// Enough for its ranks to be counted in blocks.
const MEMBERS: usize = 3000;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn makers() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for number in 0..KEYS {
        let mut set = words(&format!("SADD set:{number}"));
        set.extend((0..50).map(|member| format!("{number}:{member}")));
        all.push(set);
        all.push(words(&format!("SREM set:{number} {number}:3 {number}:4")));
        let mut sorted = words(&format!("ZADD sorted:{number}"));
        sorted.extend((0..40).flat_map(|member| [format!("{}", (member * 7) % 11), format!("m{member}")]));
        all.push(sorted);
        all.push(words(&format!("ZPOPMIN sorted:{number} 5")));
        all.push(words(&format!("HSET hash:{number} a 1 b 2 c 3")));
        all.push(words(&format!("HPEXPIREAT hash:{number} 4000000000000 FIELDS 2 a b")));
        all.push(words(&format!("HPERSIST hash:{number} FIELDS 1 b")));
        all.push(words(&format!("PFADD counted:{number} a b c {number}")));
        all.push(words(&format!("SETBIT bits:{number} {number} 1")));
        all.push(words(&format!("GEOADD places:{number} 13.361389 38.115556 Palermo 15.087269 37.502669 Catania")));
    }
    for part in 0..MEMBERS / 100 {
        let mut large = words("ZADD large");
        large.extend((part * 100..part * 100 + 100).flat_map(|member| [member.to_string(), format!("member {member:05}")]));
        all.push(large);
    }
    // Its ranks are counted from here on.
    all.push(vec!["ZRANK".to_owned(), "large".to_owned(), "member 01500".to_owned()]);
    all
}

fn questions() -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = (0..KEYS)
        .flat_map(|number| {
            [
                format!("SMEMBERS set:{number}"),
                format!("SCARD set:{number}"),
                format!("ZRANGE sorted:{number} 0 -1 WITHSCORES"),
                format!("ZRANK sorted:{number} m7"),
                format!("ZCOUNT sorted:{number} 3 8"),
                format!("HGETALL hash:{number}"),
                format!("HPEXPIRETIME hash:{number} FIELDS 3 a b c"),
                format!("PFCOUNT counted:{number}"),
                format!("GET bits:{number}"),
                format!("GEOPOS places:{number} Palermo Catania"),
                format!("OBJECT ENCODING set:{number}"),
            ]
        })
        .map(|text| words(&text))
        .collect();
    for member in (0..MEMBERS).step_by(271) {
        all.push(vec!["ZRANK".to_owned(), "large".to_owned(), format!("member {member:05}")]);
        all.push(words(&format!("ZCOUNT large 0 {member}")));
        all.push(words(&format!("ZRANGE large {member} {}", member + 2)));
    }
    all
}

async fn move_all(cluster: &LocalCluster, from: usize, to: usize) -> anyhow::Result<()> {
    let job = cluster.migrate(from, to, &ranges("0-16383")).await?;
    let status = cluster.ended(from, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    Ok(())
}

fn same(expected: &[Answer], found: &[Answer], what: &str) -> anyhow::Result<()> {
    for ((question, expected), found) in questions().iter().zip(expected).zip(found) {
        ensure!(expected == found, "{what}: {question:?}: {found:?}, should be {expected:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_move_whole_and_come_back() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[]).await?;
    let mut here = Connection::open(&cluster.node(0).address()).await?;
    let makers = makers();
    for (command, answer) in makers.iter().zip(here.ask_all(&makers).await?) {
        ensure!(!matches!(answer, Answer::Error(_)), "{command:?}: {answer:?}");
    }
    let before = here.ask_all(&questions()).await?;
    ensure!(!before.iter().any(|answer| matches!(answer, Answer::Error(_))));
    move_all(&cluster, 0, 1).await?;
    let mut there = Connection::open(&cluster.node(1).address()).await?;
    same(&before, &there.ask_all(&questions()).await?, "moved")?;
    let gone = here.ask(&["SCARD", "set:0"]).await?;
    ensure!(matches!(&gone, Answer::Error(text) if text.starts_with("MOVED")), "{gone:?}");
    // What is new there does not meet what came.
    for words in [
        &["ZADD", "large", "1499.5", "between"][..],
        &["ZREM", "large", "between"],
        &["SADD", "set:0", "x"],
        &["SREM", "set:0", "x"],
    ] {
        ensure!(there.ask(words).await? == Answer::Integer(1), "{words:?}");
    }
    cluster.kill(1)?;
    cluster.restart(1).await?;
    let mut there = Connection::open(&cluster.node(1).address()).await?;
    same(&before, &there.ask_all(&questions()).await?, "moved, and killed")?;
    move_all(&cluster, 1, 0).await?;
    let mut here = Connection::open(&cluster.node(0).address()).await?;
    same(&before, &here.ask_all(&questions()).await?, "back")
}
