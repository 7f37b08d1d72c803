//! Commands of sorted sets that wait: BZPOPMIN, BZPOPMAX, BZMPOP.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Outcome, pops, write_score};
use crate::{
    blocked::Wait,
    commands::{
        CommandError, Context,
        blocking::{Nothing, deadline_of_seconds},
    },
    engine::Kind,
    protocol::Request,
    types::Extreme,
};

pub(in crate::commands) fn bzpopmin(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, request, Extreme::Min)
}

pub(in crate::commands) fn bzpopmax(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    pop(cx, request, Extreme::Max)
}

fn pop(cx: &mut Context<'_, '_>, request: &Request, end: Extreme) -> Outcome {
    let (timeout, keys) = request[1..].split_last().ok_or_else(CommandError::syntax)?;
    let deadline = deadline_of_seconds(cx, timeout)?;
    for key in keys {
        let popped = match pops::take(cx, key, end, 1) {
            Err(error) if cx.passes_by(&error) => continue,
            other => other?,
        };
        if let Some((member, score)) = popped.members.first() {
            cx.reply.array(3);
            cx.reply.bulk(key);
            cx.reply.bulk(member);
            write_score(cx.reply, *score);
            return Ok(());
        }
    }
    wait(cx, request, keys, deadline);
    Ok(())
}

pub(in crate::commands) fn bzmpop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let words = pops::many_words(&request[2..])?;
    let deadline = deadline_of_seconds(cx, &request[1])?;
    if !pops::take_first(cx, &words)? {
        wait(cx, request, words.keys, deadline);
    }
    Ok(())
}

fn wait(cx: &mut Context<'_, '_>, request: &Request, keys: &[Bytes], deadline: Option<Instant>) {
    cx.wait_or(Nothing::Array, || Wait {
        kind: Kind::SortedSet,
        keys: keys.to_vec(),
        when_gone: false,
        expires: None,
        deadline,
        request: request.clone(),
    });
}
