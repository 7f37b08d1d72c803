//! ZSCAN, and members at random.

use std::ops::ControlFlow;

use super::{Outcome, replies, write_member};
use crate::{
    commands::{CommandError, Context, numbers, pages},
    protocol::{Aggregate, Request},
    types::double_text,
};

pub(in crate::commands) fn zscan(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let cursor = pages::cursor(&request[2])?;
    let Some(set) = cx.keyspace().sorted_set(&request[1])? else {
        pages::nothing(cx.reply);
        return Ok(());
    };
    let options = pages::options(&request[3..], false)?;
    let each = |after: Option<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>| {
        set.each_member(after, |member, score| each(member, double_text(score).as_bytes()))
    };
    pages::answer(cx.reply, set.version(), cursor, &options, each, |text| Some(text.to_vec()))
}

pub(in crate::commands) fn zrandmember(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let Some(count) = request.get(2) else {
        let mut found = None;
        if let Some(set) = cx.keyspace().sorted_set(&request[1])? {
            set.sample(1, |member, _| {
                found = Some(member.to_vec());
                ControlFlow::Break(())
            })?;
        }
        cx.reply.bulk_or_null(found.as_deref());
        return Ok(());
    };
    let count = numbers::symmetric(count)?;
    let with_scores = match &request[3..] {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"withscores") => true,
        _ => return Err(CommandError::syntax()),
    };
    if with_scores && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(CommandError::new("ERR value is out of range"));
    }
    let set = cx.keyspace().sorted_set(&request[1])?;
    let bytes_max = cx.node.live.reply_len_max();
    cx.reply.counted(Aggregate::Array, |reply| {
        let mut written = 0;
        let Some(set) = set else { return Ok(0) };
        let each = |member: &[u8], score: f64| {
            written += 1;
            write_member(reply, member, with_scores.then_some(score))
        };
        match u64::try_from(count) {
            Ok(count) => set.sample(count, each)?,
            Err(_) => set.sample_with_repeats(count.unsigned_abs(), bytes_max, each)?,
        }
        Ok(replies(reply.version(), written, with_scores))
    })
}
