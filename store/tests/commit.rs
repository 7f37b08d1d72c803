//! Committing: batches of several writers, what they see of one another, and what the change feed says of them.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use sluice_store::engine::{
    ChangedKey, Engine, EngineError, EngineOptions, FeedLost, Gathered, RawFamily, RawRecord, Record, Subscription, Subspace,
    SyncPolicy, SystemBatch, Writer,
};
use sluice_topology::{Slot, SlotRanges};

fn open(directory: &Path, wal: bool) -> Arc<Engine> {
    let options = EngineOptions { wal, sync: SyncPolicy::No, ..EngineOptions::at(directory) };
    Arc::new(Engine::open(options).expect("opened"))
}

fn claimed(writer: &mut Writer, keys: &[&[u8]]) -> bool {
    let keys = || keys.iter().map(|key| (Slot::of_key(key), *key));
    writer.enter();
    writer.try_claim(keys(), false).expect("taken")
}

/// Claims keys as a connection does: tries, and when somebody has them lets go of everything and waits.
fn claim(writer: &mut Writer, keys: &[&[u8]]) {
    while !claimed(writer, keys) {
        let _ = writer.commit().expect("committed");
        writer.claim(keys.iter().map(|key| (Slot::of_key(key), *key)), &|| false);
    }
}

fn put(writer: &mut Writer, key: &[u8], value: &[u8]) {
    writer.put(Slot::of_key(key), key, &Record::string(value, None), None);
}

fn value(engine: &Engine, key: &[u8]) -> Option<Vec<u8>> {
    let stored = engine.get(Slot::of_key(key), key).expect("read")?;
    Some(stored.record().expect("a record").value.to_vec())
}

fn number(engine: &Engine, key: &[u8]) -> u64 {
    value(engine, key).map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
}

#[test]
fn what_is_gathered_is_seen_by_its_writer_alone_until_it_is_committed() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let mut writer = Writer::new(engine.clone());
    claim(&mut writer, &[b"a", b"b"]);
    put(&mut writer, b"a", b"1");
    put(&mut writer, b"b", b"1");
    put(&mut writer, b"a", b"2");
    writer.delete(Slot::of_key(b"b"), b"b", None);
    let seen = |writer: &Writer, key: &[u8]| match writer.gathered_record(Slot::of_key(key), key) {
        Gathered::Put(stored) => Gathered::Put(stored.record().expect("a record").value.to_vec()),
        Gathered::Deleted => Gathered::Deleted,
        Gathered::Nothing => Gathered::Nothing,
    };
    assert_eq!(seen(&writer, b"a"), Gathered::Put(b"2".to_vec()));
    assert_eq!(seen(&writer, b"b"), Gathered::Deleted);
    assert_eq!(seen(&writer, b"c"), Gathered::Nothing);
    assert_eq!((value(&engine, b"a"), value(&engine, b"b")), (None, None));
    // A command that fails half-way: what it gathered goes, what was there before stays.
    let before = writer.gathered();
    put(&mut writer, b"a", b"3");
    put(&mut writer, b"b", b"3");
    writer.truncate(before);
    assert_eq!((seen(&writer, b"a"), seen(&writer, b"b")), (Gathered::Put(b"2".to_vec()), Gathered::Deleted));
    assert!(writer.commit().expect("committed").is_some());
    assert_eq!((value(&engine, b"a"), value(&engine, b"b")), (Some(b"2".to_vec()), None));
    assert!(writer.commit().expect("nothing to do").is_none());
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_behind() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let mut writer = Writer::new(engine.clone());
    claim(&mut writer, &[b"a"]);
    put(&mut writer, b"a", b"1");
    drop(writer);
    // Neither its stripes nor its place inside the gate.
    engine.drain();
    let mut other = Writer::new(engine.clone());
    assert!(claimed(&mut other, &[b"a"]));
    assert_eq!(value(&engine, b"a"), None);
}

