//! Collections that are gone: their subkeys go, and nobody else's.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use sluice_store::engine::{Engine, EngineError, Generation, MayWrite, RawFamily, RawRecord, SystemBatch};
use sluice_topology::Slot;

use crate::engine::{Noise, Setup, delete, disk_bytes, eventually, flush, put_hash, slot};

const DATA: usize = 1;

/// Subkeys of a collection, or its reclaim record, brought by an import as they are stored.
fn import(engine: &Engine, at: Slot, records: &[(usize, Vec<u8>, Vec<u8>)]) -> BTreeMap<Slot, Generation> {
    let staged = engine.stage([at], |_| SystemBatch::new()).expect("staged");
    add(engine, &staged, at, records);
    staged
}

fn add(engine: &Engine, staged: &BTreeMap<Slot, Generation>, at: Slot, records: &[(usize, Vec<u8>, Vec<u8>)]) {
    let raw = records.iter().map(|(family, key, value)| {
        let record = RawRecord { family: RawFamily::ALL[*family], slot: at, key, value: Some(value) };
        (staged[&at], record)
    });
    engine
        .put_staged::<EngineError>(|put| raw.into_iter().try_for_each(|(generation, record)| put(generation, record)))
        .expect("written");
}

fn subkey(version: u64, field: u32) -> Vec<u8> {
    [&version.to_be_bytes()[..], &field.to_be_bytes()].concat()
}

fn reclaim_record(version: u64) -> (usize, Vec<u8>, Vec<u8>) {
    (DATA, [[0xff; 8], version.to_be_bytes()].concat(), vec![])
}

fn fields(version: u64, count: u32, family: usize) -> Vec<(usize, Vec<u8>, Vec<u8>)> {
    (0..count).map(|field| (family, subkey(version, field), b"value".to_vec())).collect()
}

fn held(engine: &Engine, at: Slot) -> Vec<(RawFamily, Vec<u8>)> {
    let mut held = Vec::new();
    let read = engine.raw_records(&at.into(), |record| {
        held.push((record.family, record.key.to_vec()));
        Ok::<(), EngineError>(())
    });
    read.expect("read");
    held
}

fn await_idle(engine: &Engine) {
    eventually("collections are worked off", || engine.counters().reclaim_collections_idle);
}

#[test]
fn subkeys_of_what_is_gone_are_deleted_and_no_others() {
    for wal in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = Setup::small(wal).open(root.path());
        engine.maintain(|_| MayWrite::Now).expect("started");
        await_idle(&engine);
        // Version 7 is gone, in three families; 6 and 8 are its neighbours. Of 9 the record is all there is.
        let mut records = vec![reclaim_record(7), reclaim_record(9)];
        for family in 1..4 {
            for (version, count) in [(6, 3), (7, 2500), (8, 3)] {
                records.extend(fields(version, count, family));
            }
        }
        let staged = import(&engine, slot(3), &records);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(engine.counters().reclaimed_subkeys, 0, "what is staged is nobody's to write to");
        engine.activate(&staged, SystemBatch::new()).expect("activated");
        eventually("the records are gone", || held(&engine, slot(3)).len() == 3 * 6);
        await_idle(&engine);
        assert_eq!(engine.counters().reclaimed_subkeys, 3 * 2500);
        let versions: Vec<u8> = held(&engine, slot(3)).iter().map(|(_, key)| key[7]).collect();
        assert_eq!(versions, [6, 6, 6, 8, 8, 8].repeat(3));
    }
}

#[test]
fn many_small_hashes_are_worked_off_together() {
    const HASHES: u32 = 20_000;
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    engine.maintain(|_| MayWrite::Now).expect("started");
    for number in 0..HASHES {
        put_hash(&engine, slot((number % 7) as u16), &number.to_be_bytes(), &[b"a", b"b"], None);
    }
    for number in (0..HASHES).filter(|number| number % 2 == 0) {
        delete(&engine, slot((number % 7) as u16), &number.to_be_bytes());
    }
    eventually("they are deleted", || engine.counters().reclaimed_subkeys == u64::from(HASHES));
    await_idle(&engine);
    let left: usize = (0..7).map(|number| held(&engine, slot(number)).len()).sum();
    assert_eq!(left, 3 * HASHES as usize / 2, "a record and two fields of every other one");
}

