//! Whether one order of a key's calls explains their replies: the search of Wing and Gong, with Lowe's memory of what was tried.
//!
//! A call may stand anywhere between its begin and its end. What is searched is the order, call by call: whatever began before the first
//! end that is still to come may be next. What was tried once, the same calls placed and the same state reached, is not tried again. Calls
//! that are open may be placed at any time after their begin, and need not be; they are tried last.

use std::{
    collections::HashSet,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{Call, State};

/// How many calls around what cannot be placed are shown.
const SHOWN: usize = 12;

/// That no order explains what was seen.
#[derive(Debug)]
pub struct Violation {
    /// Of which key.
    pub key: String,
    /// How many calls could be placed at most, of how many.
    pub placed: (usize, usize),
    /// What the key then held.
    pub state: State,
    /// The calls placed last, and those that could not be.
    pub calls: (Vec<Call>, Vec<Call>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (placed, all) = self.placed;
        writeln!(f, "no order explains the calls of {}: at most {placed} of {all} can be placed, the last of them", self.key)?;
        self.calls.0.iter().try_for_each(|call| writeln!(f, "  {call:?}"))?;
        writeln!(f, "with {:?} then in the key, and none of these next", self.state)?;
        self.calls.1.iter().try_for_each(|call| writeln!(f, "  {call:?}"))
    }
}

impl std::error::Error for Violation {}

/// A place in the list of begins and ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Begin(usize),
    End(usize),
}

/// Begins and ends of the calls that have a reply and are not placed yet, in the order of time: a list that calls are taken out of and
/// put back into. Position 0 is before the first.
struct Timeline {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where begin and end of each call are.
    places: Vec<(usize, usize)>,
}

impl Timeline {
    fn new(calls: &[&Call]) -> Self {
        let mut times = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            if let Some((ended, _)) = &call.ended {
                // Of what happens at one time begins come first: such calls overlap.
                times.push((call.began, false, number));
                times.push((*ended, true, number));
            }
        }
        times.sort_unstable();
        let event = |(_, ends, number): &(u64, bool, usize)| if *ends { Event::End(*number) } else { Event::Begin(*number) };
        let events: Vec<Event> = std::iter::once(Event::End(usize::MAX)).chain(times.iter().map(event)).collect();
        let mut places = vec![(0, 0); calls.len()];
        for (place, event) in events.iter().enumerate().skip(1) {
            match event {
                Event::Begin(number) => places[*number].0 = place,
                Event::End(number) => places[*number].1 = place,
            }
        }
        let count = events.len();
        Self { events, next: (1..=count).collect(), previous: (0..=count).map(|place| place.saturating_sub(1)).collect(), places }
    }

    fn event(&self, place: usize) -> Option<Event> {
        self.events.get(place).copied()
    }

    fn remove(&mut self, call: usize) {
        let (begin, end) = self.places[call];
        for place in [begin, end] {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last removal that is not undone.
    fn restore(&mut self, call: usize) {
        let (begin, end) = self.places[call];
        for place in [end, begin] {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = place;
            self.previous[next] = place;
        }
    }
}

/// Judges the calls of one key, in whatever order they are given.
pub fn check(key: &str, calls: &[Call]) -> Result<(), Violation> {
    // What only reads and has no reply says nothing.
    let calls: Vec<&Call> = calls.iter().filter(|call| call.ended.is_some() || !call.operation.only_reads()).collect();
    let mut open: Vec<usize> = (0..calls.len()).filter(|number| calls[*number].ended.is_none()).collect();
    open.sort_by_key(|number| calls[*number].began);
    let all = calls.len() - open.len();
    let mut timeline = Timeline::new(&calls);
    let (mut state, mut placed, mut definite) = (State::default(), 0u128, 0);
    let mut used = vec![false; calls.len()];
    // What was placed, the state before it, and where the search goes on without it.
    let mut trail: Vec<(usize, State, Next)> = Vec::new();
    let mut tried: HashSet<u128> = HashSet::new();
    let (mut best, mut furthest) = (0, None);
    let mut next = Next::first(&timeline);
    while definite < all {
        let candidate = next.candidate(&timeline, &calls, &open, &used);
        match candidate {
            Some((number, after)) => {
                next = after;
                let (reply, left) = calls[number].operation.apply(&state);
                if calls[number].ended.as_ref().is_some_and(|(_, seen)| *seen != reply) {
                    continue;
                }
                // An open call that changes nothing may as well not have happened.
                if left.is_none() && calls[number].ended.is_none() {
                    continue;
                }
                let left = left.unwrap_or_else(|| state.clone());
                if !tried.insert(mark(placed ^ spread(number), &left)) {
                    continue;
                }
                placed ^= spread(number);
                used[number] = true;
                trail.push((number, std::mem::replace(&mut state, left), after));
                if calls[number].ended.is_some() {
                    timeline.remove(number);
                    definite += 1;
                }
                if definite > best || furthest.is_none() {
                    best = definite;
                    furthest = Some((trail.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), state.clone()));
                }
                next = Next::first(&timeline);
            }
            None => {
                let Some((number, before, after)) = trail.pop() else {
                    return Err(violation(key, &calls, (best, all), furthest.unwrap_or_default()));
                };
                placed ^= spread(number);
                used[number] = false;
                state = before;
                next = after;
                if calls[number].ended.is_some() {
                    timeline.restore(number);
                    definite -= 1;
                }
            }
        }
    }
    Ok(())
}

