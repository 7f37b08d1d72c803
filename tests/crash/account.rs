//! What a writer has asked for, in order, and what the store may hold after a crash: the state after some number of those operations,
//! not fewer than it promised to keep, and never a state between two of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use crate::{
    groups::{Group, GroupOp},
    members::MembersOp,
    ordered::OrderedOp,
};

/// The store's clock and the test's may differ by this much.
const CLOCK_SLACK_MS: u64 = 1000;

/// One command that changes keys of one writer.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// SET, with PXAT when there is a time.
    Set(String, String, Option<u64>),
    /// MSET.
    SetMany(Vec<(String, String)>),
    /// APPEND.
    Append(String, String),
    /// INCR, of keys that only this op and deletion touch.
    Increment(String),
    /// DEL.
    Delete(Vec<String>),
    /// PEXPIREAT.
    ExpireAt(String, u64),
    /// PERSIST.
    Persist(String),
    /// HSET, of keys that are hashes or nothing.
    SetFields(String, Vec<(String, String)>),
    /// HDEL.
    DeleteFields(String, Vec<String>),
    /// HINCRBY by one, of fields that only this op and deletion touch.
    IncrementField(String, String),
    /// A command of lists or streams.
    Ordered(OrderedOp),
    /// A command of sets or sorted sets.
    Members(MembersOp),
    /// A command of consumer groups.
    Group(GroupOp),
    /// FLUSHDB: sent while no writer has anything under way.
    DeleteAll,
}

impl Op {
    /// The command.
    pub(crate) fn words(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Set(key, value, None) => words(&["SET", key, value]),
            Self::Set(key, value, Some(at)) => words(&["SET", key, value, "PXAT", &at.to_string()]),
            Self::SetMany(pairs) => {
                let pairs = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
                std::iter::once("MSET".to_owned()).chain(pairs).collect()
            }
            Self::Append(key, value) => words(&["APPEND", key, value]),
            Self::Increment(key) => words(&["INCR", key]),
            Self::Delete(keys) => std::iter::once("DEL".to_owned()).chain(keys.iter().cloned()).collect(),
            Self::ExpireAt(key, at) => words(&["PEXPIREAT", key, &at.to_string()]),
            Self::Persist(key) => words(&["PERSIST", key]),
            Self::SetFields(key, pairs) => {
                let pairs = pairs.iter().flat_map(|(field, value)| [field.clone(), value.clone()]);
                ["HSET".to_owned(), key.clone()].into_iter().chain(pairs).collect()
            }
            Self::DeleteFields(key, fields) => {
                ["HDEL".to_owned(), key.clone()].into_iter().chain(fields.iter().cloned()).collect()
            }
            Self::IncrementField(key, field) => words(&["HINCRBY", key, field, "1"]),
            Self::Ordered(op) => op.words(),
            Self::Members(op) => op.words(),
            Self::Group(op) => op.words(),
            Self::DeleteAll => words(&["FLUSHDB"]),
        }
    }

    /// The keys it touches; `None`: all.
    fn keys(&self) -> Option<Vec<&str>> {
        Some(match self {
            Self::Set(key, ..)
            | Self::Append(key, _)
            | Self::Increment(key)
            | Self::ExpireAt(key, _)
            | Self::Persist(key)
            | Self::SetFields(key, _)
            | Self::DeleteFields(key, _)
            | Self::IncrementField(key, _) => vec![key],
            Self::SetMany(pairs) => pairs.iter().map(|(key, _)| key.as_str()).collect(),
            Self::Delete(keys) => keys.iter().map(String::as_str).collect(),
            Self::Ordered(op) => op.keys(),
            Self::Members(op) => op.keys(),
            Self::Group(op) => vec![op.key()],
            Self::DeleteAll => return None,
        })
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    String(String),
    Hash(BTreeMap<String, String>),
    List(Vec<String>),
    Set(BTreeSet<String>),
    /// Scores of its members.
    SortedSet(BTreeMap<String, i64>),
    Stream(Stream),
}

