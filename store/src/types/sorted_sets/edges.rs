//! Where a sorted set's index begins and ends, once members were taken from an end of it.
//!
//! What is deleted in RocksDB stays there as a mark until it is compacted away, and a search for the first entry passes all such marks before it: a
//! queue that is popped a million times would pass a million. So the record says below what, and above what, there is nothing. It is
//! written in the batch that takes the members away, and by whoever adds one outside of it.

use std::ops::Bound;

use crate::engine::Span;

/// Bytes kept of a key: they are a bound as well, if not the nearest.
const KEPT: usize = 24;

/// See the module's text. Empty: not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Edges {
    /// No key is below this.
    low: Vec<u8>,
    /// No key is above all that begin with this.
    high: Vec<u8>,
    /// The first key that can be there no more; none: every one can.
    end: Option<Vec<u8>>,
}

impl Edges {
    /// From what a record says besides version and size; what is no edges says nothing.
    pub(super) fn decode(extra: &[u8]) -> Self {
        let part = |bytes: &'_ [u8]| -> Option<(Vec<u8>, usize)> {
            let length = usize::from(*bytes.first()?);
            Some((bytes.get(1..=length)?.to_vec(), 1 + length))
        };
        let Some((low, at)) = part(extra) else { return Self::default() };
        let Some((high, _)) = part(&extra[at..]) else { return Self::default() };
        let end = next(&high);
        Self { low, high, end }
    }

    /// What a record says of them; nothing, when nothing is known.
    pub(super) fn encode(&self) -> Vec<u8> {
        if self.low.is_empty() && self.high.is_empty() {
            return Vec::new();
        }
        [&[self.low.len() as u8][..], &self.low, &[self.high.len() as u8], &self.high].concat()
    }

    /// No key is below this.
    pub(super) fn low(&self) -> &[u8] {
        &self.low
    }

    /// Everything up to that key is gone, the key itself too.
    pub(super) fn gone_up_to(&mut self, key: &[u8]) {
        self.low = kept(key);
    }

    /// Everything from that key on is gone, the key itself too.
    pub(super) fn gone_from(&mut self, key: &[u8]) {
        self.high = kept(key);
        self.end = next(&self.high);
    }

    /// That key is added.
    pub(super) fn include(&mut self, key: &[u8]) {
        if key < self.low.as_slice() {
            self.low = kept(key);
        }
        if self.end.as_ref().is_some_and(|end| key >= end.as_slice()) {
            self.high = kept(key);
            self.end = next(&self.high);
        }
    }

    /// The part of a span in which there can be keys.
    pub(super) fn clip<'s>(&'s self, span: Span<'s>) -> Span<'s> {
        let from = match span.from {
            Bound::Included(key) | Bound::Excluded(key) if key >= self.low.as_slice() => span.from,
            _ if self.low.is_empty() => span.from,
            _ => Bound::Included(self.low.as_slice()),
        };
        let to = match (&self.end, span.to) {
            (Some(end), Bound::Included(key) | Bound::Excluded(key)) if key < end.as_slice() => span.to,
            (Some(end), _) => Bound::Excluded(end.as_slice()),
            (None, to) => to,
        };
        Span { from, to, ..span }
    }
}

fn kept(key: &[u8]) -> Vec<u8> {
    key[..key.len().min(KEPT)].to_vec()
}

/// The first key behind all that begin with those bytes; none: there is none, or nothing is known.
fn next(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    while next.pop_if(|byte| *byte == u8::MAX).is_some() {}
    *next.last_mut()? += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(prop::sample::select(vec![0u8, 1, 254, 255]), 1..4),
            prop::collection::vec(prop::sample::select(vec![7u8, 255]), 23..27),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_is_there_is_ever_outside(changes in prop::collection::vec((0u8..4, key()), 0..40), from in key(), to in key()) {
            let (mut edges, mut keys) = (Edges::default(), BTreeSet::<Vec<u8>>::new());
            for (change, key) in changes {
                match change {
                    0 => if let Some(first) = keys.pop_first() {
                        edges.gone_up_to(&first);
                    },
                    1 => if let Some(last) = keys.pop_last() {
                        edges.gone_from(&last);
                    },
                    _ => {
                        edges.include(&key);
                        keys.insert(key);
                    }
                }
                prop_assert_eq!(&Edges::decode(&edges.encode()), &edges);
            }
            let spans = [Span::ALL, Span { from: Bound::Included(&from), to: Bound::Excluded(&to), reverse: false },
                Span { from: Bound::Excluded(&from), to: Bound::Included(&to), reverse: true }];
            for span in spans {
                let clipped = edges.clip(span);
                for key in &keys {
                    let within = |span: Span<'_>| std::ops::RangeBounds::<[u8]>::contains(&(span.from, span.to), key.as_slice());
                    prop_assert_eq!(within(clipped), within(span));
                }
            }
        }
    }

    #[test]
    fn what_was_popped_is_outside() {
        let mut edges = Edges::default();
        assert!(edges.encode().is_empty());
        edges.gone_up_to(b"bbb");
        edges.gone_from(b"yyy");
        assert_eq!(edges.encode(), b"\x03bbb\x03yyy");
        let clipped = edges.clip(Span::ALL);
        assert_eq!((clipped.from, clipped.to), (Bound::Included(&b"bbb"[..]), Bound::Excluded(&b"yyz"[..])));
        assert_eq!(Edges::decode(b"\x09short"), Edges::default());
    }
}
