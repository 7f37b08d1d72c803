//! What a migration holds in memory: in the account at both ends, bounded, and given back.

use anyhow::{Context as _, ensure};
use sluice_tests::proxy::Link;
use sluice_topology::{Slot, SlotRanges, admin::MigrationState};

use super::faults::behind_proxies;

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_migration_holds_is_in_the_account_bounded_and_given_back() -> anyhow::Result<()> {
    const SHARE: u64 = 2 * MIB;
    /// One frame in flight, two pieces ahead and the one that waits for them; a batch may be a record's head longer.
    const STAGES: u64 = 4 * (MIB + 4096);
    const LARGE: u64 = 24 * MIB;
    let root = tempfile::tempdir()?;
    // One unit: one slot. Batches of one size.
    let settings = [("migrate-memory", "2mb"), ("migrate-batch-size", "1mb"), ("migrate-changes-size", "64mb")];
    let (cluster, proxies) = behind_proxies(root.path(), &settings).await?;
    let mut client = cluster.node(0).client().await?;
    for number in 0..24u8 {
        let value = vec![number; MIB as usize - 100];
        redis::cmd("SET").arg(format!("{{slot}}:{number}")).arg(value).query_async::<()>(&mut client).await?;
    }
    redis::cmd("SET").arg("{slot}:large").arg(vec![b'x'; LARGE as usize]).query_async::<()>(&mut client).await?;
    proxies[1].set(Link { bytes_per_second: Some(16 * MIB), ..Link::default() });
    let slot: SlotRanges = Slot::of_key(b"{slot}").into();
    let job = cluster.migrate(0, 1, &slot).await?;

    let held = |node: usize, field: &'static str| {
        let cluster = &cluster;
        async move { Ok::<u64, anyhow::Error>(cluster.node(node).info(field).await?.parse()?) }
    };
    let (mut most, mut most_there, mut feed, mut feed_limit) = (0, 0, 0, 0);
    let mut number = 0;
    loop {
        let jobs = cluster.status(0).await?.migrations;
        if jobs.iter().all(|status| status.state != MigrationState::Running) {
            break;
        }
        // Changes, for the feed: keys that were not there.
        number += 1;
        let written = redis::cmd("SET").arg(format!("{{slot}}:new:{number}")).arg(1).query_async::<()>(&mut client).await;
        let moved = written.as_ref().is_err_and(|error| error.redirect_node().is_some());
        ensure!(written.is_ok() || moved, "{written:?}");
        let now = held(0, "migrations_used").await?;
        ensure!(now <= SHARE + STAGES, "the source holds {now} bytes of batches, {SHARE} are its share");
        most = now.max(most);
        most_there = held(1, "migrations_used").await?.max(most_there);
        feed = held(0, "change_feed_used").await?.max(feed);
        feed_limit = held(0, "change_feed_limit").await?.max(feed_limit);
    }
    ensure!(cluster.ended(0, job).await?.state == MigrationState::Done);
    ensure!(most >= SHARE, "the link was slow, and the source held at most {most} bytes");
    ensure!(most_there > LARGE / 2, "a value is put together whole, and the target held at most {most_there} bytes");
    ensure!(feed > 0 && feed_limit == SHARE / 2, "{feed} bytes of changed keys, of {feed_limit} for each of two units");
    for (node, field) in [(0, "migrations_used"), (1, "migrations_used"), (0, "change_feed_used"), (0, "change_feed_limit")] {
        let left = held(node, field).await?;
        ensure!(left == 0, "{field} of node {node} is {left} when all is done");
    }
    ensure!(held(0, "migrations_limit").await? == SHARE);
    for (node, stages) in [(0, ["reader", "sender"]), (1, ["receiver", "builder"])] {
        let metrics = cluster.node(node).metrics()?;
        for stage in stages {
            let name = format!("sluice_migration_waited_seconds_total{{stage=\"{stage}\"}} ");
            let waited: f64 = metrics.lines().find_map(|line| line.strip_prefix(&name)).context(name.clone())?.parse()?;
            ensure!(waited > 0.0, "the {stage} has waited for nobody on a slow link");
        }
    }
    Ok(())
}
