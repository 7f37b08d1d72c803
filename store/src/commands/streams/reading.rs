//! XREAD and XREADGROUP.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Outcome, check_name, groups::no_key_or_group, strict_id, write_entries, write_entry, write_id};
use crate::{
    blocked::Wait,
    commands::{
        Class, CommandError, Context,
        blocking::{Nothing, deadline_of_milliseconds},
    },
    engine::Kind,
    protocol::{Aggregate, ReplyWriter, Request, Version},
    types::{Delivered, EntryId, Group, Stream, parse_integer},
};

/// What XREAD and XREADGROUP are told.
struct Reading<'q> {
    /// Whether it waits, and until when; `None`: without end.
    waits: bool,
    deadline: Option<Instant>,
    count: u64,
    /// Group and consumer.
    group: Option<(&'q [u8], &'q [u8])>,
    no_ack: bool,
    /// Where the ids begin among the words.
    ids_at: usize,
    keys: &'q [Bytes],
    ids: &'q [Bytes],
}

impl<'q> Reading<'q> {
    fn parse(cx: &Context<'_, '_>, request: &'q Request, as_group: bool) -> Result<Self, CommandError> {
        let (mut waits, mut deadline, mut count, mut group, mut no_ack, mut at) = (false, None, 0, None, false, 1);
        let name = if as_group { "xreadgroup" } else { "xread" };
        loop {
            let rest = request.get(at + 1..).unwrap_or_default();
            let word = request.get(at).map(|word| word.to_ascii_lowercase()).ok_or_else(CommandError::syntax)?;
            match (word.as_slice(), rest) {
                (b"block", [time, ..]) => {
                    (waits, deadline) = (true, deadline_of_milliseconds(cx, time)?);
                    at += 2;
                }
                (b"count", [number, ..]) => {
                    count = parse_integer(number)?.max(0).unsigned_abs();
                    at += 2;
                }
                (b"group", [_, _, ..]) | (b"noack", _) if !as_group => {
                    let option = String::from_utf8_lossy(&word).to_ascii_uppercase();
                    return Err(CommandError::new(format!(
                        "ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
                    )));
                }
                (b"group", [name, consumer, ..]) => {
                    group = Some((name.as_ref(), consumer.as_ref()));
                    at += 3;
                }
                (b"noack", _) => {
                    no_ack = true;
                    at += 1;
                }
                (b"streams", [_, ..]) => break,
                _ => return Err(CommandError::syntax()),
            }
        }
        let streams = &request[at + 1..];
        if streams.len() % 2 == 1 {
            let id = if as_group { '>' } else { '$' };
            return Err(CommandError::new(format!(
                "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{id}' must be specified."
            )));
        }
        if as_group && group.is_none() {
            return Err(CommandError::new("ERR Missing GROUP option for XREADGROUP"));
        }
        let (keys, ids) = streams.split_at(streams.len() / 2);
        Ok(Self { waits, deadline, count, group, no_ack, ids_at: at + 1 + keys.len(), keys, ids })
    }

    /// Waits for the keys, with those ids in the place of what they were, or answers that there is nothing.
    fn wait(&self, cx: &mut Context<'_, '_>, request: &Request, ids: Option<&[EntryId]>) -> Outcome {
        if !self.waits {
            cx.reply.null_array();
            return Ok(());
        }
        let mut expires = None;
        if self.group.is_some() {
            for key in self.keys {
                let at_ms = cx.keyspace().expires_at_ms(key)?.flatten();
                let left = at_ms.map(|at| Duration::from_millis(at.saturating_sub(cx.now_ms) + 1));
                let at = left.and_then(|left| Instant::now().checked_add(left));
                expires = expires.into_iter().chain(at).min();
            }
        }
        let (keys, when_gone, deadline) = (self.keys.to_vec(), self.group.is_some(), self.deadline);
        cx.wait_or(Nothing::Array, || {
            let mut request = request.clone();
            for (word, id) in request[self.ids_at..].iter_mut().zip(ids.into_iter().flatten()) {
                *word = Bytes::from(id.to_string());
            }
            Wait { kind: Kind::Stream, keys, when_gone, expires, deadline, request }
        });
        Ok(())
    }
}

