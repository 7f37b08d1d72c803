//! The stored format: data directories that were checked in open as long as there is a Sluice, and hold what they held.
//!
//! `SLUICE_MAKE_FIXTURE=1 cargo test -p sluice-store --test space format` puts what this version writes in their place. That is for bytes
//! that are added before a release; what was released stays as it is, and a new format gets a folder of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sluice_store::engine::{
    Collection, Engine, EngineError, Generation, Kind, MayWrite, RawFamily, RawRecord, Record, Subspace, Sweep, SweepPace,
    SystemBatch,
};
use sluice_topology::Slot;

use crate::engine::{Setup, await_reclaimed, delete, eventually, flush, get_string, put, put_hash, put_string, slot};

/// The first millisecond of the year 2100.
const LATER_MS: u64 = 4_102_444_800_000;
const DEAD_KEYS: u64 = 5;
const VERSIONS: u64 = 3;
const DATA: usize = 1;
/// A hash in its record; what its fields look like there is pinned by `types/packed.rs`.
const PACKED: Collection = Collection { version: 1000, size: 1 };
const PACKED_FIELDS: &[u8] = b"\x00\x01f\x05value";
/// Flush rounds before the end.
const ROUNDS: u64 = 8;
const PACE: SweepPace = SweepPace { keys_per_second: 1_000_000, bytes_per_second: 1 << 30 };
/// How a directory was left.
const KINDS: [&str; 2] = ["closed", "killed"];

fn fixture(kind: &str) -> PathBuf {
    // Asked for when it runs: a target folder that checkouts share may hold this test built for another one.
    let crate_root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    PathBuf::from(crate_root).join("tests/fixtures/format-1").join(kind)
}

fn large_value() -> Vec<u8> {
    (0..10_000u32).map(|number| (number % 251) as u8).collect()
}

fn subkey(version: u64, field: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), field].concat()
}

fn stage(engine: &Engine, at: Slot, records: &[(usize, Vec<u8>, Vec<u8>)]) -> BTreeMap<Slot, Generation> {
    let staged = engine.stage([at], |_| SystemBatch::new()).expect("staged");
    let raw = records.iter().map(|(family, key, value)| {
        let record = RawRecord { family: RawFamily::ALL[*family], slot: at, key, value: Some(value) };
        (staged[&at], record)
    });
    engine
        .put_staged::<EngineError>(|put| raw.into_iter().try_for_each(|(generation, record)| put(generation, record)))
        .expect("written");
    staged
}

fn string_record(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record::string(value, None).encode(&mut bytes);
    bytes
}

