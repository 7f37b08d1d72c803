//! Commands of sets.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Class, CommandError, Context,
    large::{Large, TEXT_LEN_MIN},
    lengths, numbers, pages,
};
use crate::{
    protocol::{Aggregate, ReplyWriter, Request, Version},
    types::{Keyspace, Removed, SetOperation},
};

type Outcome = Result<(), CommandError>;

pub(super) fn sadd(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let members = words(&request[2..]);
    lengths::check_members(cx, &members)?;
    let added = cx.keyspace().set_add(&request[1], &members)?;
    if added > 0 {
        cx.event(Class::Set, "sadd", &request[1]);
    }
    cx.reply.unsigned(added);
    Ok(())
}

fn words(words: &[Bytes]) -> Vec<&[u8]> {
    words.iter().map(AsRef::as_ref).collect()
}

pub(super) fn srem(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let removed = cx.keyspace().set_remove(&request[1], &words(&request[2..]))?;
    tell_removed(cx, removed, "srem", &request[1]);
    cx.reply.unsigned(removed.count);
    Ok(())
}

fn tell_removed(cx: &mut Context<'_, '_>, removed: Removed, name: &'static str, key: &[u8]) {
    if removed.count > 0 {
        cx.event(Class::Set, name, key);
    }
    if removed.emptied {
        cx.event(Class::Generic, "del", key);
    }
}

pub(super) fn sismember(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let found = match cx.keyspace().members_of(&request[1])? {
        Some(set) => set.has(&request[2])?,
        None => false,
    };
    cx.reply.integer(i64::from(found));
    Ok(())
}

pub(super) fn smismember(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let set = cx.keyspace().members_of(&request[1])?;
    let members = words(&request[2..]);
    cx.reply.array(members.len());
    match set {
        None => members.iter().for_each(|_| cx.reply.integer(0)),
        Some(set) => set.has_many(&members, |found| {
            cx.reply.integer(i64::from(found));
            ControlFlow::Continue(())
        })?,
    }
    Ok(())
}

pub(super) fn scard(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let size = cx.keyspace().members_of(&request[1])?.map_or(0, |set| set.size());
    cx.reply.unsigned(size);
    Ok(())
}

pub(super) fn smembers(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    cx.answer_large(AllMembers { key: request[1].clone() })
}

/// All members of a set.
struct AllMembers {
    key: Bytes,
}

impl Large for AllMembers {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn aggregate(&self) -> Aggregate {
        Aggregate::Set
    }

    fn count(&self, keys: Keyspace<'_>, _: Version) -> Result<Option<usize>, CommandError> {
        Ok(Some(keys.members_of(&self.key)?.map_or(0, |set| set.size()) as usize))
    }

    fn write(&self, keys: Keyspace<'_>, reply: &mut ReplyWriter<'_>) -> Result<usize, CommandError> {
        let mut count = 0;
        if let Some(set) = keys.members_of(&self.key)?
            && reply.expect(set.size() * TEXT_LEN_MIN)
        {
            set.each(None, |member| write(reply, member, &mut count))?;
        }
        Ok(count)
    }
}

/// Answers with one member; breaks when the reply is full.
fn write(reply: &mut ReplyWriter<'_>, member: &[u8], count: &mut usize) -> ControlFlow<()> {
    reply.bulk(member);
    *count += 1;
    if reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

pub(super) fn smove(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (from, to) = (&request[1], &request[2]);
    lengths::check_member(cx, &request[3])?;
    let moved = cx.keyspace().set_move(from, to, &request[3])?;
    if let Some(moved) = moved.filter(|_| from != to) {
        tell_removed(cx, Removed { count: 1, emptied: moved.emptied }, "srem", from);
        if moved.added {
            cx.event(Class::Set, "sadd", to);
        }
    }
    cx.reply.integer(i64::from(moved.is_some()));
    Ok(())
}

pub(super) fn spop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (keys, key) = (cx.keyspace(), &request[1]);
    let popped = match &request[2..] {
        [] => {
            let mut found = None;
            let popped = keys.set_pop(key, 1, |member| {
                found = Some(member.to_vec());
                ControlFlow::Continue(())
            })?;
            cx.reply.bulk_or_null(found.as_deref());
            popped
        }
        [count] => {
            let count = numbers::positive(count)?;
            let mut popped = None;
            cx.reply.counted(Aggregate::Set, |reply| {
                let mut written = 0;
                popped = if count == 0 {
                    keys.members_of(key)?;
                    Some(Removed::default())
                } else {
                    keys.set_pop(key, count, |member| write(reply, member, &mut written))?
                };
                Ok::<_, CommandError>(written)
            })?;
            popped
        }
        _ => return Err(CommandError::syntax()),
    };
    // Nothing is taken away that could not be answered.
    cx.refuse_overflow()?;
    tell_removed(cx, popped.unwrap_or_default(), "spop", key);
    Ok(())
}

