//! Transactions, watches and shard channels while their slots move: never half, never lost, and told when it is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::LocalCluster,
};
use sluice_topology::{Slot, admin::MigrationState};

use crate::ranges;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The node that an error sends to.
fn moved_to(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Error(text) => text.strip_prefix("MOVED ")?.split(' ').nth(1).map(str::to_owned),
        _ => None,
    }
}

/// Counts up two keys of one slot together until told to stop, following the slot; returns how often both were.
async fn count_together(mut address: String, tag: String, stop: Arc<AtomicBool>) -> anyhow::Result<i64> {
    let mut connection = Connection::open(&address).await?;
    let mut counted = 0;
    let commands =
        ["MULTI".to_owned(), format!("INCR {{{tag}}}a"), format!("INCR {{{tag}}}b"), "EXEC".to_owned()].map(|text| words(&text));
    while !stop.load(Ordering::Relaxed) {
        let answers = connection.ask_all(&commands).await?;
        match &answers[3] {
            Answer::Array(both) if both.len() == 2 => {
                counted += 1;
                ensure!(
                    both[0] == both[1] && both[0] == Answer::Integer(counted),
                    "{tag}: {counted} were acknowledged: {answers:?}"
                );
            }
            Answer::Error(text) if text.starts_with("EXECABORT") || text.starts_with("MOVED") => {
                let to = answers.iter().find_map(moved_to);
                address = to.with_context(|| format!("refused without a way out: {answers:?}"))?;
                connection = Connection::open(&address).await?;
            }
            other => anyhow::bail!("{tag}: {other:?}"),
        }
    }
    Ok(counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_follow_their_slots_and_are_never_half() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[]).await?;
    let (stop, tags) = (Arc::new(AtomicBool::new(false)), ["one", "two", "three", "four"]);
    let address = cluster.addresses()[0].clone();
    let counting = tags.map(|tag| tokio::spawn(count_together(address.clone(), tag.to_owned(), stop.clone())));
    for (from, to, slots) in [(0, 1, "0-16383"), (1, 0, "0-16383"), (0, 1, "0-8191")] {
        let job = cluster.migrate(from, to, &ranges(slots)).await?;
        let status = cluster.ended(from, job).await?;
        ensure!(status.state == MigrationState::Done, "{status:?}");
        cluster.push_truth().await?;
    }
    stop.store(true, Ordering::Relaxed);
    for counting in counting {
        ensure!(counting.await?? > 0, "nothing was counted while the slots moved");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_leaves_ends_watches_and_subscriptions() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let slot = Slot::of_key(b"{s}");
    let (here, there) = if slot.get() < 8192 { (0, 1) } else { (1, 0) };
    let addresses = cluster.addresses();
    let open = |number: usize| Connection::open(&addresses[number]);
    let (mut watcher, mut subscriber, mut elsewhere) = (open(here).await?, open(here).await?, open(there).await?);
    // Of two slots, or of another node's: refused as Redis refuses it.
    let crossed = watcher
        .ask_all(&["MULTI", "SET {s}a 1", "SET {s}b 1", "EXEC", "MULTI", "SSUBSCRIBE {s}x {t}y", "EXEC"].map(words))
        .await?;
    ensure!(crossed[3].elements().len() == 2, "{crossed:?}");
    ensure!(matches!(&crossed[5], Answer::Error(text) if text.starts_with("CROSSSLOT")), "{crossed:?}");
    ensure!(matches!(&crossed[6], Answer::Error(text) if text.starts_with("EXECABORT")), "{crossed:?}");
    for refused in ["SSUBSCRIBE {s}x", "SPUBLISH {s}x 1", "WATCH {s}a"] {
        let answer = elsewhere.ask_all(&[words(refused)]).await?;
        ensure!(moved_to(&answer[0]).is_some_and(|address| address == addresses[here]), "{refused}: {answer:?}");
    }
    // Both slots are this node's: each command is queued, and EXEC sees that they are two.
    let other = (0..1000).map(|number| format!("k{number}")).find(|key| {
        let at = Slot::of_key(key.as_bytes());
        at != slot && (at.get() < 8192) == (slot.get() < 8192)
    });
    let two = watcher
        .ask_all(
            &["MULTI".to_owned(), "GET {s}a".into(), format!("GET {}", other.context("a key")?), "EXEC".into(), "EXEC".into()]
                .map(|text| words(&text)),
        )
        .await?;
    ensure!(matches!(&two[3], Answer::Error(text) if text.starts_with("CROSSSLOT")), "{two:?}");
    ensure!(matches!(&two[4], Answer::Error(text) if text == "ERR EXEC without MULTI"), "{two:?}");

    subscriber.ask(&["SSUBSCRIBE", "{s}x"]).await?;
    ensure!(watcher.ask(&["SPUBLISH", "{s}x", "before"]).await? == Answer::Integer(1));
    ensure!(subscriber.answer().await?.elements()[2].text() == Some("before"));
    watcher.ask_all(&["WATCH {s}a", "GET {s}a"].map(words)).await?;
    for (from, to) in [(here, there), (there, here)] {
        let job = cluster.migrate(from, to, &ranges(&slot.get().to_string())).await?;
        ensure!(cluster.ended(from, job).await?.state == MigrationState::Done);
        cluster.push_truth().await?;
    }
    // It was elsewhere, where anybody may have changed it.
    let answers = watcher.ask_all(&["MULTI", "SET {s}a 2", "EXEC", "GET {s}a"].map(words)).await?;
    ensure!(answers[2].elements().is_empty() && !matches!(answers[2], Answer::Error(_)), "{answers:?}");
    ensure!(answers[3].text() == Some("1"), "{answers:?}");
    let told =
        tokio::time::timeout(Duration::from_secs(30), subscriber.answer()).await.context("nobody told the subscriber")??;
    ensure!(told.elements()[0].text() == Some("sunsubscribe") && told.elements()[2] == Answer::Integer(0), "{told:?}");
    ensure!(watcher.ask(&["SPUBLISH", "{s}x", "after"]).await? == Answer::Integer(0));
    Ok(())
}
