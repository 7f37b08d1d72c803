//! Lists and streams on the move, with their groups and what is pending in them; and clients that wait for keys of a slot that leaves.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{LocalCluster, wait_for},
};
use sluice_topology::admin::MigrationState;

use crate::ranges;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// What is asked of either node about everything that moves.
fn questions() -> Vec<Vec<String>> {
    (0..40)
        .flat_map(|number| {
            [
                format!("LRANGE list:{number} 0 -1"),
                format!("LLEN list:{number}"),
                format!("XRANGE stream:{number} - +"),
                format!("XLEN stream:{number}"),
                format!("XPENDING stream:{number} group"),
                format!("XREVRANGE stream:{number} + - COUNT 2"),
            ]
        })
        .map(|text| words(&text))
        .collect()
}

async fn move_all(cluster: &LocalCluster, from: usize, to: usize) -> anyhow::Result<()> {
    let job = cluster.migrate(from, to, &ranges("0-16383")).await?;
    let status = cluster.ended(from, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_streams_move_whole_and_who_waits_is_sent_after_them() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("io-threads", "2")]).await?;
    let mut here = Connection::open(&cluster.node(0).address()).await?;
    let mut there = Connection::open(&cluster.node(1).address()).await?;
    for number in 0..40 {
        let mut commands: Vec<Vec<String>> = (0..30).map(|part| words(&format!("RPUSH list:{number} {part} {number}"))).collect();
        commands.push(words(&format!("LTRIM list:{number} {number} -2")));
        commands.extend((1..30).map(|id| words(&format!("XADD stream:{number} {id}-1 field {number}:{id}"))));
        commands.push(words(&format!("XGROUP CREATE stream:{number} group 0")));
        commands.push(words(&format!("XREADGROUP GROUP group one COUNT 9 STREAMS stream:{number} >")));
        commands.push(words(&format!("XACK stream:{number} group 3-1 4-1")));
        commands.push(words(&format!("XDEL stream:{number} 1-1 7-1")));
        for (command, answer) in commands.iter().zip(here.ask_all(&commands).await?) {
            ensure!(!matches!(answer, Answer::Error(_)), "{command:?}: {answer:?}");
        }
    }
    let before = here.ask_all(&questions()).await?;
    // Some wait while their slots leave.
    let mut waiting = Vec::new();
    for command in
        ["BLPOP {nothing}1 {nothing}2 0", "XREAD BLOCK 0 STREAMS stream:1 $", "XREADGROUP GROUP group two BLOCK 0 STREAMS read >"]
    {
        let mut connection = Connection::open(&cluster.node(0).address()).await?;
        if command.contains("read >") {
            connection.ask(&["XGROUP", "CREATE", "read", "group", "$", "MKSTREAM"]).await?;
        }
        connection.send(&[words(command)]).await?;
        waiting.push((command, connection));
    }
    wait_for("three clients to wait", || async { Ok(cluster.node(0).info("blocked_clients").await? == "3") }).await?;
    move_all(&cluster, 0, 1).await?;
    for (command, mut connection) in waiting {
        let answer = tokio::time::timeout(Duration::from_secs(20), connection.answer()).await;
        let answer = answer.with_context(|| format!("{command} waits for what has left"))??;
        ensure!(matches!(&answer, Answer::Error(text) if text.starts_with("MOVED ")), "{command}: {answer:?}");
    }
    let after = there.ask_all(&questions()).await?;
    for ((question, before), after) in questions().iter().zip(&before).zip(&after) {
        ensure!(before == after, "{question:?}\nbefore: {before:?}\n after: {after:?}");
    }
    // What was pending there is pending here, and the rest is still to be read.
    let read = there.ask(&["XREADGROUP", "GROUP", "group", "two", "COUNT", "1", "STREAMS", "stream:5", ">"]).await?;
    let id = read.elements()[0].elements()[1].elements()[0].elements()[0].text();
    ensure!(id == Some("10-1"), "{read:?}");
    ensure!(there.ask(&["XACK", "stream:5", "group", "5-1", "10-1", "3-1"]).await? == Answer::Integer(2));
    Ok(())
}