#[test]
fn what_a_start_finds_is_worked_off_in_every_slot() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let slots = [0, 1, 77, 5000, 16383];
    for number in slots {
        let mut records = fields(u64::from(number) + 1, 10, DATA);
        records.extend(fields(40_000, 1, DATA));
        records.push(reclaim_record(u64::from(number) + 1));
        engine.activate(&import(&engine, slot(number), &records), SystemBatch::new()).expect("activated");
    }
    drop(engine);
    let engine = Setup::small(true).open(root.path());
    thread::sleep(Duration::from_millis(100));
    assert_eq!(engine.counters().reclaimed_subkeys, 0, "nothing is written before it is allowed");
    engine.maintain(|_| MayWrite::Now).expect("started");
    await_idle(&engine);
    assert_eq!(engine.counters().reclaimed_subkeys, 10 * slots.len() as u64);
    for number in slots {
        assert_eq!(held(&engine, slot(number)).len(), 1, "slot {number}");
    }
}

#[test]
fn a_parked_slot_waits_and_one_that_left_is_not_written_to() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let may = Arc::new(AtomicU8::new(0));
    let asked = may.clone();
    engine
        .maintain(move |at| match (at.get(), asked.load(Ordering::SeqCst)) {
            (3, 0) => MayWrite::Later,
            (4, 0 | 1) => MayWrite::No,
            _ => MayWrite::Now,
        })
        .expect("started");
    for number in [3, 4] {
        let records = [fields(7, 10, DATA), vec![reclaim_record(7)]].concat();
        engine.activate(&import(&engine, slot(number), &records), SystemBatch::new()).expect("activated");
    }
    thread::sleep(Duration::from_millis(300));
    assert_eq!(held(&engine, slot(3)).len(), 11, "it is being copied");
    may.store(1, Ordering::SeqCst);
    eventually("it is served again", || held(&engine, slot(3)).is_empty());
    assert_eq!(held(&engine, slot(4)).len(), 11, "it is not served here");
    // A slot that has just arrived is looked at before it is served: it is not forgotten for that.
    may.store(2, Ordering::SeqCst);
    await_idle(&engine);
    assert_eq!(held(&engine, slot(4)), []);
}

#[test]
fn a_long_reader_keeps_the_subkeys_it_may_read() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    engine.maintain(|_| MayWrite::Now).expect("started");
    await_idle(&engine);
    let records = [fields(7, 10, DATA), vec![reclaim_record(7)]].concat();
    let staged = import(&engine, slot(3), &records);
    let reader = engine.long_reader("test");
    engine.activate(&staged, SystemBatch::new()).expect("activated");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(held(&engine, slot(3)).len(), 11);
    drop(reader);
    await_idle(&engine);
    assert_eq!(held(&engine, slot(3)), []);
}

#[test]
fn the_bytes_of_a_million_fields_leave_the_disk() {
    const FIELDS: u32 = 1_000_000;
    for wal in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = Setup { wal, row_cache: 0, write_buffer: 8 << 20 }.open(root.path());
        engine.maintain(|_| MayWrite::Now).expect("started");
        let staged = import(&engine, slot(3), &fields(8, 100, DATA));
        let (mut noise, mut value) = (Noise::new(2), vec![0; 64]);
        for first in (0..FIELDS).step_by(10_000) {
            let records: Vec<_> = (first..first + 10_000)
                .map(|field| {
                    noise.fill(&mut value);
                    (DATA, subkey(7, field), value.clone())
                })
                .collect();
            add(&engine, &staged, slot(3), &records);
        }
        add(&engine, &staged, slot(3), &[reclaim_record(7)]);
        flush(&engine);
        let full = disk_bytes(root.path());
        assert!(full > 64 * u64::from(FIELDS), "{full} bytes on disk");
        engine.activate(&staged, SystemBatch::new()).expect("activated");
        eventually("they are deleted", || engine.counters().reclaimed_subkeys == u64::from(FIELDS));
        await_idle(&engine);
        // What the log holds of the deletions leaves with the next flush.
        flush(&engine);
        eventually("the disk shrinks", || disk_bytes(root.path()) < full / 8);
        println!("wal {wal}: {full} bytes on disk, {} left", disk_bytes(root.path()));
        assert_eq!(held(&engine, slot(3)).len(), 100);
    }
}
