//! Views: keys as of one moment, by a snapshot of RocksDB's, so that nothing of them changes while they are read.
//!
//! A command that reads several keys has a view of every place, and stays inside the gate while it lasts. A reader that outlives its
//! command has a view of one place, of which the command takes [`Held`] inside the gate: from then on what is live there is not given
//! back, whatever is dropped, flushed or moved away.

use std::ops::ControlFlow;

use rocksdb::{DBPinnableSlice, DBRawIterator, ReadOptions, Snapshot};

use super::{
    EngineError, Generation, Home, LongReader, Overlay, Span, Stored, StoredValue, Subspace,
    database::Engine,
    families::Family,
    layout::{prefix, subkey_prefix},
    merged,
};

/// An iterator that has gone over that much is opened anew, as it keeps memtables and files that others have done with.
const REOPEN_BYTES: usize = 1 << 20;

/// A place whose live generation is kept.
pub struct Held {
    home: Home,
    generation: Generation,
    _reader: LongReader,
}

/// See the module's text.
pub struct View<'e> {
    engine: &'e Engine,
    snapshot: Snapshot<'e>,
    /// The one place it is of; `None`: it is of all. Behind the snapshot, which it outlives.
    held: Option<Held>,
}

impl Engine {
    /// Keeps what is live at a place until the guard, and the view made of it, is dropped. The caller is inside the gate. `what` names it in INFO.
    pub fn hold(&self, home: Home, what: &'static str) -> Held {
        // Registered before the generation is looked at.
        let reader = self.long_reader(what);
        Held { home, generation: self.live(home), _reader: reader }
    }

    /// What is at that place now.
    pub fn view(&self, held: Held) -> View<'_> {
        View { engine: self, snapshot: self.database().db().snapshot(), held: Some(held) }
    }

    /// Every place as it is now, for as long as the caller stays inside the gate. Takes the lock of the whole database twice: for commands
    /// that read much, or could not be of one moment without.
    pub fn moment(&self) -> View<'_> {
        View { engine: self, snapshot: self.database().db().snapshot(), held: None }
    }
}

impl Held {
    /// Its database.
    pub fn database(&self) -> u8 {
        self.home.database
    }
}

impl View<'_> {
    /// The record of a key, expired or not.
    pub fn get(&self, home: Home, key: &[u8]) -> Result<Option<Stored<'_>>, EngineError> {
        let stored = [&prefix(home.slot, self.generation(home))[..], key].concat();
        Ok(self.read(Family::Meta, &stored)?.map(Stored::pinned))
    }

    /// The value of a collection's subkey.
    pub fn get_subkey(&self, space: Subspace, subkey: &[u8]) -> Result<Option<StoredValue<'_>>, EngineError> {
        let stored = [&self.begin(space)[..], subkey].concat();
        Ok(self.read(space.family.family(), &stored)?.map(StoredValue::pinned))
    }

    /// Values of several subkeys of a collection, by one call into RocksDB.
    pub fn get_subkeys(&self, space: Subspace, subkeys: &[&[u8]]) -> Vec<Result<Option<Vec<u8>>, EngineError>> {
        let (begin, family) = (self.begin(space), self.engine.database().family(space.family.family()));
        let stored = subkeys.iter().map(|subkey| (family, [&begin[..], subkey].concat()));
        let found = self.snapshot.multi_get_cf_opt(stored, ReadOptions::default());
        found.into_iter().map(|one| Ok(one?)).collect()
    }

    /// Calls `each` for the subkeys of a span and their values, with what a writer has gathered in their place; until it breaks or they
    /// end. One seek, then a step a subkey.
    pub fn scan_subkeys(
        &self,
        space: Subspace,
        span: Span<'_>,
        overlay: &Overlay,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let begin = self.begin(space);
        let end = subkey_prefix(space.home.slot, self.generation(space.home), space.version.saturating_add(1));
        let Some(range) = span.stored(&begin, &end) else { return Ok(()) };
        let mut iterator = self.iterator(space, &range);
        if self.held.is_none() {
            return merged::go_over(iterator, begin.len(), span.reverse, overlay, each);
        }
        if span.reverse {
            iterator.seek_to_last();
        } else {
            iterator.seek_to_first();
        }
        let mut passed = 0;
        while let Some((key, value)) = iterator.item() {
            passed += key.len() + value.len();
            if each(&key[begin.len()..], value).is_break() {
                break;
            }
            if span.reverse {
                iterator.prev();
            } else {
                iterator.next();
            }
            if passed >= REOPEN_BYTES
                && let Some(next) = iterator.key()
            {
                passed = 0;
                let next = next.to_vec();
                iterator = self.iterator(space, &range);
                iterator.seek(next);
            }
        }
        Ok(iterator.status()?)
    }

    fn generation(&self, home: Home) -> Generation {
        debug_assert!(self.held.as_ref().is_none_or(|held| held.home == home));
        self.held.as_ref().map_or_else(|| self.engine.live(home), |held| held.generation)
    }

    fn begin(&self, space: Subspace) -> [u8; 14] {
        subkey_prefix(space.home.slot, self.generation(space.home), space.version)
    }

    fn read(&self, family: Family, stored: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, EngineError> {
        let family = self.engine.database().family(family);
        Ok(self.snapshot.get_pinned_cf_opt(family, stored, ReadOptions::default())?)
    }

    /// Over the subkeys between two stored keys. What it reads is not what others will read next: it is not cached.
    fn iterator(&self, space: Subspace, (from, to): &(Vec<u8>, Vec<u8>)) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from.as_slice());
        options.set_iterate_upper_bound(to.as_slice());
        options.fill_cache(false);
        self.snapshot.raw_iterator_cf_opt(self.engine.database().family(space.family.family()), options)
    }
}
