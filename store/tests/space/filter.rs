//! Compactions with the filter on take only what is explicitly dead.

use std::{collections::BTreeMap, thread, time::Duration};

use sluice_store::engine::{
    Collection, Engine, EngineError, Generation, Kind, RawFamily, RawRecord, Record, SystemBatch, SystemKind,
};
use sluice_topology::Slot;

use crate::engine::{Setup, await_reclaimed, eventually, flush, get_string, put, put_string, slot};

/// More keys than are deleted one by one: their range is compacted, the filter on.
const MANY: u32 = 6000;

fn stage(engine: &Engine, at: Slot, keys: u32, record: Record<'_>) -> BTreeMap<Slot, Generation> {
    let staged = engine.stage([at], |_| SystemBatch::new()).expect("staged");
    add_staged(engine, &staged, at, 0..keys, record);
    staged
}

fn add_staged(engine: &Engine, staged: &BTreeMap<Slot, Generation>, at: Slot, keys: std::ops::Range<u32>, record: Record<'_>) {
    let mut value = Vec::new();
    record.encode(&mut value);
    for number in keys {
        for family in RawFamily::ALL {
            let raw = RawRecord { family, slot: at, key: &number.to_be_bytes(), value: Some(&value) };
            engine
                .put_staged::<EngineError>(|put| {
                    [(staged[&at], raw)].into_iter().try_for_each(|(generation, record)| put(generation, record))
                })
                .expect("written");
        }
    }
}

fn fill(engine: &std::sync::Arc<Engine>, at: Slot, value: &[u8]) {
    (0..MANY).for_each(|number| put_string(engine, at, &number.to_be_bytes(), value));
}

fn records(engine: &Engine, at: Slot) -> usize {
    let mut count = 0;
    let counted = engine.raw_records(&at.into(), |_| {
        count += 1;
        Ok::<(), EngineError>(())
    });
    counted.expect("read");
    count
}

#[test]
fn a_filter_run_during_a_staged_import_takes_nothing_of_it() {
    for wal in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = Setup::small(wal).open(root.path());
        fill(&engine, slot(5), b"dropped");
        // Expired long ago: what is staged stays as it came all the same.
        let imported = Record::string(b"imported", Some(1));
        let staged = stage(&engine, slot(5), MANY, imported);
        flush(&engine);
        // The range below the staged one dies and is compacted: the same files hold both.
        engine.drop_slots([slot(5)], SystemBatch::new()).expect("dropped");
        await_reclaimed(&engine);
        assert!(engine.counters().reclaimed_keys >= u64::from(MANY));
        add_staged(&engine, &staged, slot(5), MANY..MANY + 10, imported);
        flush(&engine);
        assert_eq!(records(&engine, slot(5)), 0, "staged data is in sight");
        engine.activate(&staged, SystemBatch::new()).expect("activated");
        assert_eq!(records(&engine, slot(5)), 4 * (MANY as usize + 10));
    }
}

#[test]
fn an_aborted_import_gives_its_space_back_and_nothing_else() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup { row_cache: 1 << 20, ..Setup::small(true) }.open(root.path());
    fill(&engine, slot(5), b"live");
    let record = Record::string(b"imported", None);
    let (aborted, kept) = (stage(&engine, slot(5), MANY, record), stage(&engine, slot(5), MANY, record));
    flush(&engine);
    engine.abort(&aborted, SystemBatch::new()).expect("aborted");
    await_reclaimed(&engine);
    assert_eq!(records(&engine, slot(5)), MANY as usize);
    engine.activate(&kept, SystemBatch::new()).expect("activated");
    await_reclaimed(&engine);
    assert_eq!(records(&engine, slot(5)), 4 * MANY as usize);
    let late = RawRecord { family: RawFamily::ALL[0], slot: slot(5), key: b"late", value: Some(b"x".as_slice()) };
    let error = engine
        .put_staged::<EngineError>(|put| {
            [(aborted[&slot(5)], late)].into_iter().try_for_each(|(generation, record)| put(generation, record))
        })
        .expect_err("it is not staged any more");
    assert!(error.to_string().contains("not staged"), "{error}");
}

