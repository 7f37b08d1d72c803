//! Commands that go over the fields of a hash. They write into the reply as they go and stop when it is full: a hash is never held in
//! memory beyond what is answered.

use std::ops::ControlFlow;

use super::{
    CommandError, Context,
    cursors::{self, Scanned},
    glob,
};
use crate::{
    protocol::{Aggregate, ReplyWriter, Request},
    types::{Hash, parse_integer},
};

type Outcome = Result<(), CommandError>;

/// Fields looked at by one HSCAN, whatever COUNT says.
const COUNT_MAX: usize = 100_000;
/// Bytes of one page of HSCAN, after which it ends however few fields it has.
const PAGE_BYTES: usize = 1 << 20;

/// What of a field is answered.
#[derive(Clone, Copy)]
enum Part {
    Field,
    Value,
    Both,
}

pub(super) fn hgetall(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    all(cx, request, Aggregate::Map, Part::Both)
}

pub(super) fn hkeys(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    all(cx, request, Aggregate::Array, Part::Field)
}

pub(super) fn hvals(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    all(cx, request, Aggregate::Array, Part::Value)
}

fn all(cx: &mut Context<'_, '_>, request: &Request, aggregate: Aggregate, part: Part) -> Outcome {
    let hash = cx.keyspace().hash(&request[1])?;
    cx.reply.counted(aggregate, |reply| {
        let mut count = 0;
        if let Some(hash) = hash {
            hash.each(None, |field, value| write(reply, part, field, value, &mut count))?;
        }
        Ok(count)
    })
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
        match found {
            Some(field) => cx.reply.bulk(&field),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    let count = parse_integer(count)?;
    if count == i64::MIN {
        return Err(CommandError::new(format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX)));
    }
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
    let paired = with_values && cx.reply.version() == crate::protocol::Version::Resp3;
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

/// What HSCAN is asked for besides its cursor.
struct Page {
    pattern: Option<Vec<u8>>,
    count: usize,
    values: bool,
}

pub(super) fn hscan(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let text = std::str::from_utf8(&request[2]).ok();
    let cursor: u64 = text.and_then(|text| text.parse().ok()).ok_or_else(|| CommandError::new("ERR invalid cursor"))?;
    // As in Redis, a key that is not there has no wrong options.
    let Some(hash) = cx.keyspace().hash(&request[1])? else {
        return answer(cx.reply, 0, &[]);
    };
    let page = page_options(&request[3..])?;
    let (next, found) = read_page(&hash, cursor, &page)?;
    answer(cx.reply, next, &found)
}

fn page_options(words: &[bytes::Bytes]) -> Result<Page, CommandError> {
    let mut page = Page { pattern: None, count: 10, values: true };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let name = word.to_ascii_lowercase();
        if name == b"novalues" {
            page.values = false;
            continue;
        }
        let value = words.next().ok_or_else(CommandError::syntax)?;
        match name.as_slice() {
            b"match" => page.pattern = Some(value.to_vec()),
            b"count" => match parse_integer(value)? {
                number if number > 0 => page.count = usize::try_from(number).unwrap_or(COUNT_MAX).min(COUNT_MAX),
                _ => return Err(CommandError::syntax()),
            },
            _ => return Err(CommandError::syntax()),
        }
    }
    Ok(page)
}

/// Fields and values of a page, and the cursor of the next one.
fn read_page(hash: &Hash<'_>, cursor: u64, page: &Page) -> Result<(u64, Vec<Vec<u8>>), CommandError> {
    let scanned = Scanned::Collection(hash.version());
    let after = (cursor > 0).then(|| cursors::recall(scanned, cursor)).flatten();
    let (mut found, mut seen, mut bytes, mut last) = (Vec::new(), 0, 0, None);
    hash.each(after.as_deref(), |field, value| {
        if seen >= page.count || bytes >= PAGE_BYTES {
            // There is a next one: the page before it ends with a cursor.
            return ControlFlow::Break(());
        }
        seen += 1;
        if page.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, field)) {
            bytes += field.len();
            found.push(field.to_vec());
            if page.values {
                bytes += value.len();
                found.push(value.to_vec());
            }
        }
        last = Some(field.to_vec());
        ControlFlow::Continue(())
    })?;
    let ended = seen < page.count && bytes < PAGE_BYTES;
    let next = last.filter(|_| !ended).map_or(0, |last| cursors::remember(scanned, last));
    Ok((next, found))
}

fn answer(reply: &mut ReplyWriter<'_>, cursor: u64, found: &[Vec<u8>]) -> Outcome {
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|text| reply.bulk(text));
    Ok(())
}
