//! What a stream's record says of it, and what follows for the counters of its groups: arithmetic alone.

use super::{EntryId, bytes::Reader};

/// See the module's text. How many entries there are is the record's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are.
    pub size: u64,
    /// The highest id ever given.
    pub last: EntryId,
    /// Of the first entry; zero when there is none.
    pub first: EntryId,
    /// The highest id that XDEL has deleted; zero when none.
    pub max_deleted: EntryId,
    /// How many entries were ever added.
    pub added: u64,
    /// How many groups there are.
    pub groups: u64,
    /// The number of the next group or consumer.
    pub(super) next_number: u64,
}

impl Head {
    /// As a record says it, the size apart.
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.added, self.groups, self.next_number];
        let ids = [self.last, self.first, self.max_deleted].map(EntryId::encode);
        ids.iter().flatten().copied().chain(numbers.iter().flat_map(|number| number.to_be_bytes())).collect()
    }

    /// What a record says.
    pub(super) fn decode(size: u64, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            size,
            last: reader.id()?,
            first: reader.id()?,
            max_deleted: reader.id()?,
            added: reader.u64()?,
            groups: reader.u64()?,
            next_number: reader.u64()?,
        })
    }

    /// Whether an entry behind that id was deleted by XDEL.
    fn has_holes_from(&self, id: EntryId) -> bool {
        self.size > 0 && self.max_deleted != EntryId::MIN && id <= self.max_deleted
    }

    /// How many entries were added up to that id; `None` where nobody can know.
    pub fn entries_up_to(&self, id: EntryId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        if self.size == 0 && id <= self.last {
            return Some(self.added);
        }
        if id != EntryId::MIN && id < self.max_deleted {
            return None;
        }
        if id >= self.last {
            return (id == self.last).then_some(self.added);
        }
        if self.max_deleted != EntryId::MIN && self.max_deleted >= self.first {
            return None;
        }
        match id.cmp(&self.first) {
            std::cmp::Ordering::Less => Some(self.added - self.size.min(self.added)),
            std::cmp::Ordering::Equal => Some((self.added - self.size.min(self.added)).saturating_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// How many entries a group has read once it has read the one of that id; it had read `read` up to `last`.
    pub(super) fn entries_read(&self, read: Option<u64>, last: EntryId, id: EntryId) -> Option<u64> {
        match read {
            Some(read) if last >= self.first && !self.has_holes_from(last) => Some(read.saturating_add(1)),
            read if self.added == 0 => read,
            _ => self.entries_up_to(id),
        }
    }

    /// How many entries a group has still to read that has read `read` up to `last`; `None` where nobody can know.
    pub fn lag(&self, read: Option<u64>, last: EntryId) -> Option<i64> {
        if self.added == 0 || self.size == 0 {
            return Some(0);
        }
        if last < self.first && self.max_deleted < self.first {
            return Some(self.size as i64);
        }
        let read = match read {
            Some(read) if !self.has_holes_from(last) => read,
            _ => self.entries_up_to(last)?,
        };
        Some((self.added as i64).wrapping_sub(read as i64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, sequence: 0 }
    }

    /// Entries 1 to 5; `max_deleted` of them were deleted by XDEL.
    fn five(first: u64, size: u64, max_deleted: u64) -> Head {
        Head { size, last: id(5), first: id(first), max_deleted: id(max_deleted), added: 5, ..Head::default() }
    }

    #[test]
    fn the_lag_is_known_where_redis_knows_it() {
        // Nothing deleted: behind the group's place.
        assert_eq!([0, 1, 3, 5].map(|last| five(1, 5, 0).lag(Some(last), id(last))), [Some(5), Some(4), Some(2), Some(0)]);
        // A group whose counter is unknown: at the ends alone.
        assert_eq!([0, 1, 3, 5].map(|last| five(1, 5, 0).lag(None, id(last))), [Some(5), Some(4), None, Some(0)]);
        // Entry 3 was deleted: known behind it, and where everything is left to read before nothing.
        assert_eq!([0, 2, 3, 4].map(|last| five(1, 4, 3).lag(Some(last), id(last))), [None, None, None, Some(1)]);
        // The first two were trimmed.
        assert_eq!([0, 1, 3].map(|last| five(3, 3, 0).lag(Some(last), id(last))), [Some(3), Some(3), Some(2)]);
        assert_eq!(five(0, 0, 5).lag(None, id(2)), Some(0));
        assert_eq!(Head::default().lag(None, id(9)), Some(0));
    }

    #[test]
    fn what_was_read_is_counted_on_or_found_anew() {
        assert_eq!(five(1, 5, 0).entries_read(Some(1), id(1), id(2)), Some(2));
        assert_eq!(five(1, 5, 0).entries_read(None, id(0), id(1)), Some(1));
        assert_eq!(five(1, 5, 0).entries_read(None, id(2), id(3)), None);
        assert_eq!(five(1, 5, 0).entries_read(None, id(4), id(5)), Some(5));
        assert_eq!(five(3, 3, 0).entries_read(Some(0), id(0), id(3)), Some(3));
        assert_eq!(five(1, 4, 3).entries_read(Some(1), id(1), id(2)), None);
    }

    proptest! {
        #[test]
        fn heads_round_trip(size in any::<u64>(), ids in any::<[(u64, u64); 3]>(), numbers in any::<[u64; 3]>()) {
            let [last, first, max_deleted] = ids.map(|(ms, sequence)| EntryId { ms, sequence });
            let [added, groups, next_number] = numbers;
            let head = Head { size, last, first, max_deleted, added, groups, next_number };
            prop_assert_eq!(Head::decode(size, &head.encode()), Some(head));
            prop_assert_eq!(Head::decode(size, &head.encode()[1..]), None);
        }
    }
}
