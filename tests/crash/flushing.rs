//! Flush rounds: few for many callers, and each return a proof.

use std::time::Duration;

use anyhow::ensure;
use redis::AsyncCommands as _;
use sluice_tests::store::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_make_at_most_two_rounds() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = store.client().await?;
    for number in 0..2000u32 {
        let _: () = connection.set(format!("key:{number}"), vec![b'x'; 1000]).await?;
    }
    let before: u64 = store.info("flush_rounds_total").await?.parse()?;
    // All connected first, so that all ask at once.
    let mut admins = Vec::new();
    for _ in 0..100 {
        admins.push(store.admin().await?);
    }
    let callers = admins.iter_mut().map(|admin| admin.flush(Duration::from_secs(30)));
    let receipts = futures::future::try_join_all(callers).await?;
    let after: u64 = store.info("flush_rounds_total").await?.parse()?;
    ensure!(after - before <= 2, "{} rounds for 100 callers", after - before);
    ensure!(receipts.iter().map(|receipt| receipt.waiters).max() > Some(1), "no round was shared");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_answered_as_documented() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = store.client().await?;
    let flush = redis::cmd("FLUSHMEMTABLE");
    ensure!(flush.query_async::<String>(&mut connection).await? == "OK");
    ensure!(redis::cmd("FLUSHMEMTABLE").arg("ASYNC").query_async::<String>(&mut connection).await? == "OK");
    for (words, expected) in [
        (&["TIMEOUT", "0"][..], "at least 1 millisecond"),
        (&["TIMEOUT"], "syntax error"),
        (&["ASYNC", "RECEIPT"], "neither RECEIPT nor TIMEOUT"),
        (&["SOON"], "syntax error"),
    ] {
        let refused = redis::cmd("FLUSHMEMTABLE").arg(words).query_async::<String>(&mut connection).await;
        let error = refused.expect_err("it has to be refused").to_string();
        ensure!(error.contains(expected), "{words:?}: {error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_count_on_over_restarts_and_a_receipt_covers_what_came_before() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let store = setup.start().await?;
    let first = store.admin().await?.flush(Duration::from_secs(30)).await?;
    let mut connection = store.client().await?;
    let _: () = connection.set("a", 1).await?;
    let second = store.admin().await?.flush(Duration::from_secs(30)).await?;
    ensure!(second.round == first.round + 1 && second.sequence > first.sequence, "{first:?} then {second:?}");
    store.kill()?;
    let store = setup.start().await?;
    let third = store.admin().await?.flush(Duration::from_secs(30)).await?;
    ensure!(third.round > second.round && third.instance == first.instance, "{second:?} then {third:?}");
    Ok(())
}
