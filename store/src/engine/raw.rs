//! The open RocksDB database, and the few calls its Rust wrapper does not offer. The only file with unsafe code.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char},
    path::Path,
    ptr,
    sync::Arc,
};

use librocksdb_sys as ffi;
use rocksdb::{AsColumnFamilyRef, AsRawPtr, Cache, DB, Options};

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

/// An open database. Families are looked up once, at opening.
pub(crate) struct Database {
    db: DB,
    handles: [Handle; Family::ALL.len()],
}

impl Database {
    pub(crate) fn open(
        path: &Path,
        db_options: &Options,
        options: &EngineOptions,
        cache: &Cache,
        removable: &Arc<Removable>,
    ) -> Result<Self, EngineError> {
        let db = DB::open_cf_descriptors(db_options, path, families::descriptors(options, cache, removable))?;
        let mut handles = [Handle(ptr::null_mut()); Family::ALL.len()];
        for (handle, family) in handles.iter_mut().zip(Family::ALL) {
            let found = db
                .cf_handle(family.name())
                .ok_or_else(|| EngineError::Damaged(format!("column family `{}` is missing", family.name())))?;
            *handle = Handle(found.inner());
        }
        Ok(Self { db, handles })
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
            if error.is_null() {
                return Ok(());
            }
            let text = CStr::from_ptr(error).to_string_lossy().into_owned();
            ffi::rocksdb_free(error.cast());
            Err(EngineError::Flush(text))
        }
    }

    /// Ends running manual compactions and lets no other one begin: the engine closes.
    pub(crate) fn end_manual_compactions(&self) {
        // SAFETY: the database is alive for `self`; the call may be made from any thread, any number of times.
        unsafe { ffi::rocksdb_disable_manual_compaction(self.db.as_raw_ptr()) }
    }
}
