//! Lists and streams in a writer's account: what changes them, and what they hold then.

use std::collections::BTreeMap;

use sluice_tests::dice::Dice;

use crate::account::{Entry, State, Stream, Value};

/// One command that changes a list or a stream of one writer.
#[derive(Clone, Debug)]
pub(crate) enum OrderedOp {
    /// LPUSH or RPUSH.
    Push(String, bool, Vec<String>),
    /// LPOP or RPOP, of so many.
    Pop(String, bool, usize),
    /// LTRIM to the first so many, or the last.
    Keep(String, bool, usize),
    /// LMOVE, from the front or the back of one to the front or the back of the other.
    Move(String, String, bool, bool),
    /// LINSERT before the first element of that value.
    Insert(String, String, String),
    /// LREM of every element of that value.
    Remove(String, String),
    /// XADD of an entry of that number, keeping so many.
    Add(String, u64, String, Option<usize>),
    /// XDEL.
    Delete(String, Vec<u64>),
    /// XTRIM to the entries from that number on.
    TrimBefore(String, u64),
}

fn end(front: bool) -> &'static str {
    if front { "LEFT" } else { "RIGHT" }
}

impl OrderedOp {
    /// One of them at random, on a list or a stream of those names; streams get the entry of that number.
    pub(crate) fn random(dice: &mut Dice, [list, other, stream]: [String; 3], number: u64) -> Self {
        let mut element = || format!("{}{}", char::from(b'a' + dice.below(4) as u8), "x".repeat(dice.below(2) as usize * 60));
        let elements: Vec<String> = (0..4).map(|_| element()).collect();
        let (front, onto, count) = (dice.below(2) == 0, dice.below(2) == 0, dice.below(6) as usize);
        match dice.below(20) {
            0..=5 => Self::Push(list, front, elements[..=count.min(3)].to_vec()),
            // More than are deleted one by one: the list gets another version, or goes in one write.
            6 => Self::Push(list, front, elements.iter().cycle().take(100).cloned().collect()),
            7 | 8 => Self::Pop(list, front, 1 + count),
            9 => Self::Keep(list, front, 10 * count),
            10 | 11 => Self::Move(list, other, front, onto),
            12 => Self::Insert(list, elements[0].clone(), elements[1].clone()),
            13 => Self::Remove(list, elements[0].clone()),
            14..=16 => Self::Add(stream, number, elements[0].clone(), None),
            17 => Self::Add(stream, number, elements[0].clone(), Some(5 * count)),
            18 => Self::Delete(stream, (0..=count as u64).map(|back| number.saturating_sub(3 * back + 1)).collect()),
            _ => Self::TrimBefore(stream, number.saturating_sub(20 * count as u64)),
        }
    }

    /// The command.
    pub(crate) fn words(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let id = |number: &u64| format!("{number}-1");
        match self {
            Self::Push(key, front, elements) => {
                [words(&[if *front { "LPUSH" } else { "RPUSH" }, key]), elements.clone()].concat()
            }
            Self::Pop(key, front, count) => words(&[if *front { "LPOP" } else { "RPOP" }, key, &count.to_string()]),
            Self::Keep(key, _, 0) => words(&["LTRIM", key, "1", "0"]),
            Self::Keep(key, true, count) => words(&["LTRIM", key, "0", &(count - 1).to_string()]),
            Self::Keep(key, false, count) => words(&["LTRIM", key, &format!("-{count}"), "-1"]),
            Self::Move(from, to, off, onto) => words(&["LMOVE", from, to, end(*off), end(*onto)]),
            Self::Insert(key, pivot, element) => words(&["LINSERT", key, "BEFORE", pivot, element]),
            Self::Remove(key, element) => words(&["LREM", key, "0", element]),
            Self::Add(key, number, value, None) => words(&["XADD", key, &id(number), "field", value]),
            Self::Add(key, number, value, Some(most)) => {
                words(&["XADD", key, "MAXLEN", &most.to_string(), &id(number), "field", value])
            }
            Self::Delete(key, numbers) => [words(&["XDEL", key]), numbers.iter().map(id).collect()].concat(),
            Self::TrimBefore(key, number) => words(&["XTRIM", key, "MINID", &number.to_string()]),
        }
    }

