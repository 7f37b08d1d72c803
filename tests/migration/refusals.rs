//! What a target does not take: said by name, and neither end is changed by it.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sluice_tests::store::{LocalCluster, StoreProcess, wait_for};
use sluice_topology::{
    Slot, SlotRanges,
    admin::{MigrationState, NodeStatus, Reply},
};

async fn set(node: &StoreProcess, name: &str, value: &str) -> anyhow::Result<()> {
    Ok(redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(&mut node.client().await?).await?)
}

/// What of a node's account a refusal must not change.
fn of_slots(status: &NodeStatus) -> String {
    format!("{:?} {:?} {:?}", status.slots, status.fenced, status.topology_version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_room_is_named_and_the_source_goes_on() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[]).await?;
    let mut client = cluster.node(0).client().await?;
    let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut client).await?;
    let before = [of_slots(&cluster.status(0).await?), of_slots(&cluster.status(1).await?)];
    // More than any disk has, said while it runs: it counts from then on.
    set(cluster.node(1), "disk-free-min", "1000000gb").await?;
    let slot: SlotRanges = Slot::of_key(b"key").into();
    let job = cluster.migrate(0, 1, &slot).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Failed && status.attempts == 1, "nothing that is tried again helps: {status:?}");
    ensure!(status.last_error.contains("are to stay free, and the disk has"), "{status:?}");
    ensure!(status.slots_done == 0 && status.keys_done == 0 && status.batches == 0, "{status:?}");
    let after = [of_slots(&cluster.status(0).await?), of_slots(&cluster.status(1).await?)];
    ensure!(before == after, "{before:?}\n{after:?}");
    let () = redis::cmd("SET").arg("key").arg("other").query_async(&mut client).await?;
    // With room it goes.
    set(cluster.node(1), "disk-free-min", "1mb").await?;
    let job = cluster.migrate(0, 1, &slot).await?;
    ensure!(cluster.ended(0, job).await?.state == MigrationState::Done);
    wait_for("the key at its new place", || async {
        let found = redis::cmd("GET").arg("key").query_async::<String>(&mut cluster.node(1).client().await?).await;
        Ok(found.is_ok_and(|value| value == "other"))
    })
    .await
}

async fn ask(cluster: &LocalCluster, verb: &str, last: &[String]) -> Result<Reply, String> {
    let words: Vec<&str> = ["CLUSTERX", "IMPORT", verb].into_iter().chain(last.iter().map(String::as_str)).collect();
    cluster.node(1).ask_admin(&words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_must_not_ask_is_refused_by_name_and_nothing_is_staged() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[("migrate-clock-skew-max-ms", "5000")]).await?;
    let [source, target] = [cluster.status(0).await?, cluster.status(1).await?];
    let now_ms = || anyhow::Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64);
    let right = |now_ms: u64| {
        json!({
            "format": 4, "cluster_id": target.cluster_id, "source": source.node_id, "target": target.node_id, "job": 1, "attempt": 77,
            "slots": [{"slot": 5, "epoch": 1}], "bytes": 100, "now_ms": now_ms,
        })
    };
    let attempt = [source.node_id.to_string(), "77".to_owned()];
    let with = |code: &str| [attempt.as_slice(), &[code.to_owned()]].concat();
    let library = "#!lua name=l\nredis.register_function('f', function() return 1 end)";
    let hour = 3_600_000;
    let other_node = json!(source.node_id);
    let wrong: [(&str, Value, &str); 9] = [
        ("now_ms", json!(now_ms()? + hour), "the clocks of source and target are"),
        ("now_ms", json!(now_ms()? - hour), "set the clocks, or raise migrate-clock-skew-max-ms"),
        ("bytes", json!(u64::MAX), "make room, or use a larger volume"),
        ("format", json!(3), "the source speaks format 3, this node 4: upgrade the older one"),
        ("cluster_id", json!("00000000000000000000000000000001"), "this node is not"),
        ("target", other_node, "the unit is for node"),
        ("slots", json!([]), "a unit without slots"),
        ("slots", json!([{"slot": 5, "epoch": 0}]), "slot 5 is not the source's at epoch 0"),
        ("slots", json!([{"slot": 16384, "epoch": 1}]), "16384"),
    ];
    let before = of_slots(&target);
    for (field, value, expected) in wrong {
        let mut claim = right(now_ms()?);
        claim[field] = value;
        let refused = ask(&cluster, "BEGIN", &[claim.to_string()]).await.err().with_context(|| format!("{claim} was taken"))?;
        ensure!(refused.contains(expected), "{claim}: {refused}");
        // Nothing of it is remembered: it cannot be gone on with.
        let unknown = ask(&cluster, "RESUME", &attempt).await.err().with_context(|| format!("{claim} is staged"))?;
        ensure!(unknown.contains("attempt 77 is not under way"), "{claim}: {unknown}");
        let unknown = ask(&cluster, "LIBRARY", &with(library)).await.err().context("a library of nobody's was taken")?;
        ensure!(unknown.contains("attempt 77 is not under way"), "{claim}: {unknown}");
        ensure!(of_slots(&cluster.status(1).await?) == before, "{claim}");
    }
    // Its target would ask it what became of the attempt, of which it knows nothing.
    cluster.kill(0)?;
    // What is right is taken, so each of these was refused for what is wrong with it.
    let taken = ask(&cluster, "BEGIN", &[right(now_ms()?).to_string()]).await;
    ensure!(taken.is_ok(), "{taken:?}");
    let again = ask(&cluster, "BEGIN", &[right(now_ms()?).to_string()]).await.err().context("one attempt was taken twice")?;
    ensure!(again.contains("attempt 77 is under way already"), "{again}");
    // A library that is none does not stop slots.
    for code in ["", "#!lua", "#!lua name=l\nno code", library] {
        let answered = ask(&cluster, "LIBRARY", &with(code)).await;
        ensure!(answered.is_ok(), "{code}: {answered:?}");
    }
    let mut client = cluster.node(1).client().await?;
    let libraries: usize = cluster.node(1).info("number_of_libraries").await?.parse()?;
    let called: i64 = redis::cmd("FCALL").arg("f").arg(0).query_async(&mut client).await?;
    ensure!((libraries, called) == (1, 1));
    ensure!(ask(&cluster, "RESUME", &attempt).await.is_ok() && ask(&cluster, "ABORT", &attempt).await.is_ok());
    ensure!(ask(&cluster, "RESUME", &attempt).await.is_err());
    Ok(())
}
