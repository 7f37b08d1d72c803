//! Writers keep an account of every operation; the store is killed; after the restart the state is the one after some number of those
//! operations, at least as many as were promised, and never one between two. `make crash-loop` does it 200 times for each.

use crate::kill_loop::{KillLoop, until_terminated};

/// Small memtables: they fill, are flushed and compacted while the loop runs.
const SMALL: (&str, &str) = ("rocksdb.write_buffer_size", "256kb");

async fn with_wal(name: &str, settings: &[(&str, &str)], switch_policy: bool) -> anyhow::Result<()> {
    KillLoop { settings, switch_policy, wal: true }.run(name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_with_sync_always() -> anyhow::Result<()> {
    with_wal("sync always", &[("sync", "always")], false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_with_sync_everysec() -> anyhow::Result<()> {
    with_wal("sync everysec", &[("sync", "everysec"), SMALL], false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_with_sync_no() -> anyhow::Result<()> {
    with_wal("sync no", &[("sync", "no"), SMALL], false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_acknowledged_while_the_policy_changes() -> anyhow::Result<()> {
    with_wal("sync switched live", &[SMALL], true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_wal_everything_up_to_the_last_receipt_comes_back() -> anyhow::Result<()> {
    KillLoop { settings: &[("wal", "no")], switch_policy: false, wal: false }.run("wal no").await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_wal_nothing_is_torn_when_memtables_fill_by_themselves() -> anyhow::Result<()> {
    KillLoop { settings: &[("wal", "no"), SMALL], switch_policy: false, wal: false }.run("wal no, small memtables").await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_flushes_everything_and_says_so_at_the_next_start() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    for wal in ["yes", "no"] {
        until_terminated(&root.path().join(wal), wal).await?;
    }
    Ok(())
}
