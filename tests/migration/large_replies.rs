//! A reply that is being sent while its slot leaves: all of it, as it was.

use anyhow::ensure;
use sluice_tests::{
    resp::{Answer, Connection},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{Slot, admin::MigrationState};

use crate::ranges;

const FIELDS: usize = 1500;

fn value(number: usize) -> String {
    format!("{number:08}:").repeat(2000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_reply_is_whole_though_its_slot_moves_and_its_key_is_deleted_there() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[("reply-stream-timeout-ms", "600000")]).await?;
    let mut reader = Connection::open(&cluster.node(0).address()).await?;
    for number in 0..FIELDS {
        let added = reader.ask(&["HSET", "hash", &format!("{number:06}"), &value(number)]).await?;
        ensure!(added == Answer::Integer(1), "{added:?}");
    }
    reader.send(&[vec!["HGETALL".into(), "hash".into()], vec!["HLEN".into(), "hash".into()]]).await?;
    let readers = async || cluster.node(0).info("long_readers").await;
    wait_for("the reply is being sent", async || Ok(readers().await?.contains("large reply"))).await?;
    let job = cluster.migrate(0, 1, &ranges(&Slot::of_key(b"hash").to_string())).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    let mut there = Connection::open(&cluster.node(1).address()).await?;
    ensure!(there.ask(&["HLEN", "hash"]).await? == Answer::Integer(FIELDS as i64));
    ensure!(there.ask(&["DEL", "hash"]).await? == Answer::Integer(1));
    ensure!(readers().await?.contains("large reply"), "the reply was sent before its slot had moved: the test shows nothing");
    let all = reader.answer().await?;
    let expected = (0..FIELDS).flat_map(|number| [format!("{number:06}"), value(number)]);
    ensure!(all.elements().iter().map(|text| text.text().unwrap_or_default().to_owned()).eq(expected), "not what was stored");
    let behind = reader.answer().await?;
    ensure!(matches!(&behind, Answer::Error(text) if text.starts_with("MOVED ")), "{behind:?}");
    wait_for("what has moved is given back", async || {
        let pending = cluster.node(0).info("reclaim_pending_generations").await?;
        Ok(readers().await?.is_empty() && pending == "0")
    })
    .await?;
    cluster.push_truth().await
}
