//! A small collection in its key's record: its subkeys and their values, in the order in which they are stored otherwise.
//!
//! So a change of it is one record instead of three (the key's, the member's, and of a sorted set the index'), a read of it is one point
//! read, and it leaves nothing behind to be reclaimed. Of a sorted set the index is not kept, as it follows from the members.
//! A collection that grows past [`crate::engine::Engine::packed_bytes_max`] is unpacked, and stays so: see `collection.rs`.

use std::{
    cmp::Ordering,
    ops::{Bound, ControlFlow, RangeBounds},
};

use super::{
    sorted_sets::{SCORE_LEN, index_key_of_stored},
    streams::bytes::{Reader, put_bytes},
};
use crate::engine::{Kind, Span, Subkeys};

/// The families of which subkeys may be packed, by the byte they begin with.
const FAMILIES: [Subkeys; 2] = [Subkeys::Data, Subkeys::Score];

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// Behind one another `family u8 · length · subkey · length · value`, in order, each subkey once.
    bytes: Vec<u8>,
    /// Of a sorted set: what is in its index follows from its members.
    indexed: bool,
}

/// A subkey, and where in the bytes it is.
struct Entry<'p> {
    start: usize,
    end: usize,
    family: u8,
    subkey: &'p [u8],
    value: &'p [u8],
}

struct Entries<'p> {
    bytes: &'p [u8],
    at: usize,
}

impl<'p> Iterator for Entries<'p> {
    type Item = Entry<'p>;

    /// Ends before the first that is cut short.
    fn next(&mut self) -> Option<Entry<'p>> {
        let (family, rest) = self.bytes[self.at..].split_first()?;
        let mut reader = Reader(rest);
        let (subkey, value) = (reader.bytes()?, reader.bytes()?);
        let start = std::mem::replace(&mut self.at, self.bytes.len() - reader.0.len());
        Some(Entry { start, end: self.at, family: *family, subkey, value })
    }
}

impl Packed {
    /// Without a subkey, for a collection of that kind.
    pub(super) fn empty(kind: Kind) -> Self {
        Self { bytes: Vec::new(), indexed: kind == Kind::SortedSet }
    }

    /// Reads what a record of that kind holds; `None`: it is damaged.
    pub(super) fn read(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let indexed = kind == Kind::SortedSet;
        let (mut entries, mut last) = (Entries { bytes, at: 0 }, None);
        for entry in entries.by_ref() {
            let place = (entry.family, entry.subkey);
            let known = if indexed {
                entry.family == 0 && entry.value.len() == SCORE_LEN
            } else {
                usize::from(entry.family) < FAMILIES.len()
            };
            if !known || last.is_some_and(|last| last >= place) {
                return None;
            }
            last = Some(place);
        }
        (entries.at == bytes.len()).then(|| Self { bytes: bytes.to_vec(), indexed })
    }