/// What is tried next at a point of the search: calls with a reply in the order of their begins, then open ones.
#[derive(Clone, Copy)]
enum Next {
    Begin(usize),
    /// Behind that many open ones; and the end before which they have to have begun.
    Open(usize, usize),
}

impl Next {
    fn first(timeline: &Timeline) -> Self {
        Self::Begin(timeline.next[0])
    }

    /// The next call to try, and what is tried after it; `None`: all were.
    fn candidate(self, timeline: &Timeline, calls: &[&Call], open: &[usize], used: &[bool]) -> Option<(usize, Self)> {
        let (from, limit) = match self {
            Self::Begin(place) => match timeline.event(place)? {
                Event::Begin(number) => return Some((number, Self::Begin(timeline.next[place]))),
                // Whatever comes later began after this call had ended: only open ones are left to try.
                Event::End(number) => (0, number),
            },
            Self::Open(from, limit) => (from, limit),
        };
        let ended = calls[limit].ended.as_ref().map_or(u64::MAX, |(at, _)| *at);
        let (position, number) =
            open.iter().copied().enumerate().skip(from).find(|(_, number)| !used[*number] && calls[*number].began <= ended)?;
        Some((number, Self::Open(position + 1, limit)))
    }
}

fn violation(key: &str, calls: &[&Call], placed: (usize, usize), furthest: (Vec<usize>, State)) -> Violation {
    let (trail, state) = furthest;
    let mut left: Vec<Call> =
        (0..calls.len()).filter(|number| !trail.contains(number)).map(|number| calls[number].clone()).collect();
    left.sort_by_key(|call| call.began);
    left.truncate(SHOWN);
    let last = trail.iter().skip(trail.len().saturating_sub(SHOWN)).map(|number| calls[*number].clone()).collect();
    Violation { key: key.to_owned(), placed, state, calls: (last, left) }
}

/// A call's share of the mark of a set of calls.
fn spread(number: usize) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, number).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(1)) << 64 | u128::from(half(2))
}

