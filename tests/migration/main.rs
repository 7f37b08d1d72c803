//! Slots on the move: under live writes, with either end killed, and the refusals.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

mod buffers;
mod every_fault;
mod faults;
mod full_disk;
mod functions;
mod hashes;
mod history;
mod large_replies;
mod ordered;
mod pipelines;
mod refusals;
mod tls;
mod transactions;
mod types;

use std::{path::Path, time::Duration};

use sluice_tests::{
    load::{Lines, Session, Target},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{SlotRanges, admin::MigrationState};

/// Keys loaded before the writers start.
const LOADED: usize = 5000;

fn ranges(text: &str) -> SlotRanges {
    text.parse().expect("a set of slots")
}

async fn session(cluster: &LocalCluster) -> anyhow::Result<Session> {
    let session = Session::start(Target::new(cluster.addresses()), Lines::numbered(LOADED), 2000).await?;
    session.load(LOADED).await?;
    session.start_live().await?;
    Ok(session)
}

async fn verify(session: &Session, cluster: &LocalCluster) -> anyhow::Result<()> {
    session.stop_live().await?;
    cluster.settled().await?;
    let report = match session.verify().await {
        Ok(report) => report,
        Err(error) => {
            for number in 0..cluster.nodes.len() {
                let (status, log) = (cluster.status(number).await?, cluster.node(number).log());
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                println!("node {number}: {status:?}\n{}", tail.join("\n"));
                let mut client = cluster.node(number).client().await?;
                for key in (0..LOADED).map(|index| format!("key:{index}")) {
                    if let Err(error) = redis::cmd("GET").arg(&key).query_async::<Option<String>>(&mut client).await
                        && error.redirect_node().is_none()
                    {
                        println!("node {number}, {key}: {error}");
                    }
                }
            }
            return Err(
                error.context(format!("reading back; the client says {}", serde_json::to_string(&session.next_phase("end"))?))
            );
        }
    };
    println!("{}", serde_json::to_string(&report)?);
    anyhow::ensure!(report.is_whole(), "acknowledged writes are missing or wrong: {report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_back_and_forth_under_writes_and_no_request_fails() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    for wal in ["yes", "no"] {
        let mut cluster = LocalCluster::start(&root.path().join(wal), 3, 2, &[("wal", wal)]).await?;
        let session = session(&cluster).await?;
        for (from, to, slots) in [(0, 2, "0-2999,5000"), (1, 2, "9000-11000"), (2, 0, "0-2999"), (2, 1, "9000-11000")] {
            let job = cluster.migrate(from, to, &ranges(slots)).await?;
            let status = cluster.ended(from, job).await?;
            assert_eq!((status.state, status.slots_done as usize), (MigrationState::Done, ranges(slots).len()), "{status:?}");
            cluster.push_truth().await?;
        }
        verify(&session, &cluster).await?;
        let figures = session.next_phase("end");
        println!("{}", serde_json::to_string(&figures)?);
        assert_eq!(figures.failed, 0, "requests failed with wal {wal}: {:?}", figures.failures);
        assert_eq!(cluster.status(0).await?.owned(), ranges("0-4999,5001-8191"));
    }
    Ok(())
}

/// Kills a node at a moment of a migration, starts it again, and brings the migration to its end. Whatever the moment: nothing
/// acknowledged is lost, and every slot has one owner. `SLUICE_MIGRATION_KILLS` sets how often.
async fn kill_during_migration(root: &Path, victim: usize) -> anyhow::Result<()> {
    let kills: u64 = std::env::var("SLUICE_MIGRATION_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    // Small units and batches: many steps, so that a kill meets each of them.
    let settings = [
        ("migrate-unit-slots", "16"),
        ("migrate-batch-size", "4kb"),
        ("migrate-backoff-ms-max", "300"),
        ("cluster-peer-timeout-ms", "1000"),
    ];
    let mut cluster = LocalCluster::start(root, 2, 1, &settings).await?;
    let session = session(&cluster).await?;
    let all = ranges("0-999");
    let (mut from, mut to) = (0, 1);
    for kill in 0..kills {
        let job = cluster.migrate(from, to, &all).await?;
        // Another moment each time; which step it meets is chance, and every step must do.
        tokio::time::sleep(Duration::from_millis(20 + kill * 37 % 400)).await;
        let number = if victim == 0 { from } else { to };
        cluster.kill(number)?;
        cluster.restart(number).await?;
        // The source goes on by itself, whoever was killed.
        let status = cluster.ended_if_known(from, job).await?;
        let done = status.as_ref().is_none_or(|status| status.state == MigrationState::Done);
        assert!(done, "{status:?}\n{}", cluster.node(from).log());
        cluster.settled().await?;
        assert!(all.difference(&cluster.status(to).await?.owned()).is_empty());
        cluster.push_truth().await?;
        (from, to) = (to, from);
    }
    verify(&session, &cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_loses_nothing() -> anyhow::Result<()> {
    kill_during_migration(tempfile::tempdir()?.path(), 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_target_loses_nothing() -> anyhow::Result<()> {
    kill_during_migration(tempfile::tempdir()?.path(), 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_leaves_the_rest_at_the_source() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-unit-slots", "1")]).await?;
    let session = session(&cluster).await?;
    let job = cluster.migrate(0, 1, &ranges("0-8000")).await?;
    cluster.node(0).admin().await?.cancel(job, sluice_topology::LeaderEpoch(1)).await?;
    let status = cluster.ended(0, job).await?;
    assert_eq!(status.state, MigrationState::Cancelled);
    assert_eq!(cluster.status(1).await?.owned().len(), status.slots_done as usize);
    verify(&session, &cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_is_refused_before_anything_changes() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let (a, b) = (cluster.id(0).to_string(), cluster.id(1).to_string());
    let nobody = "f".repeat(40);
    let mut admin = cluster.node(0).admin().await?;
    let cases: [(&[&str], &str); 9] = [
        (&["9000", &b], "slots 9000 are not this node's"),
        (&["0-5", &a], "is this node itself"),
        (&["0-5", &nobody], "there is no node"),
        (&["0-5", "short"], "is not a node id"),
        (&["5-1", &b], "runs backwards"),
        (&["1-5,5", &b], "stands more than once"),
        (&["16384", &b], "out of range"),
        (&["", &b], "no slots are named"),
        (&["0-5", &b, "ASYNC", "LEADER", "0"], "leader epoch 0 is over"),
    ];
    for (words, expected) in cases {
        let mut request: Vec<&[u8]> = vec![b"CLUSTERX", b"MIGRATE"];
        request.extend(words.iter().map(|word| word.as_bytes()));
        let error = admin.call(&request).await.expect_err("it has to be refused").to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    // Clients have no way in.
    let mut client = cluster.node(0).client().await?;
    let refused =
        redis::cmd("CLUSTERX").arg("STATUS").query_async::<String>(&mut client).await.expect_err("it has to be refused");
    assert!(refused.to_string().contains("admin plane"), "{refused}");
    assert!(cluster.status(0).await?.migrations.is_empty());
    cluster.settled().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_never_moves_an_owned_slot() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let before = [cluster.status(0).await?.owned(), cluster.status(1).await?.owned()];
    let claim = |owner: usize, epoch| sluice_topology::SlotEntry {
        slots: SlotRanges::full(),
        owner: cluster.id(owner),
        epoch: sluice_topology::SlotEpoch(epoch),
    };
    let (same, higher) = (claim(1, 1), claim(0, 9));
    for claims in [same, higher] {
        cluster.push(vec![claims]).await?;
        cluster.settled().await?;
        assert_eq!([cluster.status(0).await?.owned(), cluster.status(1).await?.owned()], before);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_while_their_keys_expire_and_are_swept() -> anyhow::Result<()> {
    const KEYS: u64 = 3000;
    let root = tempfile::tempdir()?;
    let settings = [("expire-sweep-keys-per-second", "10000000"), ("migrate-unit-slots", "1024")];
    let cluster = LocalCluster::start(root.path(), 2, 1, &settings).await?;
    let mut client = cluster.node(0).client().await?;
    // A third stays, a third expires while the slots move, a third does so later.
    for number in 0..KEYS {
        let mut set = redis::cmd("SET");
        set.arg(format!("key:{number}")).arg(number);
        match number % 3 {
            0 => {}
            1 => drop(set.arg("PX").arg(500 + number)),
            _ => drop(set.arg("EX").arg(3600)),
        }
        set.query_async::<()>(&mut client).await?;
    }
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let job = cluster.migrate(from, to, &ranges("0-16383")).await?;
        let status = cluster.ended(from, job).await?;
        assert_eq!(status.state, MigrationState::Done, "{status:?}");
    }
    cluster.settled().await?;
    let mut client = cluster.node(1).client().await?;
    wait_for("what has expired is gone from both nodes", || async {
        let mut expired = 0;
        for number in 0..2 {
            expired += cluster.node(number).info("expired_keys").await?.parse::<u64>()?;
        }
        // A record that a compaction left out on its way is nobody's to delete.
        let compacted: u64 = cluster.node(0).info("expired_compacted_keys").await?.parse()?;
        let compacted = compacted + cluster.node(1).info("expired_compacted_keys").await?.parse::<u64>()?;
        Ok(expired + compacted >= KEYS / 3)
    })
    .await?;
    for number in 0..KEYS {
        let found: Option<u64> = redis::cmd("GET").arg(format!("key:{number}")).query_async(&mut client).await?;
        assert_eq!(found, (number % 3 != 1).then_some(number), "key {number}");
    }
    let left: u64 = redis::cmd("DBSIZE").query_async(&mut client).await?;
    assert_eq!(left, KEYS / 3 * 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_move_with_what_deleted_ones_left_and_share_no_version_with_later_ones() -> anyhow::Result<()> {
    const FIELDS: usize = 500;
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-unit-slots", "1024")]).await?;
    let mut client = cluster.node(0).client().await?;
    let hash_set = |key: String, fields: usize| {
        let pairs: Vec<(String, String)> = (0..fields).map(|field| (format!("{key}/{field}"), field.to_string())).collect();
        redis::cmd("HSET").arg(key).arg(pairs).to_owned()
    };
    for number in 0..40 {
        hash_set(format!("{{{}}}:{number}", number % 4), FIELDS).query_async::<()>(&mut client).await?;
    }
    // Every other one is deleted right before the slots move: its fields are reclaimed here, or there.
    for number in (0..40).step_by(2) {
        redis::cmd("DEL").arg(format!("{{{}}}:{number}", number % 4)).query_async::<()>(&mut client).await?;
    }
    let job = cluster.migrate(0, 1, &ranges("0-16383")).await?;
    let status = cluster.ended(0, job).await?;
    assert_eq!(status.state, MigrationState::Done, "{status:?}");
    // The target had given out no version before. Hashes that it makes now must not meet those that came.
    let mut client = cluster.node(1).client().await?;
    for number in 40..80 {
        hash_set(format!("{{{}}}:{number}", number % 4), 3).query_async::<()>(&mut client).await?;
    }
    for number in 0..80 {
        let (key, expected) = (format!("{{{}}}:{number}", number % 4), if number < 40 { FIELDS } else { 3 });
        let expected = if number < 40 && number % 2 == 0 { 0 } else { expected };
        let fields: Vec<(String, usize)> = redis::cmd("HGETALL").arg(&key).query_async(&mut client).await?;
        assert_eq!(fields.len(), expected, "fields of {key}");
        assert!(fields.iter().all(|(field, value)| *field == format!("{key}/{value}")), "{key} has fields of another hash");
    }
    wait_for("what deleted ones left is reclaimed", || async {
        let mut reclaimed = 0;
        for number in 0..2 {
            if cluster.node(number).info("reclaim_pending_collections").await? != "no" {
                return Ok(false);
            }
            reclaimed += cluster.node(number).info("reclaimed_subkeys_total").await?.parse::<usize>()?;
        }
        Ok(reclaimed >= 20 * FIELDS)
    })
    .await
}
