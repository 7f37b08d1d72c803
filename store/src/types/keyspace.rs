//! Keys whatever they hold: existence, expiry, deletion; and the one way in which a single key is changed.

use std::borrow::Cow;

use sluice_topology::Slot;

use crate::engine::{Engine, EngineError, KeyWrite, Kind, Record, Stored, Written};

/// Why an operation on a key is refused. The texts are Redis' own.
#[derive(Debug, thiserror::Error)]
pub enum TypeError {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Not a whole number that fits 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The sum does not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The sum is no number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// The value would grow past the limit.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// Storage refused or failed.
    #[error("{}", .0.reply())]
    Storage(#[from] EngineError),
}

impl EngineError {
    /// The text for a client. A store that shuts down has not executed the command: TRYAGAIN lets clients retry elsewhere or later.
    /// MISCONF is what Redis answers when it cannot write its files.
    pub fn reply(&self) -> String {
        match self {
            Self::Closed => "TRYAGAIN this node is shutting down and takes no more writes".into(),
            Self::Refused(_) | Self::WriteFailed(_) => format!("MISCONF {self}"),
            other => format!("ERR {other}"),
        }
    }
}

/// What becomes of a key.
pub(super) enum Change<'v> {
    /// Nothing.
    Keep,
    /// It holds this string.
    String(Cow<'v, [u8]>, Option<u64>),
    /// It is gone.
    Delete,
}

/// When EXPIRE and its kin apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireCondition {
    /// Only without an expiry.
    pub nx: bool,
    /// Only with an expiry.
    pub xx: bool,
    /// Only if later than the current one; none counts as never.
    pub gt: bool,
    /// Only if earlier than the current one.
    pub lt: bool,
}

/// The keys of a node, at one moment.
#[derive(Clone, Copy)]
pub struct Keyspace<'e> {
    engine: &'e Engine,
    now_ms: u64,
}

impl<'e> Keyspace<'e> {
    /// The keys as of that time, Unix milliseconds.
    pub fn new(engine: &'e Engine, now_ms: u64) -> Self {
        Self { engine, now_ms }
    }

    pub(super) fn engine(&self) -> &'e Engine {
        self.engine
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The record of a key that is there and has not expired. One point read.
    pub fn live(&self, key: &[u8]) -> Result<Option<Stored<'e>>, TypeError> {
        let Some(stored) = self.engine.get(Slot::of_key(key), key)? else { return Ok(None) };
        if stored.record()?.is_expired(self.now_ms) { Ok(None) } else { Ok(Some(stored)) }
    }

    /// The type of a key. One point read.
    pub fn kind(&self, key: &[u8]) -> Result<Option<Kind>, TypeError> {
        match self.live(key)? {
            Some(stored) => Ok(Some(stored.record()?.kind)),
            None => Ok(None),
        }
    }

    /// How many of those keys exist, counted as often as named. One point read a key.
    pub fn count_existing<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<i64, TypeError> {
        let mut count = 0;
        for key in keys {
            count += i64::from(self.live(key)?.is_some());
        }
        Ok(count)
    }

    /// Deletes keys in one batch; returns how many there were. One point read a key, one write.
    pub fn delete(&self, keys: &[&[u8]]) -> Result<(i64, Option<Written>), TypeError> {
        let named: Vec<(Slot, &[u8])> = keys.iter().map(|key| (Slot::of_key(key), *key)).collect();
        let locked = self.engine.lock(&named);
        let (mut writes, mut count) = (Vec::new(), 0);
        for (position, (slot, key)) in named.iter().enumerate() {
            if let Some(stored) = self.engine.get(*slot, key)?
                && !named[..position].contains(&(*slot, *key))
            {
                count += i64::from(!stored.record()?.is_expired(self.now_ms));
                writes.push(KeyWrite::Delete(*slot, key));
            }
        }
        if writes.is_empty() {
            return Ok((0, None));
        }
        Ok((count, Some(self.engine.commit(&locked, &writes)?)))
    }

    /// When a key expires: `None` when there is no such key, `Some(None)` when it never does. One point read.
    pub fn expires_at_ms(&self, key: &[u8]) -> Result<Option<Option<u64>>, TypeError> {
        match self.live(key)? {
            Some(stored) => Ok(Some(stored.record()?.expires_at_ms)),
            None => Ok(None),
        }
    }

    /// Sets when a key expires; a time that has passed deletes it. One point read, one write.
    pub fn expire_at(&self, key: &[u8], at_ms: i64, condition: ExpireCondition) -> Result<(bool, Option<Written>), TypeError> {
        self.change(key, |record| {
            let Some(record) = record else { return Ok((Change::Keep, false)) };
            let current = record.expires_at_ms.map_or(i64::MAX, |at| i64::try_from(at).unwrap_or(i64::MAX));
            let has = record.expires_at_ms.is_some();
            let refused = (condition.nx && has)
                || (condition.xx && !has)
                || (condition.gt && (!has || at_ms <= current))
                || (condition.lt && has && at_ms >= current);
            if refused {
                return Ok((Change::Keep, false));
            }
            let at = u64::try_from(at_ms).unwrap_or(0);
            if at <= self.now_ms {
                return Ok((Change::Delete, true));
            }
            Ok((Change::String(Cow::Owned(record.value.to_vec()), Some(at)), true))
        })
    }

    /// Lets a key live for ever; false when it does already or is not there. One point read, one write.
    pub fn persist(&self, key: &[u8]) -> Result<(bool, Option<Written>), TypeError> {
        self.change(key, |record| match record {
            Some(record) if record.expires_at_ms.is_some() => Ok((Change::String(Cow::Owned(record.value.to_vec()), None), true)),
            _ => Ok((Change::Keep, false)),
        })
    }

    /// Changes one key: reads it under its lock, lets `decide` see what is there (nothing, when it has expired), writes what it says.
    pub(super) fn change<'v, R>(
        &self,
        key: &[u8],
        decide: impl FnOnce(Option<Record<'_>>) -> Result<(Change<'v>, R), TypeError>,
    ) -> Result<(R, Option<Written>), TypeError> {
        let slot = Slot::of_key(key);
        let locked = self.engine.lock(&[(slot, key)]);
        let stored = self.engine.get(slot, key)?;
        let record = match &stored {
            Some(stored) => Some(stored.record()?).filter(|record| !record.is_expired(self.now_ms)),
            None => None,
        };
        let (change, result) = decide(record)?;
        let write = match &change {
            Change::Keep => return Ok((result, None)),
            Change::String(value, expires_at_ms) => KeyWrite::Put(slot, key, Record::string(value, *expires_at_ms)),
            Change::Delete => KeyWrite::Delete(slot, key),
        };
        Ok((result, Some(self.engine.commit(&locked, &[write])?)))
    }
}
