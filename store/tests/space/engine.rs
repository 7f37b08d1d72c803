//! An engine in a directory, and what the tests do to it.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_store::engine::{Collection, Engine, EngineError, EngineOptions, Kind, Record, Subspace, SyncPolicy, Writer};
use sluice_topology::Slot;

/// How an engine is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) wal: bool,
    pub(crate) row_cache: usize,
    pub(crate) write_buffer: usize,
}

impl Setup {
    /// Small memtables, no row cache.
    pub(crate) fn small(wal: bool) -> Self {
        Self { wal, row_cache: 0, write_buffer: 1 << 20 }
    }

    pub(crate) fn open(self, directory: &Path) -> Arc<Engine> {
        Arc::new(self.try_open(directory).expect("opened"))
    }

    pub(crate) fn try_open(self, directory: &Path) -> Result<Engine, EngineError> {
        Engine::open(EngineOptions {
            directory: directory.to_owned(),
            wal: self.wal,
            sync: SyncPolicy::No,
            block_cache_bytes: 32 << 20,
            packed_bytes_max: 512,
            record_cache_bytes: 1 << 20,
            row_cache_bytes: self.row_cache,
            write_buffer_bytes: self.write_buffer,
            memtables_bytes: self.write_buffer * 4,
            wal_bytes_max: 512 << 20,
            background_jobs: 2,
            open_files_max: 200,
            tuning: sluice_store::engine::Tuning::default(),
            wal_point_in_time: false,
            checkpoints_directory: None,
            checkpoints_kept: 1,
            disk_free_min: 0,
            reserve_bytes: 0,
        })
    }
}

/// Gathers writes of one key and commits them.
pub(crate) fn write(engine: &Arc<Engine>, slot: Slot, key: &[u8], gather: impl FnOnce(&mut Writer)) {
    let mut writer = Writer::new(engine.clone());
    writer.enter();
    while !writer.try_claim([(slot, key)].into_iter(), false).expect("taken") {
        let _ = writer.commit().expect("nothing was gathered");
        writer.claim([(slot, key)].into_iter(), &|| false);
        writer.enter();
    }
    gather(&mut writer);
    let _ = writer.commit().expect("written");
}

pub(crate) fn put(engine: &Arc<Engine>, slot: Slot, key: &[u8], record: Record<'_>) {
    write(engine, slot, key, |writer| writer.put(slot, key, &record, None));
}

/// A hash of those fields, each with the value `field`; returns its version.
pub(crate) fn put_hash(engine: &Arc<Engine>, slot: Slot, key: &[u8], fields: &[&[u8]], expires_at_ms: Option<u64>) -> u64 {
    let version = engine.next_version().expect("a version");
    let body = Collection { version, size: fields.len() as u64 }.encode();
    write(engine, slot, key, |writer| {
        writer.put(slot, key, &Record { kind: Kind::Hash, expires_at_ms, packed: false, value: &body }, None);
        fields.iter().for_each(|field| writer.put_subkey(Subspace::data(slot, version), field, b"field"));
    });
    version
}

/// Deletes a key, and what it holds.
pub(crate) fn delete(engine: &Arc<Engine>, slot: Slot, key: &[u8]) {
    write(engine, slot, key, |writer| {
        if let Some(stored) = engine.get(slot, key).expect("read") {
            writer.delete(slot, key, stored.record().expect("a record").discarded().expect("a collection or a string"));
        }
    });
}

pub(crate) fn put_string(engine: &Arc<Engine>, slot: Slot, key: &[u8], value: &[u8]) {
    put(engine, slot, key, Record::string(value, None));
}

/// A string's value, expired or not.
pub(crate) fn get_string(engine: &Engine, slot: Slot, key: &[u8]) -> Option<Vec<u8>> {
    let stored = engine.get(slot, key).expect("read")?;
    Some(stored.record().expect("a record").value.to_vec())
}

pub(crate) fn slot(number: u16) -> Slot {
    Slot::new(number).expect("a slot")
}

pub(crate) fn flush(engine: &Engine) {
    let _ = engine.flush(false).expect("asked").receipt_blocking().expect("flushed");
}

/// Bytes that no compression makes smaller.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}

/// Bytes that the files of a directory take.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory");
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
        Ok(data) => data.len(),
        // Deleted meanwhile.
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

/// Waits for something that happens in the background.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(3);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within three minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn await_reclaimed(engine: &Engine) {
    eventually("dead generations are worked off", || engine.counters().reclaim_pending == 0);
}
