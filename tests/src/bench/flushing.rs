//! What a flush costs those who write meanwhile, and how many rounds many callers make. The client is our own: redis-benchmark does
//! not say which requests met a flush.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    figures::{Machine, Spread, keep},
    options::{Common, commit},
    report::print_aligned,
    server::{Contestant, Kind, Server},
};

/// Options of the flush bench alone.
#[derive(Args, Clone, Debug)]
pub struct FlushOptions {
    /// Callers of FLUSHMEMTABLE RECEIPT at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// Flushes in each round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    flushes: u32,
}

/// A write: when it was sent, and how long its answer took.
#[derive(Clone, Copy)]
struct Write {
    sent: Instant,
    took: Duration,
}

/// One flush that all callers asked for at once.
#[derive(Clone, Copy)]
struct Flush {
    from: Instant,
    until: Instant,
    distinct_rounds: usize,
    rounds_total_grew: u64,
    bytes: u64,
}

/// Latencies of some writes, in milliseconds.
#[derive(Clone, Debug, Serialize)]
struct Latencies {
    writes: usize,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

impl Latencies {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |part: f64| {
            let index = (took.len() as f64 * part) as usize;
            took.get(index.min(took.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
        };
        Self { writes: took.len(), p50_ms: at(0.5), p99_ms: at(0.99), longest_ms: at(1.0) }
    }
}

/// One store, one setting of `wal`, one round.
#[derive(Clone, Debug, Serialize)]
struct Turn {
    round: u32,
    server: String,
    wal: &'static str,
    callers: u32,
    /// Rounds that the receipts of each flush name.
    distinct_rounds: Vec<usize>,
    /// By how much `flush_rounds_total` grew in each flush.
    rounds_total_grew: Vec<u64>,
    /// Time from the first call to the last receipt of each flush.
    flush_ms: Vec<f64>,
    /// What each flush wrote.
    flushed_bytes: Vec<u64>,
    quiet: Latencies,
    during_a_flush: Latencies,
}

/// Runs it and prints what it found.
pub async fn run(common: &Common, options: &FlushOptions) -> anyhow::Result<()> {
    let binaries = common.store_binaries()?;
    let (json_path, machine) = (common.json_path("flush")?, Machine::here());
    println!(
        "flush: {} writers of {} B over {} keys, {} callers at once, {} flushes in each of {} rounds, {} s of quiet before each; {}",
        common.clients,
        common.value_size,
        common.keys,
        options.callers,
        options.flushes,
        common.rounds,
        common.seconds,
        machine.text()
    );
    let mut turns = Vec::new();
    for round in 1..=common.rounds {
        for (name, binary) in &binaries {
            for wal in ["yes", "no"] {
                let mut settings = vec![("wal".to_owned(), wal.to_owned())];
                settings.extend(common.settings.iter().map(|setting| (setting.name.clone(), setting.value.clone())));
                let contestant = Contestant {
                    name: name.clone(),
                    kind: Kind::Store { binary: binary.clone(), settings, wrapper: Vec::new() },
                };
                let folder = tempfile::Builder::new().prefix("sluice-bench-").tempdir().context("making a data directory")?;
                let server = contestant.start(folder.path(), common).await?;
                let turn = turn(common, options, &server, round, wal).await.with_context(|| format!("{name}, wal {wal}"))?;
                server.alive()?;
                turns.push(turn);
            }
        }
    }
    print(&turns);
    keep(
        &json_path,
        &json!({
            "format": 1, "bench": "flush", "date": jiff::Timestamp::now().to_string(), "commit": commit(), "machine": machine,
            "options": {"rounds": common.rounds, "clients": common.clients, "value_size": common.value_size, "keys": common.keys,
                "seconds": common.seconds, "callers": options.callers, "flushes": options.flushes},
            "turns": turns,
        }),
    )?;
    println!("kept in {}", json_path.display());
    Ok(())
}

async fn turn(common: &Common, options: &FlushOptions, server: &Server, round: u32, wal: &'static str) -> anyhow::Result<Turn> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..common.clients {
        let (connection, stop, value, keys) = (server.connect().await?, stop.clone(), common.value(), common.keys);
        writers.spawn(write(connection, stop, writer, keys, value));
    }
    let mut callers = Vec::new();
    for _ in 0..options.callers {
        callers.push(server.connect().await?);
    }
    let quiet = Duration::from_secs_f64(common.seconds);
    // The first seconds warm up and count for nothing.
    tokio::time::sleep(quiet).await;
    let began = Instant::now();
    let mut flushes = Vec::new();
    for _ in 0..options.flushes {
        tokio::time::sleep(quiet).await;
        flushes.push(flush(server, &mut callers).await?);
    }
    stop.store(true, Ordering::Relaxed);
    let (mut in_quiet, mut during) = (Vec::new(), Vec::new());
    while let Some(writes) = writers.join_next().await {
        for Write { sent, took } in writes?.context("a writer")? {
            let met = flushes.iter().any(|flush| sent < flush.until && sent + took > flush.from);
            if met {
                during.push(took);
            } else if sent >= began {
                in_quiet.push(took);
            }
        }
    }
    ensure!(!in_quiet.is_empty() && !during.is_empty(), "no write met a flush, or none was without: give more --seconds");
    Ok(Turn {
        round,
        server: server.name.clone(),
        wal,
        callers: options.callers,
        distinct_rounds: flushes.iter().map(|flush| flush.distinct_rounds).collect(),
        rounds_total_grew: flushes.iter().map(|flush| flush.rounds_total_grew).collect(),
        flush_ms: flushes.iter().map(|flush| (flush.until - flush.from).as_secs_f64() * 1000.0).collect(),
        flushed_bytes: flushes.iter().map(|flush| flush.bytes).collect(),
        quiet: Latencies::of(in_quiet),
        during_a_flush: Latencies::of(during),
    })
}

/// One connection that writes one key after another until it is told to stop.
async fn write(
    mut connection: redis::aio::MultiplexedConnection,
    stop: Arc<AtomicBool>,
    writer: u32,
    keys: u32,
    value: String,
) -> anyhow::Result<Vec<Write>> {
    let mut writes = Vec::new();
    let mut number = writer;
    while !stop.load(Ordering::Relaxed) {
        // A step that meets every key before it meets one again, as long as the number of keys is no multiple of it.
        number = number.wrapping_add(7919);
        let key = format!("key:{:012}", number % keys);
        let sent = Instant::now();
        redis::cmd("SET").arg(key).arg(&value).query_async::<()>(&mut connection).await?;
        writes.push(Write { sent, took: sent.elapsed() });
    }
    Ok(writes)
}

/// All callers ask at once and get their receipts.
async fn flush(server: &Server, callers: &mut [redis::aio::MultiplexedConnection]) -> anyhow::Result<Flush> {
    let total = async || server.info().await?.number("flush_rounds_total").context("INFO has no flush_rounds_total");
    let before = total().await?;
    let from = Instant::now();
    let asked = callers.iter_mut().map(|caller| async move {
        let receipt: Vec<(String, String)> = redis::cmd("FLUSHMEMTABLE").arg("RECEIPT").query_async(caller).await?;
        let number = |name: &str| {
            let field = receipt.iter().find(|(field, _)| field == name).and_then(|(_, value)| value.parse::<u64>().ok());
            field.with_context(|| format!("the receipt has no number {name}: {receipt:?}"))
        };
        anyhow::Ok((number("round")?, number("bytes")?))
    });
    let receipts: BTreeSet<(u64, u64)> =
        futures::future::try_join_all(asked).await.context("FLUSHMEMTABLE RECEIPT")?.into_iter().collect();
    let until = Instant::now();
    let rounds: BTreeSet<u64> = receipts.iter().map(|(round, _)| *round).collect();
    let bytes = receipts.iter().map(|(_, bytes)| bytes).sum();
    Ok(Flush { from, until, distinct_rounds: rounds.len(), rounds_total_grew: total().await? - before, bytes })
}

fn print(turns: &[Turn]) {
    let mut kinds: Vec<(&str, &'static str)> = Vec::new();
    for turn in turns {
        if !kinds.contains(&(&turn.server, turn.wal)) {
            kinds.push((&turn.server, turn.wal));
        }
    }
    let text = |spread: Option<Spread>, decimals| spread.map_or("-".into(), |spread| spread.text(decimals));
    println!("\nMedians over the rounds (least..most).");
    let head = ["server", "wal", "writes", "p50 ms", "p99 ms", "longest ms", "number"];
    let mut table = vec![head.map(str::to_owned)];
    for (server, wal) in &kinds {
        let own: Vec<&Turn> = turns.iter().filter(|turn| turn.server == *server && turn.wal == *wal).collect();
        let pick: [(&str, fn(&Turn) -> &Latencies); 2] =
            [("without a flush", |turn| &turn.quiet), ("during a flush", |turn| &turn.during_a_flush)];
        for (which, latencies) in pick {
            let spread = |figure: fn(&Latencies) -> f64, decimals| {
                text(Spread::of(own.iter().map(|turn| figure(latencies(turn)))), decimals)
            };
            table.push([
                (*server).to_owned(),
                (*wal).to_owned(),
                which.to_owned(),
                spread(|latencies| latencies.p50_ms, 3),
                spread(|latencies| latencies.p99_ms, 3),
                spread(|latencies| latencies.longest_ms, 3),
                spread(|latencies| latencies.writes as f64, 0),
            ]);
        }
    }
    print_aligned(&table);
    println!();
    for (server, wal) in kinds {
        let own: Vec<&Turn> = turns.iter().filter(|turn| turn.server == server && turn.wal == wal).collect();
        let all = |figures: &dyn Fn(&Turn) -> Vec<f64>| Spread::of(own.iter().flat_map(|turn| figures(turn)));
        let rounds = all(&|turn| turn.distinct_rounds.iter().map(|count| *count as f64).collect());
        let grew = all(&|turn| turn.rounds_total_grew.iter().map(|count| *count as f64).collect());
        let took = all(&|turn| turn.flush_ms.clone());
        let bytes = all(&|turn| turn.flushed_bytes.iter().map(|bytes| *bytes as f64 / 1e6).collect());
        let callers = own.first().map_or(0, |turn| turn.callers);
        println!(
            "{server}, wal {wal}: {callers} callers at once made {} rounds (flush_rounds_total grew by {}),",
            text(rounds, 0),
            text(grew, 0)
        );
        println!("    all receipts after {} ms, {} MB flushed", text(took, 1), text(bytes, 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let latencies = Latencies::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((latencies.writes, latencies.p50_ms, latencies.p99_ms, latencies.longest_ms), (100, 51.0, 100.0, 100.0));
        assert_eq!(Latencies::of(Vec::new()).writes, 0);
    }
}