#[test]
fn what_a_long_reader_sees_outlives_the_drop_until_the_reader_ends() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    fill(&engine, slot(5), b"value");
    flush(&engine);
    let reader = engine.long_reader("test");
    let mut read = 0;
    let outcome = engine.raw_records(&slot(5).into(), |_| {
        if read == 100 {
            engine.drop_slots([slot(5)], SystemBatch::new())?;
            fill(&engine, slot(5), b"after");
            flush(&engine);
        }
        read += 1;
        Ok::<(), EngineError>(())
    });
    outcome.expect("read to the end");
    assert_eq!(read, MANY);
    thread::sleep(Duration::from_millis(300));
    assert_eq!((engine.counters().reclaim_pending, engine.counters().reclaimed_keys), (1, 0));
    drop(reader);
    await_reclaimed(&engine);
    assert_eq!(engine.counters().reclaimed_keys, u64::from(MANY));
    assert_eq!(records(&engine, slot(5)), MANY as usize);
}

#[test]
fn what_a_start_finds_dead_is_worked_off_and_what_is_in_use_never() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    fill(&engine, slot(5), b"value");
    flush(&engine);
    let reader = engine.long_reader("until the end of the process");
    engine.drop_slots([slot(5)], SystemBatch::new()).expect("dropped");
    put_string(&engine, slot(5), b"after", b"kept");
    drop(engine);
    drop(reader);
    let engine = Setup::small(true).open(root.path());
    await_reclaimed(&engine);
    assert_eq!(engine.counters().reclaimed_keys, u64::from(MANY));
    assert_eq!(get_string(&engine, slot(5), b"after").as_deref(), Some(&b"kept"[..]));
    // A record that calls the live generation dead is damage, and no order.
    let live = engine.live(slot(5)).0;
    let mut batch = SystemBatch::new();
    batch.put(SystemKind::Dead, &[&[0, 0, 5][..], &live.to_be_bytes()].concat(), Vec::new());
    engine.write_system(batch).expect("written");
    drop(engine);
    let error = Setup::small(true).try_open(root.path()).err().expect("it has to be refused").to_string();
    assert!(error.contains("slot 5 is said to be dead and is in use"), "{error}");
}

#[test]
fn records_that_have_expired_leave_with_a_compaction() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let now = engine.now_ms();
    // Half of them small hashes; what has subkeys stays, or these would.
    let fields = Collection { version: 1, size: 1 };
    let (packed, subkeys) = (Record::collection_value(fields, Some(b"\x00\x01f\x00"), b""), fields.encode());
    let hash = |packed, value| Record { kind: Kind::Hash, expires_at_ms: Some(now), packed, value };
    for number in 0..MANY {
        let expired = if number % 2 == 0 { hash(true, &packed) } else { Record::string(b"expired", Some(now)) };
        put(&engine, slot(4), &number.to_be_bytes(), expired);
        put(&engine, slot(3), &number.to_be_bytes(), hash(false, &subkeys));
        put(&engine, slot(6), &number.to_be_bytes(), Record::string(b"later", Some(now + 3_600_000)));
    }
    fill(&engine, slot(5), b"dropped");
    flush(&engine);
    // Compactions of the dead range between them rewrite the neighbours as well.
    engine.drop_slots([slot(5)], SystemBatch::new()).expect("dropped");
    await_reclaimed(&engine);
    assert!(engine.counters().expired_compacted_keys > 0);
    assert_eq!(records(&engine, slot(6)), MANY as usize);
    eventually("all of them have left", || {
        fill(&engine, slot(5), b"again");
        flush(&engine);
        engine.drop_slots([slot(5)], SystemBatch::new()).expect("dropped");
        await_reclaimed(&engine);
        records(&engine, slot(4)) == 0
    });
    assert_eq!(engine.counters().expired_compacted_keys, u64::from(MANY));
    assert_eq!(records(&engine, slot(3)), MANY as usize);
}
