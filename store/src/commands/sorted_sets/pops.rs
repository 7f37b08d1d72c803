//! Taking members from an end of a sorted set.

use bytes::Bytes;

use super::{Outcome, write_member, write_score};
use crate::{
    commands::{Class, CommandError, Context, numbers},
    protocol::{Request, Version},
    types::{Extreme, Popped},
};

pub(in crate::commands) fn zpopmin(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, request, Extreme::Min)
}

pub(in crate::commands) fn zpopmax(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, request, Extreme::Max)
}

fn pop(cx: &mut Context<'_, '_>, request: &Request, end: Extreme) -> Outcome {
    let count = match &request[2..] {
        [] => None,
        [count] => Some(numbers::positive(count)?),
        _ => return Err(CommandError::syntax()),
    };
    let popped = take(cx, &request[1], end, count.unwrap_or(1))?;
    // One alone is a flat pair in RESP3 as well.
    let paired = count.is_some() && cx.reply.version() == Version::Resp3;
    let length = popped.members.len();
    cx.reply.array(if paired { length } else { 2 * length });
    for (member, score) in &popped.members {
        if paired {
            let _ = write_member(cx.reply, member, Some(*score));
        } else {
            cx.reply.bulk(member);
            write_score(cx.reply, *score);
        }
    }
    cx.refuse_overflow()
}

/// Takes up to `count` members from an end, and tells of it.
pub(in crate::commands) fn take(cx: &mut Context<'_, '_>, key: &[u8], end: Extreme, count: u64) -> Result<Popped, CommandError> {
    let popped = cx.keyspace().sorted_set_pop(key, end, count)?;
    if !popped.members.is_empty() {
        cx.event(Class::SortedSet, if end == Extreme::Min { "zpopmin" } else { "zpopmax" }, key);
    }
    if popped.emptied {
        cx.event(Class::Generic, "del", key);
    }
    Ok(popped)
}

/// What ZMPOP is asked for: keys in their order, the end, how many.
pub(in crate::commands) struct ManyWords<'q> {
    /// The first of these that has members is taken from.
    pub(in crate::commands) keys: &'q [Bytes],
    /// Which end.
    pub(in crate::commands) end: Extreme,
    /// At most so many.
    pub(in crate::commands) count: u64,
}

/// The words of ZMPOP, and of BZMPOP behind its time-out.
pub(in crate::commands) fn many_words(words: &[Bytes]) -> Result<ManyWords<'_>, CommandError> {
    let number = numbers::above_zero(words.first().map_or(&[], AsRef::as_ref), "ERR numkeys should be greater than 0")?;
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let rest = words.get(1..).unwrap_or_default();
    let Some((keys, [end, options @ ..])) = rest.split_at_checked(number) else { return Err(CommandError::syntax()) };
    let end = match end.to_ascii_lowercase().as_slice() {
        b"min" => Extreme::Min,
        b"max" => Extreme::Max,
        _ => return Err(CommandError::syntax()),
    };
    let count = match options {
        [] => 1,
        [name, count] if name.eq_ignore_ascii_case(b"count") => numbers::above_zero(count, "ERR count should be greater than 0")?,
        _ => return Err(CommandError::syntax()),
    };
    Ok(ManyWords { keys, end, count })
}

pub(in crate::commands) fn zmpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let words = many_words(&request[1..])?;
    if !take_first(cx, &words)? {
        cx.reply.null_array();
    }
    Ok(())
}

/// Takes from the first of the keys that has members, and answers with its name and what was taken. False: none has, and nothing is answered.
pub(in crate::commands) fn take_first(cx: &mut Context<'_, '_>, words: &ManyWords<'_>) -> Result<bool, CommandError> {
    for key in words.keys {
        let popped = match take(cx, key, words.end, words.count) {
            Err(error) if cx.passes_by(&error) => continue,
            other => other?,
        };
        if popped.members.is_empty() {
            continue;
        }
        cx.reply.array(2);
        cx.reply.bulk(key);
        cx.reply.array(popped.members.len());
        for (member, score) in &popped.members {
            // Pairs in RESP2 as well.
            cx.reply.array(2);
            cx.reply.bulk(member);
            write_score(cx.reply, *score);
        }
        cx.refuse_overflow()?;
        return Ok(true);
    }
    Ok(false)
}