/// Four writers add to overlapping pairs of keys, in opposite orders: nobody waits for ever, and no addition is lost.
#[test]
fn writers_of_the_same_keys_neither_deadlock_nor_lose_an_addition() {
    const ROUNDS: u64 = 400;
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), false);
    let pairs: [[&[u8]; 2]; 4] = [[b"a", b"b"], [b"b", b"a"], [b"b", b"c"], [b"c", b"a"]];
    let workers: Vec<_> = pairs
        .into_iter()
        .map(|keys| {
            let engine = engine.clone();
            thread::spawn(move || {
                let mut writer = Writer::new(engine.clone());
                for _ in 0..ROUNDS {
                    for key in keys {
                        // One after the other: the first is held while the second is tried for.
                        while !claimed(&mut writer, &[key]) {
                            let _ = writer.commit().expect("committed");
                            writer.claim([(Slot::of_key(key), key)].into_iter(), &|| false);
                        }
                        let now = match writer.gathered_record(Slot::of_key(key), key) {
                            Gathered::Put(stored) => {
                                u64::from_be_bytes(stored.record().expect("a record").value.try_into().expect("eight bytes"))
                            }
                            _ => number(&engine, key),
                        };
                        put(&mut writer, key, &(now + 1).to_be_bytes());
                    }
                    let _ = writer.commit().expect("committed");
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("it ends"));
    let total: u64 = [b"a", b"b", b"c"].iter().map(|key| number(&engine, *key)).sum();
    assert_eq!(total, 2 * 4 * ROUNDS);
}

/// Reads of several keys in one call are of one moment, and a batch becomes visible as a whole.
#[test]
fn a_read_of_several_keys_never_sees_half_a_batch() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let stop = Arc::new(AtomicBool::new(false));
    let keys: [&[u8]; 3] = [b"x", b"y", b"z"];
    let worker = {
        let (engine, stop) = (engine.clone(), stop.clone());
        thread::spawn(move || {
            let mut writer = Writer::new(engine);
            let mut round = 0u64;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                claim(&mut writer, &keys);
                keys.iter().for_each(|key| put(&mut writer, key, &round.to_be_bytes()));
                let _ = writer.commit().expect("committed");
            }
            round
        })
    };
    for _ in 0..5000 {
        let found = engine.get_many(keys.iter().map(|key| (Slot::of_key(key).into(), *key, true)));
        let values: Vec<Option<Vec<u8>>> = found
            .into_iter()
            .map(|one| one.expect("read").map(|stored| stored.record().expect("a record").value.to_vec()))
            .collect();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(worker.join().expect("it ends") > 0);
}

/// The record cache in front of RocksDB: whatever readers and writers do at the same time, no read is older than the last
/// acknowledged write, whether that left a record or none.
#[test]
fn a_read_is_never_older_than_the_last_acknowledged_write() {
    const KEYS: usize = 40;
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), false);
    let key = |number: usize| format!("key{number}").into_bytes();
    let is_absent = |round: u64| round.is_multiple_of(3);
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2usize)
        .map(|half| {
            let (engine, acknowledged, stop) = (engine.clone(), acknowledged.clone(), stop.clone());
            thread::spawn(move || {
                let mut writer = Writer::new(engine);
                let mut round = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    for number in (half..KEYS).step_by(2) {
                        claim(&mut writer, &[&key(number)]);
                        if is_absent(round) {
                            writer.delete(Slot::of_key(&key(number)), &key(number), None);
                        } else {
                            put(&mut writer, &key(number), &round.to_be_bytes());
                        }
                        let _ = writer.commit().expect("committed");
                        acknowledged[number].store(round, Ordering::SeqCst);
                    }
                }
                round
            })
        })
        .collect();
    let readers: Vec<_> = (0..2usize)
        .map(|_| {
            let (engine, acknowledged) = (engine.clone(), acknowledged.clone());
            thread::spawn(move || {
                for turn in 0..60_000 {
                    let at = turn % KEYS;
                    let before = acknowledged[at].load(Ordering::SeqCst);
                    let read = if turn % 3 == 0 {
                        let keys = [key(at), key((at + 1) % KEYS)];
                        let mut found = engine.get_many(keys.iter().map(|key| (Slot::of_key(key).into(), key.as_slice(), false)));
                        found.swap_remove(0).expect("read")
                    } else {
                        engine.get(Slot::of_key(&key(at)), &key(at)).expect("read")
                    };
                    let read = read.map(|stored| {
                        u64::from_be_bytes(stored.record().expect("a record").value.try_into().expect("eight bytes"))
                    });
                    // What comes next may be there before it is acknowledged.
                    let mut rounds = before..=acknowledged[at].load(Ordering::SeqCst) + 1;
                    let possible = rounds.any(|round| read.map_or_else(|| is_absent(round), |read| read == round));
                    assert!(possible, "key {at}: {read:?} was read after {before} was acknowledged");
                }
            })
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().expect("no stale read"));
    stop.store(true, Ordering::Relaxed);
    assert!(writers.into_iter().all(|writer| writer.join().expect("it ends") > 1));
    assert!(engine.counters().record_cache.hits > 1000, "the cache was not in play");
}

