//! Functions that are called where slots have gone.

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{Slot, SlotRanges, admin::MigrationState};

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

/// Whoever was told that a function is loaded calls it, and goes where MOVED says: it is there, however late it was loaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_was_loaded_before_its_slot_left_is_where_the_slot_is() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-unit-slots", "1"), ("migrate-units-at-once", "1")]).await?;
    let slots: Vec<Slot> = ranges("0-199").iter().collect();
    let (mut source, mut target) =
        (Connection::open(&cluster.node(0).address()).await?, Connection::open(&cluster.node(1).address()).await?);
    let job = cluster.migrate(0, 1, &slots.iter().copied().collect::<SlotRanges>()).await?;
    let (mut followed, mut loaded) = (0, 0);
    for slot in slots {
        let key = key_of(slot)?;
        loaded += 1;
        let (function, gone) = (format!("f{loaded}"), format!("l{}", loaded.max(3) - 2));
        let load = vec!["FUNCTION".into(), "LOAD".into(), library(&format!("l{loaded}"), &function, "here")];
        let answers = source.ask_all(&[load, vec!["FUNCTION".into(), "DELETE".into(), gone]]).await?;
        ensure!(matches!(answers[0], Answer::Bulk(Some(_))), "{answers:?}");
        let call = ["FCALL", function.as_str(), "1", key.as_str()];
        let mut answer = source.ask(&call).await?;
        if answer.text().is_none() {
            // The slot had left before.
            continue;
        }
        while answer.text().is_some() {
            answer = source.ask(&call).await?;
        }
        ensure!(matches!(&answer, Answer::Error(text) if text.starts_with("MOVED")), "{answer:?}");
        let answer = target.ask(&call).await?;
        ensure!(answer.text() == Some(&format!("here {key}")), "{function}: {answer:?}");
        followed += 1;
    }
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done && followed > 0, "{followed} followed; {status:?}");
    println!("{followed} of {loaded} functions were followed");
    Ok(())
}
