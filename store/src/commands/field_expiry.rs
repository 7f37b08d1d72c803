//! HEXPIRE and its kin: fields of hashes that expire.

use bytes::Bytes;

use super::{Class, CommandError, Context, keys::expire_condition};
use crate::{
    protocol::Request,
    types::{FIELD_EXPIRY_ASKED_MS_MAX, FieldExpiry, FieldPersist, parse_integer},
};

type Outcome = Result<(), CommandError>;

pub(super) fn hexpire(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    expire(cx, request, "hexpire", 1000, true)
}

pub(super) fn hpexpire(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    expire(cx, request, "hpexpire", 1, true)
}

pub(super) fn hexpireat(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    expire(cx, request, "hexpireat", 1000, false)
}

pub(super) fn hpexpireat(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    expire(cx, request, "hpexpireat", 1, false)
}

/// The fields behind `FIELDS count`; `of_count` is what is said of a count that is none.
fn fields<'w>(words: &'w [Bytes], of_count: &str) -> Result<&'w [Bytes], CommandError> {
    let error = |text: &str| CommandError::new(format!("ERR {text}"));
    let [word, count, fields @ ..] = words else {
        return Err(error("Mandatory argument FIELDS is missing or not at the right position"));
    };
    if !word.eq_ignore_ascii_case(b"fields") {
        return Err(error("Mandatory argument FIELDS is missing or not at the right position"));
    }
    let count = parse_integer(count).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| error(of_count))?;
    if count as u64 != fields.len() as u64 {
        return Err(error("The `numfields` parameter must match the number of arguments"));
    }
    Ok(fields)
}

fn expire(cx: &mut Context<'_, '_>, request: &Request, name: &str, unit_ms: u64, relative: bool) -> Outcome {
    // As in Redis the key's type comes first.
    cx.keyspace().hash(&request[1])?;
    let number = parse_integer(&request[2])?;
    let number = u64::try_from(number).map_err(|_| CommandError::new("ERR invalid expire time, must be >= 0"))?;
    let base = if relative { cx.now_ms } else { 0 };
    let at_ms = number.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base)).filter(|at| *at <= FIELD_EXPIRY_ASKED_MS_MAX);
    let at_ms = at_ms.ok_or_else(|| CommandError::new(format!("ERR invalid expire time in '{name}' command")))?;
    let is_condition = |word: &Bytes| ["nx", "xx", "gt", "lt"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    let conditions = usize::from(request.get(3).is_some_and(is_condition));
    let condition = expire_condition(&request[3..3 + conditions])?;
    let fields = fields(&request[3 + conditions..], "Parameter `numFields` should be greater than 0")?;
    let outcomes = cx.keyspace().expire_fields(&request[1], fields.iter().map(AsRef::as_ref), at_ms, condition)?;
    if outcomes.contains(&FieldExpiry::Set) {
        cx.event(Class::Hash, "hexpire", &request[1]);
    }
    if outcomes.contains(&FieldExpiry::Deleted) {
        cx.event(Class::Hash, "hdel", &request[1]);
        cx.event_if_gone(&request[1])?;
    }
    cx.reply.array(outcomes.len());
    for outcome in outcomes {
        cx.reply.integer(match outcome {
            FieldExpiry::Missing => -2,
            FieldExpiry::Refused => 0,
            FieldExpiry::Set => 1,
            FieldExpiry::Deleted => 2,
        });
    }
    Ok(())
}

pub(super) fn hpersist(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    cx.keyspace().hash(&request[1])?;
    let fields = fields(&request[2..], "Number of fields must be a positive integer")?;
    let outcomes = cx.keyspace().persist_fields(&request[1], fields.iter().map(AsRef::as_ref))?;
    if outcomes.contains(&FieldPersist::Set) {
        cx.event(Class::Hash, "hpersist", &request[1]);
    }
    cx.reply.array(outcomes.len());
    for outcome in outcomes {
        cx.reply.integer(match outcome {
            FieldPersist::Missing => -2,
            FieldPersist::Never => -1,
            FieldPersist::Set => 1,
        });
    }
    Ok(())
}

pub(super) fn httl(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, |at, now| at.saturating_sub(now).div_ceil(1000))
}

pub(super) fn hpttl(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, u64::saturating_sub)
}

pub(super) fn hexpiretime(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, |at, _| at.div_ceil(1000))
}

pub(super) fn hpexpiretime(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, |at, _| at)
}

fn answer(cx: &mut Context<'_, '_>, request: &Request, answer: impl Fn(u64, u64) -> u64) -> Outcome {
    let hash = cx.keyspace().hash(&request[1])?;
    let fields = fields(&request[2..], "Number of fields must be a positive integer")?;
    cx.reply.array(fields.len());
    for field in fields {
        let expiry = match &hash {
            Some(hash) => hash.field_expiry(field)?,
            None => None,
        };
        match expiry {
            None => cx.reply.integer(-2),
            Some(None) => cx.reply.integer(-1),
            Some(Some(at)) => cx.reply.unsigned(answer(at, cx.now_ms)),
        }
    }
    Ok(())
}
