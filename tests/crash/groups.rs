//! Consumer groups of streams in a writer's account: what changes them, and what they hold then.

use std::collections::BTreeMap;

use sluice_tests::dice::Dice;

use crate::account::{State, Stream, Value};

/// A consumer group: the number of the last entry that was delivered, and what is delivered and not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) last: u64,
    /// By the entry's number: whose it is, and how often it was delivered.
    pub(crate) pending: BTreeMap<u64, (String, u64)>,
}

/// One command that changes the groups of one stream. The stream, or the group, may not be there: then the command is refused, and changes
/// nothing.
#[derive(Clone, Debug)]
pub(crate) enum GroupOp {
    /// XGROUP CREATE from the beginning; makes the stream.
    Create(String, String),
    /// XREADGROUP of what is new, so many.
    Read(String, String, String, usize),
    /// XACK.
    Acknowledge(String, String, Vec<u64>),
    /// XCLAIM, however long it was pending.
    Claim(String, String, String, Vec<u64>),
    /// XGROUP DELCONSUMER.
    DeleteConsumer(String, String, String),
    /// XGROUP DESTROY.
    Destroy(String, String),
}

/// Whether an error says no more than that there is no such group yet, or one already.
pub(crate) fn is_refused(error: &str) -> bool {
    ["BUSYGROUP", "NOGROUP", "ERR The XGROUP subcommand requires the key to exist"].iter().any(|text| error.starts_with(text))
}

impl GroupOp {
    /// One of them at random, on a stream whose next entry has that number.
    pub(crate) fn random(dice: &mut Dice, stream: String, number: u64) -> Self {
        let group = format!("group{}", dice.below(2));
        let consumer = |dice: &mut Dice| format!("consumer{}", dice.below(3));
        // Numbers are those of all streams of the writer, and entries are read some time after they were added.
        let entries = |dice: &mut Dice| (0..10).map(|_| number.saturating_sub(dice.below(80))).collect::<Vec<_>>();
        match dice.below(20) {
            0..=2 => Self::Create(stream, group),
            3..=10 => Self::Read(stream, group, consumer(dice), 1 + dice.below(8) as usize),
            11..=14 => Self::Acknowledge(stream, group, entries(dice)),
            15..=17 => Self::Claim(stream, group, consumer(dice), entries(dice)),
            18 => Self::DeleteConsumer(stream, group, consumer(dice)),
            _ => Self::Destroy(stream, group),
        }
    }

    /// The command.
    pub(crate) fn words(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let ids = |numbers: &[u64]| numbers.iter().map(|number| format!("{number}-1")).collect::<Vec<_>>();
        match self {
            Self::Create(key, group) => words(&["XGROUP", "CREATE", key, group, "0", "MKSTREAM"]),
            Self::Read(key, group, consumer, count) => {
                words(&["XREADGROUP", "GROUP", group, consumer, "COUNT", &count.to_string(), "STREAMS", key, ">"])
            }
            Self::Acknowledge(key, group, numbers) => [words(&["XACK", key, group]), ids(numbers)].concat(),
            Self::Claim(key, group, consumer, numbers) => [words(&["XCLAIM", key, group, consumer, "0"]), ids(numbers)].concat(),
            Self::DeleteConsumer(key, group, consumer) => words(&["XGROUP", "DELCONSUMER", key, group, consumer]),
            Self::Destroy(key, group) => words(&["XGROUP", "DESTROY", key, group]),
        }
    }

    /// The stream.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Create(key, _)
            | Self::Read(key, ..)
            | Self::Acknowledge(key, ..)
            | Self::Claim(key, ..)
            | Self::DeleteConsumer(key, ..)
            | Self::Destroy(key, _) => key,
        }
    }

    /// What it does.
    pub(crate) fn apply(&self, state: &mut State) {
        if let Self::Create(key, group) = self {
            Stream::at(state, key).groups.entry(group.clone()).or_default();
            return;
        }
        let Some(Value::Stream(Stream { entries, groups })) = state.get_mut(self.key()).map(|entry| &mut entry.value) else {
            return;
        };
        match self {
            Self::Create(..) => {}
            Self::Read(_, group, consumer, count) => {
                let Some(group) = groups.get_mut(group) else { return };
                for number in entries.keys().filter(|number| **number > group.last).take(*count).copied().collect::<Vec<_>>() {
                    group.pending.insert(number, (consumer.clone(), 1));
                    group.last = number;
                }
            }
            Self::Acknowledge(_, group, numbers) => {
                if let Some(group) = groups.get_mut(group) {
                    group.pending.retain(|number, _| !numbers.contains(number));
                }
            }
            Self::Claim(_, group, consumer, numbers) => {
                let Some(group) = groups.get_mut(group) else { return };
                for number in numbers {
                    if !entries.contains_key(number) {
                        // What is deleted cannot be claimed: it is not pending any more.
                        group.pending.remove(number);
                    } else if let Some((owner, deliveries)) = group.pending.get_mut(number) {
                        owner.clone_from(consumer);
                        *deliveries += 1;
                    }
                }
            }
            Self::DeleteConsumer(_, group, consumer) => {
                if let Some(group) = groups.get_mut(group) {
                    group.pending.retain(|_, (owner, _)| owner != consumer);
                }
            }
            Self::Destroy(_, group) => drop(groups.remove(group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ordered::OrderedOp;

    #[test]
    fn what_is_read_is_pending_until_it_is_acknowledged() {
        let mut state = State::new();
        let text = |text: &str| text.to_owned();
        GroupOp::Read(text("s"), text("g"), text("c"), 9).apply(&mut state);
        assert!(state.is_empty(), "there was no group");
        GroupOp::Create(text("s"), text("g")).apply(&mut state);
        (1..=4).for_each(|number| OrderedOp::Add(text("s"), number, text("v"), None).apply(&mut state));
        GroupOp::Read(text("s"), text("g"), text("c"), 3).apply(&mut state);
        OrderedOp::Delete(text("s"), vec![2]).apply(&mut state);
        GroupOp::Claim(text("s"), text("g"), text("d"), vec![1, 2, 4]).apply(&mut state);
        GroupOp::Create(text("s"), text("g")).apply(&mut state);
        let group = |state: &State| match &state["s"].value {
            Value::Stream(stream) => stream.groups.get("g").cloned(),
            _ => None,
        };
        let pending = [(1, (text("d"), 2)), (3, (text("c"), 1))];
        assert_eq!(group(&state), Some(Group { last: 3, pending: pending.into() }));
        GroupOp::Acknowledge(text("s"), text("g"), vec![1, 9]).apply(&mut state);
        GroupOp::DeleteConsumer(text("s"), text("g"), text("c")).apply(&mut state);
        assert_eq!(group(&state), Some(Group { last: 3, pending: BTreeMap::new() }));
        GroupOp::Destroy(text("s"), text("g")).apply(&mut state);
        assert_eq!(group(&state), None);
    }
}