/// A flush of everything is one moment: a batch of several slots is in it or not, whole.
#[test]
fn a_flush_of_everything_never_leaves_half_a_batch() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let stop = Arc::new(AtomicBool::new(false));
    let keys: [&[u8]; 3] = [b"x", b"y", b"z"];
    let worker = {
        let (engine, stop) = (engine.clone(), stop.clone());
        thread::spawn(move || {
            let mut writer = Writer::new(engine);
            while !stop.load(Ordering::Relaxed) {
                claim(&mut writer, &keys);
                keys.iter().for_each(|key| put(&mut writer, key, b"1"));
                let _ = writer.commit().expect("committed");
            }
        })
    };
    for _ in 0..100 {
        assert!(engine.flush_slots(&[0], Slot::all(), || true).expect("flushed"));
        let held = engine.get_many(keys.iter().map(|key| (Slot::of_key(key).into(), *key, true)));
        let held: Vec<bool> = held.into_iter().map(|one| one.expect("read").is_some()).collect();
        assert!(held == [true; 3] || held == [false; 3], "{held:?}");
    }
    assert!(!engine.flush_slots(&[0], Slot::all(), || false).expect("asked"), "what may not be flushed was");
    stop.store(true, Ordering::Relaxed);
    worker.join().expect("it ends");
}

/// What was told of since the last call.
fn told(feed: &Subscription) -> Vec<ChangedKey> {
    feed.take().expect("it keeps up")
}

#[test]
fn the_change_feed_tells_of_every_key_that_changed_in_its_slots_once_and_of_no_other() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let (mine, other): (&[u8], &[u8]) = (b"{mine}key", b"{other}key");
    let slot = Slot::of_key(mine);
    let mut writer = Writer::new(engine.clone());
    claim(&mut writer, &[mine]);
    put(&mut writer, mine, b"before");
    let _ = writer.commit().expect("committed");

    let slots: SlotRanges = [slot].into_iter().collect();
    let feed = engine.subscribe(&slots, 1 << 20);
    for value in [b"one", b"two"] {
        claim(&mut writer, &[mine, other]);
        put(&mut writer, mine, value);
        put(&mut writer, other, b"not for this feed");
        writer.put_subkey(Subspace::data(slot, 7), b"field", b"value");
        let _ = writer.commit().expect("committed");
    }
    let keys = told(&feed);
    let names: Vec<_> = keys.iter().map(|key| (key.family().map(RawFamily::to_byte), key.slot(), key.key().to_vec())).collect();
    let field = [&7u64.to_be_bytes()[..], b"field"].concat();
    assert_eq!(names, [(Some(0), Some(slot), mine.to_vec()), (Some(1), Some(slot), field)]);
    // Taken first, read then: what is read is at least as new as what was told of.
    let mut read = Vec::new();
    let now = engine.raw_now(&keys, |record| {
        read.push(record.value.map(<[u8]>::to_vec));
        Ok::<(), EngineError>(())
    });
    now.expect("read");
    let mut stored = Vec::new();
    Record::string(b"two", None).encode(&mut stored);
    assert_eq!(read, [Some(stored), Some(b"value".to_vec())]);
    assert_eq!((told(&feed).len(), feed.waiting()), (0, Ok((0, 0))));
    claim(&mut writer, &[mine]);
    writer.delete(slot, mine, None);
    let _ = writer.commit().expect("committed");
    let mut gone = told(&feed);
    let now = engine.raw_now(&gone, |record| {
        assert_eq!(record.value, None);
        Ok::<(), EngineError>(())
    });
    now.expect("read");
    // What could not be dealt with is told of again, beside what came since.
    claim(&mut writer, &[mine]);
    put(&mut writer, mine, b"again");
    let _ = writer.commit().expect("committed");
    gone.extend(keys);
    feed.put_back(gone);
    assert_eq!(told(&feed).len(), 2);
    engine.drop_slots([Slot::of_key(other)], SystemBatch::new()).expect("dropped");
    assert!(feed.waiting().is_ok(), "another slot is none of its business");
    engine.drop_slots([slot], SystemBatch::new()).expect("dropped");
    assert_eq!(feed.take(), Err(FeedLost::Replaced(slot)));
}

