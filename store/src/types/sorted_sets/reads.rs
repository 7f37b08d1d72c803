//! Reading sorted sets: by member, by rank, by score, by member's order.

use std::ops::{Bound, ControlFlow};

use super::{
    edges::Edges,
    ranges::{Bounds, LexRange, ScoreRange},
    score::{decode, index_key, split_entry},
};
use crate::{
    engine::{Kind, Span, Subkeys},
    types::{
        collection::Members,
        keyspace::{Keyspace, TypeError},
    },
};

/// Members that are held to be answered in the other direction than they are met in.
const TURNED_MAX: u64 = 1 << 14;

/// Members that are gone over before a table of ranks is asked for, or made.
const WALKED_MAX: u64 = 1024;
/// How often a place is looked for again because somebody committed meanwhile.
const SPOT_TRIES: usize = 4;

/// A sorted set that is there.
pub struct SortedSet<'e>(Members<'e>, Edges);

/// Which members of a sorted set.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// From one place to another, both in it, in the direction in which they are gone over; negative ones are counted from the end.
    Rank(i64, i64),
    /// By score.
    Score(ScoreRange),
    /// By the members' own order, where all have the same score; otherwise those in the range, sorted by score.
    Lex(LexRange),
}

impl Selection {
    /// Whether it surely begins with the first member there is, and whether it ends with the last.
    pub(super) fn reaches(&self) -> (bool, bool) {
        match self {
            Self::Rank(start, stop) => (*start == 0, *stop == -1),
            Self::Score(range) => (
                matches!(range.min, Bound::Unbounded | Bound::Included(f64::NEG_INFINITY)),
                matches!(range.max, Bound::Unbounded | Bound::Included(f64::INFINITY)),
            ),
            Self::Lex(_) => (false, false),
        }
    }
}

/// What a selection comes down to.
enum Window {
    Nothing,
    /// Places from the beginning, the second one not in it.
    Places(u64, u64),
    Keys(Bounds),
    Filter,
}

impl<'e> Keyspace<'e> {
    /// The sorted set of that key; `None` when there is no such key. At most one point read.
    pub fn sorted_set(&self, key: &[u8]) -> Result<Option<SortedSet<'e>>, TypeError> {
        let of = |members: Members<'e>| {
            let edges = Edges::decode(members.extra());
            SortedSet(members, edges)
        };
        Ok(self.members(key, Kind::SortedSet)?.map(of))
    }
}

