//! Scores as they are stored: eight bytes beside the member, and eight bytes that sort as the number does in the index.

use super::super::TypeError;
use crate::engine::EngineError;

/// Bytes of a score, in both forms.
pub(in crate::types) const SCORE_LEN: usize = 8;

/// A score beside its member in the `data` family. `-0` is stored as `0`, as Redis has it in its smaller sorted sets.
pub(in crate::types) fn encode(score: f64) -> [u8; SCORE_LEN] {
    (score + 0.0).to_bits().to_be_bytes()
}

/// The score that [`encode`] wrote.
pub(in crate::types) fn decode(bytes: &[u8]) -> Result<f64, TypeError> {
    let bytes = bytes.try_into().map_err(|_| damaged())?;
    Ok(f64::from_bits(u64::from_be_bytes(bytes)))
}

/// Eight bytes that sort as the scores do; the same for `0` and `-0`.
pub(in crate::types) fn sortable(score: f64) -> [u8; SCORE_LEN] {
    let bits = (score + 0.0).to_bits();
    let sorted = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    sorted.to_be_bytes()
}

/// The key of a member's entry in the index, whose value is empty.
pub(in crate::types) fn index_key(score: f64, member: &[u8]) -> Vec<u8> {
    [&sortable(score), member].concat()
}

/// The same of a score as it is stored.
pub(in crate::types) fn index_key_of_stored(stored: &[u8], member: &[u8]) -> Result<Vec<u8>, TypeError> {
    Ok(index_key(decode(stored)?, member))
}

/// Score and member of an entry of the index.
pub(in crate::types) fn split_entry(key: &[u8]) -> Result<(f64, &[u8]), TypeError> {
    let (sorted, member) = key.split_first_chunk::<SCORE_LEN>().ok_or_else(damaged)?;
    let sorted = u64::from_be_bytes(*sorted);
    let bits = if sorted >> 63 == 1 { sorted & !(1 << 63) } else { !sorted };
    Ok((f64::from_bits(bits), member))
}

fn damaged() -> TypeError {
    EngineError::Damaged("a sorted set's score is cut short".into()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn score() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            any::<u64>().prop_map(f64::from_bits).prop_filter("a number", |score| !score.is_nan()),
            (-50i32..50).prop_map(f64::from),
        ]
    }

    proptest! {
        #[test]
        fn the_index_sorts_as_the_scores_do(a in score(), b in score()) {
            let order = a.partial_cmp(&b).unwrap();
            prop_assert_eq!(sortable(a).cmp(&sortable(b)), order);
        }

        #[test]
        fn both_forms_round_trip(score in score(), member in proptest::collection::vec(any::<u8>(), 0..9)) {
            prop_assert_eq!(decode(&encode(score)).unwrap().to_bits(), (score + 0.0).to_bits());
            let key = index_key(score, &member);
            let (again, rest) = split_entry(&key).unwrap();
            prop_assert_eq!((again.to_bits(), rest), ((score + 0.0).to_bits(), &member[..]));
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        assert_eq!(index_key(1.0, b"m"), [0xbf, 0xf0, 0, 0, 0, 0, 0, 0, b'm']);
        assert_eq!(index_key(-1.0, b""), [0x40, 0x0f, 255, 255, 255, 255, 255, 255]);
        assert_eq!(index_key(-0.0, b""), [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode(1.0), [0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert!(decode(b"short").is_err() && split_entry(b"short").is_err());
    }
}