pub(super) fn srandmember(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let count = match &request[2..] {
        [] => {
            let mut found = None;
            if let Some(set) = cx.keyspace().members_of(&request[1])? {
                set.sample(1, |member| {
                    found = Some(member.to_vec());
                    ControlFlow::Break(())
                })?;
            }
            cx.reply.bulk_or_null(found.as_deref());
            return Ok(());
        }
        [count] => numbers::symmetric(count)?,
        _ => return Err(CommandError::syntax()),
    };
    let set = cx.keyspace().members_of(&request[1])?;
    let bytes_max = cx.node.live.reply_len_max();
    cx.reply.counted(Aggregate::Array, |reply| {
        let mut written = 0;
        let Some(set) = set else { return Ok(0) };
        let each = |member: &[u8]| write(reply, member, &mut written);
        match u64::try_from(count) {
            Ok(count) => set.sample(count, each)?,
            Err(_) => set.sample_with_repeats(count.unsigned_abs(), bytes_max, each)?,
        }
        Ok(written)
    })
}

pub(super) fn sinter(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    combine(cx, SetOperation::Intersection, request)
}

pub(super) fn sunion(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    combine(cx, SetOperation::Union, request)
}

pub(super) fn sdiff(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    combine(cx, SetOperation::Difference, request)
}

fn combine(cx: &mut Context<'_, '_>, operation: SetOperation, request: &Request) -> Outcome {
    let moment = cx.moment(request.len() - 1);
    let keys = cx.keyspace().as_of(moment.as_deref());
    cx.reply.counted(Aggregate::Set, |reply| {
        let mut count = 0;
        keys.set_combine(operation, request[1..].iter().map(AsRef::as_ref), |member| write(reply, member, &mut count))?;
        Ok(count)
    })
}

pub(super) fn sinterstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    combine_into(cx, SetOperation::Intersection, "sinterstore", request)
}

pub(super) fn sunionstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    combine_into(cx, SetOperation::Union, "sunionstore", request)
}

pub(super) fn sdiffstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    combine_into(cx, SetOperation::Difference, "sdiffstore", request)
}

fn combine_into(cx: &mut Context<'_, '_>, operation: SetOperation, name: &'static str, request: &Request) -> Outcome {
    let (keys, into) = (cx.keyspace(), &request[1]);
    let held = keys.kind(into)?.is_some();
    let size = keys.set_combine_into(operation, into, request[2..].iter().map(AsRef::as_ref))?;
    if size > 0 {
        cx.event(Class::Set, name, into);
    } else if held {
        cx.event(Class::Generic, "del", into);
    }
    cx.reply.unsigned(size);
    Ok(())
}

pub(super) fn sintercard(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (keys, rest) = numbers::counted_keys(&request[1..])?;
    let limit = numbers::limit(rest)?;
    let (moment, mut count) = (cx.moment(keys.len()), 0);
    cx.keyspace().as_of(moment.as_deref()).set_combine(SetOperation::Intersection, keys.iter().map(AsRef::as_ref), |_| {
        count += 1;
        if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    cx.reply.unsigned(count);
    Ok(())
}

pub(super) fn sscan(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let cursor = pages::cursor(&request[2])?;
    let Some(set) = cx.keyspace().members_of(&request[1])? else {
        pages::nothing(cx.reply);
        return Ok(());
    };
    let options = pages::options(&request[3..], false)?;
    let each =
        |after: Option<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>| set.each(after, |member| each(member, b""));
    pages::answer(cx.reply, set.version(), cursor, &options, each, |_| None)
}
