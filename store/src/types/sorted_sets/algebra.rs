//! Unions, intersections and differences of sorted sets, and of sets, whose members count as having the score 1.

use std::{collections::HashMap, ops::ControlFlow};

use super::score::{decode, sortable};
use crate::{
    engine::{Kind, Span, Subkeys},
    types::{
        allowance::Allowance,
        collection::Members,
        keyspace::{Keyspace, TypeError},
        sets::{SetOperation, filtered},
    },
};

/// What becomes of the scores of a member that several have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum.
    #[default]
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

/// Sets and sorted sets that are to be combined.
pub struct Combination<'e> {
    inputs: Vec<Option<Input<'e>>>,
    allowance: Allowance,
}

struct Input<'e> {
    members: Members<'e>,
    kind: Kind,
    weight: f64,
}

impl Input<'_> {
    fn score(&self, value: &[u8]) -> Result<f64, TypeError> {
        let score = if self.kind == Kind::Set { 1.0 } else { decode(value)? };
        Ok(number(self.weight * score))
    }
}

/// Infinity times nothing, and infinity less infinity, are 0.
fn number(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Sum => number(one + other),
            Self::Min => one.min(other),
            Self::Max => one.max(other),
        }
    }
}

impl<'e> Keyspace<'e> {
    /// Looks the keys up; an error if one is neither a set nor a sorted set. One point read a key.
    pub fn combination<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<Combination<'e>, TypeError> {
        let of = |key: &[u8]| -> Result<Option<Input<'e>>, TypeError> {
            let kind = self.kind(key)?;
            let Some(kind) = kind else { return Ok(None) };
            if !matches!(kind, Kind::Set | Kind::SortedSet) {
                return Err(TypeError::WrongType);
            }
            Ok(self.members(key, kind)?.map(|members| Input { members, kind, weight: 1.0 }))
        };
        Ok(Combination { inputs: keys.map(of).collect::<Result<_, _>>()?, allowance: self.allowance() })
    }
}

impl Combination<'_> {
    /// What the scores of each are multiplied by, in the order of the keys.
    pub fn weigh(&mut self, weights: &[f64]) {
        for (input, weight) in self.inputs.iter_mut().zip(weights) {
            if let Some(input) = input {
                input.weight = *weight;
            }
        }
    }

    /// Members and scores of the combination, sorted by score, then by member: they are held in memory, and refused when that is more than a
    /// command may hold. A difference keeps the first one's scores. Costs a scan of the smallest (intersection), the first (difference) or all (union), and a point read a member
    /// and other key.
    pub fn members(mut self, operation: SetOperation, aggregate: Aggregate) -> Result<Vec<(Vec<u8>, f64)>, TypeError> {
        let mut found = match operation {
            SetOperation::Union => self.union(aggregate)?,
            SetOperation::Intersection => {
                let mut found = Vec::new();
                self.intersection(aggregate, |allowance, member, score| {
                    found.push((member.to_vec(), score));
                    allowance.take(member.len())
                })?;
                found
            }
            SetOperation::Difference => self.difference()?,
        };
        self.allowance.check()?;
        found.sort_by(|(member, score), (other, than)| sortable(*score).cmp(&sortable(*than)).then_with(|| member.cmp(other)));
        Ok(found)
    }

    /// How many members all have, counted up to `limit`; 0: to the end.
    pub fn common(mut self, limit: u64) -> Result<u64, TypeError> {
        let mut count = 0;
        self.intersection(Aggregate::Sum, |_, _, _| {
            count += 1;
            if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(count)
    }

    /// The smallest first, those of one size as they were named: in this order scores are added up.
    fn by_size(&mut self) {
        self.inputs.sort_by_key(|input| input.as_ref().map_or(0, |input| input.members.size()));
    }

    fn union(&mut self, aggregate: Aggregate) -> Result<Vec<(Vec<u8>, f64)>, TypeError> {
        self.by_size();
        let (mut scores, allowance): (HashMap<Vec<u8>, f64>, _) = (HashMap::new(), &mut self.allowance);
        for input in self.inputs.iter().flatten() {
            if allowance.check().is_err() {
                break;
            }
            let mut outcome = Ok(());
            input.members.each(Subkeys::Data, Span::ALL, |member, value| match input.score(value) {
                Ok(score) => match scores.get_mut(member) {
                    Some(before) => {
                        *before = aggregate.of(*before, score);
                        ControlFlow::Continue(())
                    }
                    None => {
                        scores.insert(member.to_vec(), score);
                        allowance.take(member.len())
                    }
                },
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            })?;
            outcome?;
        }
        Ok(scores.into_iter().collect())
    }

    fn intersection(
        &mut self,
        aggregate: Aggregate,
        mut each: impl FnMut(&mut Allowance, &[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        // One that is not there is empty.
        if self.inputs.iter().any(Option::is_none) {
            return Ok(());
        }
        self.by_size();
        let (inputs, allowance): (Vec<&Input<'_>>, _) = (self.inputs.iter().flatten().collect(), &mut self.allowance);
        let Some((smallest, others)) = inputs.split_first() else { return Ok(()) };
        let mut outcome = Ok(());
        let asked: Vec<&Members<'_>> = others.iter().map(|other| &other.members).collect();
        filtered(&smallest.members, &asked, true, |member, value| {
            let combined = others.iter().try_fold(smallest.score(value), |score, other| {
                let score = score?;
                let its = other.members.get(Subkeys::Data, member, |value| value.map(|value| other.score(value)))?;
                // Gone since it was asked for: it was there then.
                Ok::<_, TypeError>(Ok(its.transpose()?.map_or(score, |its| aggregate.of(score, its))))
            });
            match combined.and_then(|score| score) {
                Ok(score) => each(allowance, member, score),
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        outcome
    }

    fn difference(&mut self) -> Result<Vec<(Vec<u8>, f64)>, TypeError> {
        let (mut inputs, allowance) = (self.inputs.iter(), &mut self.allowance);
        let Some(first) = inputs.next().and_then(Option::as_ref) else { return Ok(Vec::new()) };
        let others: Vec<&Members<'_>> = inputs.flatten().map(|other| &other.members).collect();
        let (mut found, mut outcome) = (Vec::new(), Ok(()));
        filtered(&first.members, &others, false, |member, value| match first.score(value) {
            Ok(score) => {
                found.push((member.to_vec(), score));
                allowance.take(member.len())
            }
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        })?;
        outcome.map(|()| found)
    }
}
