//! Keys and subkeys in order, as a writer sees them: what it has gathered, over what the database holds.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use rocksdb::{DBRawIterator, ReadOptions};
use sluice_topology::Slot;

use super::{
    EngineError, Home, Span, Subspace, Writer,
    batch::Batch,
    database::Engine,
    families::Family,
    layout::{prefix, subkey_prefix},
};

/// Collections of which a writer keeps sorted what it has gathered.
const KEPT_MAX: usize = 8;

/// What was gathered, by stored keys; `None` where it is deleted.
type Sorted = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a writer has gathered between two stored keys, the lower one in it and the upper one not.
#[derive(Debug, Default)]
pub struct Overlay {
    gathered: Arc<Sorted>,
    range: (Vec<u8>, Vec<u8>),
}

/// What a writer has gathered of some collections, sorted as far as somebody asked. Kept while it gathers more: a pipeline or a script that
/// looks into a collection again and again goes over what it has gathered once, not each time.
#[derive(Default)]
pub(super) struct Overlays(Vec<Kept>);

struct Kept {
    family: Family,
    prefix: Vec<u8>,
    /// Records of the batch that were looked at.
    looked: usize,
    gathered: Arc<Sorted>,
}

impl Overlays {
    /// What a batch holds of the stored keys that begin so.
    fn of(&mut self, batch: &Batch, family: Family, prefix: &[u8]) -> Arc<Sorted> {
        let known = self.0.iter().position(|kept| kept.family == family && kept.prefix == prefix);
        // The one that was asked for last is the last one.
        let mut kept = match known {
            Some(at) => self.0.remove(at),
            None => Kept { family, prefix: prefix.to_vec(), looked: 0, gathered: Arc::default() },
        };
        let new = batch.writes_since(kept.looked).filter(|write| write.family == family && write.key.starts_with(prefix));
        for write in new {
            Arc::make_mut(&mut kept.gathered).insert(write.key.to_vec(), write.value.map(<[u8]>::to_vec));
        }
        kept.looked = batch.len();
        let gathered = kept.gathered.clone();
        if self.0.len() == KEPT_MAX {
            self.0.remove(0);
        }
        self.0.push(kept);
        gathered
    }

    /// Forgets what rests on records of the batch after the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.retain(|kept| kept.looked <= len);
    }
}

impl Writer {
    /// What was gathered of those subkeys: the writer is free while they are gone over. Costs a look at what was gathered since this was
    /// last asked of the collection.
    pub fn overlay(&self, space: Subspace, span: &Span<'_>) -> Overlay {
        if !self.has_gathered_subkeys() {
            return Overlay::default();
        }
        let (prefix, end) = self.engine().subkey_range(space);
        match span.stored(&prefix, &end) {
            Some(range) => self.overlay_between(space.family.family(), &prefix, range),
            None => Overlay::default(),
        }
    }

    /// What was gathered of keys, of every place: their records.
    pub fn gathered_keys(&self) -> Overlay {
        if self.gathered() == 0 {
            return Overlay::default();
        }
        self.overlay_between(Family::Meta, &[], (Vec::new(), vec![u8::MAX; 2]))
    }

    fn overlay_between(&self, family: Family, prefix: &[u8], range: (Vec<u8>, Vec<u8>)) -> Overlay {
        let overlay = Overlay { gathered: self.sorted(family, prefix), range };
        if overlay.first(false).is_some() {
            self.observe();
        }
        overlay
    }

    fn sorted(&self, family: Family, prefix: &[u8]) -> Arc<Sorted> {
        let (batch, overlays) = self.gathered_and_sorted();
        overlays.borrow_mut().of(batch, family, prefix)
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
        each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let (prefix, end) = self.subkey_range(space);
        let Some((from, to)) = span.stored(&prefix, &end) else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let family = self.database().family(space.family.family());
        let iterator = self.database().db().raw_iterator_cf_opt(family, options);
        go_over(iterator, prefix.len(), span.reverse, overlay, each)
    }

    /// The first slot from `from` on of which a writer has gathered a key that it does not delete.
    pub(super) fn next_gathered_slot(&self, database: u8, from: Slot, overlay: &Overlay) -> Option<Slot> {
        let live = |slot| prefix(slot, self.live(Home { database, slot }));
        let mut next = overlay.at_or_behind(&from.get().to_be_bytes());
        while let Some((key, value)) = next {
            let slot = Slot::new(u16::from_be_bytes(*key.first_chunk()?))?;
            if value.is_some() && key.starts_with(&live(slot)) {
                return Some(slot);
            }
            next = overlay.behind(key, false);
        }
        None
    }
}

