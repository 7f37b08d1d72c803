//! Intersections, unions and differences of sets.
//!
//! One set is gone over, the others are asked for its members by point reads, many by one call: no set is held in memory. A union
//! remembers what it has answered, which is no more than its answer.

use std::{collections::HashSet, ops::ControlFlow};

use super::{
    super::{
        collection::{Members, MembersChange},
        keyspace::{Keyspace, TypeError},
    },
    Set,
};
use crate::engine::{Kind, Subkeys};

/// Members for which other sets are asked together.
const TOGETHER: usize = 256;

/// How sets are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperation {
    /// What all of them have.
    Intersection,
    /// What any of them has.
    Union,
    /// What the first has and no other.
    Difference,
}

impl<'e> Keyspace<'e> {
    /// Calls `each` for the members of a combination of sets, each once; until it breaks. Costs a scan of the smallest set (intersection), of
    /// the first (difference), of all (union), and a point read a member and other set.
    pub fn set_combine<'k>(
        &self,
        operation: SetOperation,
        keys: impl Iterator<Item = &'k [u8]>,
        each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        combine(operation, self.all_members_of(keys)?, each)
    }

    /// The same, into a key, whatever it held; returns how many members it has. Without any the key is gone. Refused when that is more than a
    /// command may hold.
    pub fn set_combine_into<'k>(
        &self,
        operation: SetOperation,
        key: &[u8],
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<u64, TypeError> {
        let sets = self.all_members_of(keys)?;
        // What it is combined from keeps its own version, if it is the same key.
        let mut change: MembersChange<'_, '_> = self.replace_collection(key, Kind::Set)?;
        let (mut size, mut allowance) = (0, self.allowance());
        combine_all(operation, sets, |member| {
            if change.pending(Subkeys::Data, member) == Some(true) {
                return ControlFlow::Continue(());
            }
            change.put(Subkeys::Data, member, b"");
            size += 1;
            allowance.take(member.len())
        })?;
        allowance.check()?;
        change.grow(size);
        change.finish();
        Ok(size)
    }

    fn all_members_of<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<Vec<Option<Set<'e>>>, TypeError> {
        keys.map(|key| self.members_of(key)).collect()
    }
}

fn combine(
    operation: SetOperation,
    sets: Vec<Option<Set<'_>>>,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    let mut answered = HashSet::new();
    let repeats = operation == SetOperation::Union && sets.iter().flatten().nth(1).is_some();
    combine_all(operation, sets, |member| {
        if repeats && !answered.insert(member.to_vec()) {
            return ControlFlow::Continue(());
        }
        each(member)
    })
}

/// The same; a union names a member as often as sets have it.
fn combine_all(
    operation: SetOperation,
    sets: Vec<Option<Set<'_>>>,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    match operation {
        SetOperation::Union => {
            for set in sets.into_iter().flatten() {
                let mut broken = false;
                set.each(None, |member| {
                    let flow = each(member);
                    broken = flow.is_break();
                    flow
                })?;
                if broken {
                    break;
                }
            }
            Ok(())
        }
        SetOperation::Intersection => {
            // One that is not there is empty.
            let Some(mut sets) = sets.into_iter().collect::<Option<Vec<_>>>() else { return Ok(()) };
            sets.sort_by_key(Set::size);
            let Some((smallest, others)) = sets.split_first() else { return Ok(()) };
            let others: Vec<&Members<'_>> = others.iter().map(|set| &set.0).collect();
            filtered(&smallest.0, &others, true, |member, _| each(member))
        }
        SetOperation::Difference => {
            let mut sets = sets.into_iter();
            let Some(first) = sets.next().flatten() else { return Ok(()) };
            let others: Vec<Set<'_>> = sets.flatten().collect();
            let others: Vec<&Members<'_>> = others.iter().map(|set| &set.0).collect();
            filtered(&first.0, &others, false, |member, _| each(member))
        }
    }
}

/// Calls `each` for the members of a collection, and their values, that all of `others` have, or that none of them has; until it breaks.
pub(in crate::types) fn filtered(
    members: &Members<'_>,
    others: &[&Members<'_>],
    wanted: bool,
    mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    in_chunks(members, |mut chunk| {
        for other in others {
            if chunk.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let asked: Vec<&[u8]> = chunk.iter().map(|(member, _)| member.as_slice()).collect();
            let mut kept = Vec::with_capacity(asked.len());
            other.get_many(Subkeys::Data, &asked, |value| {
                kept.push(value.is_some() == wanted);
                ControlFlow::Continue(())
            })?;
            let mut kept = kept.into_iter();
            chunk.retain(|_| kept.next().unwrap_or(false));
        }
        Ok(chunk.iter().try_for_each(|(member, value)| each(member, value)))
    })
}

/// Calls `with` with members and their values, in order, some at a time; until it breaks.
fn in_chunks(
    members: &Members<'_>,
    mut with: impl FnMut(Vec<(Vec<u8>, Vec<u8>)>) -> Result<ControlFlow<()>, TypeError>,
) -> Result<(), TypeError> {
    let (mut chunk, mut outcome) = (Vec::new(), Ok(ControlFlow::Continue(())));
    members.each(Subkeys::Data, crate::engine::Span::ALL, |member, value| {
        chunk.push((member.to_vec(), value.to_vec()));
        if chunk.len() < TOGETHER {
            return ControlFlow::Continue(());
        }
        outcome = with(std::mem::take(&mut chunk));
        if matches!(outcome, Ok(ControlFlow::Continue(()))) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if outcome?.is_continue() && !chunk.is_empty() {
        let _ = with(chunk)?;
    }
    Ok(())
}