    /// As it is in a record.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn entries(&self) -> Entries<'_> {
        Entries { bytes: &self.bytes, at: 0 }
    }

    /// Whether a family is one that is derived.
    fn derives(&self, family: Subkeys) -> bool {
        self.indexed && family == Subkeys::Score
    }

    /// The subkey's entry, or where in the bytes it would be.
    fn find(&self, family: u8, subkey: &[u8]) -> Result<Entry<'_>, usize> {
        for entry in self.entries() {
            match (entry.family, entry.subkey).cmp(&(family, subkey)) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(entry),
                Ordering::Greater => return Err(entry.start),
            }
        }
        Err(self.bytes.len())
    }

    /// The value of a subkey.
    pub(super) fn get(&self, family: Subkeys, subkey: &[u8]) -> Option<&[u8]> {
        if self.derives(family) {
            let mut there = false;
            self.each(family, Span::ALL, |found, _| {
                there |= found == subkey;
                ControlFlow::Continue(())
            });
            return there.then_some(&[]);
        }
        self.find(byte_of(family)?, subkey).ok().map(|entry| entry.value)
    }

    /// A subkey gets this value.
    pub(super) fn put(&mut self, family: Subkeys, subkey: &[u8], value: &[u8]) {
        let Some(byte) = byte_of(family).filter(|_| !self.derives(family)) else { return };
        let (start, end) = match self.find(byte, subkey) {
            Ok(entry) => (entry.start, entry.end),
            Err(place) => (place, place),
        };
        let mut bytes = Vec::with_capacity(self.bytes.len() + subkey.len() + value.len() + 16);
        bytes.extend_from_slice(&self.bytes[..start]);
        bytes.push(byte);
        put_bytes(&mut bytes, subkey);
        put_bytes(&mut bytes, value);
        bytes.extend_from_slice(&self.bytes[end..]);
        self.bytes = bytes;
    }

    /// A subkey is gone.
    pub(super) fn remove(&mut self, family: Subkeys, subkey: &[u8]) {
        let Some(byte) = byte_of(family).filter(|_| !self.derives(family)) else { return };
        if let Ok(Entry { start, end, .. }) = self.find(byte, subkey) {
            self.bytes.drain(start..end);
        }
    }

    /// Calls `each` for the subkeys of a span and their values, in its direction; until it breaks.
    pub(super) fn each(&self, family: Subkeys, span: Span<'_>, mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        let span_of: (Bound<&[u8]>, Bound<&[u8]>) = (span.from, span.to);
        let within = |subkey: &[u8]| RangeBounds::<[u8]>::contains::<[u8]>(&span_of, subkey);
        if self.derives(family) {
            let keys = self.entries().filter_map(|entry| index_key_of_stored(entry.value, entry.subkey).ok());
            let mut keys: Vec<Vec<u8>> = keys.filter(|key| within(key)).collect();
            keys.sort_unstable();
            if span.reverse {
                keys.reverse();
            }
            let _ = keys.iter().try_for_each(|key| each(key, &[]));
            return;
        }
        let Some(byte) = byte_of(family) else { return };
        let mut found = self.entries().filter(|entry| entry.family == byte && within(entry.subkey));
        if span.reverse {
            let found: Vec<Entry<'_>> = found.collect();
            let _ = found.iter().rev().try_for_each(|entry| each(entry.subkey, entry.value));
        } else {
            let _ = found.try_for_each(|entry| each(entry.subkey, entry.value));
        }
    }

    /// Calls `each` for all there is, derived or not.
    pub(super) fn each_of_all(&self, mut each: impl FnMut(Subkeys, &[u8], &[u8])) {
        for family in FAMILIES {
            self.each(family, Span::ALL, |subkey, value| {
                each(family, subkey, value);
                ControlFlow::Continue(())
            });
        }
    }
}

fn byte_of(family: Subkeys) -> Option<u8> {
    FAMILIES.iter().position(|one| *one == family).map(|place| place as u8)
}

