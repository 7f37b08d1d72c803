//! What the change feed costs a commit: nobody subscribed, somebody to other slots, somebody to all of them; in turn, so that each
//! meets the same machine. `make bench-feed`.

#![allow(clippy::expect_used, reason = "a benchmark ends where it cannot go on")]

use std::{sync::Arc, time::Instant};

use sluice_store::engine::{Engine, EngineOptions, Record, Subscription, SyncPolicy, Writer};
use sluice_topology::{Slot, SlotRanges};

const ROUNDS: usize = 9;
const BATCHES: usize = 2000;
const BATCH_KEYS: usize = 16;

fn open(directory: &std::path::Path) -> Arc<Engine> {
    let options = EngineOptions {
        directory: directory.to_owned(),
        wal: false,
        sync: SyncPolicy::No,
        record_cache_bytes: 8 << 20,
        block_cache_bytes: 256 << 20,
        row_cache_bytes: 0,
        write_buffer_bytes: 64 << 20,
        memtables_bytes: 128 << 20,
        ..EngineOptions::at(directory)
    };
    Arc::new(Engine::open(options).expect("opened"))
}

/// Nanoseconds a commit of 16 SETs of 128 bytes.
fn measure(engine: &Arc<Engine>, feed: &mut Option<Subscription>, from: usize) -> f64 {
    let mut writer = Writer::new(engine.clone());
    let started = Instant::now();
    for batch in 0..BATCHES {
        let keys: Vec<Vec<u8>> =
            (0..BATCH_KEYS).map(|key| format!("key:{:08}", (from + batch * BATCH_KEYS + key) % 100_000).into_bytes()).collect();
        writer.enter();
        assert!(writer.try_claim(keys.iter().map(|key| (Slot::of_key(key), key.as_slice())), false).expect("taken"));
        for key in &keys {
            writer.put(Slot::of_key(key), key, &Record::string(&[b'x'; 128], None), None);
        }
        let _ = writer.commit().expect("committed");
        if let Some(feed) = feed {
            feed.take().expect("it keeps up");
        }
    }
    started.elapsed().as_nanos() as f64 / BATCHES as f64
}

fn main() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path());
    let last: SlotRanges = Slot::new(16_383).into_iter().collect();
    let kinds = ["nobody subscribed", "nobody, again", "subscribed to one slot", "subscribed to every slot"];
    let mut figures = vec![Vec::new(); kinds.len()];
    measure(&engine, &mut None, 0);
    for round in 0..ROUNDS {
        for (kind, figures) in figures.iter_mut().enumerate() {
            let mut feed = match kind {
                0 | 1 => None,
                2 => Some(engine.subscribe(&last, 64 << 20)),
                _ => Some(engine.subscribe(&SlotRanges::full(), 64 << 20)),
            };
            figures.push(measure(&engine, &mut feed, round * BATCHES * BATCH_KEYS));
        }
    }
    let median = |figures: &[f64]| {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
    };
    let (base, ..) = median(&figures[0]);
    println!("change feed, {BATCH_KEYS} SETs a commit, WAL off, {ROUNDS} rounds of {BATCHES} commits in turn");
    println!("{:<28} {:>12} {:>24} {:>8}", "", "us a commit", "spread", "ratio");
    for (kind, figures) in kinds.iter().zip(&figures) {
        let (middle, least, most) = median(figures);
        let spread = format!("{:.2} .. {:.2}", least / 1000.0, most / 1000.0);
        println!("{kind:<28} {:>12.2} {spread:>24} {:>8.3}", middle / 1000.0, middle / base);
    }
}
