//! Fields of hashes that expire: HEXPIRE and its kin.
//!
//! A hash in which something expires says in its record when the first of its fields may. In the `score` family it has, for each field
//! that expires, when (`00 · field` -> Unix ms), and all of them by time (`01 · Unix ms · field`). A field whose time has come is gone for every
//! command at once; the sweep takes it away. A hash without such fields pays for none of this.

use std::{
    collections::HashSet,
    ops::{Bound, ControlFlow},
};

use super::{
    collection::{Members, MembersChange},
    hashes::Hash,
    keyspace::{ExpireCondition, Keyspace, TypeError},
};
use crate::engine::{Kind, Span, Subkeys};

/// The latest time a field of a payload may expire at, Unix milliseconds: 48 bits, as in Redis.
pub(super) const FIELD_EXPIRY_MS_MAX: u64 = (1 << 48) - 2;
/// The latest that a command may ask for: as in Redis a quarter of it.
pub const FIELD_EXPIRY_ASKED_MS_MAX: u64 = FIELD_EXPIRY_MS_MAX >> 2;

/// Before the time of a field.
const FIELD: u8 = 0;
/// Before a time and its field.
const ORDER: u8 = 1;

/// What HEXPIRE did to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiry {
    /// There is no such field.
    Missing,
    /// The condition does not hold.
    Refused,
    /// It expires then.
    Set,
    /// That time has passed: it is deleted.
    Deleted,
}

/// What HPERSIST did to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPersist {
    /// There is no such field.
    Missing,
    /// It lives for ever already.
    Never,
    /// It lives for ever now.
    Set,
}

fn field_key(field: &[u8]) -> Vec<u8> {
    [&[FIELD], field].concat()
}

fn order_key(at_ms: u64, field: &[u8]) -> Vec<u8> {
    [&[ORDER][..], &at_ms.to_be_bytes(), field].concat()
}

impl Members<'_> {
    /// Before this nothing of a hash expires; `None`: nothing does.
    pub(super) fn earliest_ms(&self) -> Option<u64> {
        self.extra().try_into().ok().map(u64::from_be_bytes)
    }

    /// Whether one of its fields may have expired.
    pub(super) fn may_be_due(&self) -> bool {
        self.earliest_ms().is_some_and(|at| at <= self.keyspace().now_ms())
    }

    /// When a field expires. At most one point read.
    pub(super) fn field_expires_at(&self, field: &[u8]) -> Result<Option<u64>, TypeError> {
        if self.earliest_ms().is_none() {
            return Ok(None);
        }
        self.get(Subkeys::Score, &field_key(field), |value| value.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes))
    }

    /// Whether a field, if it is stored, has expired.
    pub(super) fn is_due(&self, field: &[u8]) -> Result<bool, TypeError> {
        let now_ms = self.keyspace().now_ms();
        Ok(self.may_be_due() && self.field_expires_at(field)?.is_some_and(|at| at <= now_ms))
    }

    /// Calls `each` for every field that has expired and is still stored, and its time, the first to expire first; until it breaks.
    fn each_due(&self, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        let end = order_key(self.keyspace().now_ms().saturating_add(1), b"");
        let span = Span { from: Bound::Included(&[ORDER]), to: Bound::Excluded(&end), reverse: false };
        self.each(Subkeys::Score, span, |key, _| match key[1..].split_first_chunk::<8>() {
            Some((at, field)) => each(u64::from_be_bytes(*at), field),
            None => ControlFlow::Continue(()),
        })
    }

    /// The fields that have expired and are still stored; no read where nothing has.
    pub(super) fn due(&self) -> Result<HashSet<Vec<u8>>, TypeError> {
        let mut due = HashSet::new();
        if self.may_be_due() {
            self.each_due(|_, field| {
                due.insert(field.to_vec());
                ControlFlow::Continue(())
            })?;
        }
        Ok(due)
    }

    /// How many fields have expired and are still stored.
    pub(super) fn due_count(&self) -> Result<u64, TypeError> {
        let mut count = 0;
        if self.may_be_due() {
            self.each_due(|_, _| {
                count += 1;
                ControlFlow::Continue(())
            })?;
        }
        Ok(count)
    }
}

impl MembersChange<'_, '_> {
    /// A field lives for ever from now on; whether it did not before.
    pub(super) fn clear_expiry(&mut self, field: &[u8]) -> Result<bool, TypeError> {
        let Some(at) = self.members().field_expires_at(field)? else { return Ok(false) };
        self.remove(Subkeys::Score, &field_key(field));
        self.remove(Subkeys::Score, &order_key(at, field));
        Ok(true)
    }

