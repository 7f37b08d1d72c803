//! Ranges of scores and of members, as commands name them and as bounds of what is stored.

use std::ops::Bound;

use super::{
    super::{TypeError, double::parse_double},
    score::sortable,
};

/// From one score to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    /// The least.
    pub min: Bound<f64>,
    /// The greatest.
    pub max: Bound<f64>,
}

/// From one member to another, in the order of their bytes; a sorted set whose scores are all the same is sorted so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LexRange {
    /// The first.
    pub min: LexBound,
    /// The last.
    pub max: LexBound,
}

/// An end of a [`LexRange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LexBound {
    /// Before every member.
    First,
    /// Behind every member.
    Last,
    /// That member, itself in the range.
    Included(Vec<u8>),
    /// That member, itself not in the range.
    Excluded(Vec<u8>),
}

/// Bounds of subkeys: from, to.
pub(in crate::types) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl ScoreRange {
    /// Every score.
    pub const ALL: Self = Self { min: Bound::Unbounded, max: Bound::Unbounded };

    /// The range between two words such as `1.5`, `(2`, `-inf`.
    pub fn parse(min: &[u8], max: &[u8]) -> Result<Self, TypeError> {
        Ok(Self { min: parse_end(min)?, max: parse_end(max)? })
    }

    /// Bounds of the index's keys; `None` when nothing can be between them.
    pub(in crate::types) fn bounds(&self) -> Option<Bounds> {
        let from = match self.min {
            Bound::Included(score) => Bound::Included(sortable(score).to_vec()),
            Bound::Excluded(score) => after(score),
            Bound::Unbounded => Bound::Unbounded,
        };
        let to = match self.max {
            Bound::Included(score) => match after(score) {
                Bound::Included(next) => Bound::Excluded(next),
                _ => Bound::Unbounded,
            },
            Bound::Excluded(score) => Bound::Excluded(sortable(score).to_vec()),
            Bound::Unbounded => Bound::Unbounded,
        };
        not_empty(from, to)
    }
}

impl LexRange {
    /// The range between two words: `-`, `+`, `[member`, `(member`.
    pub fn parse(min: &[u8], max: &[u8]) -> Result<Self, TypeError> {
        Ok(Self { min: LexBound::parse(min)?, max: LexBound::parse(max)? })
    }

    /// Bounds of the index's keys among members of one score; `None` when nothing can be between them.
    pub(in crate::types) fn bounds(&self, score: f64) -> Option<Bounds> {
        let of = |member: &[u8]| [&sortable(score), member].concat();
        let from = match &self.min {
            LexBound::First => Bound::Included(sortable(score).to_vec()),
            LexBound::Included(member) => Bound::Included(of(member)),
            LexBound::Excluded(member) => Bound::Excluded(of(member)),
            LexBound::Last => return None,
        };
        let to = match &self.max {
            LexBound::Last => match after(score) {
                Bound::Included(next) => Bound::Excluded(next),
                _ => Bound::Unbounded,
            },
            LexBound::Included(member) => Bound::Included(of(member)),
            LexBound::Excluded(member) => Bound::Excluded(of(member)),
            LexBound::First => return None,
        };
        not_empty(from, to)
    }

    /// Whether a member is in the range.
    pub(in crate::types) fn contains(&self, member: &[u8]) -> bool {
        let above = match &self.min {
            LexBound::First => true,
            LexBound::Included(min) => member >= min.as_slice(),
            LexBound::Excluded(min) => member > min.as_slice(),
            LexBound::Last => false,
        };
        above
            && match &self.max {
                LexBound::First => false,
                LexBound::Included(max) => member <= max.as_slice(),
                LexBound::Excluded(max) => member < max.as_slice(),
                LexBound::Last => true,
            }
    }
}

impl LexBound {
    fn parse(word: &[u8]) -> Result<Self, TypeError> {
        match word {
            b"-" => Ok(Self::First),
            b"+" => Ok(Self::Last),
            [b'[', member @ ..] => Ok(Self::Included(member.to_vec())),
            [b'(', member @ ..] => Ok(Self::Excluded(member.to_vec())),
            _ => Err(TypeError::NotLexRange),
        }
    }
}

