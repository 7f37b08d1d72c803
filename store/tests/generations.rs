//! Generations: what is staged is invisible, what is dropped never comes back, and its space does.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_store::engine::{
    Engine, EngineError, EngineOptions, Generation, RawFamily, RawRecord, Record, SystemBatch, SystemKind, Writer,
};
use sluice_topology::Slot;

const KEY: &[u8] = b"{slot}key";

fn open(directory: &Path, wal: bool) -> Result<Arc<Engine>, EngineError> {
    Engine::open(EngineOptions { wal, ..EngineOptions::at(directory) }).map(Arc::new)
}

fn slot() -> Slot {
    Slot::of_key(KEY)
}

fn put(engine: &Arc<Engine>, key: &[u8], value: &[u8]) {
    let mut writer = Writer::new(engine.clone());
    writer.enter();
    assert!(writer.try_claim([(slot(), key)].into_iter(), false).expect("taken"));
    writer.put(slot(), key, &Record::string(value, None), None);
    let _ = writer.commit().expect("written");
}

fn get(engine: &Engine, key: &[u8]) -> Option<Vec<u8>> {
    let stored = engine.get(slot(), key).expect("read")?;
    Some(stored.record().expect("a record").value.to_vec())
}

fn stage(engine: &Engine, value: &[u8]) -> BTreeMap<Slot, Generation> {
    let staged = engine.stage([slot()], |_| SystemBatch::new()).expect("staged");
    let mut record = Vec::new();
    Record::string(value, None).encode(&mut record);
    let raw = RawRecord { family: RawFamily::ALL[0], slot: slot(), key: KEY, value: Some(&record) };
    engine
        .put_staged::<EngineError>(|put| {
            [(staged[&slot()], raw)].into_iter().try_for_each(|(generation, record)| put(generation, record))
        })
        .expect("written");
    staged
}

fn await_reclaimed(engine: &Engine) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while engine.counters().reclaim_pending > 0 {
        assert!(Instant::now() < deadline, "dead generations are not worked off");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn staged_data_is_invisible_until_it_is_activated() {
    for wal in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = open(root.path(), wal).expect("opened");
        put(&engine, KEY, b"old");
        put(&engine, b"{slot}gone", b"old");
        let staged = stage(&engine, b"new");
        assert_eq!(get(&engine, KEY).as_deref(), Some(&b"old"[..]));
        assert_eq!(engine.slot_usage(slot(), 0).expect("counted").keys, 2);
        engine.activate(&staged, SystemBatch::new()).expect("activated");
        assert_eq!(get(&engine, KEY).as_deref(), Some(&b"new"[..]));
        assert_eq!(get(&engine, b"{slot}gone"), None);
        await_reclaimed(&engine);
        assert_eq!(engine.counters().reclaimed_keys, 2);
        engine.close().expect("closed");
        drop(engine);
        let engine = open(root.path(), wal).expect("opened again");
        assert_eq!(get(&engine, KEY).as_deref(), Some(&b"new"[..]));
    }
}

#[test]
fn what_is_aborted_or_dropped_never_comes_back() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true).expect("opened");
    put(&engine, KEY, b"kept");
    let staged = stage(&engine, b"aborted");
    engine.abort(&staged, SystemBatch::new()).expect("aborted");
    assert!(engine.activate(&staged, SystemBatch::new()).is_err(), "an aborted generation was activated");
    assert_eq!(get(&engine, KEY).as_deref(), Some(&b"kept"[..]));
    for round in 0..5u8 {
        engine.drop_slots([slot()], SystemBatch::new()).expect("dropped");
        assert_eq!(get(&engine, KEY), None);
        put(&engine, KEY, &[round]);
    }
    drop(engine);
    let engine = open(root.path(), true).expect("opened again");
    assert_eq!(get(&engine, KEY).as_deref(), Some(&[4][..]));
    await_reclaimed(&engine);
    assert_eq!(engine.slot_usage(slot(), 0).expect("counted").keys, 1);
}

#[test]
fn a_flush_touches_only_slots_that_hold_keys() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true).expect("opened");
    put(&engine, KEY, b"x");
    let empty = Slot::all().find(|other| *other != slot()).expect("another slot");
    let before = (engine.live(slot()), engine.live(empty));
    assert!(engine.flush_slots(&[0], Slot::all(), || true).expect("flushed"));
    assert_eq!(get(&engine, KEY), None);
    assert_eq!((engine.live(slot()), engine.live(empty)), (before.0.next().expect("a generation"), before.1));
}

#[test]
fn a_lost_or_damaged_row_refuses_to_start() {
    let root = tempfile::tempdir().expect("a directory");
    let row = |slot: u16| [&[0][..], &slot.to_be_bytes()].concat();
    for (spoil, expected) in
        [(None, "lacks the row of slot 77"), (Some(vec![1, 2, 3, 4, 5, 6]), "row of slot 77 fails its checksum")]
    {
        let directory = root.path().join(expected);
        let engine = open(&directory, true).expect("opened");
        let mut batch = SystemBatch::new();
        match spoil {
            None => batch.delete(SystemKind::SlotRow, &row(77)),
            Some(bytes) => batch.put(SystemKind::SlotRow, &row(77), bytes),
        }
        engine.write_system(batch).expect("written");
        drop(engine);
        let error = open(&directory, true).err().expect("it has to be refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_space_of_a_dropped_slot_comes_back() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true).expect("opened");
    // Bytes that do not compress, so that the data outweigh the slot table by far.
    let mut noise = 1u64;
    for number in 0..20_000u32 {
        let value: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        })
        .take(256)
        .collect();
        put(&engine, format!("{{slot}}{number}").as_bytes(), &value);
    }
    let _ = engine.flush(false).expect("asked").receipt_blocking().expect("flushed");
    let full = engine.storage().sst_bytes;
    engine.drop_slots([slot()], SystemBatch::new()).expect("dropped");
    await_reclaimed(&engine);
    assert_eq!(engine.counters().reclaimed_keys, 20_000);
    // Deletions meet what they delete in compactions, which flushes bring about; nothing else is written here.
    let deadline = Instant::now() + Duration::from_mins(1);
    while engine.storage().sst_bytes > full / 10 {
        assert!(Instant::now() < deadline, "{} of {full} bytes are still there", engine.storage().sst_bytes);
        for number in 0..100u32 {
            put(&engine, format!("{{slot}}{number}").as_bytes(), b"again");
        }
        let _ = engine.flush(false).expect("asked").receipt_blocking().expect("flushed");
    }
}

#[test]
fn a_drop_takes_nothing_from_a_reader_that_began_before_it() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true).expect("opened");
    for number in 0..3000u32 {
        put(&engine, format!("{{slot}}{number}").as_bytes(), b"value");
    }
    let reader = engine.long_reader("test");
    assert_eq!(engine.long_readers(), ["test"]);
    let mut read = 0;
    let outcome = engine.raw_records(&slot().into(), |_| {
        if read == 10 {
            engine.drop_slots([slot()], SystemBatch::new())?;
            put(&engine, KEY, b"after");
        }
        read += 1;
        Ok::<(), EngineError>(())
    });
    outcome.expect("read to the end");
    assert_eq!(read, 3000);
    // What died under the reader waits for it; what dies later than another reader's end does not.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((engine.counters().reclaim_pending, engine.counters().reclaimed_keys), (1, 0));
    let later = engine.long_reader("later");
    drop(reader);
    await_reclaimed(&engine);
    assert_eq!(engine.counters().reclaimed_keys, 3000);
    drop(later);
    assert_eq!(get(&engine, KEY).as_deref(), Some(&b"after"[..]));
}
