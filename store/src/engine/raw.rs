//! The open RocksDB database, and the few calls its Rust wrapper does not offer. The only file with unsafe code.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_void},
    path::Path,
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use librocksdb_sys as ffi;
use rocksdb::{AsColumnFamilyRef, AsRawPtr, Cache, DB, Options, WriteBatch, WriteOptions};

use super::{
    EngineError,
    database::EngineOptions,
    families::{self, Family},
    filter::Removable,
};

/// A column family's handle. Valid as long as the [`Database`] it came from.
#[derive(Clone, Copy)]
pub(crate) struct Handle(*mut ffi::rocksdb_column_family_handle_t);

// SAFETY: RocksDB's column family handles are immutable and may be used by any number of threads at once; `Database` keeps them
// alive and hands them out only by reference to itself.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl AsColumnFamilyRef for Handle {
    fn inner(&self) -> *mut ffi::rocksdb_column_family_handle_t {
        self.0
    }
}

/// Has the processor bring a value near that will be looked at soon, its first lines at least; and goes on without waiting for it.
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    const LINE: usize = 64;
    const LINES_MAX: usize = 4;
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of_val(value).div_ceil(LINE).min(LINES_MAX) {
        let start = ptr::from_ref(value).cast::<i8>();
        // SAFETY: a hint, which reads nothing; the address is one of the value's.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(start.add(line * LINE)) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE, LINES_MAX);
}

/// An open database. Families are looked up once, at opening.
pub(crate) struct Database {
    db: DB,
    handles: [Handle; Family::ALL.len()],
    events: Arc<Events>,
}

impl Database {
    pub(crate) fn open(
        path: &Path,
        db_options: &Options,
        options: &EngineOptions,
        cache: &Cache,
        removable: &Arc<Removable>,
    ) -> Result<Self, EngineError> {
        let events = Arc::new(Events::default());
        listen(db_options, events.clone());
        let db = DB::open_cf_descriptors(db_options, path, families::descriptors(options, cache, removable))?;
        let mut handles = [Handle(ptr::null_mut()); Family::ALL.len()];
        for (handle, family) in handles.iter_mut().zip(Family::ALL) {
            let found = db
                .cf_handle(family.name())
                .ok_or_else(|| EngineError::Damaged(format!("column family `{}` is missing", family.name())))?;
            *handle = Handle(found.inner());
        }
        Ok(Self { db, handles, events })
    }

    /// What RocksDB has reported.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Applies a batch. A failure says that it was a write that failed.
    pub(crate) fn write(&self, batch: WriteBatch, options: &WriteOptions) -> Result<(), EngineError> {
        self.db.write_opt(batch, options).map_err(EngineError::WriteFailed)
    }

    /// Applies a batch; durable on return. Not as a synced write: for the fsync of one, RocksDB has every other writer wait.
    pub(crate) fn write_durably(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.write(batch, &WriteOptions::default())?;
        // RocksDB fails a sync of a log to which an append has failed, and then resumes only after a new start: see `sync`.
        if self.stopped().is_some() {
            return Err(EngineError::NotDurable);
        }
        self.db.flush_wal(true).map_err(EngineError::WriteFailed)
    }

    /// Sets a mutable option of every users' family.
    pub(crate) fn set_everywhere(&self, name: &str, value: &str) -> Result<(), EngineError> {
        Family::USER.into_iter().try_for_each(|family| Ok(self.db.set_options_cf(self.family(family), &[(name, value)])?))
    }

    /// Why RocksDB takes no writes, when a background error has stopped it. Asked by a write of nothing, which goes nowhere.
    pub(crate) fn stopped(&self) -> Option<String> {
        let mut nowhere = WriteOptions::default();
        nowhere.disable_wal(true);
        self.db.write_opt(WriteBatch::default(), &nowhere).err().map(rocksdb::Error::into_string)
    }

    /// Bytes that are in memtables and not in files yet.
    pub(crate) fn memtable_bytes(&self) -> u64 {
        let size = |family| {
            self.db.property_int_value_cf(self.family(family), "rocksdb.cur-size-all-mem-tables").ok().flatten().unwrap_or(0)
        };
        Family::ALL.into_iter().map(size).sum()
    }

    /// The wrapper's own interface.
    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    /// The handle of a family.
    pub(crate) fn family(&self, family: Family) -> &Handle {
        &self.handles[family as usize]
    }

    /// The number of a family in RocksDB's own records.
    pub(crate) fn family_id(&self, family: Family) -> u32 {
        // SAFETY: the handle is alive for `self`; the call only reads it.
        unsafe { ffi::rocksdb_column_family_handle_get_id(self.family(family).0) }
    }

