//! Commands of lists, but those that wait.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Class, CommandError, Context,
    large::{Large, TEXT_LEN_MIN},
};
use crate::{
    protocol::{Aggregate, ReplyWriter, Request, Version},
    types::{End, Keyspace, List, offsets_of_range, parse_integer},
};

type Outcome = Result<(), CommandError>;

pub(super) fn lpush(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    push(cx, request, End::Front, false)
}

pub(super) fn rpush(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    push(cx, request, End::Back, false)
}

pub(super) fn lpushx(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    push(cx, request, End::Front, true)
}

pub(super) fn rpushx(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    push(cx, request, End::Back, true)
}

fn push(cx: &mut Context<'_, '_>, request: &Request, end: End, if_there: bool) -> Outcome {
    let size = cx.keyspace().list_push(&request[1], end, request[2..].iter().map(Bytes::as_ref), if_there)?;
    if size > 0 {
        cx.event(Class::List, pushed(end), &request[1]);
    }
    cx.reply.unsigned(size);
    Ok(())
}

fn pushed(end: End) -> &'static str {
    if end == End::Front { "lpush" } else { "rpush" }
}

fn popped(end: End) -> &'static str {
    if end == End::Front { "lpop" } else { "rpop" }
}

/// Tells that elements of a list are gone, and the list with the last of them.
fn tell(cx: &mut Context<'_, '_>, name: &'static str, key: &[u8], left: u64) {
    cx.event(Class::List, name, key);
    if left == 0 {
        cx.event(Class::Generic, "del", key);
    }
}

pub(super) fn lpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, "lpop", request, End::Front)
}

pub(super) fn rpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, "rpop", request, End::Back)
}

fn pop(cx: &mut Context<'_, '_>, name: &str, request: &Request, end: End) -> Outcome {
    let Some(count) = request.get(2) else {
        if !pop_one(cx, &request[1], end)? {
            cx.reply.null();
        }
        return Ok(());
    };
    if request.len() > 3 {
        return Err(CommandError::arity(name));
    }
    let count = not_negative(count, "ERR value is out of range, must be positive")?;
    if !pop_some(cx, &request[1], end, count)? {
        cx.reply.null_array();
    }
    Ok(())
}

/// Answers with an element that it takes off a list; false when there is none.
pub(super) fn pop_one(cx: &mut Context<'_, '_>, key: &[u8], end: End) -> Result<bool, CommandError> {
    let keys = cx.keyspace();
    let left = keys.list_pop(key, end, 1, cx.reply, |_, _| (), ReplyWriter::bulk)?;
    left.iter().for_each(|left| tell(cx, popped(end), key, *left));
    Ok(left.is_some())
}

/// Answers with an array of elements that it takes off a list; false when there is no list.
pub(super) fn pop_some(cx: &mut Context<'_, '_>, key: &[u8], end: End, count: u64) -> Result<bool, CommandError> {
    let keys = cx.keyspace();
    let begin = |reply: &mut ReplyWriter<'_>, count| reply.array(count as usize);
    let left = keys.list_pop(key, end, count, cx.reply, begin, ReplyWriter::bulk)?;
    left.iter().filter(|_| count > 0).for_each(|left| tell(cx, popped(end), key, *left));
    Ok(left.is_some())
}

/// A count; what is none is refused with that text.
pub(super) fn not_negative(word: &[u8], refusal: &str) -> Result<u64, CommandError> {
    let number = parse_integer(word).ok().and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| CommandError::new(refusal))
}

pub(super) fn llen(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let size = cx.keyspace().list(&request[1])?.map_or(0, |list| list.size());
    cx.reply.unsigned(size);
    Ok(())
}

pub(super) fn lindex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    // As in Redis, a key that is not there has no wrong index.
    let Some(list) = cx.keyspace().list(&request[1])? else {
        cx.reply.null();
        return Ok(());
    };
    list.at(parse_integer(&request[2])?, |value| cx.reply.bulk_or_null(value))?;
    Ok(())
}

pub(super) fn lset(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if cx.keyspace().list(&request[1])?.is_none() {
        return Err(CommandError::new("ERR no such key"));
    }
    match cx.keyspace().list_set(&request[1], parse_integer(&request[2])?, &request[3])? {
        Some(true) => cx.event(Class::List, "lset", &request[1]),
        _ => return Err(CommandError::new("ERR index out of range")),
    }
    cx.reply.ok();
    Ok(())
}

