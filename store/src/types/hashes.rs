//! Hashes: the key's record says under which version the fields are stored, and how many there are; each field is a subkey.
//!
//! Every change writes the fields and the record in one batch, so that the number in the record is the number of fields, after whatever
//! crash. A hash without fields is no key.

use std::ops::ControlFlow;

use super::{
    collection::{Members, MembersChange, TOGETHER_MIN},
    keyspace::{Keyspace, TypeError},
    strings::{parse_float, parse_integer, sum_of_floats},
};
use crate::engine::{Kind, Span, Subkeys};

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
        let was = change.size();
        let known = change.known(pairs)?;
        for (position, (field, value)) in pairs.iter().enumerate() {
            let is_new = match (change.0.pending(Subkeys::Data, field), &known) {
                (Some(there), _) => !there,
                (None, Some(known)) => !known[position],
                (None, None) => !change.has(field)?,
            };
            change.put(field, value, is_new);
        }
        let now = change.size();
        change.finish();
        Ok(now - was)
    }

    /// HSETNX: sets a field if it is not there; whether it did.
    pub fn hash_set_if_missing(&self, key: &[u8], field: &[u8], value: &[u8]) -> Result<bool, TypeError> {
        let mut change = HashChange::begin(*self, key)?;
        let is_new = !change.has(field)?;
        if is_new {
            change.put(field, value, true);
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
        let was = change.size();
        for field in fields {
            if change.has(field)? {
                change.remove(field);
            }
        }
        let now = change.size();
        change.finish();
        Ok(was.saturating_sub(now))
    }

    /// HINCRBY: the new value of the field.
    pub fn hash_increment(&self, key: &[u8], field: &[u8], by: i64) -> Result<i64, TypeError> {
        let mut change = HashChange::begin(*self, key)?;
        let current = change.field(field)?;
        let number = current.as_deref().map_or(Ok(0), parse_integer).map_err(|_| TypeError::FieldNotInteger)?;
        let sum = number.checked_add(by).ok_or(TypeError::Overflow)?;
        change.put(field, sum.to_string().as_bytes(), current.is_none());
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
        change.put(field, sum.as_bytes(), current.is_none());
        change.finish();
        Ok(sum)
    }
}

impl Hash<'_> {
    /// How many fields there are; never 0.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// What its fields are stored under: another hash of the same name has another one.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// Calls `with` with the value of a field, `None` when there is none. One point read, no copy.
    pub fn get<R>(&self, field: &[u8], with: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TypeError> {
        self.0.get(Subkeys::Data, field, with)
    }

    /// Calls `each` with the values of several fields, in the order of `fields`; until it breaks.
    pub fn get_many(&self, fields: &[&[u8]], each: impl FnMut(Option<&[u8]>) -> ControlFlow<()>) -> Result<(), TypeError> {
        self.0.get_many(Subkeys::Data, fields, each)
    }

    /// Calls `each` for every field and its value, in the order of the fields, from the first one after `after`; until it breaks. All as
    /// of one moment.
    pub fn each(&self, after: Option<&[u8]>, each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        self.0.each(Subkeys::Data, Span::after(after), each)
    }

    /// Calls `each` for `count` fields chosen at random, none twice, or for all when there are no more; until it breaks. How even the choice
    /// is, and what it costs: [`super::random`].
    pub fn sample(&self, count: u64, each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        self.0.sample(count, each)
    }

    /// Calls `each` for `count` fields chosen at random, the same one as often as chance has it; until it breaks. At most `bytes_max` bytes of
    /// them are held at a time.
    pub fn sample_with_repeats(
        &self,
        count: u64,
        with_values: bool,
        bytes_max: usize,
        each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
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

    fn size(&self) -> u64 {
        self.0.members().size()
    }

    /// A field's value.
    fn field(&self, field: &[u8]) -> Result<Option<Vec<u8>>, TypeError> {
        self.0.get(Subkeys::Data, field)
    }

    /// Whether a field is there.
    fn has(&self, field: &[u8]) -> Result<bool, TypeError> {
        self.0.has(Subkeys::Data, field)
    }

    /// Which of those fields are there before any of them is set, where that is cheaper to ask for together.
    fn known(&self, pairs: &[(&[u8], &[u8])]) -> Result<Option<Vec<bool>>, TypeError> {
        if self.0.is_fresh() || pairs.len() < TOGETHER_MIN {
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

    fn put(&mut self, field: &[u8], value: &[u8], is_new: bool) {
        self.0.put(Subkeys::Data, field, value);
        self.0.grow(u64::from(is_new));
    }

    fn remove(&mut self, field: &[u8]) {
        self.0.remove(Subkeys::Data, field);
        self.0.shrink(1);
    }

    fn finish(self) {
        self.0.finish();
    }
}
