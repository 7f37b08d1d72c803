//! Strings: the value is in the key's record, so every command is at most one point read and one write.

use std::borrow::Cow;

use super::{
    keyspace::{Change, Keyspace, TypeError},
    long_double,
};
use crate::engine::{Kind, Record};

/// When SET applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if there is no such key.
    IfMissing,
    /// Only if there is such a key.
    IfPresent,
}

/// What SET does to the expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The key lives for ever.
    #[default]
    None,
    /// It keeps what it has.
    Keep,
    /// It expires then, Unix milliseconds.
    At(u64),
}

/// Options of SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// When it applies.
    pub condition: Condition,
    /// The expiry.
    pub ttl: Ttl,
    /// Whether the old value is wanted; the key has to hold a string then.
    pub get: bool,
}

/// Outcome of SET.
pub struct SetOutcome {
    /// Whether it applied.
    pub applied: bool,
    /// The old value, when it was wanted and there was one.
    pub old: Option<Vec<u8>>,
}

impl Keyspace<'_> {
    /// Calls `with` with the value of a string, `None` when there is none. One point read, no copy.
    pub fn get<R>(&self, key: &[u8], with: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TypeError> {
        match self.live(key)? {
            Some(stored) => Ok(with(Some(string(&stored.record()?)?))),
            None => Ok(with(None)),
        }
    }

    /// SET. Looks at what is there only when an option asks for it, or when it may be a collection.
    pub fn set(&self, key: &[u8], value: &[u8], options: SetOptions) -> Result<SetOutcome, TypeError> {
        let blind = options.condition == Condition::Always && !options.get;
        match options.ttl {
            Ttl::None if blind => {
                self.replace(key, &Record::string(value, None))?;
                return Ok(SetOutcome { applied: true, old: None });
            }
            Ttl::At(at) if blind && at > self.now_ms() => {
                self.replace(key, &Record::string(value, Some(at)))?;
                return Ok(SetOutcome { applied: true, old: None });
            }
            _ => {}
        }
        self.change(key, |record| {
            let old = match record.filter(|_| options.get) {
                Some(record) => Some(string(&record)?.to_vec()),
                None => None,
            };
            let applied = match options.condition {
                Condition::Always => true,
                Condition::IfMissing => record.is_none(),
                Condition::IfPresent => record.is_some(),
            };
            if !applied {
                return Ok((Change::Keep, SetOutcome { applied, old }));
            }
            let expires_at_ms = match options.ttl {
                Ttl::None => None,
                Ttl::Keep => record.and_then(|record| record.expires_at_ms),
                Ttl::At(at) => Some(at),
            };
            let change = match expires_at_ms {
                Some(at) if at <= self.now_ms() => Change::Delete,
                _ => Change::String(Cow::Borrowed(value), expires_at_ms),
            };
            Ok((change, SetOutcome { applied, old }))
        })
    }

    /// MSET: all pairs in one batch, or none.
    pub fn set_many<'k>(&self, pairs: impl Iterator<Item = (&'k [u8], &'k [u8])>) -> Result<(), TypeError> {
        for (key, value) in pairs {
            self.replace(key, &Record::string(value, None))?;
        }
        Ok(())
    }

    /// GETDEL: the value, and the key is gone.
    pub fn take(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TypeError> {
        self.change(key, |record| match record {
            Some(record) => Ok((Change::Delete, Some(string(&record)?.to_vec()))),
            None => Ok((Change::Keep, None)),
        })
    }

    /// APPEND: the new length.
    pub fn append(&self, key: &[u8], tail: &[u8], len_max: usize) -> Result<usize, TypeError> {
        self.change(key, |record| {
            let mut value = record.map_or(Ok(Vec::new()), |record| string(&record).map(<[u8]>::to_vec))?;
            if value.len().saturating_add(tail.len()) > len_max {
                return Err(TypeError::TooLong);
            }
            value.extend_from_slice(tail);
            let length = value.len();
            Ok((Change::String(Cow::Owned(value), record.and_then(|record| record.expires_at_ms)), length))
        })
    }

    /// INCRBY: the new value.
    pub fn increment(&self, key: &[u8], by: i64) -> Result<i64, TypeError> {
        self.change(key, |record| {
            let current = record.map_or(Ok(0), |record| parse_integer(string(&record)?))?;
            let sum = current.checked_add(by).ok_or(TypeError::Overflow)?;
            let expires_at_ms = record.and_then(|record| record.expires_at_ms);
            Ok((Change::String(Cow::Owned(sum.to_string().into_bytes()), expires_at_ms), sum))
        })
    }

    /// INCRBYFLOAT: the new value, as it is stored.
    pub fn increment_float(&self, key: &[u8], by: &[u8]) -> Result<String, TypeError> {
        parse_float(by)?;
        self.change(key, |record| {
            let current = record.as_ref().map_or(Ok(&b"0"[..]), string)?;
            let text = sum_of_floats(current, by)?;
            let expires_at_ms = record.and_then(|record| record.expires_at_ms);
            Ok((Change::String(Cow::Owned(text.clone().into_bytes()), expires_at_ms), text))
        })
    }
}

/// The value of a string's record.
pub(super) fn string<'r>(record: &Record<'r>) -> Result<&'r [u8], TypeError> {
    if record.kind == Kind::String { Ok(record.value) } else { Err(TypeError::WrongType) }
}

/// A whole number exactly as Redis writes it: no blanks, no plus, no leading zero.
pub(crate) fn parse_integer(text: &[u8]) -> Result<i64, TypeError> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => digits.len() <= 19,
        _ => false,
    };
    let text = std::str::from_utf8(text).ok().filter(|_| canonical);
    text.and_then(|text| text.parse().ok()).ok_or(TypeError::NotInteger)
}

/// The sum as it is stored: computed in Redis' 80-bit floating point, outside of its everyday range in 64 bits.
pub(super) fn sum_of_floats(current: &[u8], by: &[u8]) -> Result<String, TypeError> {
    let sum = parse_float(current)? + parse_float(by)?;
    if !sum.is_finite() {
        return Err(TypeError::NotFinite);
    }
    Ok(long_double::add(current, by).unwrap_or_else(|| sum.to_string()))
}

/// A number that is not NaN.
pub(crate) fn parse_float(text: &[u8]) -> Result<f64, TypeError> {
    let text = std::str::from_utf8(text).map_err(|_| TypeError::NotFloat)?;
    let blank = text.is_empty() || text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace);
    let number: f64 = text.parse().map_err(|_| TypeError::NotFloat)?;
    if blank || number.is_nan() { Err(TypeError::NotFloat) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, value) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)] {
            assert_eq!(parse_integer(text.as_bytes()).unwrap(), value);
        }
        for bad in ["", "-", "+1", "01", "-0", " 1", "1 ", "9223372036854775808", "1e3", "0x10"] {
            assert!(parse_integer(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