impl SortedSet<'_> {
    /// How many members there are; never 0.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// What its members are stored under: another sorted set of the same name has another one.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// A member's score. One point read.
    pub fn score(&self, member: &[u8]) -> Result<Option<f64>, TypeError> {
        self.0.get(Subkeys::Data, member, |value| value.map(decode).transpose())?
    }

    /// Calls `each` with the scores of several members, in their order. One point read a member, by one call.
    pub fn scores(&self, members: &[&[u8]], mut each: impl FnMut(Option<f64>)) -> Result<(), TypeError> {
        let mut outcome = Ok(());
        self.0.get_many(Subkeys::Data, members, |value| match value.map(decode).transpose() {
            Ok(score) => {
                each(score);
                ControlFlow::Continue(())
            }
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        })?;
        outcome
    }

    /// A member's place from the beginning, or with `reverse` from the end, and its score. Of a large set by a table of ranks, which the first
    /// such question makes: it goes over the whole index once, others over a block of a few hundred members.
    pub fn rank(&self, member: &[u8], reverse: bool) -> Result<Option<(u64, f64)>, TypeError> {
        let Some(score) = self.score(member)? else { return Ok(None) };
        let key = index_key(score, member);
        let span = if reverse {
            Span { from: Bound::Excluded(&key), ..Span::ALL }
        } else {
            Span { to: Bound::Excluded(&key), ..Span::ALL }
        };
        Ok(Some((self.count_span(span)?, score)))
    }

    /// How many members are selected. Goes over them, or of more than a thousand over the two blocks of a table of ranks in which they end.
    pub fn count(&self, selection: &Selection) -> Result<u64, TypeError> {
        match self.window(selection)? {
            Window::Nothing => Ok(0),
            Window::Places(from, to) => Ok(to - from),
            Window::Keys(bounds) => self.count_span(span_of(&bounds)),
            Window::Filter => {
                let mut count = 0;
                self.each(selection, false, None, |_, _| {
                    count += 1;
                    ControlFlow::Continue(())
                })?;
                Ok(count)
            }
        }
    }

    /// How many members are in a span of the index. A few are gone over; of more, a table of ranks is asked.
    fn count_span(&self, span: Span<'_>) -> Result<u64, TypeError> {
        let span = self.1.clip(span);
        let is_large = self.size() > WALKED_MAX;
        if is_large && let Some(count) = self.0.count_ranked(span, self.1.low(), false)? {
            return Ok(count);
        }
        let (count, ended) = self.walk_span(span, if is_large { WALKED_MAX } else { u64::MAX })?;
        if ended {
            return Ok(count);
        }
        match self.0.count_ranked(span, self.1.low(), true)? {
            Some(count) => Ok(count),
            None => Ok(self.walk_span(span, u64::MAX)?.0),
        }
    }

    /// How many members are selected, if it is by their places. No read.
    pub fn count_by_rank(&self, selection: &Selection) -> Option<u64> {
        match selection {
            Selection::Rank(start, stop) => Some(places(*start, *stop, self.size()).map_or(0, |(from, to)| to - from)),
            Selection::Score(_) | Selection::Lex(_) => None,
        }
    }

    /// Goes over a span until so many were met; how many, and whether it ended before.
    fn walk_span(&self, span: Span<'_>, most: u64) -> Result<(u64, bool), TypeError> {
        let (mut count, mut ended) = (0, true);
        self.0.each(Subkeys::Score, span, |_, _| {
            ended = count < most;
            count += u64::from(ended);
            if ended { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok((count, ended))
    }

    /// Calls `each` for the selected members and their scores, in order or backwards, `limit` (how many are skipped, how many are
    /// wanted; negative: none, all) of them; until it breaks. All as of one moment. Costs a seek and a step a member; by rank, also a step for each that
    /// comes before, from the nearer end, or within a block where a table of ranks knows where it is.
    pub fn each(
        &self,
        selection: &Selection,
        reverse: bool,
        limit: Option<(i64, i64)>,
        mut each: impl FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        let (mut skip, mut left) = match limit {
            // Past the end, as Redis has it.
            Some((offset, _)) if offset < 0 => return Ok(()),
            Some((offset, count)) => (offset.unsigned_abs(), u64::try_from(count).unwrap_or(u64::MAX)),
            None => (0, u64::MAX),
        };
        let window = match self.window(selection)? {
            Window::Nothing => return Ok(()),
            Window::Places(from, to) => return self.each_place(from, to, reverse, each),
            Window::Keys(bounds) => Some(bounds),
            Window::Filter => None,
        };
        let span = window.as_ref().map_or(Span::ALL, span_of);
        self.each_entry(if reverse { span.reversed() } else { span }, |member, score| {
            if let (Selection::Lex(range), None) = (selection, &window)
                && !range.contains(member)
            {
                return ControlFlow::Continue(());
            }
            if skip > 0 {
                skip -= 1;
                return ControlFlow::Continue(());
            }
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            each(member, score)
        })
    }

    /// The members at those places, counted in the direction they are called in.
    fn each_place(
        &self,
        from: u64,
        to: u64,
        reverse: bool,
        mut each: impl FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        let (size, count) = (self.size(), to - from);
        if from.min(size - to) > WALKED_MAX && self.each_from_spot(from, count, reverse, &mut each)? {
            return Ok(());
        }
        let span = if reverse { Span::ALL.reversed() } else { Span::ALL };
        let turned = count <= TURNED_MAX && size - from < to;
        if !turned {
            let mut place = 0;
            return self.each_entry(span, |member, score| {
                place += 1;
                if place <= from {
                    return ControlFlow::Continue(());
                }
                if place > to || each(member, score).is_break() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        // From the other end, which is nearer.
        let (mut skip, mut found) = (size - to, Vec::with_capacity(count as usize));
        self.each_entry(span.reversed(), |member, score| {
            if skip > 0 {
                skip -= 1;
                return ControlFlow::Continue(());
            }
            if found.len() as u64 == count {
                return ControlFlow::Break(());
            }
            found.push((member.to_vec(), score));
            ControlFlow::Continue(())
        })?;
        let _ = found.iter().rev().try_for_each(|(member, score)| each(member, *score));
        Ok(())
    }

    /// The same, from where a table of ranks says that they are; false: it could not, and `each` was not called.
    fn each_from_spot(
        &self,
        from: u64,
        count: u64,
        reverse: bool,
        each: &mut impl FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<bool, TypeError> {
        let rank = if reverse { self.size() - 1 - from } else { from };
        for _ in 0..SPOT_TRIES {
            let spot = self.0.spot_ranked(rank, self.1.low(), true)?.filter(|spot| spot.total == self.size());
            let Some(spot) = spot else { return Ok(false) };
            let to = spot.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (span, mut skip) = if reverse {
                (Span { to, ..Span::ALL }.reversed(), spot.before + spot.count - 1 - rank)
            } else {
                (Span { from: Bound::Included(&spot.from), ..Span::ALL }, rank - spot.before)
            };
            let (mut first, mut left) = (true, count);
            self.each_entry(span, |member, score| {
                // What is read now is as of the table's moment, if that has not passed.
                if std::mem::take(&mut first) && !spot.is_current() {
                    first = true;
                    return ControlFlow::Break(());
                }
                if skip > 0 {
                    skip -= 1;
                    return ControlFlow::Continue(());
                }
                left -= 1;
                if each(member, score).is_break() || left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if !first {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Calls `each` for members and scores of a span of the index; until it breaks.
    pub(in crate::types) fn each_entry(
        &self,
        span: Span<'_>,
        mut each: impl FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        let mut outcome = Ok(());
        self.0.each(Subkeys::Score, self.1.clip(span), |key, _| match split_entry(key) {
            Ok((score, member)) => each(member, score),
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        })?;
        outcome
    }

    /// Calls `each` for every member and its score, in the order of the members, from the first one after `after`; until it breaks.
    pub fn each_member(
        &self,
        after: Option<&[u8]>,
        mut each: impl FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        let mut outcome = Ok(());
        self.0.each(Subkeys::Data, Span::after(after), with_score(&mut outcome, &mut each))?;
        outcome
    }

    /// Calls `each` for `count` members chosen at random, none twice; see [`crate::types::random`].
    pub fn sample(&self, count: u64, mut each: impl FnMut(&[u8], f64) -> ControlFlow<()>) -> Result<(), TypeError> {
        let mut outcome = Ok(());
        self.0.sample(count, with_score(&mut outcome, &mut each))?;
        outcome
    }

    /// Calls `each` for `count` members chosen at random, the same one as often as chance has it; see [`crate::types::random`].
    pub fn sample_with_repeats(
        &self,
        count: u64,
        bytes_max: usize,
        mut each: impl FnMut(&[u8], f64) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        let mut outcome = Ok(());
        self.0.sample_with_repeats(count, true, bytes_max, with_score(&mut outcome, &mut each))?;
        outcome
    }

    fn window(&self, selection: &Selection) -> Result<Window, TypeError> {
        Ok(match selection {
            Selection::Rank(start, stop) => match places(*start, *stop, self.size()) {
                Some((from, to)) => Window::Places(from, to),
                None => Window::Nothing,
            },
            Selection::Score(range) => range.bounds().map_or(Window::Nothing, Window::Keys),
            Selection::Lex(range) => match self.only_score()? {
                Some(score) => range.bounds(score).map_or(Window::Nothing, Window::Keys),
                None => Window::Filter,
            },
        })
    }

    /// The score that all members have; `None` when they differ. Two seeks.
    fn only_score(&self) -> Result<Option<f64>, TypeError> {
        let mut ends = [None; 2];
        for (end, span) in ends.iter_mut().zip([Span::ALL, Span::ALL.reversed()]) {
            self.each_entry(span, |_, score| {
                *end = Some(score);
                ControlFlow::Break(())
            })?;
        }
        Ok(ends[0].filter(|_| ends[0] == ends[1]))
    }
}

/// Places from the beginning, the second one not in it; `None`: there is nothing between them.
fn places(start: i64, stop: i64, size: u64) -> Option<(u64, u64)> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let from_end = |place: i64| if place < 0 { place.saturating_add(size) } else { place };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(size - 1));
    if start > stop { None } else { Some((start.unsigned_abs(), stop.unsigned_abs() + 1)) }
}

fn span_of((from, to): &Bounds) -> Span<'_> {
    Span { from: from.as_ref().map(Vec::as_slice), to: to.as_ref().map(Vec::as_slice), reverse: false }
}

/// Reads the score in a member's value; the first that is none ends it.
fn with_score(
    outcome: &mut Result<(), TypeError>,
    each: &mut impl FnMut(&[u8], f64) -> ControlFlow<()>,
) -> impl FnMut(&[u8], &[u8]) -> ControlFlow<()> {
    move |member, value| match decode(value) {
        Ok(score) => each(member, score),
        Err(error) => {
            *outcome = Err(error);
            ControlFlow::Break(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn places_are_counted_from_both_ends() {
        let table = [
            ((0, -1, 3), Some((0, 3))),
            ((1, 1, 3), Some((1, 2))),
            ((-2, -1, 3), Some((1, 3))),
            ((-9, 0, 3), Some((0, 1))),
            ((0, 9, 3), Some((0, 3))),
            ((2, 1, 3), None),
            ((3, 9, 3), None),
            ((0, -4, 3), None),
            ((i64::MIN, i64::MAX, 3), Some((0, 3))),
            ((i64::MAX, i64::MIN, 3), None),
        ];
        for ((start, stop, size), expected) in table {
            assert_eq!(places(start, stop, size), expected, "{start} {stop}");
        }
    }
}