/// Writes one of everything there is.
fn make(directory: &Path, kind: &str) {
    let engine = Setup::small(true).open(directory);
    // A long reader holds back to the end what dies. Enough rounds that files are compacted, and the slot table takes little space.
    let reader = engine.long_reader("fixture");
    let before = engine.storage().sst_bytes;
    for _ in 0..ROUNDS - 2 {
        engine.drop_slots([slot(600)], SystemBatch::new()).expect("dropped");
        flush(&engine);
    }
    eventually("they are compacted", || engine.storage().sst_bytes < 100_000);
    assert!(engine.storage().sst_bytes > before);
    // A sweep that has been everywhere knows what expires.
    let sweep = Sweep::start(engine.clone(), PACE, |_| MayWrite::Now, Box::new(|_, _, _, _| Ok((0, None)))).expect("started");
    put(&engine, slot(700), b"expired", Record::string(b"long ago", Some(1)));
    eventually("it has been everywhere", || get_string(&engine, slot(700), b"expired").is_none());
    drop(sweep);
    // Strings, with and without an expiry.
    let strings = slot(100);
    put_string(&engine, strings, b"plain", b"value");
    put_string(&engine, strings, b"", b"of the empty key");
    put_string(&engine, strings, b"\x00\xff\r\n", b"");
    put_string(&engine, strings, b"large", &large_value());
    put(&engine, strings, b"later", Record::string(b"not yet", Some(LATER_MS)));
    put(&engine, strings, b"expired", Record::string(b"long ago", Some(1)));
    // A hash, one that is gone, one that has expired.
    put_hash(&engine, strings, b"hash", &[b"a", b"b"], Some(LATER_MS));
    put_hash(&engine, strings, b"gone", &[b"a", b"b"], None);
    delete(&engine, strings, b"gone");
    put_hash(&engine, strings, b"expired hash", &[b"a"], Some(1));
    // Hashes whose fields are in their records.
    for (key, expires_at_ms) in [(&b"packed"[..], None), (b"packed later", Some(LATER_MS))] {
        let value = Record::collection_value(PACKED, Some(PACKED_FIELDS), &LATER_MS.to_be_bytes());
        put(&engine, strings, key, Record { kind: Kind::Hash, expires_at_ms, packed: true, value: &value });
    }
    // A dropped generation and an aborted one.
    (0..3u8).for_each(|number| put_string(&engine, slot(200), &[number], b"dropped"));
    engine.drop_slots([slot(200)], SystemBatch::new()).expect("dropped");
    put_string(&engine, slot(200), b"after", b"the drop");
    let aborted = [(0, b"aborted".to_vec(), string_record(b"x")), (3, b"aborted".to_vec(), b"x".to_vec())];
    engine.abort(&stage(&engine, slot(500), &aborted), SystemBatch::new()).expect("aborted");
    flush(&engine);
    // A staged generation in every family beside a live one.
    put_string(&engine, slot(300), b"live", b"seen");
    let staged: Vec<_> = (0..4).map(|family| (family, b"staged".to_vec(), string_record(b"unseen"))).collect();
    let _ = stage(&engine, slot(300), &staged);
    // Subkeys of a collection, and of one that is gone, with its reclaim record.
    let mut collections = vec![(DATA, [[0xff; 8], 4u64.to_be_bytes()].concat(), vec![])];
    for version in [4, 5] {
        collections.extend([b"a", b"b"].map(|field| (DATA, subkey(version, field), b"field".to_vec())));
    }
    engine.activate(&stage(&engine, slot(400), &collections), SystemBatch::new()).expect("activated");
    flush(&engine);
    // In the log alone, if nobody closes.
    put_string(&engine, strings, b"last", b"write");
    if kind == "closed" {
        engine.close().expect("closed");
    }
    fs::write(directory.with_extension("ids"), format!("{}\n{}\n", engine.node_id(), engine.instance())).expect("written");
    drop(engine);
    drop(reader);
}

fn held(engine: &Engine, at: Slot) -> Vec<(u8, Vec<u8>)> {
    let mut held = Vec::new();
    let read = engine.raw_records(&at.into(), |record| {
        held.push((record.family.to_byte(), record.key.to_vec()));
        Ok::<(), EngineError>(())
    });
    read.expect("read");
    held
}

