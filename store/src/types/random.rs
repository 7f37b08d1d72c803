//! Members of a collection chosen at random.
//!
//! Up to [`EXACT_MAX`] members each is exactly as likely as any other, and so it is where so many are wanted that going over all of them
//! costs less. One of a larger collection is found by going down from the longest prefix that all members share: at each
//! branching a byte is chosen among those that occur, each as likely as any, until [`FEW`] members or fewer are left, each as likely as
//! any. That is even where members spread evenly over their prefixes (numbers of one length, random ids, hashes), and favours those
//! in thin branches where they do not.

use std::{collections::HashSet, ops::Bound, ops::ControlFlow};

use super::{collection::Members, keyspace::TypeError, sampling::Choice};
use crate::{
    dice::Dice,
    engine::{Span, Subkeys},
};

/// Members up to which a choice is exactly even.
const EXACT_MAX: u64 = 4096;
/// Steps of a scan that cost about as much as going down to one member.
const DESCENT_STEPS: u64 = 256;
/// Members among which the last choice of a descent is made.
const FEW: usize = 32;
/// Bytes tried at a branching until one occurs.
const TRIES: usize = 32;
/// Members that are picked, with repeats, in one pass over the collection.
const PICKS_TOGETHER: u64 = 1 << 16;

/// A subkey and its value.
type Pair = (Vec<u8>, Vec<u8>);

impl Members<'_> {
    /// Calls `each` for `count` members chosen at random, none twice, or for all when there are no more; until it breaks.
    pub(super) fn sample(&self, count: u64, mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        if self.is_scanned_for(count) {
            let mut choice = Choice::new(count, self.size());
            return self.each(Subkeys::Data, Span::ALL, |member, value| {
                if choice.takes_next() && each(member, value).is_break() || choice.is_complete() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
        }
        let (mut dice, mut chosen) = (Dice::random(), HashSet::new());
        // Few of many: most attempts find a new one. A collection that shrinks meanwhile ends it as well.
        for _ in 0..count.saturating_mul(64) {
            let Some((member, value)) = self.descend(&mut dice)? else { break };
            if !chosen.contains(&member) {
                if each(&member, &value).is_break() {
                    break;
                }
                chosen.insert(member);
            }
            if chosen.len() as u64 == count {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` for `count` members chosen at random, the same one as often as chance has it; until it breaks. At most `bytes_max`
    /// bytes of them are held at a time.
    pub(super) fn sample_with_repeats(
        &self,
        count: u64,
        with_values: bool,
        bytes_max: usize,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        let (mut dice, mut left) = (Dice::random(), count);
        if !self.is_scanned_for(count) {
            for _ in 0..count {
                let Some((member, value)) = self.descend(&mut dice)? else { break };
                if each(&member, &value).is_break() {
                    break;
                }
            }
            return Ok(());
        }
        while left > 0 {
            let now = left.min(PICKS_TOGETHER);
            left -= now;
            // Where in the collection, and where in the answer.
            let mut picks: Vec<(u64, usize)> = (0..now as usize).map(|place| (dice.below(self.size()), place)).collect();
            picks.sort_unstable();
            for pair in self.pick(&picks, with_values, bytes_max)?.into_iter().flatten() {
                if each(&pair.0, &pair.1).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn is_scanned_for(&self, count: u64) -> bool {
        self.size() <= EXACT_MAX || count.saturating_mul(DESCENT_STEPS) > self.size()
    }

    /// The members at those places in the collection, each at its place in the answer. One that is gone meanwhile, or that `bytes_max`
    /// leaves no room for, is not there.
    fn pick(&self, picks: &[(u64, usize)], with_values: bool, bytes_max: usize) -> Result<Vec<Option<Pair>>, TypeError> {
        let mut found: Vec<Option<Pair>> = vec![None; picks.len()];
        let (mut position, mut bytes, mut picks) = (0, 0, picks.iter().peekable());
        self.each(Subkeys::Data, Span::ALL, |member, value| {
            while let Some((_, place)) = picks.next_if(|(wanted, _)| *wanted == position) {
                let value = if with_values { value } else { &[] };
                bytes += member.len() + value.len();
                found[*place] = Some((member.to_vec(), value.to_vec()));
            }
            position += 1;
            if picks.peek().is_none() || bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// One member, as the module's text says. A few dozen steps and about five seeks a level; levels are about as many as the digits
    /// that tell members apart.
    fn descend(&self, dice: &mut Dice) -> Result<Option<Pair>, TypeError> {
        let mut prefix = Vec::new();
        loop {
            let (few, more) = self.first_of(&prefix)?;
            let Some(first) = few.first() else { return Ok(None) };
            let chosen = dice.below(few.len() as u64) as usize;
            let last = if more { self.last_of(&prefix)? } else { None };
            let Some(last) = last else { return self.with_value(few[chosen].clone()) };
            let shared = first.iter().zip(&last).take_while(|(one, other)| one == other).count();
            // The prefix itself may be a member: one of more than a few.
            if first.len() == shared && dice.below(256) == 0 {
                return self.with_value(first.clone());
            }
            let lowest = few.iter().find_map(|member| member.get(shared));
            let (Some(lowest), Some(highest)) = (lowest, last.get(shared)) else { return self.with_value(few[chosen].clone()) };
            prefix = first[..shared].to_vec();
            match self.branch(&prefix, *lowest..=*highest, dice)? {
                Some(byte) => prefix.push(byte),
                None => return self.with_value(few[chosen].clone()),
            }
        }
    }

    /// A byte that occurs behind a prefix.
    fn branch(&self, prefix: &[u8], bytes: std::ops::RangeInclusive<u8>, dice: &mut Dice) -> Result<Option<u8>, TypeError> {
        let width = u64::from(bytes.end() - bytes.start()) + 1;
        let mut found = None;
        for _ in 0..TRIES {
            let wanted = bytes.start() + dice.below(width) as u8;
            let from = [prefix, &[wanted]].concat();
            self.each(Subkeys::Data, Span { from: Bound::Included(&from), ..Span::ALL }, |member, _| {
                found = member.strip_prefix(prefix).and_then(|rest| rest.first().copied());
                ControlFlow::Break(())
            })?;
            if found == Some(wanted) {
                break;
            }
        }
        Ok(found)
    }

    /// The first members that begin with a prefix, and whether there are more.
    fn first_of(&self, prefix: &[u8]) -> Result<(Vec<Vec<u8>>, bool), TypeError> {
        let (mut few, mut more) = (Vec::new(), false);
        self.each(Subkeys::Data, Span { from: Bound::Included(prefix), ..Span::ALL }, |member, _| {
            if !member.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            if few.len() == FEW {
                more = true;
                return ControlFlow::Break(());
            }
            few.push(member.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok((few, more))
    }

    /// The last member that begins with a prefix.
    fn last_of(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, TypeError> {
        let mut end = prefix.to_vec();
        while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
        if let Some(byte) = end.last_mut() {
            *byte += 1;
        }
        let to = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end.as_slice()) };
        let mut last = None;
        self.each(Subkeys::Data, Span { from: Bound::Unbounded, to, reverse: true }, |member, _| {
            last = Some(member.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(last.filter(|member| member.starts_with(prefix)))
    }

    fn with_value(&self, member: Vec<u8>) -> Result<Option<Pair>, TypeError> {
        let value = self.get(Subkeys::Data, &member, |value| value.map(<[u8]>::to_vec))?;
        Ok(value.map(|value| (member, value)))
    }
}
