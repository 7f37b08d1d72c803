//! Changing sorted sets.

use std::ops::ControlFlow;

use super::{
    edges::Edges,
    reads::{Selection, SortedSet},
    score::{decode, encode, index_key, sortable},
};
use crate::{
    engine::{Kind, Subkeys},
    types::{
        Removed,
        collection::MembersChange,
        keyspace::{Keyspace, TypeError},
    },
};

/// Options of ZADD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// Only members that are not there.
    pub nx: bool,
    /// Only members that are there.
    pub xx: bool,
    /// Only if the score gets greater.
    pub gt: bool,
    /// Only if the score gets less.
    pub lt: bool,
    /// The score is added to what is there.
    pub increment: bool,
}

/// What ZADD did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Added {
    /// Members that were not there.
    pub added: u64,
    /// Members whose score was changed.
    pub updated: u64,
    /// The last member's score, if an option did not forbid it.
    pub score: Option<f64>,
}

/// An end of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// The least score.
    Min,
    /// The greatest score.
    Max,
}

/// What was taken from an end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Popped {
    /// Members and scores.
    pub members: Vec<(Vec<u8>, f64)>,
    /// Nothing is left: the key is gone.
    pub emptied: bool,
}

impl Keyspace<'_> {
    /// ZADD: adds members or changes their scores, and makes the sorted set if there is none. One point read a member, all of them by
    /// one call; two or three writes each.
    pub fn sorted_set_add(&self, key: &[u8], entries: &[(f64, &[u8])], options: AddOptions) -> Result<Added, TypeError> {
        let mut change = SortedSetChange::begin(*self, key)?;
        let mut done = Added::default();
        if change.0.is_fresh() && options.xx {
            return Ok(done);
        }
        let known = change.known(entries.iter().map(|(_, member)| *member))?;
        for ((score, member), known) in entries.iter().zip(known) {
            done.score = None;
            let Some(current) = change.current(member, known)? else {
                if !options.xx {
                    change.put(member, None, *score);
                    done.added += 1;
                    done.score = Some(*score);
                }
                continue;
            };
            if options.nx {
                continue;
            }
            let wanted = if options.increment { current + score } else { *score };
            if wanted.is_nan() {
                return Err(TypeError::ScoreNotANumber);
            }
            if options.lt && wanted >= current || options.gt && wanted <= current {
                continue;
            }
            if sortable(wanted) != sortable(current) {
                change.put(member, Some(current), wanted);
                done.updated += 1;
            }
            done.score = Some(wanted);
        }
        change.finish();
        Ok(done)
    }

    /// ZREM: deletes members, and the key with the last of them. One point read a member, all of them by one call.
    pub fn sorted_set_remove(&self, key: &[u8], members: &[&[u8]]) -> Result<Removed, TypeError> {
        let mut change = SortedSetChange::begin(*self, key)?;
        if change.0.is_fresh() {
            return Ok(Removed::default());
        }
        let known = change.known(members.iter().copied())?;
        let mut count = 0;
        for (member, known) in members.iter().zip(known) {
            if let Some(score) = change.current(member, known)? {
                change.remove(member, score);
                count += 1;
            }
        }
        Ok(change.removed(count))
    }

    /// Deletes the selected members, and the key with the last of them. Goes over them.
    pub fn sorted_set_remove_range(&self, key: &[u8], selection: &Selection) -> Result<Removed, TypeError> {
        let Some(set) = self.sorted_set(key)? else { return Ok(Removed::default()) };
        if *selection == Selection::Rank(0, -1) {
            let count = set.size();
            self.delete(std::iter::once(key))?;
            return Ok(Removed { count, emptied: true });
        }
        let mut change = SortedSetChange::begin(*self, key)?;
        let (mut count, mut first, mut last) = (0, Vec::new(), Vec::new());
        set.each(selection, false, None, |member, score| {
            change.remove(member, score);
            if count == 0 {
                first = index_key(score, member);
            }
            last = index_key(score, member);
            count += 1;
            ControlFlow::Continue(())
        })?;
        let (from_first, to_last) = selection.reaches();
        if count > 0 && from_first {
            change.1.gone_up_to(&last);
        }
        if count > 0 && to_last {
            change.1.gone_from(&first);
        }
        Ok(change.removed(count))
    }

    /// ZPOPMIN, ZPOPMAX: takes up to `count` members from an end. One seek, and a step and two writes a member.
    pub fn sorted_set_pop(&self, key: &[u8], end: Extreme, count: u64) -> Result<Popped, TypeError> {
        let Some(set) = self.sorted_set(key)? else { return Ok(Popped::default()) };
        let mut members = Vec::new();
        if count > 0 {
            let last = i64::try_from(count).unwrap_or(i64::MAX) - 1;
            set.each(&Selection::Rank(0, last), end == Extreme::Max, None, |member, score| {
                members.push((member.to_vec(), score));
                ControlFlow::Continue(())
            })?;
        }
        let mut change = SortedSetChange::begin(*self, key)?;
        members.iter().for_each(|(member, score)| change.remove(member, *score));
        if let Some((member, score)) = members.last() {
            let last = index_key(*score, member);
            if end == Extreme::Min { change.1.gone_up_to(&last) } else { change.1.gone_from(&last) }
        }
        let emptied = change.removed(members.len() as u64).emptied;
        Ok(Popped { members, emptied })
    }

    /// Puts those members into a key, whatever it held; returns how many there are. Without any the key is gone. Of a member that
    /// comes twice the last score counts.
    pub fn sorted_set_store(&self, key: &[u8], members: impl IntoIterator<Item = (Vec<u8>, f64)>) -> Result<u64, TypeError> {
        let mut change = SortedSetChange(self.replace_collection(key, Kind::SortedSet)?, Edges::default());
        for (member, score) in members {
            let current = change.current(&member, None)?;
            change.put(&member, current, score);
        }
        let size = change.0.members().size();
        change.finish();
        Ok(size)
    }

    /// ZRANGESTORE: what is selected of one key, into another.
    pub fn sorted_set_copy(
        &self,
        from: &SortedSet<'_>,
        selection: &Selection,
        reverse: bool,
        limit: Option<(i64, i64)>,
        to: &[u8],
    ) -> Result<u64, TypeError> {
        let mut change = SortedSetChange(self.replace_collection(to, Kind::SortedSet)?, Edges::default());
        let mut allowance = self.allowance();
        from.each(selection, reverse, limit, |member, score| {
            change.put(member, None, score);
            allowance.take(member.len())
        })?;
        allowance.check()?;
        let size = change.0.members().size();
        change.finish();
        Ok(size)
    }
}

