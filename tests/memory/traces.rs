//! Traces: what arrives at a collector, what does not, and what becomes of the store when nobody takes them.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    otlp::{Collector, Mood, Seen},
    store::{LocalCluster, Setup, StoreProcess, wait_for},
};
use sluice_topology::{Slot, SlotRanges, admin::MigrationState};

/// Whatever clients of these tests send has this in it, in one form or another.
const SECRET: &str = "secret";

async fn traced(root: &tempfile::TempDir, endpoint: &str, more: &[(&str, &str)]) -> anyhow::Result<StoreProcess> {
    let mut settings = vec![("otlp-endpoint", endpoint)];
    if more.iter().all(|(name, _)| *name != "otlp-sample-per-million") {
        settings.push(("otlp-sample-per-million", "1000000"));
    }
    settings.extend(more);
    Setup::new(root.path().join("data"), &settings)?.start().await
}

/// The spans of that name, once there are so many.
async fn spans(collector: &Collector, name: &str, count: usize) -> anyhow::Result<Vec<Seen>> {
    let found =
        || -> anyhow::Result<Vec<Seen>> { Ok(collector.spans()?.into_iter().filter(|seen| seen.span.name == name).collect()) };
    wait_for(&format!("{count} spans of {name}"), || async { Ok(found()?.len() >= count) }).await?;
    found()
}

