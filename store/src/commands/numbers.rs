//! Numbers among the words of a request, with the errors that Redis gives for each.

use bytes::Bytes;

use super::CommandError;
use crate::types::{parse_exact_double, parse_integer};

/// A count that is not negative.
pub(super) fn positive(word: &[u8]) -> Result<u64, CommandError> {
    let number = parse_integer(word).ok().and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| CommandError::new("ERR value is out of range, must be positive"))
}

/// A count whose sign means something: all but the one number that has no counterpart.
pub(super) fn symmetric(word: &[u8]) -> Result<i64, CommandError> {
    match parse_integer(word)? {
        i64::MIN => {
            Err(CommandError::new(format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX)))
        }
        count => Ok(count),
    }
}

/// A number above zero, or the error of that text.
pub(super) fn above_zero(word: &[u8], text: &'static str) -> Result<u64, CommandError> {
    let number = parse_integer(word).ok().and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| CommandError::new(text))
}

/// A floating point number, or the error of that text.
pub(super) fn float(word: &[u8], text: &'static str) -> Result<f64, CommandError> {
    parse_exact_double(word).ok_or_else(|| CommandError::new(text))
}

/// A score, an increment, a coordinate.
pub(super) fn score(word: &[u8]) -> Result<f64, CommandError> {
    float(word, "ERR value is not a valid float")
}

/// A number of keys, those keys, and what is behind them.
pub(super) fn counted_keys(words: &[Bytes]) -> Result<(&[Bytes], &[Bytes]), CommandError> {
    let (number, rest) = words.split_first().ok_or_else(CommandError::syntax)?;
    let number = above_zero(number, "ERR numkeys should be greater than 0")?;
    let number = usize::try_from(number).ok().filter(|number| *number <= rest.len());
    let number = number.ok_or_else(|| CommandError::new("ERR Number of keys can't be greater than number of args"))?;
    Ok(rest.split_at(number))
}

/// `LIMIT number`, as often as it comes; 0: none.
pub(super) fn limit(words: &[Bytes]) -> Result<u64, CommandError> {
    let mut limit = 0;
    for pair in words.chunks(2) {
        let [name, number] = pair else { return Err(CommandError::syntax()) };
        if !name.eq_ignore_ascii_case(b"limit") {
            return Err(CommandError::syntax());
        }
        let number = parse_integer(number).ok().and_then(|number| u64::try_from(number).ok());
        limit = number.ok_or_else(|| CommandError::new("ERR LIMIT can't be negative"))?;
    }
    Ok(limit)
}
