//! Where the elements of a list are: arithmetic alone.

use std::ops::Range;

use crate::{
    engine::EngineError,
    types::{collection::Members, keyspace::TypeError},
};

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where LPUSH and LPOP are.
    Front,
    /// Where RPUSH and RPOP are.
    Back,
}

/// The places of a list's elements: consecutive numbers. It begins in the middle of all numbers, so that either end has room for more
/// elements than anybody adds; where it had none left it would refuse to grow rather than begin anew at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Of the first element; where one would be, when there is none.
    first: u64,
    /// How many elements there are.
    pub(super) size: u64,
}

impl Places {
    /// Those of a list without elements.
    pub(super) const EMPTY: Self = Self { first: 1 << 63, size: 0 };

    /// Those that a list's record says.
    pub(super) fn of(members: &Members<'_>) -> Result<Self, TypeError> {
        let damaged = || EngineError::Damaged("a list's record does not say where its elements are".into());
        let first = u64::from_be_bytes(members.extra().try_into().map_err(|_| damaged())?);
        let places = Self { first, size: members.size() };
        // The place behind the last one is a number as well.
        places.first.checked_add(places.size).ok_or_else(damaged)?;
        Ok(places)
    }

    /// As a list's record says them, its size apart.
    pub(super) fn encode(self) -> [u8; 8] {
        self.first.to_be_bytes()
    }

    /// Of the element at that distance from the first one, which is at most the size.
    pub(super) fn place(self, offset: u64) -> u64 {
        debug_assert!(offset <= self.size);
        self.first + offset
    }

    /// The distance from the first element of the one at a stored place; `None` when the place is not this list's.
    pub(super) fn offset_of_place(self, place: &[u8]) -> Option<u64> {
        let place = u64::from_be_bytes(place.try_into().ok()?);
        place.checked_sub(self.first).filter(|offset| *offset < self.size)
    }

    /// The distance from the first element of the one at that index, which counts from the end if it is negative.
    pub(super) fn offset_of_index(self, index: i64) -> Option<u64> {
        let offset = match u64::try_from(index) {
            Ok(offset) => offset,
            Err(_) => self.size.checked_sub(index.unsigned_abs())?,
        };
        (offset < self.size).then_some(offset)
    }

    /// Of the element at an end; there is one.
    pub(super) fn at_end(self, end: End) -> u64 {
        match end {
            End::Front => self.first,
            End::Back => self.first + self.size.saturating_sub(1),
        }
    }

    /// With one more at an end; `None` when the numbers are used up there.
    pub(super) fn longer(self, end: End) -> Option<Self> {
        let longer = match end {
            End::Front => Self { first: self.first.checked_sub(1)?, size: self.size + 1 },
            End::Back => Self { size: self.size + 1, ..self },
        };
        longer.first.checked_add(longer.size).map(|_| longer)
    }

    /// Without the one at an end; there is one.
    pub(super) fn shorter(self, end: End) -> Self {
        let size = self.size.saturating_sub(1);
        match end {
            End::Front => Self { first: self.first + 1, size },
            End::Back => Self { size, ..self },
        }
    }
}

/// Distances from the first element of those between two indexes, both included, of a list of that size; indexes count from the end if
/// they are negative. Empty where LRANGE answers nothing.
pub fn offsets_of_range(start: i64, stop: i64, size: u64) -> Range<u64> {
    let size_signed = i64::try_from(size).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { index.saturating_add(size_signed) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(size_signed - 1));
    match (u64::try_from(start), u64::try_from(stop)) {
        (Ok(start), Ok(stop)) if start <= stop => start..stop + 1,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_end_without_room_refuses_to_grow() {
        let at_zero = Places { first: 0, size: 3 };
        assert_eq!(at_zero.longer(End::Front), None);
        assert_eq!(at_zero.longer(End::Back), Some(Places { first: 0, size: 4 }));
        let at_end = Places { first: u64::MAX - 3, size: 3 };
        assert_eq!(at_end.longer(End::Back), None);
        assert_eq!(at_end.longer(End::Front), Some(Places { first: u64::MAX - 4, size: 4 }));
    }

    #[test]
    fn indexes_count_from_either_end() {
        let places = Places { first: 10, size: 3 };
        let found = [-4, -3, -1, 0, 2, 3, i64::MIN, i64::MAX].map(|index| places.offset_of_index(index));
        assert_eq!(found, [None, Some(0), Some(2), Some(0), Some(2), None, None, None]);
        assert_eq!(
            [9, 10, 12, 13].map(|place: u64| places.offset_of_place(&place.to_be_bytes())),
            [None, Some(0), Some(2), None]
        );
        assert_eq!(places.offset_of_place(b"short"), None);
    }

    #[test]
    fn ranges_are_those_of_lrange() {
        let of = |start, stop| offsets_of_range(start, stop, 5);
        assert_eq!(of(0, -1), 0..5);
        assert_eq!(of(-2, 100), 3..5);
        assert_eq!(of(-100, 1), 0..2);
        assert_eq!(of(i64::MIN, i64::MAX), 0..5);
        for (start, stop) in [(3, 2), (5, 9), (-1, -2), (0, -6), (i64::MAX, i64::MIN)] {
            assert!(of(start, stop).is_empty(), "{start} {stop}");
        }
        assert!(offsets_of_range(0, -1, 0).is_empty());
    }

    proptest! {
        #[test]
        fn places_grow_and_shrink_by_one_at_the_end_they_are_told(ends in proptest::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let (mut places, mut model) = (Places::EMPTY, std::collections::VecDeque::new());
            for (front, longer) in ends {
                let end = if front { End::Front } else { End::Back };
                if longer {
                    places = places.longer(end).unwrap();
                    let place = places.at_end(end);
                    if front { model.push_front(place) } else { model.push_back(place) }
                } else if !model.is_empty() {
                    prop_assert_eq!(Some(places.at_end(end)), if front { model.pop_front() } else { model.pop_back() });
                    places = places.shorter(end);
                }
                prop_assert!(model.iter().enumerate().all(|(offset, place)| places.place(offset as u64) == *place));
                prop_assert_eq!(places.size, model.len() as u64);
            }
        }
    }
}
