//! Consumer groups, their consumers, and what was delivered and not yet acknowledged, as they are stored: subkeys beside the entries.
//!
//! A group and a consumer are found by their names; what belongs to them by their numbers, which are given once a stream.

use super::{EntryId, bytes::Reader};

/// Group: its name behind this.
pub(super) const GROUP: u8 = b'g';
/// Consumer: the group's number and its name behind this.
const CONSUMER: u8 = b'c';
/// Pending entry of a group: the group's number and the entry's id behind this.
const PENDING: u8 = b'p';
/// The same by its consumer: both numbers and the id behind this.
const OWNED: u8 = b'q';

/// A consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub(super) number: u64,
    /// The last entry that was delivered.
    pub last: EntryId,
    /// How many entries it has read; `None`: unknown.
    pub read: Option<u64>,
    /// How many entries are pending.
    pub pending: u64,
    /// How many consumers it has.
    pub consumers: u64,
    /// No entry above that was ever pending.
    pub(super) top: EntryId,
}

impl Group {
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.number, self.pending, self.consumers, self.read.unwrap_or(u64::MAX)];
        let ids = [self.last, self.top].map(EntryId::encode);
        ids.iter().flatten().copied().chain(numbers.iter().flat_map(|number| number.to_be_bytes())).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (last, top) = (reader.id()?, reader.id()?);
        let (number, pending, consumers) = (reader.u64()?, reader.u64()?, reader.u64()?);
        Some(Self { number, last, read: Some(reader.u64()?).filter(|read| *read != u64::MAX), pending, consumers, top })
    }
}

/// A consumer of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its number.
    pub(super) number: u64,
    /// When it last tried to read or claim anything, Unix milliseconds.
    pub seen_ms: u64,
    /// When it last did; `None`: never.
    pub active_ms: Option<u64>,
    /// How many entries are pending at it.
    pub pending: u64,
}

impl Consumer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.number, self.seen_ms, self.active_ms.unwrap_or(u64::MAX), self.pending];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (number, seen_ms) = (reader.u64()?, reader.u64()?);
        let active_ms = Some(reader.u64()?).filter(|at| *at != u64::MAX);
        Some(Self { number, seen_ms, active_ms, pending: reader.u64()? })
    }
}

/// An entry that was delivered and is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was delivered last, Unix milliseconds.
    pub delivered_ms: u64,
    /// How often.
    pub deliveries: u64,
    /// To whom.
    pub consumer: Vec<u8>,
}

impl Pending {
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.delivered_ms.to_be_bytes()[..], &self.deliveries.to_be_bytes(), &self.consumer].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self { delivered_ms: reader.u64()?, deliveries: reader.u64()?, consumer: reader.0.to_vec() })
    }
}

pub(super) fn group_key(name: &[u8]) -> Vec<u8> {
    [&[GROUP], name].concat()
}

/// What the keys of a group's consumers begin with.
pub(super) fn consumers_of(group: u64) -> Vec<u8> {
    [&[CONSUMER][..], &group.to_be_bytes()].concat()
}

pub(super) fn consumer_key(group: u64, name: &[u8]) -> Vec<u8> {
    [&consumers_of(group), name].concat()
}

/// What the keys of a group's pending entries begin with.
pub(super) fn pending_of(group: u64) -> Vec<u8> {
    [&[PENDING][..], &group.to_be_bytes()].concat()
}

pub(super) fn pending_key(group: u64, id: EntryId) -> Vec<u8> {
    [&pending_of(group)[..], &id.encode()].concat()
}

/// What the keys of a consumer's pending entries begin with; without a consumer, those of all of the group.
pub(super) fn owned_by(group: u64, consumer: Option<u64>) -> Vec<u8> {
    let mut key = [&[OWNED][..], &group.to_be_bytes()].concat();
    consumer.iter().for_each(|consumer| key.extend(consumer.to_be_bytes()));
    key
}

pub(super) fn owned_key(group: u64, consumer: u64, id: EntryId) -> Vec<u8> {
    [&owned_by(group, Some(consumer))[..], &id.encode()].concat()
}

/// The first key behind all that begin so; the last byte of these is never the highest, or a number before it is not.
pub(super) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_stored_of_groups_round_trips(numbers in any::<[u64; 4]>(), optional in any::<Option<u32>>(), name in any::<Vec<u8>>()) {
            let [number, a, b, c] = numbers;
            let group = Group {
                number, last: EntryId { ms: a, sequence: b }, read: optional.map(u64::from), pending: b, consumers: c,
                top: EntryId { ms: c, sequence: a },
            };
            prop_assert_eq!(Group::decode(&group.encode()), Some(group));
            let consumer = Consumer { number, seen_ms: a, active_ms: optional.map(u64::from), pending: c };
            prop_assert_eq!(Consumer::decode(&consumer.encode()), Some(consumer));
            let pending = Pending { delivered_ms: a, deliveries: b, consumer: name };
            prop_assert_eq!(Pending::decode(&pending.encode()), Some(pending));
        }

        #[test]
        fn what_begins_alike_lies_before_the_end(group in 0..u64::MAX, consumer in 0..u64::MAX, id in any::<(u64, u64)>(), name in any::<Vec<u8>>()) {
            let id = EntryId { ms: id.0, sequence: id.1 };
            for (prefix, key) in [
                (consumers_of(group), consumer_key(group, &name)),
                (pending_of(group), pending_key(group, id)),
                (owned_by(group, None), owned_key(group, consumer, id)),
                (owned_by(group, Some(consumer)), owned_key(group, consumer, id)),
                (vec![GROUP], group_key(&name)),
            ] {
                prop_assert!(key.starts_with(&prefix) && key < behind(&prefix));
                prop_assert!(!behind(&prefix).starts_with(&prefix));
            }
        }
    }
}
