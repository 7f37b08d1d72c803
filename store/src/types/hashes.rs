//! Hashes: the key's record says under which version the fields are stored, and how many there are; each field is a subkey.
//!
//! Every change writes the fields and the record in one batch, so that the number in the record is the number of fields, after whatever
//! crash. A hash without fields is no key.

use std::ops::ControlFlow;

use super::{
    collection::{Members, MembersChange, TOGETHER_MIN},
    keyspace::{Keyspace, TypeError},
    sampling::Choice,
    strings::{parse_float, parse_integer, sum_of_floats},
};
use crate::{
    dice::Dice,
    engine::{Kind, Span, Subkeys},
};

/// A hash that is there.
pub struct Hash<'e>(Members<'e>);

impl<'e> Keyspace<'e> {
    /// The hash of that key; `None` when there is no such key. At most one point read.
    pub fn hash(&self, key: &[u8]) -> Result<Option<Hash<'e>>, TypeError> {
        Ok(self.members(key, Kind::Hash)?.map(Hash))
    }

    /// HSET: sets fields, makes the hash if there is none; returns how many fields are new.
    pub fn hash_set(&self, key: &[u8], pairs: &[(&[u8], &[u8])]) -> Result<u64, TypeError> {
        let mut change = HashChange::begin(*self, key)?;
        let (known, mut new) = (change.known(pairs)?, 0);
        for (position, (field, value)) in pairs.iter().enumerate() {
            let is_new = match (change.0.pending(Subkeys::Data, field), &known) {
                (Some(there), Some(_)) => !there,
                (None, Some(known)) => !known[position],
                (_, None) => !change.has(field)?,
            };
            change.put(field, value, is_new)?;
            new += u64::from(is_new);
        }
        change.finish();
        Ok(new)
    }

    /// HSETNX: sets a field if it is not there; whether it did.
    pub fn hash_set_if_missing(&self, key: &[u8], field: &[u8], value: &[u8]) -> Result<bool, TypeError> {
        let mut change = HashChange::begin(*self, key)?;
        let is_new = !change.has(field)?;
        if is_new {
            change.put(field, value, true)?;
            change.finish();
        }
        Ok(is_new)
    }

    /// HDEL: deletes fields, and the key with the last of them; returns how many there were. One point read a field.
    pub fn hash_delete<'f>(&self, key: &[u8], fields: impl Iterator<Item = &'f [u8]>) -> Result<u64, TypeError> {
        let mut change = HashChange::begin(*self, key)?;
        if change.0.is_fresh() {
            return Ok(0);
        }
        let mut deleted = 0;
        for field in fields {
            if change.has(field)? {
                change.0.remove_field(field)?;
                deleted += 1;
            }
        }
        change.finish();
        Ok(deleted)
    }

    /// HINCRBY: the new value of the field.
    pub fn hash_increment(&self, key: &[u8], field: &[u8], by: i64) -> Result<i64, TypeError> {
        let mut change = HashChange::begin(*self, key)?;
        let current = change.field(field)?;
        let number = current.as_deref().map_or(Ok(0), parse_integer).map_err(|_| TypeError::FieldNotInteger)?;
        let sum = number.checked_add(by).ok_or(TypeError::Overflow)?;
        change.put_keeping_expiry(field, sum.to_string().as_bytes(), current.is_none())?;
        change.finish();
        Ok(sum)
    }

    /// HINCRBYFLOAT: the new value of the field, as it is stored.
    pub fn hash_increment_float(&self, key: &[u8], field: &[u8], by: &[u8]) -> Result<String, TypeError> {
        if !parse_float(by)?.is_finite() {
            return Err(TypeError::Infinite);
        }
        let mut change = HashChange::begin(*self, key)?;
        let current = change.field(field)?;
        let number = current.as_deref().unwrap_or(b"0");
        parse_float(number).map_err(|_| TypeError::FieldNotFloat)?;
        let sum = sum_of_floats(number, by)?;
        change.put_keeping_expiry(field, sum.as_bytes(), current.is_none())?;
        change.finish();
        Ok(sum)
    }
}