/// See [`crate::fuzzing::codecs`].
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn codecs(bytes: &[u8]) {
    for kind in [Kind::Hash, Kind::List, Kind::Set, Kind::SortedSet] {
        let Some(packed) = Packed::read(kind, bytes) else { continue };
        assert_eq!(packed.bytes(), bytes, "packed subkeys");
        let mut again = Packed::empty(kind);
        packed.each_of_all(|family, subkey, value| {
            assert_eq!(packed.get(family, subkey), Some(value), "a packed subkey");
            again.put(family, subkey, value);
        });
        assert_eq!(Packed::read(kind, again.bytes()).as_ref(), Some(&again), "packed anew");
        assert_eq!(packed.entries().count(), again.entries().count(), "what was packed anew");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<(u8, Vec<u8>), Vec<u8>>;
    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn subkey() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 7, 255]), 0..4)
    }

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![Just(Bound::Unbounded), subkey().prop_map(Bound::Included), subkey().prop_map(Bound::Excluded)]
    }

    fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
        bound.as_ref().map(Vec::as_slice)
    }

    fn met(packed: &Packed, family: Subkeys, span: Span<'_>) -> Pairs {
        let mut met = Vec::new();
        packed.each(family, span, |subkey, value| {
            met.push((subkey.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        met
    }

    proptest! {
        #[test]
        fn what_is_packed_is_an_ordered_map(
            changes in prop::collection::vec((0u8..2, subkey(), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))), 0..30),
            from in bound(), to in bound(), reverse: bool,
        ) {
            let (mut packed, mut model) = (Packed::empty(Kind::Hash), Model::new());
            for (family, subkey, value) in changes {
                let there = FAMILIES[usize::from(family)];
                match value {
                    Some(value) => {
                        packed.put(there, &subkey, &value);
                        model.insert((family, subkey.clone()), value);
                    }
                    None => {
                        packed.remove(there, &subkey);
                        model.remove(&(family, subkey.clone()));
                    }
                }
                prop_assert_eq!(packed.get(there, &subkey), model.get(&(family, subkey)).map(Vec::as_slice));
            }
            prop_assert_eq!(Packed::read(Kind::Hash, packed.bytes()), Some(packed.clone()));
            let span = Span { from: as_slice(&from), to: as_slice(&to), reverse };
            for (byte, family) in FAMILIES.into_iter().enumerate() {
                let inside = |subkey: &[u8]| RangeBounds::<[u8]>::contains::<[u8]>(&(span.from, span.to), subkey);
                let of_family = model.iter().filter(|((one, subkey), _)| usize::from(*one) == byte && inside(subkey));
                let mut expected: Pairs = of_family.map(|((_, subkey), value)| (subkey.clone(), value.clone())).collect();
                if reverse {
                    expected.reverse();
                }
                prop_assert_eq!(met(&packed, family, span), expected);
            }
        }

        #[test]
        fn the_index_of_a_sorted_set_follows_from_its_members(
            changes in prop::collection::vec((subkey(), prop::option::of(-3i32..3)), 0..30), reverse: bool,
        ) {
            let (mut packed, mut model) = (Packed::empty(Kind::SortedSet), BTreeMap::new());
            for (member, score) in changes {
                match score {
                    Some(score) => {
                        let stored = f64::from(score).to_bits().to_be_bytes();
                        packed.put(Subkeys::Data, &member, &stored);
                        model.insert(member, stored);
                    }
                    None => {
                        packed.remove(Subkeys::Data, &member);
                        model.remove(&member);
                    }
                }
                // What is said of the index besides changes nothing.
                packed.put(Subkeys::Score, b"an entry", b"");
                packed.remove(Subkeys::Score, b"another");
            }
            let mut expected: Pairs = model.iter().map(|(member, stored)| (index_key_of_stored(stored, member).unwrap(), Vec::new())).collect();
            expected.sort();
            for (key, _) in &expected {
                prop_assert_eq!(packed.get(Subkeys::Score, key), Some(&b""[..]));
            }
            prop_assert_eq!(packed.get(Subkeys::Score, b"an entry"), None);
            if reverse {
                expected.reverse();
            }
            prop_assert_eq!(met(&packed, Subkeys::Score, Span { reverse, ..Span::ALL }), expected);
            prop_assert_eq!(Packed::read(Kind::SortedSet, packed.bytes()), Some(packed));
        }

        #[test]
        fn any_bytes_are_packed_subkeys_or_damaged(bytes in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 8, 128]), 0..24)) {
            codecs(&bytes);
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let mut packed = Packed::empty(Kind::Hash);
        packed.put(Subkeys::Score, b"\0f", b"12");
        packed.put(Subkeys::Data, b"f", b"value");
        packed.put(Subkeys::Data, b"", &[7; 128]);
        let expected = [&[0, 0, 0x80, 1][..], &[7; 128], b"\0\x01f\x05value", b"\x01\x02\0f\x0212"].concat();
        assert_eq!(packed.bytes(), expected);
        for damaged in [&expected[..expected.len() - 1], b"\0\x01b\0\0\x01a\0", b"\0\x01a\0\0\x01a\0", b"\x02\x01a\0"] {
            assert_eq!(Packed::read(Kind::Hash, damaged), None, "{damaged:?}");
        }
        assert_eq!(Packed::read(Kind::SortedSet, b"\0\x01m\x03abc"), None, "no score");
    }
}
