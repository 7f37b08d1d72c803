//! Sets: each member is a subkey without a value.

use std::ops::ControlFlow;

use super::{
    collection::{Members, MembersChange},
    keyspace::{Keyspace, TypeError},
};
use crate::engine::{Kind, Span, Subkeys};

mod algebra;

pub use algebra::SetOperation;
pub(super) use algebra::filtered;

/// A set that is there.
pub struct Set<'e>(Members<'e>);

/// What a removal did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many there were.
    pub count: u64,
    /// Nothing is left: the key is gone.
    pub emptied: bool,
}

/// What SMOVE did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetMoved {
    /// The source is gone with its last member.
    pub emptied: bool,
    /// The destination did not have the member.
    pub added: bool,
}

impl<'e> Keyspace<'e> {
    /// The set of that key; `None` when there is no such key. At most one point read.
    pub fn members_of(&self, key: &[u8]) -> Result<Option<Set<'e>>, TypeError> {
        Ok(self.members(key, Kind::Set)?.map(Set))
    }

    /// SADD: returns how many members are new. One point read a member, all of them by one call.
    pub fn set_add(&self, key: &[u8], members: &[&[u8]]) -> Result<u64, TypeError> {
        let mut change = MembersChange::begin(*self, key, Kind::Set)?;
        let mut added = 0;
        let known = known(&change, members)?;
        for (position, member) in members.iter().enumerate() {
            // What was gathered is newer: the same member may be named twice.
            if !change.pending(Subkeys::Data, member).unwrap_or(known[position]) {
                change.put(Subkeys::Data, member, b"");
                added += 1;
            }
        }
        change.grow(added);
        change.finish();
        Ok(added)
    }

    /// SREM: deletes members, and the key with the last of them. One point read a member, all of them by one call.
    pub fn set_remove(&self, key: &[u8], members: &[&[u8]]) -> Result<Removed, TypeError> {
        let mut change = MembersChange::begin(*self, key, Kind::Set)?;
        if change.is_fresh() {
            return Ok(Removed::default());
        }
        let mut count = 0;
        let known = known(&change, members)?;
        for (position, member) in members.iter().enumerate() {
            if change.pending(Subkeys::Data, member).unwrap_or(known[position]) {
                change.remove(Subkeys::Data, member);
                count += 1;
            }
        }
        change.shrink(count);
        let emptied = count > 0 && change.members().size() == 0;
        change.finish();
        Ok(Removed { count, emptied })
    }

    /// SMOVE: takes a member from one set to another; `None` when the source has no such member. Two point reads.
    pub fn set_move(&self, from: &[u8], to: &[u8], member: &[u8]) -> Result<Option<SetMoved>, TypeError> {
        let Some(source) = self.members_of(from)? else { return Ok(None) };
        self.members_of(to)?;
        if !source.has(member)? {
            return Ok(None);
        }
        if from == to {
            return Ok(Some(SetMoved { emptied: false, added: false }));
        }
        let emptied = self.set_remove(from, &[member])?.emptied;
        let added = self.set_add(to, &[member])? > 0;
        Ok(Some(SetMoved { emptied, added }))
    }

    /// SPOP: takes `count` members chosen at random out of a set; all of them when it has no more, and then nothing but the key's record is
    /// touched. For how even the choice is see [`super::random`]. `None` when `each` broke: the caller undoes the command.
    pub fn set_pop(
        &self,
        key: &[u8],
        count: u64,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Removed>, TypeError> {
        let Some(set) = self.members_of(key)? else { return Ok(Some(Removed::default())) };
        let (mut broken, mut chosen) = (false, Vec::new());
        if count >= set.size() {
            set.each(None, |member| {
                broken = each(member).is_break();
                if broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            self.delete(std::iter::once(key))?;
            return Ok((!broken).then_some(Removed { count: set.size(), emptied: true }));
        }
        set.0.sample(count, |member, _| {
            broken = each(member).is_break();
            chosen.push(member.to_vec());
            if broken { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if broken {
            return Ok(None);
        }
        let mut change = MembersChange::begin(*self, key, Kind::Set)?;
        chosen.iter().for_each(|member| change.remove(Subkeys::Data, member));
        change.shrink(chosen.len() as u64);
        change.finish();
        Ok(Some(Removed { count: chosen.len() as u64, emptied: false }))
    }
}

impl Set<'_> {
    /// How many members there are; never 0.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// What its members are stored under: another set of the same name has another one.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// Whether it has that member. One point read.
    pub fn has(&self, member: &[u8]) -> Result<bool, TypeError> {
        self.0.get(Subkeys::Data, member, |value| value.is_some())
    }

    /// Calls `each` with whether it has each of those members, in their order; until it breaks. One point read a member, by one call.
    pub fn has_many(&self, members: &[&[u8]], mut each: impl FnMut(bool) -> ControlFlow<()>) -> Result<(), TypeError> {
        self.0.get_many(Subkeys::Data, members, |value| each(value.is_some()))
    }

    /// Calls `each` for every member, in order, from the first one after `after`; until it breaks. All as of one moment.
    pub fn each(&self, after: Option<&[u8]>, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        self.0.each(Subkeys::Data, Span::after(after), |member, _| each(member))
    }

    /// Calls `each` for `count` members chosen at random, none twice; see [`super::random`].
    pub fn sample(&self, count: u64, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        self.0.sample(count, |member, _| each(member))
    }

    /// Calls `each` for `count` members chosen at random, the same one as often as chance has it; see [`super::random`].
    pub fn sample_with_repeats(
        &self,
        count: u64,
        bytes_max: usize,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        self.0.sample_with_repeats(count, false, bytes_max, |member, _| each(member))
    }
}

/// Which of those members are there before any of them is changed.
fn known(change: &MembersChange<'_, '_>, members: &[&[u8]]) -> Result<Vec<bool>, TypeError> {
    if change.is_fresh() {
        return Ok(vec![false; members.len()]);
    }
    let mut known = Vec::with_capacity(members.len());
    change.members().get_many(Subkeys::Data, members, |value| {
        known.push(value.is_some());
        ControlFlow::Continue(())
    })?;
    Ok(known)
}
