//! XPENDING, XCLAIM, XAUTOCLAIM.

use std::ops::ControlFlow;

use super::{
    Outcome, check_name,
    groups::no_key_or_group,
    options::{interval, start_of_interval},
    reading::tell_if_new,
    strict_id, write_entry, write_id,
};
use crate::{
    commands::{CommandError, Context, numbers},
    protocol::{Aggregate, Request},
    types::{Claim, EntryId, Group, Pending, Stream, parse_integer},
};

/// A stream and its group.
fn group_of<'e>(cx: &Context<'e, '_>, key: &[u8], name: &[u8]) -> Result<(Stream<'e>, Group), CommandError> {
    if let Some(stream) = cx.keyspace().stream(key)?
        && let Some(group) = stream.group(name)?
    {
        return Ok((stream, group));
    }
    Err(no_key_or_group(key, name, ""))
}

pub(in crate::commands) fn xpending(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match request.len() {
        3 => return summary(cx, request),
        6..=9 => {}
        _ => return Err(CommandError::syntax()),
    }
    let (mut words, mut idle_min_ms) = (&request[3..], 0);
    if words[0].eq_ignore_ascii_case(b"idle") {
        idle_min_ms = parse_integer(&words[1])?.max(0).unsigned_abs();
        if words.len() < 5 {
            return Err(CommandError::syntax());
        }
        words = &words[2..];
    }
    let count = parse_integer(&words[2])?.max(0).unsigned_abs();
    let (from, to) = interval(&words[0], &words[1])?;
    if words.len() > 4 {
        return Err(CommandError::syntax());
    }
    let (stream, group) = group_of(cx, &request[1], &request[2])?;
    let now_ms = cx.now_ms;
    let wanted = |pending: &Pending| now_ms.saturating_sub(pending.delivered_ms) >= idle_min_ms;
    let mut found: Vec<(EntryId, Pending)> = Vec::new();
    match words.get(3) {
        None => stream.pending(&group, from, |id, pending| {
            if id > to || found.len() as u64 >= count {
                return ControlFlow::Break(());
            }
            if wanted(&pending) {
                found.push((id, pending));
            }
            ControlFlow::Continue(())
        })?,
        Some(name) => {
            let consumer = stream.consumer(&group, name)?;
            let ids = match &consumer {
                Some(consumer) if count > 0 => stream.pending_at(&group, consumer, from, usize::MAX)?,
                _ => Vec::new(),
            };
            for id in ids.into_iter().take_while(|id| *id <= to) {
                if found.len() as u64 >= count {
                    break;
                }
                found.extend(stream.pending_entry(&group, id)?.filter(wanted).map(|pending| (id, pending)));
            }
        }
    }
    cx.reply.array(found.len());
    for (id, pending) in found {
        cx.reply.array(4);
        write_id(cx.reply, id);
        cx.reply.bulk(&pending.consumer);
        cx.reply.unsigned(now_ms.saturating_sub(pending.delivered_ms));
        cx.reply.unsigned(pending.deliveries);
    }
    Ok(())
}

fn summary(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (stream, group) = group_of(cx, &request[1], &request[2])?;
    cx.reply.array(4);
    cx.reply.unsigned(group.pending);
    let mut first = None;
    stream.pending(&group, EntryId::MIN, |id, _| {
        first = Some(id);
        ControlFlow::Break(())
    })?;
    let (Some(first), Some(last)) = (first, stream.last_pending(&group)?) else {
        cx.reply.null();
        cx.reply.null();
        cx.reply.null_array();
        return Ok(());
    };
    write_id(cx.reply, first);
    write_id(cx.reply, last);
    let consumers: Vec<_> = stream.consumers(&group)?.into_iter().filter(|(_, consumer)| consumer.pending > 0).collect();
    cx.reply.array(consumers.len());
    for (name, consumer) in consumers {
        cx.reply.array(2);
        cx.reply.bulk(&name);
        cx.reply.bulk(consumer.pending.to_string().as_bytes());
    }
    Ok(())
}

fn idle(word: &[u8], command: &str) -> Result<u64, CommandError> {
    let number =
        parse_integer(word).map_err(|_| CommandError::new(format!("ERR Invalid min-idle-time argument for {command}")))?;
    Ok(number.max(0).unsigned_abs())
}