/// A stream: its entries by their numbers, of which there may be none, and its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) entries: BTreeMap<u64, String>,
    pub(crate) groups: BTreeMap<String, Group>,
}

impl Stream {
    /// The one of that key, which is made if it is not there.
    pub(crate) fn at<'s>(state: &'s mut State, key: &str) -> &'s mut Self {
        let none = || Entry { value: Value::Stream(Self::default()), expires_at_ms: None };
        match &mut state.entry(key.to_owned()).or_insert_with(none).value {
            Value::Stream(stream) => stream,
            other => panic!("{key} is a stream, and not {other:?}"),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// A key: its value, and when it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) expires_at_ms: Option<u64>,
}

/// Keys and what they hold.
pub(crate) type State = BTreeMap<String, Entry>;

impl Entry {
    fn string(value: &str, expires_at_ms: Option<u64>) -> Self {
        Self { value: value.into(), expires_at_ms }
    }
}

fn apply(state: &mut State, op: &Op) {
    match op {
        Op::Set(key, value, expires_at_ms) => {
            state.insert(key.clone(), Entry::string(value, *expires_at_ms));
        }
        Op::SetMany(pairs) => {
            for (key, value) in pairs {
                state.insert(key.clone(), Entry::string(value, None));
            }
        }
        Op::Append(key, value) => match state.get_mut(key) {
            Some(Entry { value: Value::String(text), .. }) => text.push_str(value),
            _ => {
                state.insert(key.clone(), Entry::string(value, None));
            }
        },
        Op::Increment(key) => {
            let entry = state.entry(key.clone()).or_insert_with(|| Entry::string("0", None));
            if let Value::String(text) = &mut entry.value {
                *text = plus_one(text);
            }
        }
        Op::Delete(keys) => keys.iter().for_each(|key| {
            state.remove(key);
        }),
        Op::ExpireAt(key, at) => {
            if let Some(entry) = state.get_mut(key) {
                entry.expires_at_ms = Some(*at);
            }
        }
        Op::Persist(key) => {
            if let Some(entry) = state.get_mut(key) {
                entry.expires_at_ms = None;
            }
        }
        Op::SetFields(key, pairs) => fields(state, key).extend(pairs.iter().cloned()),
        Op::IncrementField(key, field) => {
            let text = fields(state, key).entry(field.clone()).or_insert_with(|| "0".to_owned());
            *text = plus_one(text);
        }
        Op::DeleteFields(key, gone) => {
            if state.contains_key(key) {
                let fields = fields(state, key);
                fields.retain(|field, _| !gone.contains(field));
                if fields.is_empty() {
                    state.remove(key);
                }
            }
        }
        Op::Ordered(op) => op.apply(state),
        Op::Members(op) => op.apply(state),
        Op::Group(op) => op.apply(state),
        Op::DeleteAll => state.clear(),
    }
}

fn plus_one(text: &str) -> String {
    text.parse::<u64>().map_or_else(|_| "no number".into(), |number| (number + 1).to_string())
}

/// The fields of a hash, which is made if it is not there.
fn fields<'s>(state: &'s mut State, key: &str) -> &'s mut BTreeMap<String, String> {
    let none = || Entry { value: Value::Hash(BTreeMap::new()), expires_at_ms: None };
    match &mut state.entry(key.to_owned()).or_insert_with(none).value {
        Value::Hash(fields) => fields,
        other => panic!("{key} is a hash, and not {other:?}"),
    }
}

/// Whether a key that was read within those times is what it is expected to be.
fn agrees(expected: Option<&Entry>, found: Option<&Entry>, read_ms: &RangeInclusive<u64>) -> bool {
    let Some(entry) = expected else { return found.is_none() };
    let at = entry.expires_at_ms.unwrap_or(u64::MAX);
    let surely_gone = at.saturating_add(CLOCK_SLACK_MS) < *read_ms.start();
    let surely_there = at > read_ms.end().saturating_add(CLOCK_SLACK_MS);
    match found {
        None => !surely_there,
        Some(found) => !surely_gone && found == entry,
    }
}

