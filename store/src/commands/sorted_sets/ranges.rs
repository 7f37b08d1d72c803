//! Ranges of sorted sets: by rank, score and member; answered, stored, deleted.

use bytes::Bytes;

use super::{Outcome, replies, tell_removed, write_member};
use crate::{
    commands::{
        Class, CommandError, Context,
        large::{Large, TEXT_LEN_MIN},
    },
    protocol::{ReplyWriter, Request, Version},
    types::{Keyspace, LexRange, ScoreRange, Selection, parse_integer},
};

/// What a range is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// A range, as the commands of ranges understand their words.
struct Asked {
    selection: Selection,
    reverse: bool,
    limit: Option<(i64, i64)>,
    with_scores: bool,
}

/// What is fixed by the command's name, and what its options may say.
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    /// WITHSCORES is an option.
    scores: bool,
}

pub(in crate::commands) fn zrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, &Form { by: None, reverse: None, scores: true })
}

pub(in crate::commands) fn zrevrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, &Form { by: Some(By::Rank), reverse: Some(true), scores: true })
}

pub(in crate::commands) fn zrangebyscore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, &Form { by: Some(By::Score), reverse: Some(false), scores: true })
}

pub(in crate::commands) fn zrevrangebyscore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, &Form { by: Some(By::Score), reverse: Some(true), scores: true })
}

pub(in crate::commands) fn zrangebylex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, &Form { by: Some(By::Lex), reverse: Some(false), scores: true })
}

pub(in crate::commands) fn zrevrangebylex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    answer(cx, request, &Form { by: Some(By::Lex), reverse: Some(true), scores: true })
}

fn answer(cx: &mut Context<'_, '_>, request: &Request, form: &Form) -> Outcome {
    cx.answer_large(Selected { key: request[1].clone(), asked: parse(&request[2..], form)? })
}

/// The members of a sorted set that are in a range.
struct Selected {
    key: Bytes,
    asked: Asked,
}

impl Large for Selected {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn count(&self, keys: Keyspace<'_>, version: Version) -> Result<Option<usize>, CommandError> {
        let by_rank = keys.sorted_set(&self.key)?.and_then(|set| set.count_by_rank(&self.asked.selection));
        Ok(by_rank.map(|count| replies(version, count as usize, self.asked.with_scores)))
    }

    fn write(&self, keys: Keyspace<'_>, reply: &mut ReplyWriter<'_>) -> Result<usize, CommandError> {
        let (asked, mut count) = (&self.asked, 0);
        if let Some(set) = keys.sorted_set(&self.key)?
            && reply.expect(set.count_by_rank(&asked.selection).unwrap_or(0) * TEXT_LEN_MIN)
        {
            set.each(&asked.selection, asked.reverse, asked.limit, |member, score| {
                count += 1;
                write_member(reply, member, asked.with_scores.then_some(score))
            })?;
        }
        Ok(replies(reply.version(), count, asked.with_scores))
    }
}

pub(in crate::commands) fn zrangestore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (into, from) = (&request[1], &request[2]);
    let asked = parse(&request[3..], &Form { by: None, reverse: None, scores: false })?;
    let keys = cx.keyspace();
    let held = keys.kind(into)?.is_some();
    let size = match keys.sorted_set(from)? {
        Some(set) => keys.sorted_set_copy(&set, &asked.selection, asked.reverse, asked.limit, into)?,
        None => keys.sorted_set_store(into, [])?,
    };
    if size > 0 {
        cx.event(Class::SortedSet, "zrangestore", into);
    } else if held {
        cx.event(Class::Generic, "del", into);
    }
    cx.reply.unsigned(size);
    Ok(())
}

/// From the two ends of the range on.
fn parse(words: &[Bytes], form: &Form) -> Result<Asked, CommandError> {
    let [first, second, rest @ ..] = words else { return Err(CommandError::syntax()) };
    let (mut by, mut reverse, mut limit, mut with_scores) = (form.by, form.reverse, None, false);
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"withscores" if form.scores => with_scores = true,
            b"limit" if rest.len() >= 2 => {
                let mut number = || rest.next().map_or(Ok(0), |word| parse_integer(word));
                limit = Some((number()?, number()?));
            }
            b"rev" if reverse.is_none() => reverse = Some(true),
            b"byscore" if by.is_none() => by = Some(By::Score),
            b"bylex" if by.is_none() => by = Some(By::Lex),
            _ => return Err(CommandError::syntax()),
        }
    }
    let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
    // As in Redis, a limit of -1 is none at all.
    let limited = limit.is_some_and(|(_, count)| count != -1);
    if limited && by == By::Rank {
        return Err(CommandError::new("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"));
    }
    if with_scores && by == By::Lex {
        return Err(CommandError::new("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
    }
    let (min, max) = if reverse && by != By::Rank { (second, first) } else { (first, second) };
    let selection = match by {
        By::Rank => Selection::Rank(parse_integer(min)?, parse_integer(max)?),
        By::Score => Selection::Score(ScoreRange::parse(min, max)?),
        By::Lex => Selection::Lex(LexRange::parse(min, max)?),
    };
    Ok(Asked { selection, reverse, limit, with_scores })
}

pub(in crate::commands) fn zremrangebyrank(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let selection = Selection::Rank(parse_integer(&request[2])?, parse_integer(&request[3])?);
    remove(cx, &request[1], &selection, "zremrangebyrank")
}

pub(in crate::commands) fn zremrangebyscore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let selection = Selection::Score(ScoreRange::parse(&request[2], &request[3])?);
    remove(cx, &request[1], &selection, "zremrangebyscore")
}

pub(in crate::commands) fn zremrangebylex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let selection = Selection::Lex(LexRange::parse(&request[2], &request[3])?);
    remove(cx, &request[1], &selection, "zremrangebylex")
}

fn remove(cx: &mut Context<'_, '_>, key: &[u8], selection: &Selection, name: &'static str) -> Outcome {
    let removed = cx.keyspace().sorted_set_remove_range(key, selection)?;
    tell_removed(cx, removed, name, key);
    cx.reply.unsigned(removed.count);
    Ok(())
}