/// A sorted set that is being changed: member and index are written together.
struct SortedSetChange<'e, 'k>(MembersChange<'e, 'k>, Edges);

impl<'e, 'k> SortedSetChange<'e, 'k> {
    fn begin(keys: Keyspace<'e>, key: &'k [u8]) -> Result<Self, TypeError> {
        let change = MembersChange::begin(keys, key, Kind::SortedSet)?;
        let edges = Edges::decode(change.members().extra());
        Ok(Self(change, edges))
    }

    /// The scores of those members before any of them is changed.
    fn known<'m>(&self, members: impl ExactSizeIterator<Item = &'m [u8]>) -> Result<Vec<Option<f64>>, TypeError> {
        if self.0.is_fresh() {
            return Ok(vec![None; members.len()]);
        }
        let members: Vec<&[u8]> = members.collect();
        let (mut known, mut outcome) = (Vec::with_capacity(members.len()), Ok(()));
        self.0.members().get_many(Subkeys::Data, &members, |value| match value.map(decode).transpose() {
            Ok(score) => {
                known.push(score);
                ControlFlow::Continue(())
            }
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        })?;
        outcome.map(|()| known)
    }

    /// A member's score now: what this command, or one before it, has gathered; else what is known of before.
    fn current(&self, member: &[u8], known: Option<f64>) -> Result<Option<f64>, TypeError> {
        match self.0.pending(Subkeys::Data, member) {
            Some(false) => Ok(None),
            Some(true) => self.0.get(Subkeys::Data, member)?.as_deref().map(decode).transpose(),
            None => Ok(known),
        }
    }

    fn put(&mut self, member: &[u8], current: Option<f64>, score: f64) {
        match current {
            Some(current) => self.0.remove(Subkeys::Score, &index_key(current, member)),
            None => self.0.grow(1),
        }
        self.0.put(Subkeys::Data, member, &encode(score));
        let key = index_key(score, member);
        self.0.put(Subkeys::Score, &key, b"");
        self.1.include(&key);
    }

    fn remove(&mut self, member: &[u8], score: f64) {
        self.0.remove(Subkeys::Data, member);
        self.0.remove(Subkeys::Score, &index_key(score, member));
        self.0.shrink(1);
    }

    fn finish(mut self) {
        self.0.set_extra(self.1.encode());
        self.0.finish();
    }

    fn removed(self, count: u64) -> Removed {
        let emptied = count > 0 && self.0.members().size() == 0;
        self.finish();
        Removed { count, emptied }
    }
}
