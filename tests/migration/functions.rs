//! Functions that are called where slots have gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{Slot, admin::MigrationState};

use super::ranges;

/// A library with one function, which answers that.
fn library(name: &str, function: &str, answer: &str) -> String {
    format!("#!lua name={name}\nredis.register_function('{function}', function(keys) return '{answer} ' .. keys[1] end)")
}

async fn load(cluster: &LocalCluster, node: usize, code: &str) -> anyhow::Result<()> {
    let loaded = Connection::open(&cluster.node(node).address()).await?.ask(&["FUNCTION", "LOAD", code]).await?;
    ensure!(matches!(loaded, Answer::Bulk(Some(_))), "{code}: {loaded:?}");
    Ok(())
}

/// A key of that slot.
fn key_of(slot: Slot) -> anyhow::Result<String> {
    (0..u32::MAX).map(|number| format!("key:{number}")).find(|key| Slot::of_key(key.as_bytes()) == slot).context("a key")
}

async fn ensure_answers(cluster: &LocalCluster, node: usize, key: &str, expected: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut client = Connection::open(&cluster.node(node).address()).await?;
    for (function, answer) in expected {
        let answered = client.ask(&["FCALL", function, "1", key]).await?;
        ensure!(answered.text() == Some(&format!("{answer} {key}")), "{function} on node {node}: {answered:?}");
    }
    Ok(())
}

/// Waits until a job has moved some of its slots, and not all.
async fn under_way(cluster: &LocalCluster) -> anyhow::Result<()> {
    wait_for("some slots to have moved", || async {
        let jobs = cluster.status(0).await?.migrations;
        let job = jobs.first().context("no job")?;
        ensure!(job.slots_done < job.slots_total, "all slots have moved already");
        Ok(job.slots_done > 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_there_where_slots_have_gone_and_stay_there() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("migrate-unit-slots", "1"), ("migrate-backoff-ms-max", "200"), ("cluster-peer-timeout-ms", "1000")];
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &settings).await?;
    load(&cluster, 0, &library("first", "first", "source")).await?;
    // One of the same name, and one whose function has a name that is taken: the target keeps its own.
    for (node, whose, name) in [(0, "source", "takes"), (1, "target", "taken")] {
        load(&cluster, node, &library("same", "same", whose)).await?;
        load(&cluster, node, &library(name, "Twice", whose)).await?;
    }
    let moved = ranges("0-699");
    let job = cluster.migrate(0, 1, &moved).await?;
    under_way(&cluster).await?;
    load(&cluster, 0, &library("middle", "middle", "source")).await?;
    cluster.kill(1)?;
    cluster.restart(1).await?;
    load(&cluster, 0, &library("late", "late", "source")).await?;
    under_way(&cluster).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done && status.slots_done as usize == moved.len(), "{status:?}");
    let (last, expected) = (
        key_of(Slot::new(699).context("a slot")?)?,
        [("first", "source"), ("middle", "source"), ("late", "source"), ("same", "target"), ("twice", "target")],
    );
    ensure_answers(&cluster, 1, &last, &expected).await?;
    let log = cluster.node(1).log();
    for (library, said) in [("same", "this node keeps its own"), ("takes", "Function Twice already exists")] {
        let told = log.lines().filter(|line| line.contains(&format!("library=\"{library}\"")) && line.contains(said)).count();
        ensure!(told > 0, "nothing is said of {library}:\n{log}");
    }
    // They are the target's own: a crash leaves them there, and what the source does later is the source's.
    Connection::open(&cluster.node(0).address()).await?.ask(&["FUNCTION", "FLUSH"]).await?;
    cluster.kill(1)?;
    cluster.restart(1).await?;
    ensure_answers(&cluster, 1, &last, &expected).await?;
    // A job brings back what was removed meanwhile.
    let mut target = Connection::open(&cluster.node(1).address()).await?;
    target.ask(&["FUNCTION", "FLUSH"]).await?;
    load(&cluster, 0, &library("first", "first", "again")).await?;
    let job = cluster.migrate(0, 1, &ranges("700")).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    ensure_answers(&cluster, 1, &last, &[("first", "again")]).await
}

