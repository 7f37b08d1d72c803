//! Commands of hashes, but those that go over all fields (see [`super::hash_scans`]).

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Class, CommandError, Context, lengths};
use crate::{protocol::Request, types::parse_integer};

type Outcome = Result<(), CommandError>;

pub(super) fn hset(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let added = set_fields(cx, "hset", request)?;
    cx.reply.unsigned(added);
    Ok(())
}

pub(super) fn hmset(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    set_fields(cx, "hmset", request)?;
    cx.reply.ok();
    Ok(())
}

fn set_fields(cx: &mut Context<'_, '_>, name: &str, request: &Request) -> Result<u64, CommandError> {
    if !request.len().is_multiple_of(2) {
        return Err(CommandError::arity(name));
    }
    let pairs: Vec<(&[u8], &[u8])> = request[2..].chunks_exact(2).map(|pair| (pair[0].as_ref(), pair[1].as_ref())).collect();
    for (field, _) in &pairs {
        lengths::check(cx, field, "field")?;
    }
    let added = cx.keyspace().hash_set(&request[1], &pairs)?;
    cx.event(Class::Hash, "hset", &request[1]);
    Ok(added)
}

pub(super) fn hsetnx(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    lengths::check(cx, &request[2], "field")?;
    let applied = cx.keyspace().hash_set_if_missing(&request[1], &request[2], &request[3])?;
    if applied {
        cx.event(Class::Hash, "hset", &request[1]);
    }
    cx.reply.integer(i64::from(applied));
    Ok(())
}

pub(super) fn hget(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let Some(hash) = cx.keyspace().hash(&request[1])? else {
        cx.reply.null();
        return Ok(());
    };
    hash.get(&request[2], |value| cx.reply.bulk_or_null(value))?;
    Ok(())
}

pub(super) fn hmget(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let hash = cx.keyspace().hash(&request[1])?;
    let fields: Vec<&[u8]> = request[2..].iter().map(AsRef::as_ref).collect();
    cx.reply.array(fields.len());
    match hash {
        None => fields.iter().for_each(|_| cx.reply.null()),
        Some(hash) => hash.get_many(&fields, |value| {
            cx.reply.bulk_or_null(value);
            if cx.reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?,
    }
    Ok(())
}

pub(super) fn hdel(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let deleted = cx.keyspace().hash_delete(&request[1], request[2..].iter().map(Bytes::as_ref))?;
    if deleted > 0 {
        cx.event(Class::Hash, "hdel", &request[1]);
        cx.event_if_gone(&request[1])?;
    }
    cx.reply.unsigned(deleted);
    Ok(())
}

pub(super) fn hlen(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let size = match cx.keyspace().hash(&request[1])? {
        Some(hash) => hash.size()?,
        None => 0,
    };
    cx.reply.unsigned(size);
    Ok(())
}

pub(super) fn hexists(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let found = match cx.keyspace().hash(&request[1])? {
        Some(hash) => hash.get(&request[2], |value| value.is_some())?,
        None => false,
    };
    cx.reply.integer(i64::from(found));
    Ok(())
}

pub(super) fn hstrlen(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let length = match cx.keyspace().hash(&request[1])? {
        Some(hash) => hash.get(&request[2], |value| value.map_or(0, <[u8]>::len))?,
        None => 0,
    };
    cx.reply.unsigned(length as u64);
    Ok(())
}

pub(super) fn hincrby(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let by = parse_integer(&request[3])?;
    lengths::check(cx, &request[2], "field")?;
    let sum = cx.keyspace().hash_increment(&request[1], &request[2], by)?;
    cx.event(Class::Hash, "hincrby", &request[1]);
    cx.reply.integer(sum);
    Ok(())
}

pub(super) fn hincrbyfloat(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    lengths::check(cx, &request[2], "field")?;
    let sum = cx.keyspace().hash_increment_float(&request[1], &request[2], &request[3])?;
    cx.event(Class::Hash, "hincrbyfloat", &request[1]);
    cx.reply.bulk(sum.as_bytes());
    Ok(())
}
