//! Commands that go over the fields of a hash. They write into the reply as they go and stop when it is full: a hash is never held in
//! memory beyond what is answered.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    CommandError, Context,
    large::{Large, TEXT_LEN_MIN},
    numbers, pages,
};
use crate::{
    protocol::{Aggregate, ReplyWriter, Request, Version},
    types::Keyspace,
};

type Outcome = Result<(), CommandError>;

/// What of a field is answered.
#[derive(Clone, Copy)]
enum Part {
    Field,
    Value,
    Both,
}

pub(super) fn hgetall(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    all(cx, request, Part::Both)
}

pub(super) fn hkeys(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    all(cx, request, Part::Field)
}

pub(super) fn hvals(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    all(cx, request, Part::Value)
}

fn all(cx: &mut Context<'_, '_>, request: &Request, part: Part) -> Outcome {
    cx.answer_large(AllFields { key: request[1].clone(), part })
}

/// All fields of a hash.
struct AllFields {
    key: Bytes,
    part: Part,
}

impl Large for AllFields {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn aggregate(&self) -> Aggregate {
        if matches!(self.part, Part::Both) { Aggregate::Map } else { Aggregate::Array }
    }

    fn count(&self, keys: Keyspace<'_>, _: Version) -> Result<Option<usize>, CommandError> {
        Ok(Some(keys.hash(&self.key)?.map_or(Ok(0), |hash| hash.size())? as usize))
    }

    fn write(&self, keys: Keyspace<'_>, reply: &mut ReplyWriter<'_>) -> Result<usize, CommandError> {
        let mut count = 0;
        if let Some(hash) = keys.hash(&self.key)?
            && reply.expect(hash.size()? * TEXT_LEN_MIN)
        {
            hash.each(None, |field, value| write(reply, self.part, field, value, &mut count))?;
        }
        Ok(count)
    }
}

/// Answers with one field; breaks when the reply is full.
fn write(reply: &mut ReplyWriter<'_>, part: Part, field: &[u8], value: &[u8], count: &mut usize) -> ControlFlow<()> {
    if !matches!(part, Part::Value) {
        reply.bulk(field);
    }
    if !matches!(part, Part::Field) {
        reply.bulk(value);
    }
    *count += 1;
    if reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

pub(super) fn hrandfield(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let Some(count) = request.get(2) else {
        let mut found = None;
        if let Some(hash) = cx.keyspace().hash(&request[1])? {
            hash.sample(1, |field, _| {
                found = Some(field.to_vec());
                ControlFlow::Break(())
            })?;
        }
        cx.reply.bulk_or_null(found.as_deref());
        return Ok(());
    };
    let count = numbers::symmetric(count)?;
    let with_values = match &request[3..] {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"withvalues") => true,
        _ => return Err(CommandError::syntax()),
    };
    if with_values && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(CommandError::new("ERR value is out of range"));
    }
    let hash = cx.keyspace().hash(&request[1])?;
    let bytes_max = cx.node.live.reply_len_max();
    // RESP3 has a pair for each field.
    let paired = with_values && cx.reply.version() == Version::Resp3;
    cx.reply.counted(Aggregate::Array, |reply| {
        let mut written = 0;
        let Some(hash) = hash else { return Ok(0) };
        let part = if with_values { Part::Both } else { Part::Field };
        let each = |field: &[u8], value: &[u8]| {
            if paired {
                reply.array(2);
            }
            write(reply, part, field, value, &mut written)
        };
        match u64::try_from(count) {
            Ok(count) => hash.sample(count, each)?,
            Err(_) => hash.sample_with_repeats(count.unsigned_abs(), with_values, bytes_max, each)?,
        }
        Ok(if with_values && !paired { 2 * written } else { written })
    })
}

pub(super) fn hscan(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let cursor = pages::cursor(&request[2])?;
    let Some(hash) = cx.keyspace().hash(&request[1])? else {
        pages::nothing(cx.reply);
        return Ok(());
    };
    let options = pages::options(&request[3..], true)?;
    pages::answer(cx.reply, hash.version(), cursor, &options, |after, each| hash.each(after, each), |value| Some(value.to_vec()))
}