pub(in crate::commands) fn xclaim(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (key, group, consumer) = (&request[1], &request[2], &request[3]);
    group_of(cx, key, group)?;
    let idle_min_ms = idle(&request[4], "XCLAIM")?;
    let ids: Vec<EntryId> = request[5..].iter().map_while(|word| EntryId::parse(word, 0)).collect();
    let mut claim = Claim { idle_min_ms, delivered_ms: cx.now_ms, deliveries: None, force: false, just_id: false, last: None };
    let mut words = request[5 + ids.len()..].iter();
    while let Some(word) = words.next() {
        let name = word.to_ascii_lowercase();
        let number = |value: &[u8], option: &str| {
            parse_integer(value).map_err(|_| CommandError::new(format!("ERR Invalid {option} option argument for XCLAIM")))
        };
        match (name.as_slice(), words.len()) {
            (b"force", _) => claim.force = true,
            (b"justid", _) => claim.just_id = true,
            (b"idle", 1..) => {
                let ago = number(words.next().map_or(&[], AsRef::as_ref), "IDLE")?;
                claim.delivered_ms = delivered(i64::try_from(cx.now_ms).unwrap_or(i64::MAX).checked_sub(ago), cx.now_ms);
            }
            (b"time", 1..) => {
                claim.delivered_ms = delivered(Some(number(words.next().map_or(&[], AsRef::as_ref), "TIME")?), cx.now_ms);
            }
            (b"retrycount", 1..) => {
                claim.deliveries = u64::try_from(number(words.next().map_or(&[], AsRef::as_ref), "RETRYCOUNT")?).ok();
            }
            (b"lastid", 1..) => claim.last = Some(strict_id(words.next().map_or(&[], AsRef::as_ref), 0)?),
            _ => {
                let shown = String::from_utf8_lossy(word);
                return Err(CommandError::new(format!("ERR Unrecognized XCLAIM option '{shown}'")));
            }
        }
    }
    check_name(cx, consumer)?;
    let (stream, of) = group_of(cx, key, group)?;
    tell_if_new(cx, &stream, &of, key, consumer)?;
    let keys = cx.keyspace();
    cx.reply.counted(Aggregate::Array, |reply| {
        let claimed = keys.stream_claim(key, group, consumer, &ids, &claim, |id, fields| match fields {
            Some(fields) => {
                let _ = write_entry(reply, id, fields);
            }
            None => write_id(reply, id),
        })?;
        claimed.map(|count| count as usize).map_err(|_| no_key_or_group(key, group, ""))
    })
}

/// When an entry counts as delivered: not later than now, nor before all time.
fn delivered(at_ms: Option<i64>, now_ms: u64) -> u64 {
    at_ms.and_then(|at| u64::try_from(at).ok()).filter(|at| *at <= now_ms).unwrap_or(now_ms)
}

pub(in crate::commands) fn xautoclaim(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (key, group, consumer) = (&request[1], &request[2], &request[3]);
    let idle_min_ms = idle(&request[4], "XAUTOCLAIM")?;
    let from = start_of_interval(&request[5])?;
    let (mut count, mut just_id, mut words) = (100, false, request[6..].iter());
    while let Some(word) = words.next() {
        match (word.to_ascii_lowercase().as_slice(), words.len()) {
            (b"count", 1..) => {
                let most = u64::try_from(i64::MAX / 16).unwrap_or(u64::MAX);
                let number = numbers::above_zero(words.next().map_or(&[], AsRef::as_ref), "ERR COUNT must be > 0")?;
                count =
                    Some(number).filter(|number| *number <= most).ok_or_else(|| CommandError::new("ERR COUNT must be > 0"))?;
            }
            (b"justid", _) => just_id = true,
            _ => return Err(CommandError::syntax()),
        }
    }
    let (stream, of) = group_of(cx, key, group)?;
    check_name(cx, consumer)?;
    tell_if_new(cx, &stream, &of, key, consumer)?;
    let claim = Claim { idle_min_ms, delivered_ms: cx.now_ms, deliveries: None, force: false, just_id, last: None };
    let claimed = cx.keyspace().stream_claim_idle(key, group, consumer, (from, count), &claim)?;
    let claimed = claimed.map_err(|_| no_key_or_group(key, group, ""))?;
    cx.reply.array(3);
    write_id(cx.reply, claimed.next);
    cx.reply.array(claimed.ids.len());
    let (stream, _) = group_of(cx, key, group)?;
    for id in claimed.ids {
        if just_id {
            write_id(cx.reply, id);
        } else {
            stream.entry(id, |fields| fields.map(|fields| write_entry(cx.reply, id, fields)))?;
        }
    }
    cx.reply.array(claimed.gone.len());
    claimed.gone.into_iter().for_each(|id| write_id(cx.reply, id));
    Ok(())
}