/// Calls `each` for what an iterator, which has its bounds, and an overlay hold, without the first `strip` bytes of the stored keys; until
/// it breaks or they end.
pub(super) fn go_over(
    mut iterator: DBRawIterator<'_>,
    strip: usize,
    reverse: bool,
    overlay: &Overlay,
    mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), EngineError> {
    if reverse {
        iterator.seek_to_last();
    } else {
        iterator.seek_to_first();
    }
    let mut cursor = Cursor { iterator, reverse };
    let mut call = |key: &[u8], value: &[u8]| each(&key[strip..], value).is_break();
    let mut next = overlay.first(reverse);
    loop {
        // What the writer gathered goes first, and in the place of what is stored under the same key.
        if let Some((key, value)) = next.filter(|(key, _)| cursor.comes_after(key)) {
            if cursor.item().is_some_and(|(stored, _)| stored == key) {
                cursor.advance();
            }
            if value.is_some_and(|value| call(key, value)) {
                break;
            }
            next = overlay.behind(key, reverse);
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

type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

impl Overlay {
    /// The part of it between two stored keys.
    pub(super) fn between(&self, from: &[u8], to: &[u8]) -> Self {
        Self { gathered: self.gathered.clone(), range: (from.to_vec(), to.to_vec()) }
    }

    fn first(&self, reverse: bool) -> Option<Entry<'_>> {
        self.next((Bound::Included(&self.range.0), Bound::Excluded(&self.range.1)), reverse)
    }

    fn behind(&self, key: &[u8], reverse: bool) -> Option<Entry<'_>> {
        if reverse {
            self.next((Bound::Included(&self.range.0), Bound::Excluded(key)), true)
        } else {
            self.next((Bound::Excluded(key), Bound::Excluded(&self.range.1)), false)
        }
    }

    fn at_or_behind(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.next((Bound::Included(key), Bound::Excluded(&self.range.1)), false)
    }

    fn next(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool) -> Option<Entry<'_>> {
        if self.gathered.is_empty() {
            return None;
        }
        let mut range = self.gathered.range::<[u8], _>(bounds);
        let entry = if reverse { range.next_back() } else { range.next() };
        entry.map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_is_what_was_gathered_however_often_it_was_asked_for_before() {
        let (mut batch, mut overlays) = (Batch::of_no_database(), Overlays::default());
        let keys = |sorted: &Sorted| sorted.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>();
        let put = |key: &[u8], value: &[u8]| (key.to_vec(), Some(value.to_vec()));
        batch.put(Family::Data, &[b"pb"], &[b"1"]);
        batch.put(Family::Data, &[b"qa"], &[b"other"]);
        batch.put(Family::Score, &[b"pc"], &[b"other"]);
        let first = overlays.of(&batch, Family::Data, b"p");
        assert_eq!(keys(&first), [put(b"pb", b"1")]);
        batch.put(Family::Data, &[b"pa"], &[b"2"]);
        batch.delete(Family::Data, &[b"pb"]);
        assert_eq!(keys(&overlays.of(&batch, Family::Data, b"p")), [put(b"pa", b"2"), (b"pb".to_vec(), None)]);
        assert_eq!(keys(&first), [put(b"pb", b"1")], "what was asked for before stays what it was");
        // A command is taken back, and another one gathers as much.
        batch.truncate(3);
        overlays.truncate(3);
        batch.put(Family::Data, &[b"pz"], &[b"3"]);
        batch.put(Family::Data, &[b"py"], &[b"4"]);
        assert_eq!(keys(&overlays.of(&batch, Family::Data, b"p")), [put(b"pb", b"1"), put(b"py", b"4"), put(b"pz", b"3")]);
        assert_eq!(keys(&overlays.of(&batch, Family::Score, b"p")), [put(b"pc", b"other")]);
        // More collections than are kept.
        (0..KEPT_MAX as u8).for_each(|other| drop(overlays.of(&batch, Family::Data, &[other])));
        assert_eq!(overlays.of(&batch, Family::Data, b"p").len(), 3);
    }
}
