//! Keys whatever they hold: existence, expiry, deletion; and the one way in which a single key is changed.

use std::{borrow::Cow, cell::RefCell};

use sluice_topology::Slot;

use super::prefetch::Prefetch;
use crate::engine::{Discarded, Engine, EngineError, Gathered, Home, Kind, Record, Stored, View, Writer};

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
    /// A field does not hold a whole number.
    #[error("ERR hash value is not an integer")]
    FieldNotInteger,
    /// A field does not hold a number.
    #[error("ERR hash value is not a float")]
    FieldNotFloat,
    /// A number that nothing can be added to.
    #[error("ERR value is NaN or Infinity")]
    Infinite,
    /// The sum does not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The sum is no number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// The value would grow past the limit.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// The numbers of its elements' places are used up at one end.
    #[error("ERR the list cannot grow further at this end: the numbers of its places are used up; a copy of it can")]
    ListEnd,
    /// No range of scores.
    #[error("ERR min or max is not a float")]
    NotScoreRange,
    /// No range of members.
    #[error("ERR min or max not valid string range item")]
    NotLexRange,
    /// A score would be no number.
    #[error("ERR resulting score is not a number (NaN)")]
    ScoreNotANumber,
    /// A string that is no `HyperLogLog`.
    #[error("WRONGTYPE Key is not a valid HyperLogLog string value.")]
    NotHyperLogLog,
    /// A `HyperLogLog` whose registers cannot be read.
    #[error("INVALIDOBJ Corrupted HLL object detected")]
    DamagedHyperLogLog,
    /// What RESTORE is given has another sum, or is of a newer version.
    #[error("ERR DUMP payload version or checksum are wrong")]
    WrongPayload,
    /// What RESTORE is given says nothing that can be stored.
    #[error("ERR Bad data format")]
    DamagedPayload,
    /// A command would hold, or write, more than one may.
    #[error(
        "ERR the command needs more than {0} bytes of memory (command-memory-limit): use fewer or smaller keys at once, or raise the limit"
    )]
    TooMuch(usize),
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
    /// It holds what it held, and expires then.
    Expiry(Option<u64>),
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

/// The keys of a node, at one moment, as a writer sees them. Whoever changes keys has claimed them first.
#[derive(Clone, Copy)]
pub struct Keyspace<'e> {
    engine: &'e Engine,
    writer: &'e RefCell<Writer>,
    prefetch: Option<&'e Prefetch<'e>>,
    view: Option<&'e View<'e>>,
    database: u8,
    now_ms: u64,
    memory_max: usize,
}

impl<'e> Keyspace<'e> {
    /// The keys of a database as of that time, Unix milliseconds. Changes are gathered by the writer.
    pub fn new(engine: &'e Engine, writer: &'e RefCell<Writer>, database: u8, now_ms: u64) -> Self {
        Self { engine, writer, prefetch: None, view: None, database, now_ms, memory_max: usize::MAX }
    }

    /// Those of another database.
    #[must_use]
    pub fn in_database(self, database: u8) -> Self {
        Self { database, ..self }
    }

    /// Where a key lives.
    pub fn home(&self, key: &[u8]) -> Home {
        Home { database: self.database, slot: Slot::of_key(key) }
    }

    /// The same, with records that were read ahead.
    #[must_use]
    pub fn with_prefetch(self, prefetch: Option<&'e Prefetch<'e>>) -> Self {
        Self { prefetch, ..self }
    }

    /// The same, read as of the moment of a view, if there is one, with what the writer has gathered over it. If the view is of one place, that is the only
    /// one that may be asked for.
    #[must_use]
    pub fn as_of(self, view: Option<&'e View<'e>>) -> Self {
        Self { view, ..self }
    }

    /// The same, for a command that may hold so many bytes.
    #[must_use]
    pub fn within(self, memory_max: usize) -> Self {
        Self { memory_max, ..self }
    }

    pub(super) fn memory_max(&self) -> usize {
        self.memory_max
    }

    pub(super) fn view(&self) -> Option<&'e View<'e>> {
        self.view
    }

