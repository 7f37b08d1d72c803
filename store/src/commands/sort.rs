//! SORT and SORT_RO: the elements of a list, set or sorted set in another order, or others that they name.
//!
//! What is sorted is held in memory, with its weights: no more than `command-memory-limit`. What patterns name is of the same moment as the
//! elements. Without an order (BY a pattern without a star) no more is read than is answered.

use std::{
    cmp::Ordering,
    ops::{ControlFlow, Range},
};

use bytes::Bytes;
use sluice_topology::Slot;

use super::{Class, CommandError, Context};
use crate::{
    engine::Kind,
    protocol::Request,
    types::{Allowance, Keyspace, Selection, TypeError, parse_exact_double, parse_integer},
};

mod pattern;

use pattern::Pattern;

type Outcome = Result<(), CommandError>;

struct Asked<'q> {
    /// `None`: by the elements themselves.
    by: Option<Pattern<'q>>,
    /// No order is wanted.
    unsorted: bool,
    descending: bool,
    alpha: bool,
    limit: (i64, i64),
    get: Vec<Pattern<'q>>,
    store: Option<&'q [u8]>,
}

impl Asked<'_> {
    /// Whether patterns name other keys than the one that is sorted.
    fn reads_other_keys(&self) -> bool {
        self.by.iter().chain(&self.get).any(Pattern::has_star)
    }
}

/// What an element is sorted by.
enum Weight {
    Number(f64),
    /// `None`: what it names is not there; before every text.
    Text(Option<Vec<u8>>),
}

pub(super) fn sort(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    execute(cx, request, true)
}

pub(super) fn sort_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    execute(cx, request, false)
}

