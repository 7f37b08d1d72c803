//! Unions, intersections and differences of sorted sets and sets.

use bytes::Bytes;

use super::{Outcome, replies, write_member};
use crate::{
    commands::{Class, CommandError, Context, numbers},
    protocol::Request,
    types::{Aggregate, Combination, Keyspace, SetOperation, parse_integer},
};

/// Which options a form of the commands has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Answer,
    Store,
    Count,
}

#[derive(Default)]
struct Options {
    weights: Option<Vec<f64>>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: u64,
}

pub(in crate::commands) fn zunion(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, "zunion", SetOperation::Union, request)
}

pub(in crate::commands) fn zinter(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, "zinter", SetOperation::Intersection, request)
}

pub(in crate::commands) fn zdiff(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, "zdiff", SetOperation::Difference, request)
}

fn answer(cx: &mut Context<'_, '_>, name: &str, operation: SetOperation, request: &Request) -> Outcome {
    let moment = cx.moment(request.len() - 2);
    let (combination, options) = look_up(cx.keyspace().as_of(moment.as_deref()), name, &request[1..], operation, Form::Answer)?;
    let members = combination.members(operation, options.aggregate)?;
    let length = replies(cx.reply.version(), members.len(), options.with_scores);
    cx.reply.array(length);
    let _ = members.iter().try_for_each(|(member, score)| write_member(cx.reply, member, options.with_scores.then_some(*score)));
    Ok(())
}

pub(in crate::commands) fn zunionstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    store(cx, "zunionstore", SetOperation::Union, request)
}

pub(in crate::commands) fn zinterstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    store(cx, "zinterstore", SetOperation::Intersection, request)
}

pub(in crate::commands) fn zdiffstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    store(cx, "zdiffstore", SetOperation::Difference, request)
}

fn store(cx: &mut Context<'_, '_>, name: &'static str, operation: SetOperation, request: &Request) -> Outcome {
    let into = &request[1];
    // Its keys are claimed.
    let keys = cx.keyspace();
    let (combination, options) = look_up(keys, name, &request[2..], operation, Form::Store)?;
    let members = combination.members(operation, options.aggregate)?;
    let held = keys.kind(into)?.is_some();
    let size = keys.sorted_set_store(into, members)?;
    if size > 0 {
        cx.event(Class::SortedSet, name, into);
    } else if held {
        cx.event(Class::Generic, "del", into);
    }
    cx.reply.unsigned(size);
    Ok(())
}

pub(in crate::commands) fn zintercard(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let moment = cx.moment(request.len() - 2);
    let keys = cx.keyspace().as_of(moment.as_deref());
    let (combination, options) = look_up(keys, "zintercard", &request[1..], SetOperation::Intersection, Form::Count)?;
    let count = combination.common(options.limit)?;
    cx.reply.unsigned(count);
    Ok(())
}

/// From the number of keys on. As in Redis, keys are looked up, and their types judged, before the options are.
fn look_up<'e>(
    all: Keyspace<'e>,
    name: &str,
    words: &[Bytes],
    operation: SetOperation,
    form: Form,
) -> Result<(Combination<'e>, Options), CommandError> {
    let (number, rest) = words.split_first().ok_or_else(CommandError::syntax)?;
    let number = parse_integer(number)?;
    if number < 1 {
        return Err(CommandError::new(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let (keys, words) = rest.split_at_checked(number).ok_or_else(CommandError::syntax)?;
    let mut combination = all.combination(keys.iter().map(AsRef::as_ref))?;
    let options = parse(words, number, operation, form)?;
    if let Some(weights) = &options.weights {
        combination.weigh(weights);
    }
    Ok((combination, options))
}

fn parse(words: &[Bytes], keys: usize, operation: SetOperation, form: Form) -> Result<Options, CommandError> {
    let (mut options, mut words) = (Options::default(), words);
    let scored = operation != SetOperation::Difference && form != Form::Count;
    while let Some((word, rest)) = words.split_first() {
        words = match word.to_ascii_lowercase().as_slice() {
            b"weights" if scored && rest.len() >= keys => {
                let (weights, rest) = rest.split_at(keys);
                let weight = |word: &Bytes| numbers::float(word, "ERR weight value is not a float");
                options.weights = Some(weights.iter().map(weight).collect::<Result<_, _>>()?);
                rest
            }
            b"aggregate" if scored && !rest.is_empty() => {
                options.aggregate = match rest[0].to_ascii_lowercase().as_slice() {
                    b"sum" => Aggregate::Sum,
                    b"min" => Aggregate::Min,
                    b"max" => Aggregate::Max,
                    _ => return Err(CommandError::syntax()),
                };
                &rest[1..]
            }
            b"withscores" if form == Form::Answer => {
                options.with_scores = true;
                rest
            }
            b"limit" if form == Form::Count && !rest.is_empty() => {
                options.limit = numbers::limit(&words[..2])?;
                &rest[1..]
            }
            _ => return Err(CommandError::syntax()),
        };
    }
    Ok(options)
}