/// As `strtod` reads it: blanks may come before the number, nothing at all is 0, and too large a number is infinite.
fn parse_end(word: &[u8]) -> Result<Bound<f64>, TypeError> {
    let (excluded, word) = match word.split_first() {
        Some((b'(', rest)) => (true, rest),
        _ => (false, word),
    };
    let number = word.trim_ascii_start();
    let score = if word.is_empty() { 0.0 } else { parse_double(number).ok_or(TypeError::NotScoreRange)? };
    Ok(if excluded { Bound::Excluded(score) } else { Bound::Included(score) })
}

/// From the first index key whose score is above that one.
fn after(score: f64) -> Bound<Vec<u8>> {
    match u64::from_be_bytes(sortable(score)).checked_add(1) {
        Some(next) => Bound::Included(next.to_be_bytes().to_vec()),
        None => Bound::Unbounded,
    }
}

fn not_empty(from: Bound<Vec<u8>>, to: Bound<Vec<u8>>) -> Option<Bounds> {
    let empty = match (&from, &to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) | (Bound::Excluded(from), Bound::Included(to)) => {
            from >= to
        }
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    };
    (!empty).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn within(bounds: Option<&Bounds>, key: &[u8]) -> bool {
        use std::ops::RangeBounds as _;
        bounds.is_some_and(|bounds| bounds.contains(&key.to_vec()))
    }

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![(-3i32..4).prop_map(f64::from), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY)]
    }

    fn end() -> impl Strategy<Value = Bound<f64>> {
        (score(), any::<bool>()).prop_map(|(score, open)| if open { Bound::Excluded(score) } else { Bound::Included(score) })
    }

    fn lex_end() -> impl Strategy<Value = LexBound> {
        prop_oneof![
            Just(LexBound::First),
            Just(LexBound::Last),
            "[a-c]{0,2}".prop_map(|text| LexBound::Included(text.into_bytes())),
            "[a-c]{0,2}".prop_map(|text| LexBound::Excluded(text.into_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn bounds_of_scores_hold_what_the_range_does(min in end(), max in end(), score in score(), member in "[a-c]{0,2}") {
            use std::ops::RangeBounds as _;
            let key = [&sortable(score)[..], member.as_bytes()].concat();
            prop_assert_eq!(within(ScoreRange { min, max }.bounds().as_ref(), &key), (min, max).contains(&score));
        }

        #[test]
        fn bounds_of_members_hold_what_the_range_does(min in lex_end(), max in lex_end(), score in score(), member in "[a-c]{0,2}") {
            let range = LexRange { min, max };
            let key = [&sortable(score)[..], member.as_bytes()].concat();
            prop_assert_eq!(within(range.bounds(score).as_ref(), &key), range.contains(member.as_bytes()));
            prop_assert!(!within(range.bounds(7.0).as_ref(), &key));
        }
    }

    #[test]
    fn ranges_are_read_as_redis_reads_them() {
        let parsed = ScoreRange::parse(b"(1.5", b"+inf").unwrap();
        assert_eq!(parsed, ScoreRange { min: Bound::Excluded(1.5), max: Bound::Included(f64::INFINITY) });
        assert_eq!(ScoreRange::parse(b" 1", b"").unwrap().min, Bound::Included(1.0));
        for bad in ["x", "1 ", "nan", "((1", "[1"] {
            assert!(ScoreRange::parse(bad.as_bytes(), b"1").is_err(), "{bad}");
        }
        assert_eq!(
            LexRange::parse(b"-", b"(b").unwrap(),
            LexRange { min: LexBound::First, max: LexBound::Excluded(b"b".to_vec()) }
        );
        for bad in ["", "a", "--", "++", "1"] {
            assert!(LexRange::parse(bad.as_bytes(), b"+").is_err(), "{bad}");
        }
    }
}