/// One writer's account since the last time it was checked.
#[derive(Default)]
pub(crate) struct Account {
    base: State,
    sent: Vec<Op>,
    acknowledged: usize,
    promised: usize,
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checked {
    /// Operations acknowledged since the last check.
    pub(crate) acknowledged: u64,
    /// Of those sent and not acknowledged, how many were there.
    pub(crate) unacknowledged_kept: u64,
    /// Of those acknowledged and not promised to be kept, how many were not there. Only without a write-ahead log.
    pub(crate) given_up: u64,
}

impl Account {
    /// An operation that is about to be sent.
    pub(crate) fn send(&mut self, op: Op) {
        self.sent.push(op);
    }

    /// The next operation was acknowledged.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged += 1;
        assert!(self.acknowledged <= self.sent.len(), "there are more answers than requests");
    }

    /// How many are acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// The first of them, up to that number, have to be there after a crash.
    pub(crate) fn promise(&mut self, count: usize) {
        self.promised = self.promised.max(count);
    }

    /// Everything acknowledged has to be there after a crash.
    pub(crate) fn promise_acknowledged(&mut self) {
        self.promise(self.acknowledged);
    }

    /// Compares what was found, read within those times (Unix milliseconds), with the state after each number of operations that
    /// the promises allow; goes on from the one it is.
    pub(crate) fn check(&mut self, found: &State, read_ms: RangeInclusive<u64>) -> Result<Checked, String> {
        let mut state = self.base.clone();
        let mut wrong: std::collections::BTreeSet<String> = state.keys().chain(found.keys()).cloned().collect();
        wrong.retain(|key| !agrees(state.get(key), found.get(key), &read_ms));
        let (mut count, mut fewest): (usize, Option<(usize, Vec<String>)>) = (0, None);
        loop {
            if count >= self.promised {
                if wrong.is_empty() {
                    break;
                }
                if fewest.as_ref().is_none_or(|(_, keys)| wrong.len() < keys.len()) {
                    fewest = Some((count, wrong.iter().cloned().collect()));
                }
            }
            let Some(op) = self.sent.get(count) else { return Err(self.complaint(found, fewest)) };
            let touched = op.keys().map(|keys| keys.into_iter().map(str::to_owned).collect::<Vec<_>>());
            let touched = touched.unwrap_or_else(|| state.keys().chain(found.keys()).cloned().collect());
            apply(&mut state, op);
            count += 1;
            for key in touched {
                if agrees(state.get(&key), found.get(&key), &read_ms) {
                    wrong.remove(&key);
                } else {
                    wrong.insert(key);
                }
            }
        }
        let checked = Checked {
            acknowledged: self.acknowledged as u64,
            unacknowledged_kept: count.saturating_sub(self.acknowledged) as u64,
            given_up: self.acknowledged.saturating_sub(count) as u64,
        };
        // What has expired for good is forgotten; anything else must be there the next time as well.
        *self = Self { base: state, ..Self::default() };
        Ok(checked)
    }

    /// Says how the state nearest to what was found differs from it.
    fn complaint(&self, found: &State, nearest: Option<(usize, Vec<String>)>) -> String {
        let Some((count, keys)) = nearest else { return "more is promised than was sent".into() };
        let mut state = self.base.clone();
        self.sent[..count].iter().for_each(|op| apply(&mut state, op));
        let show = |key: &String| {
            let touches = |op: &Op| op.keys().is_none_or(|keys| keys.contains(&key.as_str()));
            let last: Vec<_> = self.sent.iter().enumerate().rev().filter(|(_, op)| touches(op)).take(4).collect();
            format!(
                "{key}: found {:?}, expected {:?}; last operations on it (newest first): {last:?}",
                found.get(key),
                state.get(key)
            )
        };
        format!(
            "no state between {} and {} operations is what was found ({} were acknowledged); the nearest, after {count}, differs in {}:\n{}",
            self.promised,
            self.sent.len(),
            self.acknowledged,
            keys.len(),
            keys.iter().take(5).map(show).collect::<Vec<_>>().join("\n")
        )
    }
}

mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Op {
        Op::Set(key.into(), value.into(), None)
    }

    fn state(pairs: &[(&str, &str)]) -> State {
        pairs.iter().map(|(key, value)| ((*key).into(), Entry::string(value, None))).collect()
    }

    fn account(ops: &[Op], acknowledged: usize, promised: usize) -> Account {
        let mut account = Account::default();
        ops.iter().for_each(|op| account.send(op.clone()));
        (0..acknowledged).for_each(|_| account.acknowledge());
        account.promise(promised);
        account
    }

    #[test]
    fn only_states_within_the_promise_pass() {
        let pairs = vec![("a".into(), "3".into()), ("b".into(), "3".into())];
        let ops = [set("a", "1"), set("b", "2"), Op::SetMany(pairs), Op::Delete(vec!["a".into()])];
        let cases: &[(&[(&str, &str)], bool)] = &[
            (&[("a", "1"), ("b", "2")], true),
            (&[("a", "3"), ("b", "3")], true),
            (&[("b", "3")], true),
            // One acknowledged write is missing; a torn MSET; a key nobody wrote; nothing at all.
            (&[("a", "1")], false),
            (&[("a", "3"), ("b", "2")], false),
            (&[("b", "3"), ("c", "1")], false),
            (&[], false),
        ];
        for (found, fits) in cases {
            let checked = account(&ops, 2, 2).check(&state(found), 0..=0);
            assert_eq!(checked.is_ok(), *fits, "{found:?}: {checked:?}");
        }
        let checked = account(&ops, 4, 1).check(&state(&[("a", "1")]), 0..=0).expect("a promise of one is kept");
        assert_eq!((checked.given_up, checked.unacknowledged_kept), (3, 0));
    }

    #[test]
    fn a_torn_hash_is_no_state() {
        let pairs = |value: &str| ["f", "g"].map(|field| (field.to_owned(), value.to_owned())).to_vec();
        let ops = [
            Op::SetFields("h".into(), pairs("1")),
            Op::SetFields("h".into(), pairs("2")),
            Op::DeleteFields("h".into(), vec!["f".into(), "g".into()]),
        ];
        let hash = |f: &str, g: &str| -> State {
            let fields = [("f".to_owned(), f.to_owned()), ("g".to_owned(), g.to_owned())].into();
            [("h".to_owned(), Entry { value: Value::Hash(fields), expires_at_ms: None })].into()
        };
        for (found, fits) in [(hash("1", "1"), true), (hash("2", "2"), true), (State::new(), true), (hash("1", "2"), false)] {
            assert_eq!(account(&ops, 1, 1).check(&found, 0..=0).is_ok(), fits, "{found:?}");
        }
    }

    #[test]
    fn an_expired_key_has_to_be_gone_and_one_that_lives_has_to_be_there() {
        let at = 1_000_000;
        let ops = [Op::Set("a".into(), "1".into(), Some(at))];
        let alive: State = [("a".into(), Entry::string("1", Some(at)))].into();
        for (read, found, fits) in [
            (at - 10_000, &alive, true),
            (at - 10_000, &State::new(), false),
            (at, &alive, true),
            (at, &State::new(), true),
            (at + 10_000, &alive, false),
            (at + 10_000, &State::new(), true),
        ] {
            assert_eq!(account(&ops, 1, 1).check(found, read..=read).is_ok(), fits, "read at {read}: {found:?}");
        }
    }
}
