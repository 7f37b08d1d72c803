//! Expiry: what has expired goes though nobody asks for it, what has not stays, and a clock set back changes neither.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use sluice_store::engine::{
    Engine, EngineError, MayWrite, RawFamily, RawRecord, Record, Sweep, SweepPace, SystemBatch, SystemKind,
};

use crate::engine::{Noise, Setup, disk_bytes, eventually, flush, get_string, put, put_string, slot};

const FAST: SweepPace = SweepPace { keys_per_second: 10_000_000, bytes_per_second: 1 << 30 };

fn sweep(engine: &Arc<Engine>) -> Sweep {
    Sweep::start(engine.clone(), FAST, |_| MayWrite::Now, Box::new(|_, _, _, _| Ok((0, None)))).expect("started")
}

/// Keys of all slots as they are stored, expired or not.
fn stored_keys(engine: &Engine) -> u64 {
    let count = |number| {
        let mut keys = 0;
        let read = engine.raw_records(&slot(number).into(), |_| {
            keys += 1;
            Ok::<(), EngineError>(())
        });
        read.expect("read");
        keys
    };
    (0..16).map(count).sum()
}

#[test]
fn disk_does_not_grow_when_nobody_reads() {
    const ROUND_BYTES: usize = 8 << 20;
    const ROUNDS: u32 = 5;
    for wal in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = Setup::small(wal).open(root.path());
        let sweep = sweep(&engine);
        let (mut noise, mut value, mut largest) = (Noise::new(3), vec![0; 4 << 10], 0);
        for round in 0..ROUNDS {
            for number in 0..(ROUND_BYTES / value.len()) as u32 {
                noise.fill(&mut value);
                let key = [round.to_be_bytes(), number.to_be_bytes()].concat();
                put(&engine, slot((number % 16) as u16), &key, Record::string(&value, Some(engine.now_ms() + 300)));
            }
            put_string(&engine, slot(0), format!("kept {round}").as_bytes(), b"kept");
            // Nobody reads a key of them.
            let keys = u64::from(round) + 1;
            eventually("what has expired is gone", || stored_keys(&engine) == keys);
            flush(&engine);
            largest = largest.max(disk_bytes(root.path()));
        }
        eventually("the disk shrinks", || disk_bytes(root.path()) < 3 * ROUND_BYTES as u64);
        println!("wal {wal}: {} bytes were written, at most {largest} were on disk", ROUND_BYTES * ROUNDS as usize);
        assert!(engine.counters().expired_keys > 0 && sweep.keys_looked_at() > 0);
        for round in 0..ROUNDS {
            assert_eq!(get_string(&engine, slot(0), format!("kept {round}").as_bytes()).as_deref(), Some(&b"kept"[..]));
        }
    }
}

#[test]
fn a_sweep_looks_at_nothing_where_nothing_expires() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let now = engine.now_ms();
    for number in 0..5000u32 {
        put_string(&engine, slot((number % 16) as u16), &number.to_be_bytes(), b"for ever");
    }
    put(&engine, slot(20), b"later", Record::string(b"later", Some(now + 3_600_000)));
    // The first sweep of a new directory knows nothing, and looks at all of it once.
    let first = sweep(&engine);
    eventually("it has looked", || first.keys_looked_at() >= 5001);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(first.keys_looked_at(), 5001, "it looks again and again");
    first.stop();
    engine.close().expect("closed");
    drop(first);
    drop(engine);
    // After a shutdown in order it knows.
    let engine = Setup::small(true).open(root.path());
    let second = sweep(&engine);
    put(&engine, slot(21), b"soon", Record::string(b"soon", Some(engine.now_ms() + 10)));
    eventually("the one that expires is found", || engine.counters().expired_keys == 1);
    assert_eq!(second.keys_looked_at(), 1);
    assert!(get_string(&engine, slot(20), b"later").is_some());
}

#[test]
fn a_key_whose_expiry_was_taken_back_in_time_stays() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(false).open(root.path());
    let sweep = sweep(&engine);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Every key expires soon and is made to live for ever just then, or for longer: whoever is first, it is there at the end.
        for writer in 0..4u16 {
            let (engine, stop) = (&engine, &stop);
            scope.spawn(move || {
                let mut round = 0u64;
                while !stop.load(Ordering::SeqCst) {
                    for number in 0..50u64 {
                        let at = engine.now_ms() + round % 3;
                        put(engine, slot(writer), &number.to_be_bytes(), Record::string(b"short", Some(at)));
                    }
                    for number in 0..50u64 {
                        let at = (number % 2 == 0).then(|| engine.now_ms() + 3_600_000);
                        put(engine, slot(writer), &number.to_be_bytes(), Record::string(b"long", at));
                    }
                    for number in 0..50u64 {
                        let value = get_string(engine, slot(writer), &number.to_be_bytes());
                        assert_eq!(value.as_deref(), Some(&b"long"[..]), "round {round}, key {number}");
                    }
                    round += 1;
                }
            });
        }
        thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::SeqCst);
    });
    assert!(sweep.keys_looked_at() > 0);
    assert_eq!(stored_keys(&engine), 200);
}