    pub(super) fn engine(&self) -> &'e Engine {
        self.engine
    }

    pub(super) fn writer(&self) -> &'e RefCell<Writer> {
        self.writer
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The record of a key, expired or not: what the writer gathered for it, what was read ahead, or what the database holds.
    pub(super) fn stored(&self, home: Home, key: &[u8]) -> Result<Option<Stored<'e>>, EngineError> {
        let writer = self.writer.borrow();
        match writer.gathered_record(home, key) {
            Gathered::Put(stored) => return Ok(Some(stored)),
            Gathered::Deleted => return Ok(None),
            Gathered::Nothing => {}
        }
        if let Some(view) = self.view {
            return view.get(home, key);
        }
        match self.prefetch.and_then(|prefetch| prefetch.get(&writer, home, key)) {
            Some(found) => Ok(found.as_ref().map(Stored::again)),
            None => self.engine.get(home, key),
        }
    }

    /// The record of a key that is there and has not expired. At most one point read.
    pub fn live(&self, key: &[u8]) -> Result<Option<Stored<'e>>, TypeError> {
        let Some(stored) = self.stored(self.home(key), key)? else { return Ok(None) };
        if stored.record()?.is_expired(self.now_ms) { Ok(None) } else { Ok(Some(stored)) }
    }

    /// Gives a key a record, whatever it held. One point read where the slot may hold collections.
    pub(super) fn replace(&self, key: &[u8], record: &Record<'_>) -> Result<(), TypeError> {
        let home = self.home(key);
        let replaced = if self.writer.borrow().may_replace_collection(home) {
            self.stored(home, key)?.map(|stored| discarded(&stored.record()?)).transpose()?.flatten()
        } else {
            None
        };
        self.writer.borrow_mut().put(home, key, record, replaced);
        Ok(())
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

    /// Deletes keys; returns how many there were. One point read a key.
    pub fn delete<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<i64, TypeError> {
        let mut count = 0;
        for key in keys {
            let home = self.home(key);
            // A key that is named twice is gone the second time: the writer knows.
            let Some(stored) = self.stored(home, key)? else { continue };
            let record = stored.record()?;
            let mut writer = self.writer.borrow_mut();
            if record.is_expired(self.now_ms) {
                writer.note_expired(home, key);
            } else {
                count += 1;
            }
            writer.delete(home, key, discarded(&record)?);
        }
        Ok(count)
    }

    /// When a key expires: `None` when there is no such key, `Some(None)` when it never does. One point read.
    pub fn expires_at_ms(&self, key: &[u8]) -> Result<Option<Option<u64>>, TypeError> {
        match self.live(key)? {
            Some(stored) => Ok(Some(stored.record()?.expires_at_ms)),
            None => Ok(None),
        }
    }

    /// Sets when a key expires; a time that has passed deletes it. One point read, one write.
    pub fn expire_at(&self, key: &[u8], at_ms: i64, condition: ExpireCondition) -> Result<bool, TypeError> {
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
            Ok((Change::Expiry(Some(at)), true))
        })
    }

    /// Lets a key live for ever; false when it does already or is not there. One point read, one write.
    pub fn persist(&self, key: &[u8]) -> Result<bool, TypeError> {
        self.change(key, |record| match record {
            Some(record) if record.expires_at_ms.is_some() => Ok((Change::Expiry(None), true)),
            _ => Ok((Change::Keep, false)),
        })
    }

    /// Changes one key: lets `decide` see what is there (nothing, when it has expired), and gathers what it says. One point read.
    pub(super) fn change<'v, R>(
        &self,
        key: &[u8],
        decide: impl FnOnce(Option<Record<'_>>) -> Result<(Change<'v>, R), TypeError>,
    ) -> Result<R, TypeError> {
        let home = self.home(key);
        let stored = self.stored(home, key)?;
        let record = stored.as_ref().map(Stored::record).transpose()?;
        let expired = record.is_some_and(|record| record.is_expired(self.now_ms));
        let (change, result) = decide(record.filter(|_| !expired))?;
        let replaced = record.map(|record| discarded(&record)).transpose()?.flatten();
        let mut writer = self.writer.borrow_mut();
        if expired && !matches!(change, Change::Keep) {
            writer.note_expired(home, key);
        }
        match (change, record) {
            (Change::String(value, expires_at_ms), _) => {
                writer.put(home, key, &Record::string(&value, expires_at_ms), replaced);
            }
            (Change::Expiry(expires_at_ms), Some(record)) => writer.put(home, key, &Record { expires_at_ms, ..record }, None),
            (Change::Delete, Some(_)) => writer.delete(home, key, replaced),
            (Change::Keep, _) | (Change::Expiry(_) | Change::Delete, None) => {}
        }
        Ok(result)
    }
}

/// What is to be reclaimed when the record goes, expired or not.
pub(super) fn discarded(record: &Record<'_>) -> Result<Option<Discarded>, EngineError> {
    record.discarded().map_err(|error| EngineError::Damaged(error.to_string()))
}
