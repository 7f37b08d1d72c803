//! Commands of lists that wait: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP; and what commands of other types need to wait as they do.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    CommandError, Context,
    lists::{ManyPop, end, move_one, pop_one},
    session::Unanswered,
};
use crate::{
    blocked::Wait,
    engine::Kind,
    protocol::Request,
    types::{End, TypeError, parse_float, parse_integer},
};

type Outcome = Result<(), CommandError>;

/// Longest time that a wait may be asked for, in milliseconds: more is said to be out of range, as Redis does of what its clock cannot count.
const MILLISECONDS_MAX: u64 = i64::MAX as u64;

/// Until when a command waits that says so in seconds, with fractions; `None`: without end.
pub(super) fn deadline_of_seconds(cx: &Context<'_, '_>, word: &[u8]) -> Result<Option<Instant>, CommandError> {
    let seconds = parse_float(word).map_err(|_| CommandError::new("ERR timeout is not a float or out of range"))?;
    let milliseconds = (seconds * 1000.0).ceil();
    if milliseconds < 0.0 {
        return Err(CommandError::new("ERR timeout is negative"));
    }
    // Compared as numbers that a float holds exactly; what is below fits.
    if milliseconds >= MILLISECONDS_MAX as f64 {
        return Err(out_of_range());
    }
    deadline(cx, milliseconds as u64)
}

/// Until when a command waits that says so in milliseconds; `None`: without end.
pub(super) fn deadline_of_milliseconds(cx: &Context<'_, '_>, word: &[u8]) -> Result<Option<Instant>, CommandError> {
    deadline(cx, milliseconds(word)?)
}

/// A time-out in milliseconds.
pub(super) fn milliseconds(word: &[u8]) -> Result<u64, CommandError> {
    let number = parse_integer(word).map_err(|_| CommandError::new("ERR timeout is not an integer or out of range"))?;
    u64::try_from(number).map_err(|_| CommandError::new("ERR timeout is negative"))
}

fn deadline(cx: &Context<'_, '_>, milliseconds: u64) -> Result<Option<Instant>, CommandError> {
    if milliseconds == 0 {
        return Ok(None);
    }
    if milliseconds > MILLISECONDS_MAX - cx.now_ms {
        return Err(out_of_range());
    }
    // What no clock of this process reaches is without end.
    Ok(Instant::now().checked_add(Duration::from_millis(milliseconds)))
}

fn out_of_range() -> CommandError {
    CommandError::new("ERR timeout is out of range")
}

/// What a command answers that finds nothing and must not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// No value.
    Value,
    /// No array.
    Array,
}

impl Context<'_, '_> {
    /// There is nothing to answer with: the command waits, or answers `nothing` where it must not.
    pub(super) fn wait_or(&mut self, nothing: Nothing, wait: impl FnOnce() -> Wait) {
        match nothing {
            _ if !self.session.executing => self.session.unanswered = Some(Unanswered::Waits(wait())),
            Nothing::Value => self.reply.null(),
            Nothing::Array => self.reply.null_array(),
        }
    }

    /// Whether the command goes on to the next key in spite of an error: a key of another type is no key to a command that has waited,
    /// which goes on to wait for it.
    pub(super) fn passes_by(&self, error: &CommandError) -> bool {
        self.session.waited.is_some() && *error == TypeError::WrongType.into()
    }

    /// Whether there was something under a key, in the same sense.
    pub(super) fn passes_over(&self, outcome: Result<bool, CommandError>) -> Result<bool, CommandError> {
        match outcome {
            Err(error) if self.passes_by(&error) => Ok(false),
            other => other,
        }
    }
}

pub(super) fn blpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, request, End::Front)
}

pub(super) fn brpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, request, End::Back)
}

fn pop(cx: &mut Context<'_, '_>, request: &Request, end: End) -> Outcome {
    let (timeout, keys) = request[1..].split_last().ok_or_else(CommandError::syntax)?;
    let deadline = deadline_of_seconds(cx, timeout)?;
    for key in keys {
        let mark = cx.reply.mark();
        cx.reply.array(2);
        cx.reply.bulk(key);
        let popped = pop_one(cx, key, end);
        if cx.passes_over(popped)? {
            return Ok(());
        }
        cx.reply.rewind(mark);
    }
    wait(cx, request, keys, deadline, Nothing::Array);
    Ok(())
}

pub(super) fn blmove(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (off, onto) = (end(&request[3])?, end(&request[4])?);
    let deadline = deadline_of_seconds(cx, &request[5])?;
    move_or_wait(cx, request, (off, onto), deadline)
}

pub(super) fn brpoplpush(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let deadline = deadline_of_seconds(cx, &request[3])?;
    move_or_wait(cx, request, (End::Back, End::Front), deadline)
}

fn move_or_wait(cx: &mut Context<'_, '_>, request: &Request, ends: (End, End), deadline: Option<Instant>) -> Outcome {
    // Of the two keys only the first is waited for: what the second one holds is refused.
    let source = cx.keyspace().list(&request[1]).map(|list| list.is_some()).map_err(CommandError::from);
    if !cx.passes_over(source)? || !move_one(cx, (&request[1], ends.0), (&request[2], ends.1))? {
        wait(cx, request, &request[1..2], deadline, Nothing::Value);
    }
    Ok(())
}

pub(super) fn blmpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let many = ManyPop::parse(&request[2..])?;
    let deadline = deadline_of_seconds(cx, &request[1])?;
    if !many.pop(cx)? {
        wait(cx, request, many.keys, deadline, Nothing::Array);
    }
    Ok(())
}

fn wait(cx: &mut Context<'_, '_>, request: &Request, keys: &[Bytes], deadline: Option<Instant>, nothing: Nothing) {
    let wait =
        || Wait { kind: Kind::List, keys: keys.to_vec(), when_gone: false, expires: None, deadline, request: request.clone() };
    cx.wait_or(nothing, wait);
}