/// Snapshot, then changes: together they are everything, whatever is written while the subscription is made.
#[test]
fn no_write_falls_between_a_snapshot_and_the_change_feed() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let keys: Vec<Vec<u8>> = (0..50).map(|number| format!("{{one}}{number}").into_bytes()).collect();
    let slots: SlotRanges = [Slot::of_key(&keys[0])].into_iter().collect();
    for round in 0..20u64 {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = {
            let (engine, stop, keys) = (engine.clone(), stop.clone(), keys.clone());
            thread::spawn(move || {
                let mut writer = Writer::new(engine);
                for (written, key) in keys.iter().cycle().enumerate().take_while(|_| !stop.load(Ordering::Relaxed)) {
                    claim(&mut writer, &[key]);
                    put(&mut writer, key, &(round << 32 | written as u64).to_be_bytes());
                    let _ = writer.commit().expect("committed");
                }
            })
        };
        while number(&engine, &keys[9]) >> 32 != round {
            thread::yield_now();
        }
        let feed = engine.subscribe(&slots, 64 << 20);
        let mut copy = BTreeMap::new();
        let mut take_over = |record: RawRecord<'_>| {
            copy.insert(record.key.to_vec(), record.value.map(<[u8]>::to_vec));
            Ok::<(), EngineError>(())
        };
        engine.raw_records(&slots, &mut take_over).expect("read");
        engine.raw_now(&told(&feed), &mut take_over).expect("read");
        stop.store(true, Ordering::Relaxed);
        worker.join().expect("it ends");
        engine.raw_now(&told(&feed), &mut take_over).expect("read");
        let mut now = BTreeMap::new();
        let read = engine.raw_records(&slots, |record| {
            now.insert(record.key.to_vec(), record.value.map(<[u8]>::to_vec));
            Ok::<(), EngineError>(())
        });
        read.expect("read");
        assert!(copy == now, "the copy is not what is there");
    }
}

#[test]
fn a_subscriber_that_does_not_keep_up_is_told_and_holds_nobody_up() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let feed = engine.subscribe(&SlotRanges::full(), 1000);
    let mut writer = Writer::new(engine.clone());
    let mut write = |key: &[u8], value: u8| {
        claim(&mut writer, &[key]);
        put(&mut writer, key, &[value; 100]);
        let _ = writer.commit().expect("committed");
    };
    // One key, however often it is written, is one key.
    (0..100).for_each(|round| write(b"k", round));
    assert_eq!(feed.waiting().map(|(keys, _)| keys), Ok(1));
    (0..100).for_each(|number| write(&[number], number));
    assert_eq!(feed.take(), Err(FeedLost::Overflowed(1000)));
    assert_eq!(value(&engine, b"k"), Some(vec![99; 100]));
    drop(feed);
    let feed = engine.subscribe(&SlotRanges::full(), 1000);
    assert!(told(&feed).is_empty(), "a new subscription begins with nothing");
}

/// Whatever a batch gathers, keys named again and again among it: the database holds what applying one after the other would.
#[test]
fn a_batch_is_what_its_writes_are_one_after_the_other() {
    use proptest::prelude::*;
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let writes = proptest::collection::vec(
        // Keys of one slot and of many, of every length, some of them the beginning of others.
        (
            prop_oneof![Just("{a}"), Just("{b}"), Just("")],
            proptest::collection::vec(0u8..3, 0..4),
            proptest::option::of(0u32..1000),
            any::<bool>(),
        ),
        1..60,
    );
    let mut runner = proptest::test_runner::TestRunner::default();
    let engine_of_case = engine.clone();
    let model = std::cell::RefCell::new(&mut model);
    runner
        .run(&writes, |writes| {
            let (mut model, engine) = (model.borrow_mut(), &engine_of_case);
            let mut writer = Writer::new(engine.clone());
            for (tag, tail, put_value, undone) in writes {
                let key = [tag.as_bytes(), b"k", &tail].concat();
                claim_more(&mut writer, &key);
                let before = writer.gathered();
                match put_value {
                    Some(number) => put(&mut writer, &key, number.to_string().as_bytes()),
                    None => writer.delete(Slot::of_key(&key), &key, None),
                }
                if undone {
                    writer.truncate(before);
                } else {
                    match put_value {
                        Some(number) => drop(model.insert(key, number.to_string().into_bytes())),
                        None => drop(model.remove(&key)),
                    }
                }
            }
            let _ = writer.commit().expect("committed");
            for (key, expected) in model.iter() {
                prop_assert_eq!(value(engine, key), Some(expected.clone()));
            }
            let held: usize = [b"{a}".as_slice(), b"{b}"]
                .iter()
                .map(|tag| engine.slot_usage(Slot::of_key(tag), 0).expect("counted").keys as usize)
                .sum();
            let tagged = model.keys().filter(|key| key.starts_with(b"{a}") || key.starts_with(b"{b}"));
            prop_assert_eq!(held, tagged.count());
            Ok(())
        })
        .expect("no difference");
}

/// Claims one more key for a batch that nobody else contends for.
fn claim_more(writer: &mut Writer, key: &[u8]) {
    assert!(claimed(writer, &[key]), "nobody else writes");
}
