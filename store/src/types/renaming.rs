//! Giving what a key holds another name, or another place: RENAME, COPY, MOVE.

use super::keyspace::{Keyspace, TypeError, discarded};
use crate::engine::{Collection, EngineError, Home, Record, Span, Stored, Subkeys, Subspace};

impl Keyspace<'_> {
    /// RENAME: gives what a key holds another name, with its expiry; what had that name is gone. `None` when there is no such key; with
    /// `if_free`, false when the name is taken. Inside a slot no subkey is touched; into another slot each is copied.
    pub fn rename(&self, from: &[u8], to: &[u8], if_free: bool) -> Result<Option<bool>, TypeError> {
        let Some(stored) = self.live(from)? else { return Ok(None) };
        let record = stored.record()?;
        let (from_home, to_home) = (self.home(from), self.home(to));
        let there = self.stored(to_home, to)?;
        let taken = there.as_ref().map(Stored::record).transpose()?;
        if if_free && (from == to || taken.is_some_and(|taken| !taken.is_expired(self.now_ms()))) {
            return Ok(Some(false));
        }
        if from == to {
            return Ok(Some(true));
        }
        let replaced = taken.map(|taken| discarded(&taken)).transpose()?.flatten();
        let collection = record.collection().map_err(|error| EngineError::Damaged(error.to_string()))?;
        match collection.filter(|_| from_home != to_home) {
            None => {
                let mut writer = self.writer().borrow_mut();
                writer.put(to_home, to, &record, replaced);
                writer.delete(from_home, from, None);
            }
            Some(collection) => {
                let body = self.copy_collection(from_home, to_home, collection, &record)?;
                let mut writer = self.writer().borrow_mut();
                writer.put(to_home, to, &Record { value: &body, ..record }, replaced);
                writer.delete(from_home, from, discarded(&record)?);
            }
        }
        Ok(Some(true))
    }

    /// COPY: gives another key, of the keys `there`, what this one holds, with its expiry. `None` when there is no such key; without `replace`, false when the
    /// other one is taken. Costs a read and a write a subkey.
    pub fn copy(&self, from: &[u8], there: &Self, to: &[u8], replace: bool) -> Result<Option<bool>, TypeError> {
        let Some(stored) = self.live(from)? else { return Ok(None) };
        let record = stored.record()?;
        let (from_home, to_home) = (self.home(from), there.home(to));
        let taken = there.stored(to_home, to)?;
        let taken = taken.as_ref().map(Stored::record).transpose()?;
        if !replace && taken.is_some_and(|taken| !taken.is_expired(self.now_ms())) {
            return Ok(Some(false));
        }
        let replaced = taken.map(|taken| discarded(&taken)).transpose()?.flatten();
        match record.collection().map_err(|error| EngineError::Damaged(error.to_string()))? {
            None => self.writer().borrow_mut().put(to_home, to, &record, replaced),
            Some(collection) => {
                let body = self.copy_collection(from_home, to_home, collection, &record)?;
                self.writer().borrow_mut().put(to_home, to, &Record { value: &body, ..record }, replaced);
            }
        }
        Ok(Some(true))
    }

    /// MOVE: takes a key to another database; false when it is not here, or there is one there.
    pub fn move_to(&self, key: &[u8], there: &Self) -> Result<bool, TypeError> {
        let moved = self.copy(key, there, key, false)? == Some(true);
        if moved {
            self.delete([key].into_iter())?;
        }
        Ok(moved)
    }

    /// Copies a collection to another place, under a new version; returns the value of its record there. Costs a read and a write a
    /// subkey that is not in the record. Refused when they are more than a command may hold.
    fn copy_collection(&self, from: Home, to: Home, collection: Collection, record: &Record<'_>) -> Result<Vec<u8>, TypeError> {
        let copy = Collection { version: self.engine().next_version()?, ..collection };
        let (packed, extra) = record.body().map_err(|error| EngineError::Damaged(error.to_string()))?;
        let value = Record::collection_value(copy, packed, extra);
        if packed.is_some() {
            return Ok(value);
        }
        let mut allowance = self.allowance();
        for family in Subkeys::ALL {
            let space = Subspace { home: from, version: collection.version, family };
            let overlay = self.writer().borrow().overlay(space, &Span::ALL);
            let there = Subspace { home: to, version: copy.version, family };
            self.engine().scan_subkeys(space, Span::ALL, &overlay, |subkey, value| {
                self.writer().borrow_mut().put_subkey(there, subkey, value);
                allowance.take(subkey.len() + value.len())
            })?;
            allowance.check()?;
        }
        Ok(value)
    }
}