    /// Flushes the memtables of every family in one atomic flush and waits for it. With `allow_stall`, also when writes have to
    /// wait for it; without, the call itself waits, unbounded, until that is not so.
    pub(crate) fn flush_all(&self, allow_stall: bool) -> Result<(), EngineError> {
        let mut handles = self.handles.map(|handle| handle.0);
        let mut error: *mut c_char = ptr::null_mut();
        // SAFETY: the database and its handles are alive for `self`; the options are created, used and destroyed right here; the
        // error is a C string from malloc, owned by the caller, or null.
        unsafe {
            let options = ffi::rocksdb_flushoptions_create();
            ffi::rocksdb_flushoptions_set_wait(options, 1);
            ffi::rocksdb_flushoptions_set_allow_write_stall(options, u8::from(allow_stall));
            ffi::rocksdb_flush_cfs(self.db.as_raw_ptr(), options, handles.as_mut_ptr(), handles.len() as i32, &raw mut error);
            ffi::rocksdb_flushoptions_destroy(options);
            take_text(error).map_or(Ok(()), |text| Err(EngineError::Flush(text)))
        }
    }

    /// Ends running manual compactions and lets no other one begin: the engine closes.
    pub(crate) fn end_manual_compactions(&self) {
        // SAFETY: the database is alive for `self`; the call may be made from any thread, any number of times.
        unsafe { ffi::rocksdb_disable_manual_compaction(self.db.as_raw_ptr()) }
    }
}

/// What RocksDB reports while it works.
#[derive(Default)]
pub(crate) struct Events {
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    delays: AtomicU64,
    stops: AtomicU64,
}

impl Events {
    /// Background errors so far: failed flushes, compactions, writes of the log or of the manifest.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::SeqCst)
    }

    /// The last of them.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often RocksDB began to slow writes down, and how often to hold them back completely.
    pub(crate) fn stalls(&self) -> (u64, u64) {
        (self.delays.load(Ordering::Relaxed), self.stops.load(Ordering::Relaxed))
    }
}

/// Has RocksDB report to `events` whatever it does with these options.
fn listen(options: &Options, events: Arc<Events>) {
    let state = Arc::into_raw(events).cast_mut().cast::<c_void>();
    // SAFETY: every callback is there, as the C side calls each without a look; `state` is a counted reference that `forget_events`
    // gives back when RocksDB drops the listener, which the options own from here on.
    unsafe {
        let listener = ffi::rocksdb_eventlistener_create(
            state,
            Some(forget_events),
            Some(on_flush),
            Some(on_flush),
            Some(on_compaction),
            Some(on_compaction),
            Some(on_subcompaction),
            Some(on_subcompaction),
            Some(on_ingestion),
            Some(on_error),
            Some(on_stall),
            Some(on_sealed),
        );
        ffi::rocksdb_options_add_eventlistener(options.as_raw_ptr(), listener);
    }
}

unsafe extern "C" fn forget_events(state: *mut c_void) {
    // SAFETY: called once, with the reference that `listen` gave away.
    drop(unsafe { Arc::from_raw(state.cast_const().cast::<Events>()) });
}

unsafe extern "C" fn on_error(state: *mut c_void, _reason: u32, status: *mut ffi::rocksdb_status_ptr_t) {
    let mut text: *mut c_char = ptr::null_mut();
    // SAFETY: `state` is the `Events` of `listen`, alive until `forget_events`; `status` is alive during the call; the text is a C
    // string from malloc, owned here, or null when the status is no error.
    let (events, text) = unsafe {
        ffi::rocksdb_status_ptr_get_error(status, &raw mut text);
        (&*state.cast_const().cast::<Events>(), take_text(text))
    };
    *events.last_error.lock().unwrap_or_else(PoisonError::into_inner) = text;
    events.errors.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn on_stall(state: *mut c_void, info: *const ffi::rocksdb_writestallinfo_t) {
    // SAFETY: as in `on_error`; `info` is alive during the call. The condition is a C++ `enum class`, which is an int, behind a name
    // the C API gives no way to look into.
    let (events, now) = unsafe {
        let condition = ffi::rocksdb_writestallinfo_cur(info);
        (&*state.cast_const().cast::<Events>(), *condition.cast::<i32>())
    };
    match now {
        0 => events.delays.fetch_add(1, Ordering::Relaxed),
        1 => events.stops.fetch_add(1, Ordering::Relaxed),
        _ => 0,
    };
}

unsafe extern "C" fn on_flush(_: *mut c_void, _: *mut ffi::rocksdb_t, _: *const ffi::rocksdb_flushjobinfo_t) {}
unsafe extern "C" fn on_compaction(_: *mut c_void, _: *mut ffi::rocksdb_t, _: *const ffi::rocksdb_compactionjobinfo_t) {}
unsafe extern "C" fn on_subcompaction(_: *mut c_void, _: *const ffi::rocksdb_subcompactionjobinfo_t) {}
unsafe extern "C" fn on_ingestion(_: *mut c_void, _: *mut ffi::rocksdb_t, _: *const ffi::rocksdb_externalfileingestioninfo_t) {}
unsafe extern "C" fn on_sealed(_: *mut c_void, _: *const ffi::rocksdb_memtableinfo_t) {}

/// Takes over an error text of the C API; null is none.
///
/// # Safety
///
/// `text` is null or a C string from malloc that nobody else owns.
unsafe fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let taken = CStr::from_ptr(text).to_string_lossy().into_owned();
        ffi::rocksdb_free(text.cast());
        Some(taken)
    }
}