/// Stands for what is placed and the state it left: 128 bits, so that no two of a search are ever the same by chance.
fn mark(placed: u128, state: &State) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, placed, state).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(3)) << 64 | u128::from(half(4))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Operation, Reply},
        *,
    };

    fn call(client: usize, operation: Operation, began: u64, ended: u64, reply: Reply) -> Call {
        Call { client, operation, began, ended: Some((ended, reply)) }
    }

    fn open(client: usize, operation: Operation, began: u64) -> Call {
        Call { client, operation, began, ended: None }
    }

    fn set(value: &str) -> Operation {
        Operation::Set(value.into())
    }

    fn text(value: &str) -> Reply {
        Reply::Text(Some(value.into()))
    }

    fn linearizable(calls: &[Call]) -> bool {
        let forth = check("k", calls).is_ok();
        let back: Vec<Call> = calls.iter().rev().cloned().collect();
        assert_eq!(check("k", &back).is_ok(), forth, "the order in which calls are given means nothing");
        forth
    }

    #[test]
    fn what_one_client_does_is_in_its_order() {
        let calls = [call(0, set("a"), 0, 1, Reply::Ok), call(0, Operation::Get, 2, 3, text("a"))];
        assert!(linearizable(&calls));
        let calls = [call(0, set("a"), 0, 1, Reply::Ok), call(0, Operation::Get, 2, 3, Reply::Text(None))];
        assert!(!linearizable(&calls), "an acknowledged write was not seen");
    }

    #[test]
    fn calls_that_overlap_may_be_in_either_order() {
        for seen in [text("a"), text("b")] {
            let calls =
                [call(0, set("a"), 0, 10, Reply::Ok), call(1, set("b"), 5, 15, Reply::Ok), call(2, Operation::Get, 20, 21, seen)];
            assert!(linearizable(&calls));
        }
        let one_after_the_other =
            [call(0, set("a"), 0, 4, Reply::Ok), call(1, set("b"), 5, 15, Reply::Ok), call(2, Operation::Get, 20, 21, text("a"))];
        assert!(!linearizable(&one_after_the_other), "a write came back");
    }

    #[test]
    fn what_was_seen_once_stays_until_it_is_overwritten() {
        let reads = |first: &str, second: &str| {
            let reply = |seen: &str| Reply::Text((!seen.is_empty()).then(|| seen.to_owned()));
            [
                call(0, set("a"), 0, 100, Reply::Ok),
                call(1, Operation::Get, 10, 20, reply(first)),
                call(2, Operation::Get, 30, 40, reply(second)),
            ]
        };
        assert!(linearizable(&reads("", "")) && linearizable(&reads("", "a")) && linearizable(&reads("a", "a")));
        assert!(!linearizable(&reads("a", "")), "a value was seen, and then not");
    }

    #[test]
    fn counters_count_every_acknowledged_increment_once() {
        let counted = |replies: [i64; 4]| {
            let mut at = 0;
            replies.map(|reply| {
                at += 1;
                call(at as usize, Operation::Incr, at, at + 100, Reply::Integer(reply))
            })
        };
        assert!(linearizable(&counted([3, 1, 4, 2])));
        assert!(!linearizable(&counted([1, 2, 2, 3])), "one was lost");
        assert!(!linearizable(&counted([1, 2, 4, 5])), "one was done twice");
    }

    #[test]
    fn an_open_call_may_have_happened_at_any_time_since_or_never() {
        let with = |reads: &[(u64, &str)]| {
            let mut calls = vec![call(0, set("a"), 0, 1, Reply::Ok), open(1, set("b"), 5)];
            calls.extend(reads.iter().map(|(at, seen)| call(2, Operation::Get, *at, at + 1, text(seen))));
            calls
        };
        assert!(linearizable(&with(&[(10, "a"), (20, "a")])), "never");
        assert!(linearizable(&with(&[(10, "b"), (20, "b")])), "at once");
        assert!(linearizable(&with(&[(10, "a"), (20, "b")])), "later");
        assert!(!linearizable(&with(&[(10, "b"), (20, "a")])), "and then not");
        assert!(!linearizable(&with(&[(2, "b")])), "before it began");
    }

    #[test]
    fn an_open_call_happens_once_at_most() {
        let counts = |replies: &[i64]| {
            let mut calls = vec![open(9, Operation::Incr, 0)];
            calls.extend(
                replies
                    .iter()
                    .zip(1u64..)
                    .map(|(reply, at)| call(0, Operation::Incr, at * 10, at * 10 + 5, Reply::Integer(*reply))),
            );
            calls
        };
        assert!(linearizable(&counts(&[1, 2, 3])) && linearizable(&counts(&[2, 3, 4])) && linearizable(&counts(&[1, 2, 4])));
        assert!(!linearizable(&counts(&[1, 3, 5])) && !linearizable(&counts(&[3, 4, 5])));
    }

    #[test]
    fn kinds_of_values_and_deletions_are_told_apart() {
        let hset = |field: &str, value: &str| Operation::HSet(field.into(), value.into());
        let hget = |field: &str| Operation::HGet(field.into());
        let steps = [
            (hset("f", "1"), Reply::Integer(1)),
            (hset("f", "2"), Reply::Integer(0)),
            (hget("f"), text("2")),
            (hget("g"), Reply::Text(None)),
            (Operation::Get, Reply::WrongType),
            (Operation::Append("x".into()), Reply::WrongType),
            (Operation::Del, Reply::Integer(1)),
            (Operation::Append("ab".into()), Reply::Integer(2)),
            (Operation::Append("c".into()), Reply::Integer(3)),
            (Operation::Get, text("abc")),
            (Operation::Incr, Reply::NotInteger),
            (hget("f"), Reply::WrongType),
            (set("41"), Reply::Ok),
            (Operation::Incr, Reply::Integer(42)),
        ];
        let calls: Vec<Call> = steps
            .iter()
            .zip(0u64..)
            .map(|((operation, reply), at)| call(0, operation.clone(), at * 2, at * 2 + 1, reply.clone()))
            .collect();
        assert!(linearizable(&calls));
        for (at, wrong) in
            [(1, Reply::Integer(1)), (3, text("1")), (6, Reply::Integer(0)), (9, text("ab")), (13, Reply::Integer(43))]
        {
            let mut calls = calls.clone();
            calls[at].ended = Some((calls[at].began + 1, wrong));
            assert!(!linearizable(&calls), "call {at}");
        }
    }

    #[test]
    fn a_violation_says_what_could_not_be_placed() {
        let calls = [call(0, set("a"), 0, 1, Reply::Ok), call(0, Operation::Get, 2, 3, text("b"))];
        let violation = check("key", &calls).expect_err("there is no order");
        assert_eq!((violation.placed, &violation.state), ((1, 2), &State::Text("a".into())));
        assert_eq!(violation.calls, (vec![calls[0].clone()], vec![calls[1].clone()]));
        assert!(violation.to_string().contains("no order explains the calls of key"));
    }

    #[test]
    fn long_histories_with_many_open_calls_are_judged() {
        // Eight clients take turns, every fiftieth call is lost on its way, half of those happened.
        let (mut calls, mut value, mut at) = (Vec::new(), 0, 0);
        for round in 0..5000u64 {
            at += 10;
            if round % 50 == 7 {
                calls.push(open(9, Operation::Incr, at));
                value += i64::from(round % 100 == 7);
            } else {
                value += 1;
                calls.push(call((round % 8) as usize, Operation::Incr, at.saturating_sub(60), at, Reply::Integer(value)));
            }
        }
        assert!(linearizable(&calls));
        let last = calls.len() - 1;
        calls[last].ended = Some((at, Reply::Integer(value - 1)));
        assert!(!linearizable(&calls[last - 400..]), "it begins above what open calls explain");
    }
}