    /// A field expires then.
    pub(super) fn set_expiry(&mut self, field: &[u8], at_ms: u64) -> Result<(), TypeError> {
        self.clear_expiry(field)?;
        self.put(Subkeys::Score, &field_key(field), &at_ms.to_be_bytes());
        self.put(Subkeys::Score, &order_key(at_ms, field), &[]);
        let earliest = self.members().earliest_ms().map_or(at_ms, |earliest| earliest.min(at_ms));
        self.set_extra(earliest.to_be_bytes().to_vec());
        Ok(())
    }

    /// A stored field, expired or not, is taken away.
    pub(super) fn remove_field(&mut self, field: &[u8]) -> Result<(), TypeError> {
        self.clear_expiry(field)?;
        self.remove(Subkeys::Data, field);
        self.shrink(1);
        Ok(())
    }
}

impl Hash<'_> {
    /// When a field expires: `None` when there is no such field, `Some(None)` when it never does. At most two point reads.
    pub fn field_expiry(&self, field: &[u8]) -> Result<Option<Option<u64>>, TypeError> {
        if !self.get(field, |value| value.is_some())? {
            return Ok(None);
        }
        self.members().field_expires_at(field).map(Some)
    }
}

impl Keyspace<'_> {
    /// HEXPIRE and its kin: lets fields expire; a time that has passed deletes them, and the key with the last. A few point reads a field.
    pub fn expire_fields<'f>(
        &self,
        key: &[u8],
        fields: impl ExactSizeIterator<Item = &'f [u8]>,
        at_ms: u64,
        condition: ExpireCondition,
    ) -> Result<Vec<FieldExpiry>, TypeError> {
        let mut change = MembersChange::begin(*self, key, Kind::Hash)?;
        if change.is_fresh() {
            return Ok(vec![FieldExpiry::Missing; fields.len()]);
        }
        let mut outcomes = Vec::with_capacity(fields.len());
        for field in fields {
            if !change.has(Subkeys::Data, field)? || change.members().is_due(field)? {
                outcomes.push(FieldExpiry::Missing);
                continue;
            }
            let current = change.members().field_expires_at(field)?;
            let refused = (condition.nx && current.is_some())
                || (condition.xx && current.is_none())
                || (condition.gt && current.is_none_or(|current| at_ms <= current))
                || (condition.lt && current.is_some_and(|current| at_ms >= current));
            outcomes.push(if refused {
                FieldExpiry::Refused
            } else if at_ms <= self.now_ms() {
                change.remove_field(field)?;
                FieldExpiry::Deleted
            } else {
                change.set_expiry(field, at_ms)?;
                FieldExpiry::Set
            });
        }
        change.finish();
        Ok(outcomes)
    }

    /// HPERSIST: lets fields live for ever.
    pub fn persist_fields<'f>(
        &self,
        key: &[u8],
        fields: impl ExactSizeIterator<Item = &'f [u8]>,
    ) -> Result<Vec<FieldPersist>, TypeError> {
        let mut change = MembersChange::begin(*self, key, Kind::Hash)?;
        if change.is_fresh() {
            return Ok(vec![FieldPersist::Missing; fields.len()]);
        }
        let mut outcomes = Vec::with_capacity(fields.len());
        for field in fields {
            outcomes.push(if !change.has(Subkeys::Data, field)? || change.members().is_due(field)? {
                FieldPersist::Missing
            } else if change.clear_expiry(field)? {
                FieldPersist::Set
            } else {
                FieldPersist::Never
            });
        }
        change.finish();
        Ok(outcomes)
    }

    /// Takes away up to `most` fields of a hash whose time has come, and the key with the last field; the key is claimed. How many they
    /// were, and when the next one expires: now, if there are more.
    pub fn sweep_fields(&self, key: &[u8], most: usize) -> Result<(usize, Option<u64>), TypeError> {
        let mut change = match MembersChange::begin(*self, key, Kind::Hash) {
            Err(TypeError::WrongType) => return Ok((0, None)),
            other => other?,
        };
        if change.is_fresh() || change.members().earliest_ms().is_none() {
            return Ok((0, None));
        }
        let mut due = Vec::new();
        change.members().each_due(|_, field| {
            due.push(field.to_vec());
            if due.len() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let more = due.len() > most;
        due.truncate(most);
        for field in &due {
            change.remove_field(field)?;
        }
        let mut next = None;
        if more {
            next = Some(self.now_ms());
        } else {
            let span = Span { from: Bound::Included(&[ORDER]), ..Span::ALL };
            change.members().each(Subkeys::Score, span, |key, _| {
                next = key[1..].first_chunk::<8>().map(|at| u64::from_be_bytes(*at));
                ControlFlow::Break(())
            })?;
        }
        change.set_extra(next.map(|at| at.to_be_bytes().to_vec()).unwrap_or_default());
        change.finish();
        Ok((due.len(), next))
    }
}
