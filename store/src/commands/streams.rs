//! Commands of streams: entries. What groups do is in the files below.

pub(super) mod groups;
pub(super) mod info;
mod options;
pub(super) mod pending;
pub(super) mod reading;

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Class, CommandError, Context, large::Large};
use crate::{
    protocol::{Aggregate, ReplyWriter, Request, Version},
    types::{EntryId, Fields, Keyspace, NotAdded, Stream, parse_integer},
};
use options::{Adding, interval, invalid_id, trimming};

type Outcome = Result<(), CommandError>;

/// An id that is neither `-` nor `+`.
fn strict_id(word: &[u8], missing: u64) -> Result<EntryId, CommandError> {
    EntryId::parse(word, missing).ok_or_else(invalid_id)
}

fn ids(words: &[Bytes]) -> Result<Vec<EntryId>, CommandError> {
    words.iter().map(|word| strict_id(word, 0)).collect()
}

fn write_id(reply: &mut ReplyWriter<'_>, id: EntryId) {
    reply.bulk(id.to_string().as_bytes());
}

/// An entry: its id, and its fields and values in turn. Breaks when the reply is full.
fn write_entry(reply: &mut ReplyWriter<'_>, id: EntryId, fields: Fields<'_>) -> ControlFlow<()> {
    reply.array(2);
    write_id(reply, id);
    reply.array(fields.count());
    fields.each(|text| reply.bulk(text));
    if reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Entries of a stream between two ids, at most `count` of them (0: all), as an array.
fn write_entries(
    reply: &mut ReplyWriter<'_>,
    stream: &Stream<'_>,
    span: (EntryId, EntryId),
    count: u64,
    reverse: bool,
) -> Outcome {
    reply.counted(Aggregate::Array, |reply| write_each(reply, stream, span, count, reverse))
}

/// The same without their header; how many they are.
fn write_each(
    reply: &mut ReplyWriter<'_>,
    stream: &Stream<'_>,
    (from, to): (EntryId, EntryId),
    count: u64,
    reverse: bool,
) -> Result<usize, CommandError> {
    let mut written = 0;
    stream.range(from, to, reverse, |id, fields| {
        written += 1;
        let flow = write_entry(reply, id, fields);
        if count > 0 && written as u64 >= count { ControlFlow::Break(()) } else { flow }
    })?;
    Ok(written)
}

/// A name of a group or a consumer is part of a key in storage, and as long as a key may be.
fn check_name(cx: &Context<'_, '_>, name: &[u8]) -> Outcome {
    super::lengths::check(cx, name, "name")
}

pub(super) fn xadd(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let adding = Adding::parse(request, cx.node.live.stream_node_max_entries())?;
    let texts = request[adding.texts..].iter().map(Bytes::as_ref);
    let added = cx.keyspace().stream_add(&request[1], adding.id, texts, adding.make, adding.trim)?;
    let (id, gone) = match added {
        Ok(added) => added,
        Err(NotAdded::NoStream) => {
            cx.reply.null();
            return Ok(());
        }
        Err(NotAdded::Exhausted) => {
            return Err(CommandError::new("ERR The stream has exhausted the last possible ID, unable to add more items"));
        }
        Err(NotAdded::NotAbove) => {
            return Err(CommandError::new("ERR The ID specified in XADD is equal or smaller than the target stream top item"));
        }
    };
    cx.event(Class::Stream, "xadd", &request[1]);
    if gone > 0 {
        cx.event(Class::Stream, "xtrim", &request[1]);
    }
    write_id(cx.reply, id);
    Ok(())
}

pub(super) fn xtrim(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let trim = trimming(request, cx.node.live.stream_node_max_entries())?;
    let gone = cx.keyspace().stream_trim(&request[1], trim)?;
    if gone > 0 {
        cx.event(Class::Stream, "xtrim", &request[1]);
    }
    cx.reply.unsigned(gone);
    Ok(())
}

pub(super) fn xlen(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let size = cx.keyspace().stream(&request[1])?.map_or(0, |stream| stream.head.size);
    cx.reply.unsigned(size);
    Ok(())
}

pub(super) fn xrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    range(cx, request, (&request[2], &request[3]), false)
}