pub(super) fn lrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (start, stop) = (parse_integer(&request[2])?, parse_integer(&request[3])?);
    cx.answer_large(ElementsBetween { key: request[1].clone(), start, stop })
}

/// The elements of a list between two indexes.
struct ElementsBetween {
    key: Bytes,
    start: i64,
    stop: i64,
}

impl Large for ElementsBetween {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn count(&self, keys: Keyspace<'_>, _: Version) -> Result<Option<usize>, CommandError> {
        let size = keys.list(&self.key)?.map_or(0, |list| list.size());
        let offsets = offsets_of_range(self.start, self.stop, size);
        Ok(Some((offsets.end - offsets.start) as usize))
    }

    fn write(&self, keys: Keyspace<'_>, reply: &mut ReplyWriter<'_>) -> Result<usize, CommandError> {
        let Some(list) = keys.list(&self.key)? else { return Ok(0) };
        let (offsets, mut count) = (offsets_of_range(self.start, self.stop, list.size()), 0);
        if reply.expect((offsets.end - offsets.start) * TEXT_LEN_MIN) {
            list.each(offsets, false, |_, value| {
                reply.bulk(value);
                count += 1;
                if reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Ok(count)
    }
}

pub(super) fn ltrim(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (start, stop) = (parse_integer(&request[2])?, parse_integer(&request[3])?);
    if let Some(left) = cx.keyspace().list_trim(&request[1], start, stop)? {
        tell(cx, "ltrim", &request[1], left);
    }
    cx.reply.ok();
    Ok(())
}

pub(super) fn lrem(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let count = parse_integer(&request[2])?;
    let (removed, left) = cx.keyspace().list_remove(&request[1], count, &request[3])?;
    if removed > 0 {
        tell(cx, "lrem", &request[1], left);
    }
    cx.reply.unsigned(removed);
    Ok(())
}

pub(super) fn linsert(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let before = match request[2].to_ascii_lowercase().as_slice() {
        b"before" => true,
        b"after" => false,
        _ => return Err(CommandError::syntax()),
    };
    match cx.keyspace().list_insert(&request[1], &request[3], before, &request[4])? {
        None => cx.reply.integer(0),
        Some(None) => cx.reply.integer(-1),
        Some(Some(size)) => {
            cx.event(Class::List, "linsert", &request[1]);
            cx.reply.unsigned(size);
        }
    }
    Ok(())
}

/// What LPOS looks for besides its element.
struct Looked {
    /// Which match is the first that counts; from the end if it is negative. Never 0.
    rank: i64,
    /// How many matches are answered, 0: all; `None`: the first one alone, and not as an array.
    count: Option<u64>,
    /// How many elements are looked at; 0: all.
    most: u64,
}

impl Looked {
    fn parse(words: &[Bytes]) -> Result<Self, CommandError> {
        let mut looked = Self { rank: 1, count: None, most: 0 };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(CommandError::syntax()) };
            match name.to_ascii_lowercase().as_slice() {
                b"rank" => looked.rank = rank(value)?,
                b"count" => looked.count = Some(not_negative(value, "ERR COUNT can't be negative")?),
                b"maxlen" => looked.most = not_negative(value, "ERR MAXLEN can't be negative")?,
                _ => return Err(CommandError::syntax()),
            }
        }
        Ok(looked)
    }
}

fn rank(word: &[u8]) -> Result<i64, CommandError> {
    match parse_integer(word)? {
        0 => Err(CommandError::new(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
        )),
        i64::MIN => {
            Err(CommandError::new(format!("ERR value is out of range, value must between {} and {}", -i64::MAX, i64::MAX)))
        }
        rank => Ok(rank),
    }
}

pub(super) fn lpos(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let looked = Looked::parse(&request[3..])?;
    let list = cx.keyspace().list(&request[1])?;
    let Some(limit) = looked.count else {
        let mut found = None;
        if let Some(list) = list {
            positions(&list, &request[2], &looked, |offset| {
                found = Some(offset);
                ControlFlow::Break(())
            })?;
        }
        match found {
            Some(offset) => cx.reply.unsigned(offset),
            None => cx.reply.null(),
        }
        return Ok(());
    };
    cx.reply.counted(Aggregate::Array, |reply| {
        let mut count = 0;
        if let Some(list) = list {
            positions(&list, &request[2], &looked, |offset| {
                reply.unsigned(offset);
                count += 1;
                if limit > 0 && count >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Ok(count as usize)
    })
}

/// Calls `each` for the offset of every element that counts, until it breaks.
fn positions(list: &List<'_>, element: &[u8], looked: &Looked, mut each: impl FnMut(u64) -> ControlFlow<()>) -> Outcome {
    let size = list.size();
    let most = if looked.most == 0 { size } else { looked.most.min(size) };
    let backwards = looked.rank < 0;
    let offsets = if backwards { size - most..size } else { 0..most };
    let mut before = looked.rank.unsigned_abs() - 1;
    list.each(offsets, backwards, |offset, value| {
        if value != element {
            return ControlFlow::Continue(());
        }
        if before > 0 {
            before -= 1;
            return ControlFlow::Continue(());
        }
        each(offset)
    })?;
    Ok(())
}

pub(super) fn lmove(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (off, onto) = (end(&request[3])?, end(&request[4])?);
    if !move_one(cx, (&request[1], off), (&request[2], onto))? {
        cx.reply.null();
    }
    Ok(())
}

pub(super) fn rpoplpush(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if !move_one(cx, (&request[1], End::Back), (&request[2], End::Front))? {
        cx.reply.null();
    }
    Ok(())
}

/// Answers with the element that it moves; false when there is none.
pub(super) fn move_one(cx: &mut Context<'_, '_>, from: (&[u8], End), to: (&[u8], End)) -> Result<bool, CommandError> {
    let Some((value, left)) = cx.keyspace().list_move(from, to)? else { return Ok(false) };
    cx.reply.bulk(&value);
    cx.event(Class::List, pushed(to.1), to.0);
    tell(cx, popped(from.1), from.0, left);
    Ok(true)
}

/// LEFT or RIGHT.
pub(super) fn end(word: &[u8]) -> Result<End, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"left" => Ok(End::Front),
        b"right" => Ok(End::Back),
        _ => Err(CommandError::syntax()),
    }
}

/// What LMPOP is asked for.
pub(super) struct ManyPop<'q> {
    pub(super) keys: &'q [Bytes],
    pub(super) end: End,
    pub(super) count: u64,
}

impl<'q> ManyPop<'q> {
    /// From the number of keys on.
    pub(super) fn parse(words: &'q [Bytes]) -> Result<Self, CommandError> {
        let (number, rest) = words.split_first().ok_or_else(CommandError::syntax)?;
        let number = positive(number, "ERR numkeys should be greater than 0")?;
        let number = usize::try_from(number).ok().filter(|number| *number < rest.len()).ok_or_else(CommandError::syntax)?;
        let (keys, rest) = rest.split_at(number);
        let end = end(&rest[0])?;
        let count = match &rest[1..] {
            [] => 1,
            [name, count, more @ ..] if name.eq_ignore_ascii_case(b"count") => {
                let count = positive(count, "ERR count should be greater than 0")?;
                if !more.is_empty() {
                    return Err(CommandError::syntax());
                }
                count
            }
            _ => return Err(CommandError::syntax()),
        };
        Ok(Self { keys, end, count })
    }

    /// Answers with the key of the first list there is, and what it takes off it; false when there is none.
    pub(super) fn pop(&self, cx: &mut Context<'_, '_>) -> Result<bool, CommandError> {
        for key in self.keys {
            let mark = cx.reply.mark();
            cx.reply.array(2);
            cx.reply.bulk(key);
            let popped = pop_some(cx, key, self.end, self.count);
            if cx.passes_over(popped)? {
                return Ok(true);
            }
            cx.reply.rewind(mark);
        }
        Ok(false)
    }
}

fn positive(word: &[u8], refusal: &str) -> Result<u64, CommandError> {
    not_negative(word, refusal)?.checked_sub(1).map(|before| before + 1).ok_or_else(|| CommandError::new(refusal))
}

pub(super) fn lmpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if !ManyPop::parse(&request[1..])?.pop(cx)? {
        cx.reply.null_array();
    }
    Ok(())
}
