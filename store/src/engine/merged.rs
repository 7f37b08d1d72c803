//! Subkeys in order, as a writer sees them: what it has gathered, over what the database holds.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use rocksdb::{DBRawIterator, ReadOptions};

use super::{EngineError, Span, Subspace, Writer, database::Engine, layout::subkey_prefix};

/// Subkeys that a writer has gathered, `None` where it deletes one; by their stored keys.
#[derive(Debug, Default)]
pub struct Overlay(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Writer {
    /// What was gathered of those subkeys: a copy, so that the writer is free while they are gone over. Costs a look at everything gathered,
    /// where subkeys are among it.
    pub fn overlay(&self, space: Subspace, span: &Span<'_>) -> Overlay {
        if !self.has_gathered_subkeys() {
            return Overlay::default();
        }
        let (prefix, end) = self.engine().subkey_range(space);
        let Some((from, to)) = span.stored(&prefix, &end) else { return Overlay::default() };
        let family = space.family.family();
        let mut gathered = BTreeMap::new();
        for write in self.gathered_writes().filter(|write| write.family == family) {
            if write.key.starts_with(&prefix) && write.key >= from.as_slice() && write.key < to.as_slice() {
                gathered.insert(write.key.to_vec(), write.value.map(<[u8]>::to_vec));
            }
        }
        if !gathered.is_empty() {
            self.observe();
        }
        Overlay(gathered)
    }
}

/// Goes over RocksDB in one direction.
struct Cursor<'a> {
    iterator: DBRawIterator<'a>,
    reverse: bool,
}

impl Cursor<'_> {
    fn item(&self) -> Option<(&[u8], &[u8])> {
        self.iterator.item()
    }

    fn advance(&mut self) {
        if self.reverse {
            self.iterator.prev();
        } else {
            self.iterator.next();
        }
    }

    /// Whether `other` comes before what it stands at, or instead of it.
    fn comes_after(&self, other: &[u8]) -> bool {
        match self.iterator.key() {
            None => true,
            Some(key) if self.reverse => other >= key,
            Some(key) => other <= key,
        }
    }
}

impl Engine {
    /// The first stored key of those subkeys, and the first behind them. Versions end below the highest number.
    pub(super) fn subkey_range(&self, space: Subspace) -> ([u8; 14], [u8; 14]) {
        let live = self.live(space.home);
        let slot = space.home.slot;
        (subkey_prefix(slot, live, space.version), subkey_prefix(slot, live, space.version.saturating_add(1)))
    }

    /// Calls `each` for the subkeys of a span and their values, with what a writer has gathered in their place; all as of one moment, until
    /// `each` breaks or they end. One seek, then a step a subkey.
    pub fn scan_subkeys(
        &self,
        space: Subspace,
        span: Span<'_>,
        overlay: &Overlay,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let (prefix, end) = self.subkey_range(space);
        let Some((from, to)) = span.stored(&prefix, &end) else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let family = self.database().family(space.family.family());
        let mut iterator = self.database().db().raw_iterator_cf_opt(family, options);
        if span.reverse {
            iterator.seek_to_last();
        } else {
            iterator.seek_to_first();
        }
        let mut cursor = Cursor { iterator, reverse: span.reverse };
        let mut call = |key: &[u8], value: &[u8]| each(&key[prefix.len()..], value).is_break();
        let mut next = overlay.first(span.reverse);
        loop {
            // What the writer gathered goes first, and in the place of what is stored under the same key.
            if let Some((key, value)) = next.filter(|(key, _)| cursor.comes_after(key)) {
                if cursor.item().is_some_and(|(stored, _)| stored == key) {
                    cursor.advance();
                }
                if value.is_some_and(|value| call(key, value)) {
                    break;
                }
                next = overlay.behind(key, span.reverse);
                continue;
            }
            let Some((key, value)) = cursor.item() else { break };
            if call(key, value) {
                break;
            }
            cursor.advance();
        }
        Ok(cursor.iterator.status()?)
    }
}

type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

impl Overlay {
    fn first(&self, reverse: bool) -> Option<Entry<'_>> {
        let entry = if reverse { self.0.last_key_value() } else { self.0.first_key_value() };
        entry.map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    fn behind(&self, key: &[u8], reverse: bool) -> Option<Entry<'_>> {
        let bounds = if reverse { (Bound::Unbounded, Bound::Excluded(key)) } else { (Bound::Excluded(key), Bound::Unbounded) };
        let mut range = self.0.range::<[u8], _>(bounds);
        let entry = if reverse { range.next_back() } else { range.next() };
        entry.map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}
