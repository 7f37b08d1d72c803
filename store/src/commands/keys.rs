//! Commands of keys whatever they hold.

use super::{Class, CommandError, Context};
use crate::{
    protocol::Request,
    types::{ExpireCondition, parse_integer},
};

type Outcome = Result<(), CommandError>;

pub(super) fn del(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let mut count = 0;
    for key in &request[1..] {
        if cx.keyspace().delete(std::iter::once(key.as_ref()))? > 0 {
            cx.event(Class::Generic, "del", key);
            count += 1;
        }
    }
    cx.reply.integer(count);
    Ok(())
}

pub(super) fn rename(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match cx.keyspace().rename(&request[1], &request[2], false)? {
        Some(_) => {
            renamed(cx, request);
            cx.reply.ok();
        }
        None => return Err(CommandError::new("ERR no such key")),
    }
    Ok(())
}

pub(super) fn renamenx(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match cx.keyspace().rename(&request[1], &request[2], true)? {
        Some(applied) => {
            if applied {
                renamed(cx, request);
            }
            cx.reply.integer(i64::from(applied));
        }
        None => return Err(CommandError::new("ERR no such key")),
    }
    Ok(())
}

fn renamed(cx: &mut Context<'_, '_>, request: &Request) {
    cx.event(Class::Generic, "rename_from", &request[1]);
    cx.event(Class::Generic, "rename_to", &request[2]);
}

pub(super) fn exists(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let count = cx.keyspace().count_existing(request[1..].iter().map(AsRef::as_ref))?;
    cx.reply.integer(count);
    Ok(())
}

pub(super) fn kind(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let kind = cx.keyspace().kind(&request[1])?;
    cx.reply.simple(kind.map_or("none", |kind| kind.name()));
    Ok(())
}

pub(super) fn expire(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_expiry(cx, "expire", request, 1000, true)
}

pub(super) fn pexpire(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_expiry(cx, "pexpire", request, 1, true)
}

pub(super) fn expireat(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_expiry(cx, "expireat", request, 1000, false)
}

pub(super) fn pexpireat(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_expiry(cx, "pexpireat", request, 1, false)
}

fn set_expiry(cx: &mut Context<'_, '_>, name: &str, request: &Request, unit_ms: i64, relative: bool) -> Outcome {
    let condition = expire_condition(&request[3..])?;
    let base = if relative { cx.now_ms as i64 } else { 0 };
    let at = parse_integer(&request[2])?.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base));
    let at = at.ok_or_else(|| CommandError::new(format!("ERR invalid expire time in '{name}' command")))?;
    let applied = cx.keyspace().expire_at(&request[1], at, condition)?;
    if applied {
        let passed = u64::try_from(at).unwrap_or(0) <= cx.now_ms;
        cx.event(Class::Generic, if passed { "del" } else { "expire" }, &request[1]);
    }
    cx.reply.integer(i64::from(applied));
    Ok(())
}

pub(super) fn expire_condition(words: &[bytes::Bytes]) -> Result<ExpireCondition, CommandError> {
    let mut condition = ExpireCondition::default();
    for word in words {
        match word.to_ascii_lowercase().as_slice() {
            b"nx" => condition.nx = true,
            b"xx" => condition.xx = true,
            b"gt" => condition.gt = true,
            b"lt" => condition.lt = true,
            _ => {
                let shown = String::from_utf8_lossy(word);
                return Err(CommandError::new(format!("ERR Unsupported option {shown}")));
            }
        }
    }
    if condition.nx && (condition.xx || condition.gt || condition.lt) {
        return Err(CommandError::new("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if condition.gt && condition.lt {
        return Err(CommandError::new("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(condition)
}

pub(super) fn ttl(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    // Rounded to the nearest second, as Redis does.
    answer_expiry(cx, request, |at, now| (at.saturating_sub(now) + 500) / 1000)
}

pub(super) fn pttl(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer_expiry(cx, request, u64::saturating_sub)
}

pub(super) fn expiretime(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer_expiry(cx, request, |at, _| at / 1000)
}

pub(super) fn pexpiretime(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer_expiry(cx, request, |at, _| at)
}

fn answer_expiry(cx: &mut Context<'_, '_>, request: &Request, answer: impl FnOnce(u64, u64) -> u64) -> Outcome {
    match cx.keyspace().expires_at_ms(&request[1])? {
        None => cx.reply.integer(-2),
        Some(None) => cx.reply.integer(-1),
        Some(Some(at)) => cx.reply.unsigned(answer(at, cx.now_ms)),
    }
    Ok(())
}

pub(super) fn persist(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let applied = cx.keyspace().persist(&request[1])?;
    if applied {
        cx.event(Class::Generic, "persist", &request[1]);
    }
    cx.reply.integer(i64::from(applied));
    Ok(())
}