impl Hash<'_> {
    /// How many fields there are. No read, unless some may have expired: then a step of a scan for each that has.
    pub fn size(&self) -> Result<u64, TypeError> {
        Ok(self.0.size() - self.0.due_count()?.min(self.0.size()))
    }

    pub(super) fn members(&self) -> &Members<'_> {
        &self.0
    }

    /// What its fields are stored under: another hash of the same name has another one.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// Calls `with` with the value of a field, `None` when there is none. One point read, no copy.
    pub fn get<R>(&self, field: &[u8], with: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TypeError> {
        if self.0.is_due(field)? {
            return Ok(with(None));
        }
        self.0.get(Subkeys::Data, field, with)
    }

    /// Calls `each` with the values of several fields, in the order of `fields`; until it breaks.
    pub fn get_many(&self, fields: &[&[u8]], mut each: impl FnMut(Option<&[u8]>) -> ControlFlow<()>) -> Result<(), TypeError> {
        if self.0.may_be_due() {
            for field in fields {
                if self.get(field, &mut each)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        self.0.get_many(Subkeys::Data, fields, each)
    }

    /// Calls `each` for every field and its value, in the order of the fields, from the first one after `after`; until it breaks. All as
    /// of one moment.
    pub fn each(&self, after: Option<&[u8]>, mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        let due = self.0.due()?;
        if due.is_empty() {
            return self.0.each(Subkeys::Data, Span::after(after), each);
        }
        self.0.each(Subkeys::Data, Span::after(after), |field, value| {
            if due.contains(field) { ControlFlow::Continue(()) } else { each(field, value) }
        })
    }

    /// Calls `each` for `count` fields chosen at random, none twice, or for all when there are no more; until it breaks. How even the choice
    /// is, and what it costs: [`super::random`].
    pub fn sample(&self, count: u64, mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        if self.0.may_be_due() {
            // Among those that have not expired: by going over all of them.
            let mut choice = Choice::new(count, self.size()?);
            return self.each(None, |field, value| {
                if choice.takes_next() && each(field, value).is_break() || choice.is_complete() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
        }
        self.0.sample(count, each)
    }

    /// Calls `each` for `count` fields chosen at random, the same one as often as chance has it; until it breaks. At most `bytes_max` bytes of
    /// them are held at a time.
    pub fn sample_with_repeats(
        &self,
        count: u64,
        with_values: bool,
        bytes_max: usize,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        if self.0.may_be_due() {
            let (mut all, mut bytes) = (Vec::new(), 0);
            self.each(None, |field, value| {
                let value = if with_values { value } else { &[] };
                bytes += field.len() + value.len();
                all.push((field.to_vec(), value.to_vec()));
                if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let mut dice = Dice::random();
            for _ in 0..if all.is_empty() { 0 } else { count } {
                let (field, value) = &all[dice.below(all.len() as u64) as usize];
                if each(field, value).is_break() {
                    break;
                }
            }
            return Ok(());
        }
        self.0.sample_with_repeats(count, with_values, bytes_max, each)
    }
}

/// A hash that is being changed: its key is claimed.
struct HashChange<'e, 'k>(MembersChange<'e, 'k>);

impl<'e, 'k> HashChange<'e, 'k> {
    /// The hash of that key, or a new one. One point read.
    fn begin(keys: Keyspace<'e>, key: &'k [u8]) -> Result<Self, TypeError> {
        MembersChange::begin(keys, key, Kind::Hash).map(Self)
    }

    /// A field's value.
    fn field(&self, field: &[u8]) -> Result<Option<Vec<u8>>, TypeError> {
        if self.0.members().is_due(field)? {
            return Ok(None);
        }
        self.0.get(Subkeys::Data, field)
    }

    /// Whether a field is there.
    fn has(&self, field: &[u8]) -> Result<bool, TypeError> {
        Ok(self.0.has(Subkeys::Data, field)? && !self.0.members().is_due(field)?)
    }

    /// Which of those fields are there before any of them is set, where that is cheaper to ask for together.
    fn known(&self, pairs: &[(&[u8], &[u8])]) -> Result<Option<Vec<bool>>, TypeError> {
        if self.0.is_fresh() || pairs.len() < TOGETHER_MIN || self.0.members().may_be_due() {
            return Ok(None);
        }
        let fields: Vec<&[u8]> = pairs.iter().map(|(field, _)| *field).collect();
        let mut known = Vec::with_capacity(fields.len());
        self.0.members().get_many(Subkeys::Data, &fields, |value| {
            known.push(value.is_some());
            ControlFlow::Continue(())
        })?;
        Ok(Some(known))
    }

    /// A field gets this value, and lives for ever.
    fn put(&mut self, field: &[u8], value: &[u8], is_new: bool) -> Result<(), TypeError> {
        self.store(field, value, is_new)?;
        self.0.clear_expiry(field).map(drop)
    }

    /// A field gets this value; if it was there, it expires when it would have.
    fn put_keeping_expiry(&mut self, field: &[u8], value: &[u8], is_new: bool) -> Result<(), TypeError> {
        if is_new {
            return self.put(field, value, true);
        }
        self.store(field, value, false)
    }

    fn store(&mut self, field: &[u8], value: &[u8], is_new: bool) -> Result<(), TypeError> {
        // One that has expired is still stored, and counted.
        let counted = !is_new || self.0.members().may_be_due() && self.0.has(Subkeys::Data, field)?;
        self.0.put(Subkeys::Data, field, value);
        self.0.grow(u64::from(!counted));
        Ok(())
    }

    fn finish(self) {
        self.0.finish();
    }
}