    /// The keys it touches.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Move(from, to, ..) => vec![from, to],
            Self::Push(key, ..)
            | Self::Pop(key, ..)
            | Self::Keep(key, ..)
            | Self::Insert(key, ..)
            | Self::Remove(key, _)
            | Self::Add(key, ..)
            | Self::Delete(key, _)
            | Self::TrimBefore(key, _) => vec![key],
        }
    }

    /// What it does.
    pub(crate) fn apply(&self, state: &mut State) {
        match self {
            Self::Push(key, front, elements) => elements.iter().for_each(|element| push(state, key, *front, element.clone())),
            Self::Pop(key, front, count) => change_list(state, key, |list| {
                let gone = (*count).min(list.len());
                if *front {
                    list.drain(..gone)
                } else {
                    list.drain(list.len() - gone..)
                };
            }),
            Self::Keep(key, front, count) => change_list(state, key, |list| {
                let kept = (*count).min(list.len());
                if *front { list.truncate(kept) } else { drop(list.drain(..list.len() - kept)) }
            }),
            Self::Move(from, to, off, onto) => {
                let mut taken = None;
                change_list(state, from, |list| taken = if *off { Some(list.remove(0)) } else { list.pop() });
                if let Some(element) = taken {
                    push(state, to, *onto, element);
                }
            }
            Self::Insert(key, pivot, element) => change_list(state, key, |list| {
                if let Some(at) = list.iter().position(|found| found == pivot) {
                    list.insert(at, element.clone());
                }
            }),
            Self::Remove(key, element) => change_list(state, key, |list| list.retain(|found| found != element)),
            Self::Add(key, number, value, most) => {
                let entries = &mut Stream::at(state, key).entries;
                entries.insert(*number, value.clone());
                while most.is_some_and(|most| entries.len() > most) {
                    entries.pop_first();
                }
            }
            Self::Delete(key, numbers) => {
                change_stream(state, key, |entries| entries.retain(|number, _| !numbers.contains(number)));
            }
            Self::TrimBefore(key, number) => change_stream(state, key, |entries| entries.retain(|found, _| found >= number)),
        }
    }
}

fn push(state: &mut State, key: &str, front: bool, element: String) {
    let entry = state.entry(key.to_owned()).or_insert(Entry { value: Value::List(Vec::new()), expires_at_ms: None });
    if let Value::List(list) = &mut entry.value {
        list.insert(if front { 0 } else { list.len() }, element);
    }
}

/// Changes a list that is there; without elements it is gone.
fn change_list(state: &mut State, key: &str, change: impl FnOnce(&mut Vec<String>)) {
    if let Some(Entry { value: Value::List(list), .. }) = state.get_mut(key) {
        change(list);
        if list.is_empty() {
            state.remove(key);
        }
    }
}

/// Changes a stream that is there; without entries it stays.
fn change_stream(state: &mut State, key: &str, change: impl FnOnce(&mut BTreeMap<u64, String>)) {
    if let Some(Entry { value: Value::Stream(stream), .. }) = state.get_mut(key) {
        change(&mut stream.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_moved_is_in_one_place() {
        let mut state = State::new();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        OrderedOp::Push("a".into(), true, texts(&["1", "2", "3"])).apply(&mut state);
        OrderedOp::Move("a".into(), "b".into(), true, false).apply(&mut state);
        OrderedOp::Insert("a".into(), "1".into(), "x".into()).apply(&mut state);
        let held = |state: &State, key: &str| state.get(key).map(|entry| entry.value.clone());
        assert_eq!(held(&state, "a"), Some(Value::List(texts(&["2", "x", "1"]))));
        assert_eq!(held(&state, "b"), Some(Value::List(texts(&["3"]))));
        OrderedOp::Keep("a".into(), false, 1).apply(&mut state);
        OrderedOp::Remove("a".into(), "1".into()).apply(&mut state);
        assert_eq!(held(&state, "a"), None);
        OrderedOp::Add("s".into(), 5, "v".into(), None).apply(&mut state);
        OrderedOp::Delete("s".into(), vec![5]).apply(&mut state);
        assert_eq!(held(&state, "s"), Some(Value::Stream(Stream::default())));
    }
}