/// Whether a node says that it serves a slot, by what CLUSTER SLOTS answered.
fn serves(slots: &Answer, port: u16, slot: Slot) -> bool {
    slots.elements().iter().any(|range| match range.elements() {
        [Answer::Integer(low), Answer::Integer(high), node, ..] => {
            (*low..=*high).contains(&i64::from(slot.get())) && node.elements().get(1) == Some(&Answer::Integer(i64::from(port)))
        }
        _ => false,
    })
}

/// Calls a function on that key until it has left, then at once the one that was loaded last while it was here; whether there was one.
async fn follow(cluster: &LocalCluster, key: &str, loaded: &AtomicU64, gone: &AtomicBool) -> anyhow::Result<bool> {
    let (mut source, mut target) =
        (Connection::open(&cluster.node(0).address()).await?, Connection::open(&cluster.node(1).address()).await?);
    let moved = loop {
        match source.ask(&["FCALL", "first", "1", key]).await? {
            Answer::Bulk(_) => {}
            other => break other,
        }
    };
    let last = loaded.load(Ordering::SeqCst);
    gone.store(true, Ordering::SeqCst);
    ensure!(matches!(&moved, Answer::Error(text) if text.starts_with("MOVED")), "{moved:?}");
    if last == 0 {
        return Ok(false);
    }
    let answer = target.ask(&["FCALL", &format!("f{last}"), "1", key]).await?;
    let said = || cluster.node(0).log().contains("functions are loaded faster than they are sent");
    ensure!(answer.text() == Some(&format!("here {key}")) || said(), "f{last}: {answer:?}");
    Ok(true)
}

/// Loads functions, at one moment or another, until the slot is gone.
async fn keep_loading(
    cluster: &LocalCluster,
    slot: Slot,
    number: &mut u64,
    loaded: &AtomicU64,
    gone: &AtomicBool,
) -> anyhow::Result<()> {
    let (mut source, port) = (Connection::open(&cluster.node(0).address()).await?, cluster.node(0).setup().port);
    while !gone.load(Ordering::SeqCst) {
        *number += 1;
        let load = vec!["FUNCTION".into(), "LOAD".into(), library(&format!("l{number}"), &format!("f{number}"), "here")];
        let answers = source.ask_all(&[load, vec!["CLUSTER".into(), "SLOTS".into()]]).await?;
        ensure!(matches!(answers[0], Answer::Bulk(Some(_))), "{answers:?}");
        if serves(&answers[1], port, slot) {
            loaded.store(*number, Ordering::SeqCst);
        }
        for _ in 0..*number * 37 % 150 {
            source.ask(&["PING"]).await?;
        }
        // Few of them: all are sent each time.
        source.ask(&["FUNCTION", "DELETE", &format!("l{}", number.saturating_sub(3))]).await?;
    }
    Ok(())
}

/// Whoever was told that a function is loaded, and is told by MOVED where its slot has gone, finds it there, however late it was loaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_was_loaded_before_its_slot_left_is_where_the_slot_is() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-unit-slots", "1"), ("migrate-units-at-once", "1")]).await?;
    load(&cluster, 0, &library("first", "first", "source")).await?;
    let slots = ranges("0-149");
    let job = cluster.migrate(0, 1, &slots).await?;
    let (mut number, mut followed) = (0, 0);
    for slot in slots.iter() {
        let (key, loaded, gone) = (key_of(slot)?, AtomicU64::new(0), AtomicBool::new(false));
        let (found, kept) =
            futures::join!(follow(&cluster, &key, &loaded, &gone), keep_loading(&cluster, slot, &mut number, &loaded, &gone));
        followed += u32::from(found?);
        kept?;
    }
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done && followed > 0, "{followed} followed; {status:?}");
    println!("of {} slots {followed} were followed, with {number} functions", slots.len());
    Ok(())
}
