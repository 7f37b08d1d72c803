//! Disk usage, measured as the size of the directory.

use std::{ops::Range, sync::Arc, time::Instant};

use sluice_store::engine::{Engine, EngineError, RawFamily, RawRecord, Record, SystemBatch};

use crate::engine::{Noise, Setup, await_reclaimed, disk_bytes, eventually, flush, get_string, put_string, slot};

const VALUE_BYTES: usize = 8 << 10;

/// Mebibytes that are written and dropped; `SLUICE_TEST_DROP_MIB=1024` for the full measure.
fn dropped_mib() -> usize {
    std::env::var("SLUICE_TEST_DROP_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(96)
}

fn fill(engine: &Arc<Engine>, slots: Range<u16>, bytes: usize) {
    let (mut noise, mut value) = (Noise::new(1), vec![0; VALUE_BYTES]);
    for number in 0..bytes / VALUE_BYTES {
        noise.fill(&mut value);
        let at = slots.start + (number % slots.len()) as u16;
        put_string(engine, slot(at), &number.to_be_bytes(), &value);
    }
}

/// Fills slots, drops them, and waits until their bytes have left the disk. A neighbour on either side keeps what it has.
fn drop_gives_space_back(name: &str, setup: Setup, slots: Range<u16>) {
    let root = tempfile::tempdir().expect("a directory");
    let engine = setup.open(root.path());
    let bytes = dropped_mib() << 20;
    let (before, after) = (slots.start - 1, slots.end);
    fill(&engine, before..before + 1, 1 << 20);
    fill(&engine, after..after + 1, 1 << 20);
    fill(&engine, slots.clone(), bytes);
    flush(&engine);
    let full = disk_bytes(root.path());
    assert!(full > bytes as u64, "{full} bytes on disk of {bytes} written");
    let started = Instant::now();
    engine.drop_slots(slots.clone().map(slot), SystemBatch::new()).expect("dropped");
    await_reclaimed(&engine);
    // The neighbours, and what is compacted away but still open.
    eventually("the disk shrinks", || disk_bytes(root.path()) < full / 16 + (4 << 20));
    let (took, left) = (started.elapsed(), disk_bytes(root.path()));
    let keys = engine.counters().reclaimed_keys;
    println!("{name}: {full} bytes on disk, {left} left after {took:?}; {keys} keys reclaimed");
    for neighbour in [before, after] {
        let kept = engine.slot_usage(slot(neighbour), 0).expect("counted").keys;
        assert_eq!(kept, (1 << 20) / VALUE_BYTES as u64, "slot {neighbour}");
    }
    for dropped in slots {
        assert_eq!(engine.slot_usage(slot(dropped), 0).expect("counted").keys, 0);
    }
    drop(engine);
    let engine = setup.open(root.path());
    assert_eq!(engine.counters().reclaim_pending, 0, "nothing is left to do for the next start");
    if setup.wal {
        assert!(get_string(&engine, slot(before), &0usize.to_be_bytes()).is_some());
    }
}

#[test]
fn the_bytes_of_one_large_slot_leave_the_disk() {
    let setup = Setup { wal: true, row_cache: 8 << 20, write_buffer: 16 << 20 };
    drop_gives_space_back("one slot", setup, 100..101);
}

#[test]
fn the_bytes_of_many_slots_leave_the_disk_without_a_log() {
    let setup = Setup { wal: false, row_cache: 0, write_buffer: 16 << 20 };
    drop_gives_space_back("64 slots, no log", setup, 100..164);
}

/// Makes a generation live that holds those records in one family.
fn arrive(engine: &Engine, family: RawFamily, records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    let staged = engine.stage([slot(100)], |_| SystemBatch::new()).expect("staged");
    for (key, value) in records {
        let record = RawRecord { family, slot: slot(100), key: &key, value: Some(&value) };
        engine
            .put_staged::<EngineError>(|put| {
                [(staged[&slot(100)], record)].into_iter().try_for_each(|(generation, record)| put(generation, record))
            })
            .expect("written");
    }
    engine.activate(&staged, SystemBatch::new()).expect("activated");
}

#[test]
fn the_first_key_of_the_next_generation_survives_though_its_file_is_the_dead_ones() {
    const BYTES: usize = 160 << 20;
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup { wal: false, row_cache: 0, write_buffer: 16 << 20 }.open(root.path());
    let reader = engine.long_reader("until the files hold both");
    // In a family where nothing is behind it, so that a file ends with it.
    let family = RawFamily::ALL[2];
    let (mut noise, mut value) = (Noise::new(4), vec![0; VALUE_BYTES]);
    let many = (0..BYTES / VALUE_BYTES).map(|number| {
        noise.fill(&mut value);
        (number.to_be_bytes().to_vec(), value.clone())
    });
    arrive(&engine, family, many);
    // The empty key is stored as nothing but its slot and generation: exactly where the dead range ends, in the last of its files.
    arrive(&engine, family, [(Vec::new(), b"kept".to_vec())].into_iter());
    flush(&engine);
    engine.begin_compaction().expect("it is open").expect("none is running").run();
    drop(reader);
    await_reclaimed(&engine);
    eventually("the disk shrinks", || engine.storage().sst_bytes < (BYTES / 16) as u64);
    let mut held = Vec::new();
    let read = engine.raw_records(&slot(100).into(), |record| {
        held.push((record.family, record.key.to_vec(), record.value.expect("it is stored").to_vec()));
        Ok::<(), EngineError>(())
    });
    read.expect("read");
    assert_eq!(held, [(family, Vec::new(), b"kept".to_vec())]);
}

#[test]
fn a_flush_of_everything_gives_all_space_back() {
    let root = tempfile::tempdir().expect("a directory");
    let setup = Setup { wal: true, row_cache: 0, write_buffer: 4 << 20 };
    let engine = setup.open(root.path());
    // Many slots with little in each: no file belongs to one of them, and each has few keys.
    fill(&engine, 0..2000, 64 << 20);
    flush(&engine);
    let full = disk_bytes(root.path());
    assert!(engine.flush_slots(&[0], sluice_topology::Slot::all(), || true).expect("flushed"));
    put_string(&engine, slot(7), b"after", b"kept");
    await_reclaimed(&engine);
    eventually("the disk shrinks", || {
        flush(&engine);
        disk_bytes(root.path()) < full / 8
    });
    assert_eq!(get_string(&engine, slot(7), b"after").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn neighbours_that_leave_one_after_another_take_their_files_along_and_nothing_else() {
    const STAYS: u16 = 450;
    const COMES_BACK: u16 = 300;
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup { wal: true, row_cache: 0, write_buffer: 4 << 20 }.open(root.path());
    fill(&engine, 0..600, 96 << 20);
    flush(&engine);
    engine.begin_compaction().expect("it is open").expect("none is running").run();
    let full = disk_bytes(root.path());
    let staged = engine.stage([slot(COMES_BACK)], |_| SystemBatch::new()).expect("staged");
    let mut record = Vec::new();
    Record::string(b"back", None).encode(&mut record);
    let come = |key: &[u8]| {
        let record = RawRecord { family: RawFamily::ALL[0], slot: slot(COMES_BACK), key, value: Some(&record) };
        engine.put_staged::<EngineError>(|put| put(staged[&slot(COMES_BACK)], record)).expect("written");
    };
    come(b"first");
    let held = engine.hold_reclaim();
    for unit in 0..6 {
        let leaving = (unit * 100..(unit + 1) * 100).filter(|number| *number != STAYS).map(slot);
        engine.drop_slots(leaving, SystemBatch::new()).expect("dropped");
    }
    flush(&engine);
    assert_eq!(engine.counters().reclaim_pending, 599, "held back");
    drop(held);
    await_reclaimed(&engine);
    eventually("the disk shrinks", || disk_bytes(root.path()) < full / 8);
    come(b"second");
    engine.activate(&staged, SystemBatch::new()).expect("activated");
    for key in [&b"first"[..], b"second"] {
        assert_eq!(get_string(&engine, slot(COMES_BACK), key).as_deref(), Some(&b"back"[..]));
    }
    assert_eq!(engine.slot_usage(slot(COMES_BACK), 0).expect("counted").keys, 2);
    let kept = (0..96usize << 20 >> 13).filter(|number| number % 600 == usize::from(STAYS)).count() as u64;
    assert_eq!(engine.slot_usage(slot(STAYS), 0).expect("counted").keys, kept);
}

#[test]
fn what_never_held_anything_leaves_nothing_to_give_back() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let held = engine.hold_reclaim();
    let staged = engine.stage([slot(1), slot(2)], |_| SystemBatch::new()).expect("staged");
    engine.abort(&[(slot(1), staged[&slot(1)])].into(), SystemBatch::new()).expect("aborted");
    engine.activate(&[(slot(2), staged[&slot(2)])].into(), SystemBatch::new()).expect("activated");
    engine.drop_slots([slot(1), slot(2), slot(3)], SystemBatch::new()).expect("dropped");
    assert_eq!(engine.counters().reclaim_pending, 0);
    put_string(&engine, slot(3), b"key", b"value");
    engine.drop_slots([slot(3)], SystemBatch::new()).expect("dropped");
    assert_eq!(engine.counters().reclaim_pending, 1);
    drop(held);
    await_reclaimed(&engine);
}
