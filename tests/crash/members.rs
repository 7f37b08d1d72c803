//! Sets and sorted sets in a writer's account: what changes them, and what they hold then.

use std::collections::{BTreeMap, BTreeSet};

use sluice_tests::dice::Dice;

use crate::account::{Entry, State, Value};

/// One command that changes sets or sorted sets of one writer.
#[derive(Clone, Debug)]
pub(crate) enum MembersOp {
    /// SADD.
    Add(String, Vec<String>),
    /// SREM.
    Remove(String, Vec<String>),
    /// SPOP of more than there are.
    PopAll(String),
    /// SMOVE.
    Move(String, String, String),
    /// SUNIONSTORE into a key, of it and another.
    Unite(String, String),
    /// SDIFFSTORE into a key, of it without another.
    Subtract(String, String),
    /// ZADD.
    Score(String, Vec<(i64, String)>),
    /// ZINCRBY.
    Increase(String, i64, String),
    /// ZREM.
    Unscore(String, Vec<String>),
    /// ZPOPMIN of so many.
    PopLowest(String, usize),
    /// ZREMRANGEBYSCORE between those two, both included.
    RemoveScores(String, i64, i64),
    /// ZUNIONSTORE into a key, of it and another: scores are added up.
    UniteScores(String, String),
}

impl MembersOp {
    /// One of them at random, on those sets and sorted sets.
    pub(crate) fn random(dice: &mut Dice, [set, other]: [String; 2], [scored, another]: [String; 2]) -> Self {
        let member = |dice: &mut Dice| format!("m{}{}", dice.below(40), "x".repeat(dice.below(2) as usize * 50));
        let some = |dice: &mut Dice| (0..=dice.below(6)).map(|_| member(dice)).collect::<Vec<_>>();
        let score = |dice: &mut Dice| dice.below(200) as i64 - 100;
        match dice.below(20) {
            0..=3 => Self::Add(set, some(dice)),
            4 | 5 => Self::Remove(set, some(dice)),
            6 => Self::PopAll(set),
            7 | 8 => Self::Move(set, other, member(dice)),
            9 => Self::Unite(set, other),
            10 => Self::Subtract(set, other),
            11..=13 => Self::Score(scored, some(dice).into_iter().map(|member| (score(dice), member)).collect()),
            14 | 15 => Self::Increase(scored, score(dice), member(dice)),
            16 => Self::Unscore(scored, some(dice)),
            17 => Self::PopLowest(scored, 1 + dice.below(4) as usize),
            18 => {
                let from = score(dice);
                Self::RemoveScores(scored, from, from + 20)
            }
            _ => Self::UniteScores(scored, another),
        }
    }

    /// The command.
    pub(crate) fn words(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Add(key, members) => [words(&["SADD", key]), members.clone()].concat(),
            Self::Remove(key, members) => [words(&["SREM", key]), members.clone()].concat(),
            Self::PopAll(key) => words(&["SPOP", key, "1000"]),
            Self::Move(from, to, member) => words(&["SMOVE", from, to, member]),
            Self::Unite(key, other) => words(&["SUNIONSTORE", key, key, other]),
            Self::Subtract(key, other) => words(&["SDIFFSTORE", key, key, other]),
            Self::Score(key, pairs) => {
                let pairs = pairs.iter().flat_map(|(score, member)| [score.to_string(), member.clone()]);
                words(&["ZADD", key]).into_iter().chain(pairs).collect()
            }
            Self::Increase(key, by, member) => words(&["ZINCRBY", key, &by.to_string(), member]),
            Self::Unscore(key, members) => [words(&["ZREM", key]), members.clone()].concat(),
            Self::PopLowest(key, count) => words(&["ZPOPMIN", key, &count.to_string()]),
            Self::RemoveScores(key, from, to) => words(&["ZREMRANGEBYSCORE", key, &from.to_string(), &to.to_string()]),
            Self::UniteScores(key, other) => words(&["ZUNIONSTORE", key, "2", key, other]),
        }
    }

    /// The keys it touches.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Move(from, to, _) => vec![from, to],
            Self::Add(key, _)
            | Self::Remove(key, _)
            | Self::PopAll(key)
            | Self::Unite(key, _)
            | Self::Subtract(key, _)
            | Self::Score(key, _)
            | Self::Increase(key, ..)
            | Self::Unscore(key, _)
            | Self::PopLowest(key, _)
            | Self::RemoveScores(key, ..)
            | Self::UniteScores(key, _) => vec![key],
        }
    }

    /// What it does.
    pub(crate) fn apply(&self, state: &mut State) {
        match self {
            Self::Add(key, members) => change_set(state, key, |set| set.extend(members.iter().cloned())),
            Self::Remove(key, members) => change_set(state, key, |set| set.retain(|member| !members.contains(member))),
            Self::PopAll(key) => drop(state.remove(key)),
            Self::Move(from, to, member) => {
                if set(state, from).contains(member) {
                    change_set(state, from, |set| set.retain(|found| found != member));
                    change_set(state, to, |set| set.extend([member.clone()]));
                }
            }
            Self::Unite(key, other) => {
                let other = set(state, other);
                replace(state, key, |state| change_set(state, key, |set| set.extend(other)));
            }
            Self::Subtract(key, other) => {
                let other = set(state, other);
                replace(state, key, |state| change_set(state, key, |set| set.retain(|member| !other.contains(member))));
            }
            Self::Score(key, pairs) => change_scores(state, key, |scores| {
                scores.extend(pairs.iter().map(|(score, member)| (member.clone(), *score)));
            }),
            Self::Increase(key, by, member) => {
                change_scores(state, key, |scores| *scores.entry(member.clone()).or_default() += by);
            }
            Self::Unscore(key, members) => {
                change_scores(state, key, |scores| scores.retain(|member, _| !members.contains(member)));
            }
            Self::PopLowest(key, count) => change_scores(state, key, |scores| {
                let mut order: Vec<(i64, String)> = scores.iter().map(|(member, score)| (*score, member.clone())).collect();
                order.sort();
                order.truncate(*count);
                scores.retain(|member, score| !order.iter().any(|(lowest, popped)| popped == member && lowest == score));
            }),
            Self::RemoveScores(key, from, to) => {
                change_scores(state, key, |scores| scores.retain(|_, score| !(from..=to).contains(&&*score)));
            }
            Self::UniteScores(key, other) => {
                let other = match state.get(other).map(|entry| &entry.value) {
                    Some(Value::SortedSet(scores)) => scores.clone(),
                    _ => BTreeMap::new(),
                };
                replace(state, key, |state| {
                    change_scores(state, key, |scores| {
                        other.into_iter().for_each(|(member, score)| *scores.entry(member).or_default() += score);
                    });
                });
            }
        }
    }
}