fn execute(cx: &mut Context<'_, '_>, request: &Request, may_store: bool) -> Outcome {
    let slot = cx.node.cluster.enabled().then(|| Slot::of_key(&request[1]));
    let asked = parse(&request[2..], slot, may_store)?;
    let moment = cx.moment(if asked.reads_other_keys() { 2 } else { 1 });
    let keys = cx.keyspace().as_of(moment.as_deref());
    let mut allowance = keys.allowance();
    let elements = read(&keys, &request[1], &asked, &mut allowance)?;
    match asked.store {
        None => {
            cx.reply.array(elements.len() * asked.get.len().max(1));
            answers(&keys, &elements, &asked, |value| {
                cx.reply.bulk_or_null(value);
                if cx.reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Some(into) => {
            let mut values = Vec::new();
            answers(&keys, &elements, &asked, |value| {
                let value = value.unwrap_or_default();
                values.push(value.to_vec());
                allowance.take(value.len())
            })?;
            allowance.check()?;
            let held = keys.kind(into)?.is_some();
            let size = keys.list_replace(into, values.iter().map(Vec::as_slice))?;
            if size > 0 {
                cx.event(Class::List, "sortstore", into);
            } else if held {
                cx.event(Class::Generic, "del", into);
            }
            cx.reply.unsigned(size);
        }
    }
    Ok(())
}

/// `slot`: that of the key, where others may be elsewhere.
fn parse(words: &[Bytes], slot: Option<Slot>, may_store: bool) -> Result<Asked<'_>, CommandError> {
    let mut asked =
        Asked { by: None, unsorted: false, descending: false, alpha: false, limit: (0, -1), get: Vec::new(), store: None };
    let elsewhere = |option: &str| {
        let text = "option of SORT denied in cluster mode when keys formed by the pattern may be in different slots.";
        CommandError::new(format!("ERR {option} {text}"))
    };
    let mut rest = words;
    while let Some((word, behind)) = rest.split_first() {
        rest = match (word.to_ascii_lowercase().as_slice(), behind) {
            (b"asc", _) => {
                asked.descending = false;
                behind
            }
            (b"desc", _) => {
                asked.descending = true;
                behind
            }
            (b"alpha", _) => {
                asked.alpha = true;
                behind
            }
            (b"limit", [start, count, behind @ ..]) => {
                asked.limit = (parse_integer(start)?, parse_integer(count)?);
                behind
            }
            (b"store", [into, behind @ ..]) if may_store => {
                asked.store = Some(into);
                behind
            }
            (b"by", [word, behind @ ..]) => {
                let pattern = Pattern::new(word);
                asked.unsorted = !pattern.has_star();
                if !asked.unsorted && slot.is_some_and(|slot| pattern::slot(word) != Some(slot)) {
                    return Err(elsewhere("BY"));
                }
                asked.by = Some(pattern);
                behind
            }
            (b"get", [word, behind @ ..]) => {
                let pattern = Pattern::new(word);
                if !pattern.is_element() && slot.is_some_and(|slot| pattern::slot(word) != Some(slot)) {
                    return Err(elsewhere("GET"));
                }
                asked.get.push(pattern);
                behind
            }
            _ => return Err(CommandError::syntax()),
        };
    }
    Ok(asked)
}

/// The elements that are answered, in their order.
fn read(keys: &Keyspace<'_>, key: &[u8], asked: &Asked<'_>, allowance: &mut Allowance) -> Result<Vec<Vec<u8>>, CommandError> {
    let kind = keys.kind(key)?;
    let size = match kind {
        None => return Ok(Vec::new()),
        Some(Kind::List) => keys.list(key)?.map_or(0, |list| list.size()),
        Some(Kind::Set) => keys.members_of(key)?.map_or(0, |set| set.size()),
        Some(Kind::SortedSet) => keys.sorted_set(key)?.map_or(0, |set| set.size()),
        Some(_) => return Err(TypeError::WrongType.into()),
    };
    let (start, end) = window(asked.limit, size);
    if asked.unsorted {
        return Ok(natural(keys, key, start..end, asked.descending, allowance)?);
    }
    let mut weighed = Vec::new();
    for element in natural(keys, key, 0..size, false, allowance)? {
        let weight = weight(keys, &element, asked)?;
        if let Weight::Text(Some(text)) = &weight
            && allowance.take(text.len()).is_break()
        {
            break;
        }
        weighed.push((weight, element));
    }
    allowance.check()?;
    let order = |(one, element): &(Weight, Vec<u8>), (other, than): &(Weight, Vec<u8>)| {
        let order = match (one, other) {
            // Equal numbers: by the elements, so that the order is always the same.
            (Weight::Number(one), Weight::Number(other)) => {
                one.partial_cmp(other).unwrap_or(Ordering::Equal).then_with(|| element.cmp(than))
            }
            (Weight::Text(one), Weight::Text(other)) => one.cmp(other),
            _ => Ordering::Equal,
        };
        if asked.descending { order.reverse() } else { order }
    };
    weighed.sort_by(order);
    let wanted = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
    Ok(weighed.into_iter().skip(wanted.start).take(wanted.len()).map(|(_, element)| element).collect())
}

/// Places from the beginning, the second one not in it, as Redis understands LIMIT.
fn window((start, count): (i64, i64), size: u64) -> (u64, u64) {
    let start = u64::try_from(start).unwrap_or(0).min(size);
    let end = u64::try_from(count).map_or(size, |count| start.saturating_add(count).min(size));
    (start, end)
}

/// Elements as they are stored: of a sorted set by score, of a set by their bytes.
fn natural(
    keys: &Keyspace<'_>,
    key: &[u8],
    Range { start, end }: Range<u64>,
    reverse: bool,
    allowance: &mut Allowance,
) -> Result<Vec<Vec<u8>>, TypeError> {
    let mut found = Vec::new();
    if start >= end {
        return Ok(found);
    }
    let mut take = |element: &[u8]| {
        found.push(element.to_vec());
        allowance.take(element.len())
    };
    if let Some(Kind::List) = keys.kind(key)? {
        if let Some(list) = keys.list(key)? {
            list.each(start..end, false, |_, element| take(element))?;
        }
        allowance.check()?;
        return Ok(found);
    }
    if let Some(Kind::SortedSet) = keys.kind(key)? {
        if let Some(set) = keys.sorted_set(key)? {
            let place = |place: u64| i64::try_from(place).unwrap_or(i64::MAX);
            set.each(&Selection::Rank(place(start), place(end - 1)), reverse, None, |member, _| take(member))?;
        }
        allowance.check()?;
        return Ok(found);
    }
    if let Some(set) = keys.members_of(key)? {
        let mut place = 0;
        set.each(None, |member| {
            place += 1;
            if place > start {
                take(member)?;
            }
            if place == end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    allowance.check()?;
    Ok(found)
}

fn weight(keys: &Keyspace<'_>, element: &[u8], asked: &Asked<'_>) -> Result<Weight, CommandError> {
    let value = match &asked.by {
        Some(pattern) => pattern.look_up(keys, element)?,
        None => Some(element.to_vec()),
    };
    if asked.alpha {
        return Ok(Weight::Text(value));
    }
    // What is not there, and what is empty, counts as 0.
    let Some(text) = value.filter(|value| !value.is_empty()) else { return Ok(Weight::Number(0.0)) };
    let number = parse_exact_double(text.trim_ascii_start());
    number.map(Weight::Number).ok_or_else(|| CommandError::new("ERR One or more scores can't be converted into double"))
}

/// Calls `each` for everything that is answered: the elements, or what each of them names.
fn answers(
    keys: &Keyspace<'_>,
    elements: &[Vec<u8>],
    asked: &Asked<'_>,
    mut each: impl FnMut(Option<&[u8]>) -> ControlFlow<()>,
) -> Result<(), TypeError> {
    for element in elements {
        if asked.get.is_empty() && each(Some(element)).is_break() {
            return Ok(());
        }
        for pattern in &asked.get {
            if each(pattern.look_up(keys, element)?.as_deref()).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::window;

    #[test]
    fn limits_are_understood_as_redis_does() {
        let table = [
            ((0, -1), (0, 5)),
            ((2, 2), (2, 4)),
            ((-3, 2), (0, 2)),
            ((9, 2), (5, 5)),
            ((3, 9), (3, 5)),
            ((0, 0), (0, 0)),
            ((1, i64::MAX), (1, 5)),
            ((1, -9), (1, 5)),
        ];
        for (limit, expected) in table {
            assert_eq!(window(limit, 5), expected, "{limit:?}");
        }
    }
}
