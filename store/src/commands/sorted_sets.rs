//! Commands of sorted sets.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Class, CommandError, Context, lengths, numbers};
use crate::{
    protocol::{ReplyWriter, Request, Version},
    types::{AddOptions, LexRange, Removed, ScoreRange, Selection, double_text},
};

pub(super) mod algebra;
pub(super) mod pages;
pub(super) mod pops;
pub(super) mod ranges;
pub(super) mod waiting;

type Outcome = Result<(), CommandError>;

/// What ZADD is told before the scores.
#[derive(Default)]
pub(super) struct AddWords {
    /// As the types know them.
    pub(super) options: AddOptions,
    /// The reply counts what was changed as well.
    pub(super) changed: bool,
}

pub(super) fn zadd(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (words, rest) = add_words(&request[2..]);
    let AddOptions { nx, xx, gt, lt, increment } = words.options;
    if rest.is_empty() || !rest.len().is_multiple_of(2) {
        return Err(CommandError::syntax());
    }
    if nx && xx {
        return Err(CommandError::new("ERR XX and NX options at the same time are not compatible"));
    }
    if nx && (gt || lt) || gt && lt {
        return Err(CommandError::new("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if increment && rest.len() > 2 {
        return Err(CommandError::new("ERR INCR option supports a single increment-element pair"));
    }
    let mut entries = Vec::with_capacity(rest.len() / 2);
    for pair in rest.chunks_exact(2) {
        entries.push((numbers::score(&pair[0])?, pair[1].as_ref()));
    }
    add(cx, &request[1], &entries, &words)
}

fn add_words(words: &[Bytes]) -> (AddWords, &[Bytes]) {
    let mut found = AddWords::default();
    let options = &mut found.options;
    for (at, word) in words.iter().enumerate() {
        let known = [
            (&b"nx"[..], &mut options.nx),
            (b"xx", &mut options.xx),
            (b"gt", &mut options.gt),
            (b"lt", &mut options.lt),
            (b"incr", &mut options.increment),
            (b"ch", &mut found.changed),
        ];
        let Some((_, option)) = known.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) else {
            return (found, &words[at..]);
        };
        *option = true;
    }
    (found, &[])
}

/// ZADD, ZINCRBY and GEOADD.
pub(super) fn add(cx: &mut Context<'_, '_>, key: &[u8], entries: &[(f64, &[u8])], words: &AddWords) -> Outcome {
    for (_, member) in entries {
        lengths::check_member(cx, member)?;
    }
    let done = cx.keyspace().sorted_set_add(key, entries, words.options)?;
    if done.added + done.updated > 0 {
        cx.event(Class::SortedSet, if words.options.increment { "zincr" } else { "zadd" }, key);
    }
    if words.options.increment {
        match done.score {
            Some(score) => write_score(cx.reply, score),
            None => cx.reply.null(),
        }
    } else {
        cx.reply.unsigned(done.added + if words.changed { done.updated } else { 0 });
    }
    Ok(())
}

pub(super) fn zincrby(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let by = numbers::score(&request[2])?;
    let options = AddOptions { increment: true, ..AddOptions::default() };
    add(cx, &request[1], &[(by, &request[3])], &AddWords { options, changed: false })
}

/// A score, as a number.
pub(super) fn write_score(reply: &mut ReplyWriter<'_>, score: f64) {
    reply.double(&double_text(score));
}

/// A member, with its score if that is wanted: in RESP3 both are a pair. Breaks when the reply is full.
fn write_member(reply: &mut ReplyWriter<'_>, member: &[u8], score: Option<f64>) -> ControlFlow<()> {
    if score.is_some() && reply.version() == Version::Resp3 {
        reply.array(2);
    }
    reply.bulk(member);
    if let Some(score) = score {
        write_score(reply, score);
    }
    if reply.overflowed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// How many replies members are, as [`write_member`] writes them.
fn replies(version: Version, members: usize, with_scores: bool) -> usize {
    if with_scores && version == Version::Resp2 { 2 * members } else { members }
}

pub(super) fn zrem(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let members: Vec<&[u8]> = request[2..].iter().map(AsRef::as_ref).collect();
    let removed = cx.keyspace().sorted_set_remove(&request[1], &members)?;
    tell_removed(cx, removed, "zrem", &request[1]);
    cx.reply.unsigned(removed.count);
    Ok(())
}

fn tell_removed(cx: &mut Context<'_, '_>, removed: Removed, name: &'static str, key: &[u8]) {
    if removed.count > 0 {
        cx.event(Class::SortedSet, name, key);
    }
    if removed.emptied {
        cx.event(Class::Generic, "del", key);
    }
}

pub(super) fn zcard(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let size = cx.keyspace().sorted_set(&request[1])?.map_or(0, |set| set.size());
    cx.reply.unsigned(size);
    Ok(())
}

pub(super) fn zscore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let set = cx.keyspace().sorted_set(&request[1])?;
    let score = set.map(|set| set.score(&request[2])).transpose()?.flatten();
    optional_score(cx.reply, score);
    Ok(())
}

fn optional_score(reply: &mut ReplyWriter<'_>, score: Option<f64>) {
    match score {
        Some(score) => write_score(reply, score),
        None => reply.null(),
    }
}

pub(super) fn zmscore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let set = cx.keyspace().sorted_set(&request[1])?;
    let members: Vec<&[u8]> = request[2..].iter().map(AsRef::as_ref).collect();
    cx.reply.array(members.len());
    match set {
        None => members.iter().for_each(|_| cx.reply.null()),
        Some(set) => set.scores(&members, |score| optional_score(cx.reply, score))?,
    }
    Ok(())
}

pub(super) fn zrank(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    rank(cx, request, false)
}

pub(super) fn zrevrank(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    rank(cx, request, true)
}

fn rank(cx: &mut Context<'_, '_>, request: &Request, reverse: bool) -> Outcome {
    let with_score = match &request[3..] {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"withscore") => true,
        [_] => return Err(CommandError::syntax()),
        _ => return Err(CommandError::arity(if reverse { "zrevrank" } else { "zrank" })),
    };
    let set = cx.keyspace().sorted_set(&request[1])?;
    match set.map(|set| set.rank(&request[2], reverse)).transpose()?.flatten() {
        Some((rank, score)) if with_score => {
            cx.reply.array(2);
            cx.reply.unsigned(rank);
            write_score(cx.reply, score);
        }
        Some((rank, _)) => cx.reply.unsigned(rank),
        None if with_score => cx.reply.null_array(),
        None => cx.reply.null(),
    }
    Ok(())
}

pub(super) fn zcount(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let range = ScoreRange::parse(&request[2], &request[3])?;
    count(cx, &request[1], &Selection::Score(range))
}

pub(super) fn zlexcount(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let range = LexRange::parse(&request[2], &request[3])?;
    count(cx, &request[1], &Selection::Lex(range))
}

fn count(cx: &mut Context<'_, '_>, key: &[u8], selection: &Selection) -> Outcome {
    let set = cx.keyspace().sorted_set(key)?;
    let count = set.map(|set| set.count(selection)).transpose()?.unwrap_or(0);
    cx.reply.unsigned(count);
    Ok(())
}