/// One line of /metrics.
fn metric(store: &StoreProcess, name: &str) -> anyhow::Result<Option<u64>> {
    let text = store.metrics()?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(found.map(str::parse).transpose()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn sampled_commands_arrive_without_a_key_or_value_in_any_byte() -> anyhow::Result<()> {
    let (root, collector) = (tempfile::tempdir()?, Collector::start().await?);
    let headers = root.path().join("headers");
    fs::write(&headers, "# of the collector\nAuthorization: Bearer token\n")?;
    let headers = headers.to_str().context("a path in UTF-8")?;
    let more = [("otlp-headers-file", headers), ("otlp-service-name", "orders"), ("reply-stream-from", "1kb")];
    let store = traced(&root, collector.address(), &more).await?;
    let mut client = store.client().await?;

    let key = format!("{SECRET}-key");
    let value = format!("{SECRET}-value").repeat(3);
    let () = redis::cmd("SET").arg(&key).arg(&value).query_async(&mut client).await?;
    let got: String = redis::cmd("GET").arg(&key).query_async(&mut client).await?;
    ensure!(got == value);
    ensure!(redis::cmd("INCR").arg(&key).query_async::<i64>(&mut client).await.is_err());
    ensure!(redis::cmd("LPUSH").arg(&key).arg(SECRET).query_async::<i64>(&mut client).await.is_err());
    // A script's own error may have any word of a client in front.
    let script = "return redis.error_reply(ARGV[1])";
    ensure!(redis::cmd("EVAL").arg(script).arg(0).arg("SECRET word").query_async::<()>(&mut client).await.is_err());
    // What is no command is a word of the client as well.
    ensure!(redis::cmd("SECRETCOMMAND").arg(SECRET).query_async::<()>(&mut client).await.is_err());
    let () = redis::pipe()
        .cmd("SELECT")
        .arg(3)
        .ignore()
        .cmd("HSET")
        .arg("secret-hash")
        .arg("secret-field")
        .arg("secret".repeat(1000))
        .ignore()
        .cmd("HGETALL")
        .arg("secret-hash")
        .ignore()
        .query_async(&mut client)
        .await?;
    // One that waits, and is served by another.
    let (mut waits, mut pushes) = (store.client().await?, store.client().await?);
    let serve = async {
        wait_for("a client that waits", || async { Ok(store.info("blocked_clients").await? == "1") }).await?;
        Ok(redis::cmd("RPUSH").arg("secret-list").arg(SECRET).query_async::<()>(&mut pushes).await?)
    };
    let waited = async { Ok(redis::cmd("BLPOP").arg("secret-list").arg(0).query_async::<Vec<String>>(&mut waits).await?) };
    let (popped, ()) = futures::future::try_join::<_, _>(waited, serve).await.map_err(|error: anyhow::Error| error)?;
    ensure!(popped[1] == SECRET);

    let set = &spans(&collector, "set", 1).await?[0];
    let slot = Slot::of_key(key.as_bytes()).get().to_string();
    for (name, expected) in [
        ("db.system.name", "redis"),
        ("db.operation.name", "set"),
        ("db.namespace", "0"),
        ("sluice.slot", slot.as_str()),
        ("sluice.reply.bytes", "5"),
    ] {
        ensure!(set.attribute(name).as_deref() == Some(expected), "{name}: {set:?}");
    }
    ensure!(!set.failed() && set.attribute("error.type").is_none() && set.span.events[0].name == "executed", "{set:?}");
    ensure!(set.span.end_time_unix_nano >= set.span.events[0].time_unix_nano, "{set:?}");
    ensure!(set.resource("service.name").as_deref() == Some("orders"), "{set:?}");
    let node = store.admin().await?.status().await?.node_id.to_string();
    ensure!(set.resource("service.instance.id") == Some(node), "{set:?}");
    ensure!(collector.header("authorization").as_deref() == Some("Bearer token"));

    let get = &spans(&collector, "get", 1).await?[0];
    let bytes = format!("${}\r\n{value}\r\n", value.len()).len().to_string();
    ensure!(get.attribute("sluice.reply.bytes") == Some(bytes), "{get:?}");
    ensure!(get.attribute("sluice.client") == set.attribute("sluice.client"), "of one client");
    for (name, code) in [("incr", "ERR"), ("lpush", "WRONGTYPE"), ("eval", "other"), ("unknown", "ERR")] {
        let failed = &spans(&collector, name, 1).await?[0];
        ensure!(failed.failed() && failed.attribute("error.type").as_deref() == Some(code), "{name}: {failed:?}");
    }
    let hset = &spans(&collector, "hset", 1).await?[0];
    ensure!(hset.attribute("db.namespace").as_deref() == Some("3"), "{hset:?}");
    let whole = &spans(&collector, "hgetall", 1).await?[0];
    let length: usize = whole.attribute("sluice.reply.bytes").context("its length")?.parse()?;
    ensure!((6000..6200).contains(&length), "what is sent in pieces is counted: {length}");
    let waited = &spans(&collector, "blpop", 1).await?[0];
    ensure!(waited.attribute("sluice.waited_for").as_deref() == Some("keys") && !waited.failed(), "{waited:?}");

    let sent = String::from_utf8_lossy(&collector.bytes()).to_lowercase();
    ensure!(!sent.contains(SECRET) && sent.contains("hgetall"), "something of a request was sent");
    ensure!(metric(&store, "sluice_trace_spans_total{outcome=\"dropped\"}")? == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_flush_rounds_and_shutdowns_are_seen_with_their_steps() -> anyhow::Result<()> {
    let (root, collector) = (tempfile::tempdir()?, Collector::start().await?);
    let store = traced(&root, collector.address(), &[("otlp-sample-per-million", "0")]).await?;
    let mut client = store.client().await?;
    let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut client).await?;
    let () = redis::cmd("FLUSHMEMTABLE").query_async(&mut client).await?;
    let rounds = spans(&collector, "flush round", 1).await?;
    ensure!(rounds[0].attribute("sluice.flush.round").as_deref() == Some("1") && !rounds[0].failed(), "{rounds:?}");
    let starts = spans(&collector, "start", 1).await?;
    ensure!(starts[0].attribute("sluice.created").as_deref() == Some("true"), "{starts:?}");
    for (whole, names) in [(&rounds[0], &["marker", "wait for a stall", "flush"][..]), (&starts[0], &["open storage", "join"])] {
        for name in names {
            let parts = spans(&collector, name, 1).await?;
            let part = parts.iter().find(|part| part.is_part_of(whole)).with_context(|| format!("{name}: {parts:?}"))?;
            let (outer, inner) = (&whole.span, &part.span);
            ensure!(outer.start_time_unix_nano <= inner.start_time_unix_nano, "{name} begins before {}", outer.name);
            ensure!(inner.end_time_unix_nano <= outer.end_time_unix_nano, "{name} ends behind {}", outer.name);
        }
    }
    // What was not yet sent is, before the process ends.
    ensure!(store.terminate().await?.success());
    spans(&collector, "shutdown", 1).await?;
    let names: BTreeSet<String> = collector.spans()?.into_iter().map(|seen| seen.span.name).collect();
    ensure!(!names.contains("set"), "no command was to be sampled: {names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_of_a_migration_is_seen_with_its_steps() -> anyhow::Result<()> {
    let (root, collector) = (tempfile::tempdir()?, Collector::start().await?);
    let settings = [("otlp-endpoint", collector.address()), ("otlp-sample-per-million", "0")];
    let cluster = LocalCluster::start(root.path(), 2, 1, &settings).await?;
    let key = format!("{SECRET}-key");
    let () = redis::cmd("SET").arg(&key).arg(SECRET).query_async(&mut cluster.node(0).client().await?).await?;
    let job = cluster.migrate(0, 1, &SlotRanges::from(Slot::of_key(key.as_bytes()))).await?;
    ensure!(cluster.ended(0, job).await?.state == MigrationState::Done);
    let unit = &spans(&collector, "migration unit", 1).await?[0];
    for (name, expected) in [
        ("sluice.migration.job", job.to_string()),
        ("sluice.migration.target", cluster.id(1).to_string()),
        ("sluice.migration.slots", "1".to_owned()),
        ("sluice.migration.keys", "1".to_owned()),
    ] {
        ensure!(unit.attribute(name).as_ref() == Some(&expected), "{name}: {unit:?}");
    }
    ensure!(!unit.failed() && unit.resource("service.instance.id") == Some(cluster.id(0).to_string()), "{unit:?}");
    for step in ["staging", "snapshot", "catching up", "switching", "preparing", "deciding", "committed"] {
        let parts = spans(&collector, step, 1).await?;
        ensure!(parts.iter().any(|part| part.is_part_of(unit)), "{step}: {parts:?}");
    }
    ensure!(!String::from_utf8_lossy(&collector.bytes()).contains(SECRET));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_refuses_or_is_silent_costs_clients_nothing_and_memory_little() -> anyhow::Result<()> {
    const QUEUE: u64 = 16;
    /// What the thread may have in its hands besides.
    const BATCH: u64 = 512;
    let (root, collector) = (tempfile::tempdir()?, Collector::start().await?);
    collector.set(Mood::Silent);
    let queue = QUEUE.to_string();
    let store = traced(&root, collector.address(), &[("otlp-queue-size", &queue), ("otlp-timeout-ms", "600000")]).await?;
    // It is sent something and does not answer: from then on nothing gets away.
    wait_for("the first request", || async { Ok(collector.requests() == 1) }).await?;
    let mut client = store.client().await?;
    for number in 0..2000 {
        let () = redis::cmd("SET").arg(number).arg("value").query_async(&mut client).await?;
    }
    let held = || metric(&store, "sluice_trace_spans_waiting").map(|waiting| waiting.expect("a gauge"));
    ensure!((QUEUE..=QUEUE + BATCH).contains(&held()?), "{} spans wait", held()?);
    let dropped = metric(&store, "sluice_trace_spans_total{outcome=\"dropped\"}")?;
    ensure!(dropped.is_some_and(|dropped| dropped > 2000 - QUEUE - BATCH), "{dropped:?} were dropped");
    let owner: u64 = store.info("traces_used").await?.parse()?;
    ensure!(owner > 0 && owner < (QUEUE + BATCH) << 10, "{owner} bytes in the account");
    // The end of the process does not wait for it either: wherever it ends, it does so in order.
    ensure!(store.terminate().await?.success(), "{}", store.log());
    drop(store);

    collector.set(Mood::Refuses);
    let store = traced(&root, collector.address(), &[("otlp-queue-size", &queue)]).await?;
    let failed = || metric(&store, "sluice_trace_spans_total{outcome=\"failed\"}");
    wait_for("spans that were refused", || async { Ok(failed()? > Some(0)) }).await?;
    collector.set(Mood::Takes);
    let mut client = store.client().await?;
    let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut client).await?;
    spans(&collector, "set", 1).await?;
    let address = collector.address().to_owned();
    drop(collector);
    drop(store);

    // Nobody is there at all.
    let store = traced(&root, &address, &[]).await?;
    let mut client = store.client().await?;
    for number in 0..100 {
        let value: String = redis::cmd("GET").arg(number).query_async(&mut client).await?;
        ensure!(value == "value");
    }
    let failed = || metric(&store, "sluice_trace_spans_total{outcome=\"failed\"}");
    wait_for("spans that nobody took", || async { Ok(failed()? > Some(0)) }).await?;
    let told = store.log().matches("the collector of traces takes none").count();
    ensure!(told <= 2, "told once a start: {told}\n{}", store.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn off_they_have_no_thread_and_no_metric() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let threads = |store: &StoreProcess| -> anyhow::Result<Vec<String>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", store.id()))?;
        Ok(tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect())
    };
    let is_there =
        |store: &StoreProcess| -> anyhow::Result<bool> { Ok(threads(store)?.iter().any(|name| name.trim() == "otlp")) };
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    ensure!(!is_there(&store)? && !store.metrics()?.contains("trace_spans"));
    store.terminate().await?;
    let store = traced(&root, "http://127.0.0.1:9", &[]).await?;
    ensure!(is_there(&store)? && store.metrics()?.contains("trace_spans"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_refused_at_the_start() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let missing = root.path().join("missing");
    let missing = missing.to_str().context("a path in UTF-8")?;
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("otlp-endpoint", "https://127.0.0.1:4318")], "the store has no TLS"),
        (&[("otlp-endpoint", "http://127.0.0.1:4318/v1/traces")], "/v1/traces is added to it"),
        (&[("otlp-endpoint", "http://127.0.0.1:9"), ("otlp-headers-file", missing)], "cannot be read"),
        (&[("otlp-sample-per-million", "1000001")], "that is every command"),
    ];
    for (settings, expected) in cases {
        let store = Setup::new(root.path().join("data"), settings)?.spawn()?;
        ensure!(!store.ended().await?.success(), "{settings:?} was taken");
        ensure!(store.log().contains(expected), "{settings:?}: {}", store.log());
    }
    Ok(())
}
