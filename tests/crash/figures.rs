//! INFO and /metrics: figures that move with what was done, and agree.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use redis::AsyncCommands as _;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

use super::faults::{check, write};

/// Samples by their names, labels included, without our prefix. Whole numbers: a fraction of a second is nothing here.
fn metrics(store: &StoreProcess) -> anyhow::Result<HashMap<String, i64>> {
    let text = store.metrics()?;
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| Ok((name.trim_start_matches("sluice_").to_owned(), value.parse::<f64>()? as i64))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_help_a_unit_and_a_name_as_prometheus_wants_it() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let text = store.metrics()?;
    let mut kinds = HashMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => ensure!(help.len() > 3 && name.starts_with("sluice_"), "{line}"),
            ["#", "TYPE", name, kind] => drop(kinds.insert((*name).to_owned(), (*kind).to_owned())),
            ["#", "UNIT", name, unit] => ensure!(name.ends_with(&format!("_{unit}")), "{line}"),
            ["#", "EOF"] => {}
            [name, _value] => {
                let name = name.split('{').next().unwrap_or_default();
                let counter = name.strip_suffix("_total").and_then(|name| kinds.get(name));
                let kind = counter.or_else(|| kinds.get(name)).with_context(|| format!("{name} has no type"))?;
                ensure!((kind == "counter") == name.ends_with("_total"), "{name} is a {kind}");
            }
            _ => anyhow::bail!("{line}"),
        }
    }
    ensure!(kinds.len() > 60, "{} metrics", kinds.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_move_with_what_is_done_and_agree() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [
        ("sync", "always"),
        ("rocksdb.row_cache_size", "16mb"),
        ("memory-budget", "256mb"),
        ("rocksdb.level0_file_num_compaction_trigger", "2"),
        ("rocksdb.level0_slowdown_writes_trigger", "2"),
    ];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut client = store.client().await?;
    let before = metrics(&store)?;
    let (keys, error) = write(&mut client, 0, 200).await;
    ensure!(error.is_none(), "{error:?}");
    ensure!(client.incr::<_, _, u64>("key:0", 1).await.is_err(), "it is no number");
    let after = metrics(&store)?;
    let grown = |name: &str| -> anyhow::Result<i64> {
        let of = |samples: &HashMap<String, i64>| samples.get(name).copied();
        Ok(of(&after).with_context(|| format!("there is no metric {name}"))? - of(&before).unwrap_or(0))
    };
    ensure!(grown("write_acks_total")? == 200 && grown("wal_synced_acks_total")? == 200, "{after:?}");
    let fsyncs = grown("wal_fsyncs_total")?;
    ensure!((1..=210).contains(&fsyncs), "{fsyncs} fsyncs for 200 writes one after the other");
    ensure!(grown("command_calls_total{command=\"set\"}")? == 200 && grown("commands_total")? >= 201);
    ensure!(grown("error_replies_total")? == 1 && grown("committed_records_total")? == 200);
    ensure!(grown("latest_sequence")? >= 200 && grown("memtables_bytes")? > 1_000_000 && grown("sst_files_bytes")? < 100_000);

    // Into tables, twice: then two of them are in level 0, and writes are slowed down.
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    write(&mut client, 0, 200).await;
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    check(&store, keys).await?;
    redis::cmd("SAVE").query_async::<()>(&mut client).await?;
    let flushed = metrics(&store)?;
    let value = |name: &str| flushed.get(name).copied().with_context(|| format!("there is no metric {name}"));
    ensure!(value("flush_rounds_total")? == 3 && value("flush_round")? == 3 && value("flush_waiters")? == 0);
    ensure!(value("sst_files_bytes")? > 1_000_000 && value("row_cache_bytes")? > 1_000_000, "{flushed:?}");
    let levels: i64 = flushed.iter().filter(|(name, _)| name.starts_with("level_files")).map(|(_, files)| files).sum();
    ensure!(levels >= 2, "{levels} tables");
    ensure!(value("write_delays_total")? >= 1, "{flushed:?}");
    ensure!(value("checkpoint_last_timestamp_seconds")? > 1_700_000_000 && value("checkpoint_failed")? == 0);
    ensure!(value("disk_free_bytes")? > 0 && value("disk_size_bytes")? > value("disk_free_bytes")?);
    let parts = value("block_cache_capacity_bytes")? + value("row_cache_capacity_bytes")? + value("record_cache_capacity_bytes")?;
    // The record cache rounds its part down.
    let left = value("memory_budget_bytes")? - parts;
    ensure!((0..1 << 20).contains(&left), "{left} bytes of the budget are nobody's");
    ensure!(value("memory_budget_bytes")? == 256 << 20 && value("memory_resident_bytes")? > 1_000_000);
    ensure!(value("storage_fault{fault=\"low_space\"}")? == 0 && value("ready")? == 1 && value("clients")? >= 1);

    // Expired keys.
    for number in 0..10 {
        let _: () = client.pset_ex(format!("short:{number}"), 1, 1).await?;
    }
    wait_for("expired keys to be deleted", || async { Ok(metrics(&store)?["expired_keys_total"] >= 10) }).await?;

    // INFO says the same, where nothing moves by itself.
    let now = metrics(&store)?;
    for (field, metric) in [
        ("flush_rounds_total", "flush_rounds_total"),
        ("last_flush_round", "flush_round"),
        ("recovered_round", "flush_recovered_round"),
        ("wal_synced_acks_total", "wal_synced_acks_total"),
        ("row_cache_capacity", "row_cache_capacity_bytes"),
        ("block_cache_capacity", "block_cache_capacity_bytes"),
        ("memtables_limit", "memtables_limit_bytes"),
        ("refused_writes_total", "refused_writes_total"),
        ("background_errors_total", "background_errors_total"),
        ("expired_keys", "expired_keys_total"),
        ("total_error_replies", "error_replies_total"),
    ] {
        let (said, measured) = (store.info(field).await?.parse::<i64>()?, now.get(metric).copied());
        ensure!(Some(said) == measured, "INFO {field} is {said}, {metric} is {measured:?}");
    }
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client).await?;
    ensure!(stats.contains("cmdstat_set:calls=400,") && stats.contains("cmdstat_incrby:calls=1,"), "{stats}");
    let keyspace: String = redis::cmd("INFO").arg("keyspace").query_async(&mut client).await?;
    ensure!(keyspace.contains("db0:keys="), "{keyspace}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn memtables_of_every_family_and_blocks_share_one_budget() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("memory-budget", "64mb"), ("rocksdb.row_cache_size", "16mb"), ("rocksdb.write_buffer_size", "4mb")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut client = store.client().await?;
    let fresh = metrics(&store)?;
    // The memtable of the system records is counted before a user has written anything: the slot table is in it.
    ensure!(fresh["memtables_bytes"] > 1_000_000 && fresh["block_cache_bytes"] >= fresh["memtables_bytes"], "{fresh:?}");
    // Twice the budget, read as well.
    let (keys, error) = write(&mut client, 0, 16_000).await;
    ensure!(error.is_none(), "{error:?}");
    let mut largest = 0;
    for part in 0..8 {
        for number in (part..keys).step_by(8) {
            let _: Option<Vec<u8>> = client.get(format!("key:{number}")).await?;
        }
        let now = metrics(&store)?;
        let used = now["block_cache_bytes"] + now["row_cache_bytes"] + now["record_cache_bytes"];
        largest = largest.max(used);
        // Blocks that are being read cannot be evicted, and are no part of the promise.
        ensure!(used <= now["memory_budget_bytes"] + now["block_cache_pinned_bytes"], "{now:?}");
        ensure!(now["memtables_bytes"] <= 2 * now["memtables_limit_bytes"], "{now:?}");
        ensure!(now["row_cache_bytes"] <= now["row_cache_capacity_bytes"], "{now:?}");
    }
    ensure!(largest > 32 << 20, "the caches were hardly used: {largest}");
    Ok(())
}