pub(in crate::commands) fn xread(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let reading = Reading::parse(cx, request, false)?;
    let (mut ids, mut found) = (Vec::new(), Vec::new());
    // One that may wait has claimed its keys.
    let moment = cx.moment(if reading.waits { 1 } else { reading.keys.len() });
    let keys = cx.keyspace().as_of(moment.as_deref());
    for (key, word) in reading.keys.iter().zip(reading.ids) {
        let stream = match keys.stream(key).map_err(CommandError::from) {
            Err(error) if cx.passes_by(&error) => None,
            other => other?,
        };
        let last = stream.as_ref().map_or(EntryId::MIN, |stream| stream.head.last);
        let after = match &word[..] {
            b"$" => last,
            // The last entry there is, and if there is none the next.
            b"+" => match stream.as_ref().map(crate::types::Stream::last_entry).transpose()?.flatten() {
                Some(entry) => entry.previous().unwrap_or(EntryId::MIN),
                None => last,
            },
            b">" => {
                return Err(CommandError::new(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            word => strict_id(word, 0)?,
        };
        ids.push(after);
        if let (Some(stream), Some(from)) = (stream, after.next())
            && stream.last_entry()?.is_some_and(|last| last >= from)
        {
            found.push((key, stream, from));
        }
    }
    if found.is_empty() {
        return reading.wait(cx, request, Some(&ids));
    }
    by_stream_header(cx.reply, found.len());
    for (key, stream, from) in found {
        by_stream(cx.reply, key);
        write_entries(cx.reply, &stream, (from, EntryId::MAX), reading.count, false)?;
    }
    Ok(())
}

/// An answer by stream is a map, in RESP2 an array of pairs.
fn by_stream_header(reply: &mut ReplyWriter<'_>, count: usize) {
    match reply.version() {
        Version::Resp2 => reply.array(count),
        Version::Resp3 => reply.map(count),
    }
}

fn by_stream(reply: &mut ReplyWriter<'_>, key: &[u8]) {
    if reply.version() == Version::Resp2 {
        reply.array(2);
    }
    reply.bulk(key);
}

/// Before a command that makes the consumer if there is none: tells that it is new, if it is. Looks only when somebody asks.
pub(super) fn tell_if_new(
    cx: &mut Context<'_, '_>,
    stream: &Stream<'_>,
    group: &Group,
    key: &[u8],
    consumer: &[u8],
) -> Result<(), CommandError> {
    if cx.node.clients.notify().wants(Class::Stream) && stream.consumer(group, consumer)?.is_none() {
        cx.event(Class::Stream, "xgroup-createconsumer", key);
    }
    Ok(())
}

/// What a consumer reads of a stream.
enum From {
    /// What nobody has read.
    New,
    /// What is pending at it behind that id.
    Pending(EntryId),
}

pub(in crate::commands) fn xreadgroup(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let reading = Reading::parse(cx, request, true)?;
    let Some((group, consumer)) = reading.group else { return Err(CommandError::syntax()) };
    check_name(cx, consumer)?;
    let (mut wanted, mut news) = (Vec::new(), Vec::new());
    for (key, word) in reading.keys.iter().zip(reading.ids) {
        let found = cx.keyspace().stream(key)?;
        let found = match found {
            Some(stream) => stream.group(group)?.map(|group| (stream, group)),
            None => None,
        };
        let Some((stream, known)) = found else {
            return Err(no_key_or_group(key, group, " in XREADGROUP with GROUP option"));
        };
        wanted.push(match &word[..] {
            b"$" | b"+" => {
                let id = char::from(word[0]);
                return Err(CommandError::new(format!(
                    "ERR The {id} ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The {id} ID would just return an empty result set."
                )));
            }
            b">" => From::New,
            word => From::Pending(strict_id(word, 0)?),
        });
        news.push(stream.has_new_for(&known)?);
        tell_if_new(cx, &stream, &known, key, consumer)?;
    }
    let mut answered = 0;
    let begin = cx.reply.mark();
    for ((key, from), has_new) in reading.keys.iter().zip(&wanted).zip(news) {
        if matches!(from, From::New) && !has_new {
            // A consumer that comes and finds nothing was seen all the same.
            if cx.session.waited.is_none() {
                let _ = cx.keyspace().stream_see_consumer(key, group, consumer)?;
            }
            continue;
        }
        by_stream(cx.reply, key);
        let keys = cx.keyspace();
        let outcome = cx.reply.counted(Aggregate::Array, |reply| -> Result<usize, CommandError> {
            let each = |delivered: Delivered<'_>| match delivered {
                Delivered::Entry(id, fields) => write_entry(reply, id, fields),
                Delivered::Gone(id) => {
                    reply.array(2);
                    write_id(reply, id);
                    reply.null_array();
                    std::ops::ControlFlow::Continue(())
                }
            };
            let delivered = match from {
                From::New => keys.stream_deliver(key, group, consumer, (reading.count, reading.no_ack), each)?,
                From::Pending(after) => keys.stream_deliver_again(key, group, consumer, (*after, reading.count), each)?,
            };
            let count = delivered.map_err(|_| no_key_or_group(key, group, " in XREADGROUP with GROUP option"))?;
            Ok(count as usize)
        });
        outcome?;
        answered += 1;
    }
    if answered == 0 {
        return reading.wait(cx, request, None);
    }
    cx.reply.insert_header(begin, |reply| by_stream_header(reply, answered));
    Ok(())
}