#[test]
fn a_slot_that_is_switched_is_left_alone_and_one_that_arrives_is_swept() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let may = Arc::new(AtomicU8::new(0));
    let looked = Arc::new(AtomicBool::new(false));
    let (asked, seen) = (may.clone(), looked.clone());
    let may_write = move |at: sluice_topology::Slot| match (at.get(), asked.load(Ordering::SeqCst)) {
        (3, 0) => MayWrite::Later,
        (5, 0 | 1) => {
            seen.store(true, Ordering::SeqCst);
            MayWrite::Later
        }
        _ => MayWrite::Now,
    };
    let _sweep = Sweep::start(engine.clone(), FAST, may_write, Box::new(|_, _, _, _| Ok((0, None)))).expect("started");
    put(&engine, slot(3), b"parked", Record::string(b"x", Some(1)));
    put(&engine, slot(4), b"open", Record::string(b"x", Some(1)));
    eventually("the open slot is swept", || get_string(&engine, slot(4), b"open").is_none());
    thread::sleep(Duration::from_millis(500));
    assert!(get_string(&engine, slot(3), b"parked").is_some(), "it is being copied");
    may.store(1, Ordering::SeqCst);
    eventually("it is swept when it is open again", || get_string(&engine, slot(3), b"parked").is_none());
    // What an import brings is noted as it comes, and stays noted though it is due before it is live.
    let staged = engine.stage([slot(5)], |_| SystemBatch::new()).expect("staged");
    let mut value = Vec::new();
    Record::string(b"x", Some(1)).encode(&mut value);
    let record = RawRecord { family: RawFamily::ALL[0], slot: slot(5), key: b"arrived", value: Some(&value) };
    engine
        .put_staged::<EngineError>(|put| {
            [(staged[&slot(5)], record)].into_iter().try_for_each(|(generation, record)| put(generation, record))
        })
        .expect("written");
    looked.store(false, Ordering::SeqCst);
    eventually("the sweep wants to look", || looked.load(Ordering::SeqCst));
    engine.activate(&staged, SystemBatch::new()).expect("activated");
    may.store(2, Ordering::SeqCst);
    eventually("what arrived is swept", || get_string(&engine, slot(5), b"arrived").is_none());
    // Counted after it is gone.
    eventually("all are counted", || engine.counters().expired_keys == 3);
}

#[test]
fn a_clock_set_back_brings_no_expired_key_back() {
    const HOUR_MS: u64 = 3_600_000;
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let now = engine.now_ms();
    put(&engine, slot(3), b"short", Record::string(b"x", Some(now + HOUR_MS)));
    put(&engine, slot(3), b"long", Record::string(b"x", Some(now + 3 * HOUR_MS)));
    engine.close().expect("closed");
    // As a process would leave it whose system's clock was two hours ahead of what it is now.
    let mut batch = SystemBatch::new();
    batch.put(SystemKind::Clean, b"", [1u64.to_be_bytes(), (now + 2 * HOUR_MS).to_be_bytes()].concat());
    engine.write_system(batch).expect("written");
    drop(engine);
    let expired = |engine: &Engine, key: &[u8]| {
        let stored = engine.get(slot(3), key).expect("read").expect("it is stored");
        stored.record().expect("a record").is_expired(engine.now_ms())
    };
    let engine = Setup::small(true).open(root.path());
    assert!(engine.now_ms() >= now + 2 * HOUR_MS);
    assert!(expired(&engine, b"short") && !expired(&engine, b"long"));
    // The next flush round carries it on, without a shutdown in order.
    flush(&engine);
    drop(engine);
    let engine = Setup::small(true).open(root.path());
    assert!(!engine.start().clean_shutdown);
    assert!(engine.now_ms() >= now + 2 * HOUR_MS);
    assert!(expired(&engine, b"short") && !expired(&engine, b"long"));
    // So does the sweep, while there is something that expires, and nobody flushes.
    let sweep = sweep(&engine);
    let later = engine.now_ms() + 1;
    put(&engine, slot(3), b"long", Record::string(b"x", Some(later + HOUR_MS)));
    eventually("the time is noted", || engine.counters().clock_floor_ms >= later);
    drop(sweep);
    drop(engine);
    let engine = Setup::small(true).open(root.path());
    assert!(engine.now_ms() >= later);
    // Time goes on at its own pace from there.
    let before = engine.now_ms();
    thread::sleep(Duration::from_millis(50));
    assert!(engine.now_ms() > before);
}
