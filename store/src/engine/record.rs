//! The record of a key in the `meta` family: kind, expiry, and for strings the value itself.

use std::fmt;

/// Format of records written by this version.
const FORMAT: u8 = 1;
/// Flag: eight bytes of expiry follow.
const FLAG_EXPIRES: u8 = 1;

/// The kind of a key. Kind bytes are append-only: a byte once given is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A string; its value follows in the record.
    String = 1,
}

impl Kind {
    /// The name that TYPE answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
        }
    }
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a key's record is damaged: {0}")]
pub struct RecordError(&'static str);

/// A key's record, borrowed from where it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the key holds.
    pub kind: Kind,
    /// When it expires, Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// A string's value.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// A string's record.
    pub fn string(value: &'a [u8], expires_at_ms: Option<u64>) -> Self {
        Self { kind: Kind::String, expires_at_ms, value }
    }

    /// Whether it has expired at that time.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Writes it into `buffer`, replacing what was in it.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.reserve(11 + self.value.len());
        buffer.extend_from_slice(&[FORMAT, self.kind as u8]);
        match self.expires_at_ms {
            Some(at) => {
                buffer.push(FLAG_EXPIRES);
                buffer.extend_from_slice(&at.to_be_bytes());
            }
            None => buffer.push(0),
        }
        buffer.extend_from_slice(self.value);
    }

    /// Reads a record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let ([format, kind, flags], rest) = bytes.split_first_chunk::<3>().ok_or(RecordError("it is cut short"))?;
        if *format != FORMAT {
            return Err(RecordError("its format is unknown to this version"));
        }
        let kind = match kind {
            1 => Kind::String,
            _ => return Err(RecordError("its kind is unknown to this version")),
        };
        let (expires_at_ms, value) = match *flags {
            0 => (None, rest),
            FLAG_EXPIRES => {
                let (at, rest) = rest.split_first_chunk::<8>().ok_or(RecordError("its expiry is cut short"))?;
                (Some(u64::from_be_bytes(*at)), rest)
            }
            _ => return Err(RecordError("its flags are unknown to this version")),
        };
        Ok(Self { kind, expires_at_ms, value })
    }
}

impl fmt::Debug for Record<'_> {
    /// Without the value, which belongs to the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes, expires {:?}", self.kind, self.value.len(), self.expires_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_format_1_stay_as_they_are() {
        let mut bytes = Vec::new();
        Record::string(b"abc", None).encode(&mut bytes);
        assert_eq!(bytes, [1, 1, 0, b'a', b'b', b'c']);
        Record::string(b"x", Some(0x0102_0304)).encode(&mut bytes);
        assert_eq!(bytes, [1, 1, 1, 0, 0, 0, 0, 1, 2, 3, 4, b'x']);
    }

    proptest! {
        #[test]
        fn records_round_trip(value in proptest::collection::vec(any::<u8>(), 0..64), expiry in any::<Option<u64>>()) {
            let mut bytes = Vec::new();
            let record = Record::string(&value, expiry);
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(record) = Record::decode(&bytes) {
                let mut again = Vec::new();
                record.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
