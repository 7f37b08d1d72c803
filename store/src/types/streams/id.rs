//! Ids of entries: a time in milliseconds and a number within it.

use std::fmt;

/// The id of an entry. Stored as 16 bytes, big-endian, so that entries are in the order of their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Unix time in milliseconds, or what its writer made of it.
    pub ms: u64,
    /// Number among those of the same millisecond.
    pub sequence: u64,
}

impl EntryId {
    /// Below every entry's.
    pub const MIN: Self = Self { ms: 0, sequence: 0 };
    /// The highest there is.
    pub const MAX: Self = Self { ms: u64::MAX, sequence: u64::MAX };

    /// `ms-sequence`, or `ms` alone: then the sequence is `missing`. `None` when it is neither.
    pub fn parse(text: &[u8], missing: u64) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        Some(match text.split_once('-') {
            Some((ms, sequence)) => Self { ms: number(ms)?, sequence: number(sequence)? },
            None => Self { ms: number(text)?, sequence: missing },
        })
    }

    /// The one behind it; `None`: it is the highest.
    pub fn next(self) -> Option<Self> {
        match self.sequence.checked_add(1) {
            Some(sequence) => Some(Self { sequence, ..self }),
            None => Some(Self { ms: self.ms.checked_add(1)?, sequence: 0 }),
        }
    }

    /// The one before it; `None`: it is the lowest.
    pub fn previous(self) -> Option<Self> {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Some(Self { sequence, ..self }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, sequence: u64::MAX }),
        }
    }

    /// As it is stored.
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// Of stored bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (ms, sequence) = bytes.split_first_chunk::<8>()?;
        Some(Self { ms: u64::from_be_bytes(*ms), sequence: u64::from_be_bytes(sequence.try_into().ok()?) })
    }
}

/// Digits alone; zeros before them mean nothing, as in Redis.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        assert_eq!(EntryId::parse(b"5-3", 0), Some(EntryId { ms: 5, sequence: 3 }));
        assert_eq!(EntryId::parse(b"5", 7), Some(EntryId { ms: 5, sequence: 7 }));
        assert_eq!(EntryId::parse(b"18446744073709551615-18446744073709551615", 0), Some(EntryId::MAX));
        assert_eq!(EntryId::parse(b"0005-0000000000000000000000003", 0), Some(EntryId { ms: 5, sequence: 3 }));
        for wrong in [&b""[..], b"-", b"+", b"x", b"1-", b"-1", b"1-x", b"1-2-3", b" 1", b"18446744073709551616", b"\xff"] {
            assert_eq!(EntryId::parse(wrong, 0), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_round_trip_in_order(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
            let [a, b] = [a, b].map(|(ms, sequence)| EntryId { ms, sequence });
            prop_assert_eq!(EntryId::decode(&a.encode()), Some(a));
            prop_assert_eq!(EntryId::parse(a.to_string().as_bytes(), 0), Some(a));
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }

        #[test]
        fn there_is_nothing_between_an_id_and_the_next(ms in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()],
            sequence in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]) {
            let id = EntryId { ms, sequence };
            prop_assert_eq!(id.next().and_then(EntryId::previous), (id != EntryId::MAX).then_some(id));
            prop_assert_eq!(id.previous().and_then(EntryId::next), (id != EntryId::MIN).then_some(id));
            prop_assert!(id.next().is_none_or(|next| next > id));
        }
    }
}
