//! Sets of slots, kept and written as sorted ranges.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::slot::{SLOT_COUNT, Slot};

/// Why a text is not a set of slots.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// A part is neither `N` nor `N-M`.
    #[error("`{0}` is not a slot or a range of slots: write them like 0-5460,7000")]
    Syntax(String),
    /// A number is past the last slot.
    #[error("slot {0} is out of range: slots are 0 to 16383")]
    OutOfRange(u64),
    /// A range runs backwards.
    #[error("range {0}-{1} runs backwards: write the lower slot first")]
    Backwards(u16, u16),
    /// A slot stands twice in one text.
    #[error("slot {0} stands more than once")]
    Overlap(u16),
}

/// A set of slots. Its text form is `0-5460,7000`; the empty set is the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotRanges(
    /// Inclusive bounds, sorted, neither overlapping nor adjacent.
    Vec<(u16, u16)>,
);

impl SlotRanges {
    /// No slot.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Every slot.
    pub fn full() -> Self {
        Self(vec![(0, SLOT_COUNT - 1)])
    }

    /// Whether there is no slot in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many slots are in it.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(low, high)| usize::from(high - low) + 1).sum()
    }

    /// Whether that slot is in it.
    pub fn contains(&self, slot: Slot) -> bool {
        let after = self.0.partition_point(|(low, _)| *low <= slot.get());
        after > 0 && self.0.get(after - 1).is_some_and(|(_, high)| slot.get() <= *high)
    }

    /// Inclusive bounds of each range, sorted.
    pub fn bounds(&self) -> impl ExactSizeIterator<Item = (Slot, Slot)> + '_ {
        self.0.iter().filter_map(|(low, high)| Some((Slot::new(*low)?, Slot::new(*high)?))).collect::<Vec<_>>().into_iter()
    }

    /// Its slots, in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().flat_map(|(low, high)| *low..=*high).filter_map(Slot::new)
    }

    /// The slots in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|slot| other.contains(*slot)).collect()
    }

    /// The slots of this one that are not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|slot| !other.contains(*slot)).collect()
    }

    /// The slots in either.
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// Runs of at most `slots_max` slots each, in order; together they are this set.
    pub fn split(&self, slots_max: usize) -> Vec<Self> {
        let slots: Vec<Slot> = self.iter().collect();
        slots.chunks(slots_max.max(1)).map(|run| run.iter().copied().collect()).collect()
    }
}

impl FromIterator<Slot> for SlotRanges {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut numbers: Vec<u16> = slots.into_iter().map(Slot::get).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, high)) if *high + 1 == number => *high = number,
                _ => ranges.push((number, number)),
            }
        }
        Self(ranges)
    }
}

impl From<Slot> for SlotRanges {
    fn from(slot: Slot) -> Self {
        Self(vec![(slot.get(), slot.get())])
    }
}

impl FromStr for SlotRanges {
    type Err = RangeError;

    /// Reads `0-5460,7000` (also with blanks between parts, as Kvrocks' tools write them); a slot that stands twice is an error.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let number = |digits: &str, part: &str| -> Result<u16, RangeError> {
            if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(RangeError::Syntax(part.chars().take(64).collect()));
            }
            let value: u64 = digits.parse().map_err(|_| RangeError::Syntax(part.to_owned()))?;
            u16::try_from(value).ok().filter(|n| *n < SLOT_COUNT).ok_or(RangeError::OutOfRange(value))
        };
        let mut seen = vec![false; usize::from(SLOT_COUNT)];
        let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
        let mut slots = Vec::new();
        for part in parts {
            let (low, high) = match part.split_once('-') {
                Some((low, high)) => (number(low, part)?, number(high, part)?),
                None => (number(part, part)?, number(part, part)?),
            };
            if low > high {
                return Err(RangeError::Backwards(low, high));
            }
            for slot in (low..=high).filter_map(Slot::new) {
                if std::mem::replace(&mut seen[slot.index()], true) {
                    return Err(RangeError::Overlap(slot.get()));
                }
                slots.push(slot);
            }
        }
        Ok(slots.into_iter().collect())
    }
}

impl fmt::Display for SlotRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (low, high)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for SlotRanges {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<SlotRanges> for String {
    fn from(ranges: SlotRanges) -> Self {
        ranges.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_a_set_of_slots() {
        for (text, error) in [
            ("a", RangeError::Syntax("a".into())),
            ("5-", RangeError::Syntax("5-".into())),
            ("-5", RangeError::Syntax("-5".into())),
            ("16384", RangeError::OutOfRange(16384)),
            ("9-5", RangeError::Backwards(9, 5)),
            ("1-5,5", RangeError::Overlap(5)),
        ] {
            assert_eq!(text.parse::<SlotRanges>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_set_operations_agree_with_a_plain_set(
            left in proptest::collection::btree_set(0u16..64, 0..40),
            right in proptest::collection::btree_set(0u16..64, 0..40),
        ) {
            let ranges = |set: &std::collections::BTreeSet<u16>| set.iter().copied().filter_map(Slot::new).collect::<SlotRanges>();
            let (a, b) = (ranges(&left), ranges(&right));
            prop_assert_eq!(a.to_string().parse::<SlotRanges>().unwrap(), a.clone());
            prop_assert_eq!(a.len(), left.len());
            prop_assert_eq!(a.intersection(&b), ranges(&(&left & &right)));
            prop_assert_eq!(a.difference(&b), ranges(&(&left - &right)));
            prop_assert_eq!(a.union(&b), ranges(&(&left | &right)));
            for slot in Slot::all().take(70) {
                prop_assert_eq!(a.contains(slot), left.contains(&slot.get()));
            }
            let parts = a.split(7);
            prop_assert!(parts.iter().all(|part| part.len() <= 7));
            prop_assert_eq!(parts.iter().flat_map(SlotRanges::iter).collect::<SlotRanges>(), a);
        }
    }
}