/// Opens it and looks at all of it.
fn check(directory: &Path, kind: &str) {
    let engine = Setup::small(true).open(directory);
    let ids = fs::read_to_string(directory.with_extension("ids")).expect("ids");
    assert_eq!(ids, format!("{}\n{}\n", engine.node_id(), engine.instance()));
    let (start, closed) = (engine.start(), kind == "closed");
    assert_eq!(
        (start.created, start.recovered_round, start.clean_shutdown),
        (false, if closed { ROUNDS + 1 } else { ROUNDS }, closed)
    );
    assert!(engine.next_version().expect("a version") > VERSIONS);
    let live = [(100, 1), (200, 2), (300, 1), (400, 2), (500, 1), (600, ROUNDS as u32 - 1), (16383, 1)];
    live.into_iter().for_each(|(number, generation)| assert_eq!(engine.live(slot(number)), Generation(generation)));
    let strings: [(&[u8], &[u8]); 6] = [
        (b"plain", b"value"),
        (b"", b"of the empty key"),
        (b"\x00\xff\r\n", b""),
        (b"large", &large_value()),
        (b"later", b"not yet"),
        (b"last", b"write"),
    ];
    for (key, value) in strings {
        assert_eq!(get_string(&engine, slot(100), key).as_deref(), Some(value), "{key:?}");
    }
    let expiry = |key: &[u8]| engine.get(slot(100), key).expect("read")?.record().expect("a record").expires_at_ms;
    assert_eq!((expiry(b"plain"), expiry(b"later")), (None, Some(LATER_MS)));
    // A compaction that the opening began may have taken it already.
    assert!(matches!(expiry(b"expired"), Some(1) | None));
    let stored = engine.get(slot(100), b"hash").expect("read").expect("it is there");
    let hash = stored.record().expect("a record");
    assert_eq!((hash.kind, hash.expires_at_ms), (Kind::Hash, Some(LATER_MS)));
    assert_eq!(hash.collection(), Ok(Some(Collection { version: 1, size: 2 })));
    for field in [b"a", b"b"] {
        assert_eq!(engine.get_subkey(Subspace::data(slot(100), 1), field).expect("read").as_deref(), Some(&b"field"[..]));
    }
    drop(stored);
    for (key, expires_at_ms) in [(&b"packed"[..], None), (b"packed later", Some(LATER_MS))] {
        let stored = engine.get(slot(100), key).expect("read").expect("it is there");
        let hash = stored.record().expect("a record");
        assert_eq!((hash.kind, hash.packed, hash.expires_at_ms), (Kind::Hash, true, expires_at_ms));
        assert_eq!((hash.collection(), hash.members_expire_at_ms()), (Ok(Some(PACKED)), Some(LATER_MS)));
        assert_eq!(hash.body(), Ok((Some(PACKED_FIELDS), &LATER_MS.to_be_bytes()[..])));
    }
    assert!(engine.get(slot(100), b"gone").expect("read").is_none());
    // What is dead goes, and only that.
    await_reclaimed(&engine);
    assert_eq!(engine.counters().reclaimed_keys, DEAD_KEYS);
    assert_eq!(held(&engine, slot(200)), [(0, b"after".to_vec())]);
    assert_eq!(held(&engine, slot(500)), []);
    // What is staged is out of sight until it is live.
    assert_eq!(held(&engine, slot(300)), [(0, b"live".to_vec())]);
    engine.activate(&BTreeMap::from([(slot(300), Generation(2))]), SystemBatch::new()).expect("activated");
    assert_eq!(held(&engine, slot(300)), [0, 1, 2, 3].map(|family| (family, b"staged".to_vec())));
    // The subkeys of collections that are gone go, those of others stay.
    assert_eq!(held(&engine, slot(400)).len(), 5);
    engine.maintain(|_| MayWrite::Now).expect("started");
    eventually("it is worked off", || engine.counters().reclaim_collections_idle);
    assert_eq!(held(&engine, slot(400)), [b"a", b"b"].map(|field| (1, subkey(5, field))));
    // What has expired goes.
    let sweep = Sweep::start(engine.clone(), PACE, |_| MayWrite::Now, Box::new(|_, _, _, _| Ok((0, None)))).expect("started");
    eventually("it is swept", || get_string(&engine, slot(100), b"expired").is_none());
    eventually("so is the hash", || engine.get(slot(100), b"expired hash").expect("read").is_none());
    eventually("its subkeys are worked off", || engine.counters().reclaim_collections_idle);
    let left: [&[u8]; 9] = [b"", b"\x00\xff\r\n", b"hash", b"large", b"last", b"later", b"packed", b"packed later", b"plain"];
    let fields = [b"a", b"b"].map(|field| (1, subkey(1, field)));
    assert_eq!(held(&engine, slot(100)), [&left.map(|key| (0, key.to_vec()))[..], &fields].concat());
    sweep.stop();
    engine.close().expect("closed");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the fixture") {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        if entry.is_dir() {
            copy(&entry, &to.join(name));
        } else if !["LOG", "LOCK", "OPTIONS"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            // RocksDB's own log, its lock, and options that the engine gives itself are no part of the format.
            fs::copy(&entry, to.join(name)).expect("copied");
        }
    }
}

#[test]
fn what_this_version_writes_it_reads() {
    for kind in KINDS {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join(kind);
        make(&directory, kind);
        if std::env::var_os("SLUICE_MAKE_FIXTURE").is_some() {
            let _ = fs::remove_dir_all(fixture(kind));
            copy(&directory, &fixture(kind));
            fs::copy(directory.with_extension("ids"), fixture(kind).with_extension("ids")).expect("copied");
        }
        check(&directory, kind);
    }
}

#[test]
fn directories_of_format_1_open_and_hold_what_they_held() {
    for kind in KINDS {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join(kind);
        copy(&fixture(kind), &directory);
        fs::copy(fixture(kind).with_extension("ids"), directory.with_extension("ids")).expect("the fixture");
        check(&directory, kind);
    }
}
