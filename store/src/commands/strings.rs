//! Commands of strings.

use super::{Class, CommandError, Context};
use crate::{
    protocol::Request,
    types::{Condition, SetOptions, Ttl, TypeError, parse_integer},
};

type Outcome = Result<(), CommandError>;

pub(super) fn get(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let keys = cx.keyspace();
    keys.get(&request[1], |value| cx.reply.bulk_or_null(value))?;
    Ok(())
}

pub(super) fn set(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let options = set_options(&request[3..], cx.now_ms)?;
    let outcome = cx.keyspace().set(&request[1], &request[2], options)?;
    if outcome.applied {
        cx.event(Class::String, "set", &request[1]);
        if matches!(options.ttl, Ttl::At(_)) {
            cx.event(Class::Generic, "expire", &request[1]);
        }
    }
    match (options.get, outcome.old) {
        (true, old) => cx.reply.bulk_or_null(old.as_deref()),
        (false, _) if outcome.applied => cx.reply.ok(),
        (false, _) => cx.reply.null(),
    }
    Ok(())
}

fn set_options(words: &[bytes::Bytes], now_ms: u64) -> Result<SetOptions, CommandError> {
    let mut options = SetOptions::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let name = word.to_ascii_lowercase();
        match name.as_slice() {
            b"nx" if options.condition == Condition::Always => options.condition = Condition::IfMissing,
            b"xx" if options.condition == Condition::Always => options.condition = Condition::IfPresent,
            b"get" => options.get = true,
            b"keepttl" if options.ttl == Ttl::None => options.ttl = Ttl::Keep,
            b"ex" | b"px" | b"exat" | b"pxat" if options.ttl == Ttl::None => {
                let number = words.next().ok_or_else(CommandError::syntax)?;
                options.ttl = Ttl::At(expiry("set", number, name.starts_with(b"ex"), if name.len() == 2 { now_ms } else { 0 })?);
            }
            _ => return Err(CommandError::syntax()),
        }
    }
    Ok(options)
}

/// A positive number of seconds or milliseconds after `since_ms`, as a Unix time in milliseconds.
pub(super) fn expiry(command: &str, number: &[u8], seconds: bool, since_ms: u64) -> Result<u64, CommandError> {
    let invalid = || CommandError::new(format!("ERR invalid expire time in '{command}' command"));
    let number = parse_integer(number)?;
    let number = u64::try_from(number).ok().filter(|number| *number > 0).ok_or_else(invalid)?;
    let ms = if seconds { number.checked_mul(1000) } else { Some(number) };
    let at = ms.and_then(|ms| ms.checked_add(since_ms));
    at.filter(|at| i64::try_from(*at).is_ok()).ok_or_else(invalid)
}

pub(super) fn setnx(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let options = SetOptions { condition: Condition::IfMissing, ..SetOptions::default() };
    let outcome = cx.keyspace().set(&request[1], &request[2], options)?;
    if outcome.applied {
        cx.event(Class::String, "set", &request[1]);
    }
    cx.reply.integer(i64::from(outcome.applied));
    Ok(())
}

pub(super) fn setex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_expiring(cx, request, expiry("setex", &request[2], true, cx.now_ms)?)
}

pub(super) fn psetex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_expiring(cx, request, expiry("psetex", &request[2], false, cx.now_ms)?)
}

fn set_expiring(cx: &mut Context<'_, '_>, request: &Request, at: u64) -> Outcome {
    let options = SetOptions { ttl: Ttl::At(at), ..SetOptions::default() };
    cx.keyspace().set(&request[1], &request[3], options)?;
    cx.event(Class::String, "set", &request[1]);
    cx.event(Class::Generic, "expire", &request[1]);
    cx.reply.ok();
    Ok(())
}

pub(super) fn getset(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let options = SetOptions { get: true, ..SetOptions::default() };
    let outcome = cx.keyspace().set(&request[1], &request[2], options)?;
    cx.event(Class::String, "set", &request[1]);
    cx.reply.bulk_or_null(outcome.old.as_deref());
    Ok(())
}

pub(super) fn getdel(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let value = cx.keyspace().take(&request[1])?;
    if value.is_some() {
        cx.event(Class::Generic, "del", &request[1]);
    }
    cx.reply.bulk_or_null(value.as_deref());
    Ok(())
}

pub(super) fn mget(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let keys = cx.keyspace();
    cx.reply.array(request.len() - 1);
    for key in &request[1..] {
        let read = keys.get(key, |value| cx.reply.bulk_or_null(value));
        match read {
            // As in Redis, what is no string is not there.
            Err(TypeError::WrongType) => cx.reply.null(),
            other => other?,
        }
    }
    Ok(())
}

pub(super) fn mset(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if request.len().is_multiple_of(2) {
        return Err(CommandError::arity("mset"));
    }
    cx.keyspace().set_many(request[1..].chunks_exact(2).map(|pair| (pair[0].as_ref(), pair[1].as_ref())))?;
    request[1..].iter().step_by(2).for_each(|key| cx.event(Class::String, "set", key));
    cx.reply.ok();
    Ok(())
}

pub(super) fn append(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let len_max = cx.node.settings.proto_max_bulk_len.0 as usize;
    let length = cx.keyspace().append(&request[1], &request[2], len_max)?;
    cx.event(Class::String, "append", &request[1]);
    cx.reply.unsigned(length as u64);
    Ok(())
}

pub(super) fn strlen(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let length = cx.keyspace().get(&request[1], |value| value.map_or(0, <[u8]>::len))?;
    cx.reply.unsigned(length as u64);
    Ok(())
}

pub(super) fn incr(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    add(cx, &request[1], 1)
}

pub(super) fn decr(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    add(cx, &request[1], -1)
}

pub(super) fn incrby(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let by = parse_integer(&request[2])?;
    add(cx, &request[1], by)
}

pub(super) fn decrby(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let by = parse_integer(&request[2])?;
    let negated = by.checked_neg().ok_or_else(|| CommandError::new("ERR decrement would overflow"))?;
    add(cx, &request[1], negated)
}

fn add(cx: &mut Context<'_, '_>, key: &[u8], by: i64) -> Outcome {
    let sum = cx.keyspace().increment(key, by)?;
    cx.event(Class::String, "incrby", key);
    cx.reply.integer(sum);
    Ok(())
}

pub(super) fn incrbyfloat(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let sum = cx.keyspace().increment_float(&request[1], &request[2])?;
    cx.event(Class::String, "incrbyfloat", &request[1]);
    cx.reply.bulk(sum.as_bytes());
    Ok(())
}