pub(super) fn xrevrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    range(cx, request, (&request[3], &request[2]), true)
}

fn range(cx: &mut Context<'_, '_>, request: &Request, (from, to): (&[u8], &[u8]), reverse: bool) -> Outcome {
    let span = interval(from, to)?;
    let mut count = None;
    for pair in request[4..].chunks(2) {
        match pair {
            [name, number] if name.eq_ignore_ascii_case(b"count") => count = Some(parse_integer(number)?.max(0).unsigned_abs()),
            _ => return Err(CommandError::syntax()),
        }
    }
    if count == Some(0) {
        match cx.keyspace().stream(&request[1])? {
            Some(_) => cx.reply.null_array(),
            None => cx.reply.array(0),
        }
        return Ok(());
    }
    cx.answer_large(EntriesBetween { key: request[1].clone(), span, most: count.unwrap_or(0), reverse })
}

/// The entries of a stream between two ids.
struct EntriesBetween {
    key: Bytes,
    span: (EntryId, EntryId),
    /// At most so many of them; 0: all.
    most: u64,
    reverse: bool,
}

impl Large for EntriesBetween {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn count(&self, _: Keyspace<'_>, _: Version) -> Result<Option<usize>, CommandError> {
        Ok(None)
    }

    fn write(&self, keys: Keyspace<'_>, reply: &mut ReplyWriter<'_>) -> Result<usize, CommandError> {
        match keys.stream(&self.key)? {
            Some(stream) => write_each(reply, &stream, self.span, self.most, self.reverse),
            None => Ok(0),
        }
    }
}

pub(super) fn xdel(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    // As in Redis, a key that is not there has no wrong ids.
    if cx.keyspace().stream(&request[1])?.is_none() {
        cx.reply.integer(0);
        return Ok(());
    }
    let deleted = cx.keyspace().stream_delete(&request[1], &ids(&request[2..])?)?;
    if deleted > 0 {
        cx.event(Class::Stream, "xdel", &request[1]);
    }
    cx.reply.unsigned(deleted);
    Ok(())
}

pub(super) fn xsetid(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let id = strict_id(&request[2], 0)?;
    let (mut added, mut max_deleted) = (None, EntryId::MIN);
    for pair in request[3..].chunks(2) {
        let [name, value] = pair else { return Err(CommandError::syntax()) };
        if name.eq_ignore_ascii_case(b"entriesadded") {
            let number = u64::try_from(parse_integer(value)?);
            added = Some(number.map_err(|_| CommandError::new("ERR entries_added must be positive"))?);
        } else if name.eq_ignore_ascii_case(b"maxdeletedid") {
            max_deleted = strict_id(value, 0)?;
            if id < max_deleted {
                return Err(CommandError::new(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(CommandError::syntax());
        }
    }
    let Some(stream) = cx.keyspace().stream(&request[1])? else { return Err(CommandError::new("ERR no such key")) };
    if stream.last_entry()?.is_some_and(|last| id < last) {
        return Err(CommandError::new("ERR The ID specified in XSETID is smaller than the target stream top item"));
    }
    if stream.head.size > 0 && added.is_some_and(|added| added < stream.head.size) {
        return Err(CommandError::new("ERR The entries_added specified in XSETID is smaller than the target stream length"));
    }
    cx.keyspace().stream_set(&request[1], |head| {
        head.last = id;
        head.added = added.unwrap_or(head.added);
        if max_deleted != EntryId::MIN {
            head.max_deleted = max_deleted;
        }
    })?;
    cx.event(Class::Stream, "xsetid", &request[1]);
    cx.reply.ok();
    Ok(())
}