/// What is stored anew never expires.
fn replace(state: &mut State, key: &str, change: impl FnOnce(&mut State)) {
    change(state);
    if let Some(entry) = state.get_mut(key) {
        entry.expires_at_ms = None;
    }
}

fn set(state: &State, key: &str) -> BTreeSet<String> {
    match state.get(key).map(|entry| &entry.value) {
        Some(Value::Set(members)) => members.clone(),
        _ => BTreeSet::new(),
    }
}

/// Changes a set; without members it is gone.
fn change_set(state: &mut State, key: &str, change: impl FnOnce(&mut BTreeSet<String>)) {
    let entry = state.entry(key.to_owned()).or_insert(Entry { value: Value::Set(BTreeSet::new()), expires_at_ms: None });
    if let Value::Set(set) = &mut entry.value {
        change(set);
        if set.is_empty() {
            state.remove(key);
        }
    }
}

/// Changes a sorted set; without members it is gone.
fn change_scores(state: &mut State, key: &str, change: impl FnOnce(&mut BTreeMap<String, i64>)) {
    let entry = state.entry(key.to_owned()).or_insert(Entry { value: Value::SortedSet(BTreeMap::new()), expires_at_ms: None });
    if let Value::SortedSet(scores) = &mut entry.value {
        change(scores);
        if scores.is_empty() {
            state.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_where_they_were_put() {
        let mut state = State::new();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let members = |state: &State, key: &str| set(state, key).into_iter().collect::<Vec<_>>();
        MembersOp::Add("a".into(), texts(&["1", "2", "2"])).apply(&mut state);
        MembersOp::Move("a".into(), "b".into(), "2".into()).apply(&mut state);
        MembersOp::Move("a".into(), "b".into(), "none".into()).apply(&mut state);
        assert_eq!((members(&state, "a"), members(&state, "b")), (texts(&["1"]), texts(&["2"])));
        MembersOp::Unite("a".into(), "b".into()).apply(&mut state);
        assert_eq!(members(&state, "a"), texts(&["1", "2"]));
        MembersOp::Subtract("b".into(), "a".into()).apply(&mut state);
        assert!(!state.contains_key("b"));
        let scores = |pairs: &[(i64, &str)]| pairs.iter().map(|(score, member)| (*score, (*member).to_owned())).collect();
        MembersOp::Score("z".into(), scores(&[(3, "x"), (1, "z"), (1, "y")])).apply(&mut state);
        MembersOp::PopLowest("z".into(), 1).apply(&mut state);
        MembersOp::UniteScores("z".into(), "z".into()).apply(&mut state);
        let expected = [("x".to_owned(), 6), ("z".to_owned(), 2)].into();
        assert_eq!(state.get("z").map(|entry| &entry.value), Some(&Value::SortedSet(expected)));
        MembersOp::RemoveScores("z".into(), 2, 6).apply(&mut state);
        assert!(!state.contains_key("z"));
    }
}
