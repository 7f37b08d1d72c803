//! XINFO.

use std::ops::ControlFlow;

use super::{Outcome, groups::no_group, write_entries, write_entry, write_id};
use crate::{
    commands::{CommandError, Context, subcommands},
    protocol::{Aggregate, ReplyWriter, Request},
    types::{Consumer, EntryId, Group, Pending, Stream, parse_integer},
};

/// Entries, and pending ones of each group and consumer, that FULL shows unless it is told how many.
const SHOWN: u64 = 10;

pub(in crate::commands) fn xinfo(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let subcommand = request[1].to_ascii_lowercase();
    if subcommand == b"help" {
        subcommands::help(cx.reply, "xinfo");
        return Ok(());
    }
    let Some(stream) = cx.keyspace().stream(&request[2])? else { return Err(CommandError::new("ERR no such key")) };
    let full = match (subcommand.as_slice(), &request[3..]) {
        (b"stream", [full]) if full.eq_ignore_ascii_case(b"full") => Some(SHOWN),
        (b"stream", [full, count, number]) if full.eq_ignore_ascii_case(b"full") && count.eq_ignore_ascii_case(b"count") => {
            Some(u64::try_from(parse_integer(number)?).unwrap_or(SHOWN))
        }
        (b"stream", [_, ..]) => return Err(CommandError::subcommand("XINFO", &request[1])),
        _ => None,
    };
    match (subcommand.as_slice(), full) {
        (b"stream", Some(count)) => whole(cx.reply, &stream, count),
        (b"stream", None) => brief(cx.reply, &stream),
        (b"groups", _) => groups(cx.reply, &stream),
        _ => {
            let group = stream.group(&request[3])?.ok_or_else(|| no_group(&request[2], &request[3]))?;
            consumers(cx.reply, &stream, &group, cx.now_ms)
        }
    }
}

fn number(reply: &mut ReplyWriter<'_>, name: &str, value: u64) {
    reply.bulk(name.as_bytes());
    reply.unsigned(value);
}

fn id(reply: &mut ReplyWriter<'_>, name: &str, value: EntryId) {
    reply.bulk(name.as_bytes());
    write_id(reply, value);
}

fn optional(reply: &mut ReplyWriter<'_>, name: &str, value: Option<i64>) {
    reply.bulk(name.as_bytes());
    match value {
        Some(value) => reply.integer(value),
        None => reply.null(),
    }
}

/// What both forms begin with.
fn head(reply: &mut ReplyWriter<'_>, stream: &Stream<'_>) {
    let head = &stream.head;
    number(reply, "length", head.size);
    // There is no tree: each entry is a key of its own.
    number(reply, "radix-tree-keys", head.size);
    number(reply, "radix-tree-nodes", head.size);
    id(reply, "last-generated-id", head.last);
    id(reply, "max-deleted-entry-id", head.max_deleted);
    number(reply, "entries-added", head.added);
    id(reply, "recorded-first-entry-id", head.first);
}

fn brief(reply: &mut ReplyWriter<'_>, stream: &Stream<'_>) -> Outcome {
    reply.map(10);
    head(reply, stream);
    number(reply, "groups", stream.head.groups);
    for (name, reverse) in [("first-entry", false), ("last-entry", true)] {
        reply.bulk(name.as_bytes());
        if stream.head.size == 0 {
            reply.null();
        }
        stream.range(EntryId::MIN, EntryId::MAX, reverse, |id, fields| {
            let _ = write_entry(reply, id, fields);
            ControlFlow::Break(())
        })?;
    }
    Ok(())
}

fn group_head(reply: &mut ReplyWriter<'_>, stream: &Stream<'_>, group: &Group) {
    id(reply, "last-delivered-id", group.last);
    optional(reply, "entries-read", group.read.map(|read| i64::try_from(read).unwrap_or(i64::MAX)));
    optional(reply, "lag", stream.head.lag(group.read, group.last));
}

fn groups(reply: &mut ReplyWriter<'_>, stream: &Stream<'_>) -> Outcome {
    let groups = stream.groups()?;
    reply.array(groups.len());
    for (name, group) in groups {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(&name);
        number(reply, "consumers", group.consumers);
        number(reply, "pending", group.pending);
        group_head(reply, stream, &group);
    }
    Ok(())
}

fn consumers(reply: &mut ReplyWriter<'_>, stream: &Stream<'_>, group: &Group, now_ms: u64) -> Outcome {
    let consumers = stream.consumers(group)?;
    reply.array(consumers.len());
    let since = |at_ms: u64| i64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(i64::MAX);
    for (name, consumer) in consumers {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(&name);
        number(reply, "pending", consumer.pending);
        optional(reply, "idle", Some(since(consumer.seen_ms)));
        optional(reply, "inactive", Some(consumer.active_ms.map_or(-1, since)));
    }
    Ok(())
}

fn whole(reply: &mut ReplyWriter<'_>, stream: &Stream<'_>, count: u64) -> Outcome {
    reply.map(9);
    head(reply, stream);
    reply.bulk(b"entries");
    write_entries(reply, stream, (EntryId::MIN, EntryId::MAX), count, false)?;
    reply.bulk(b"groups");
    let groups = stream.groups()?;
    reply.array(groups.len());
    for (name, group) in groups {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(&name);
        group_head(reply, stream, &group);
        number(reply, "pel-count", group.pending);
        reply.bulk(b"pending");
        let mut shown = Vec::new();
        stream.pending(&group, EntryId::MIN, |id, pending| {
            shown.push((id, pending));
            if count > 0 && shown.len() as u64 >= count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        reply.array(shown.len());
        for (id, pending) in shown {
            reply.array(4);
            write_id(reply, id);
            reply.bulk(&pending.consumer);
            delivery(reply, &pending);
        }
        reply.bulk(b"consumers");
        let consumers = stream.consumers(&group)?;
        reply.array(consumers.len());
        for (name, consumer) in consumers {
            whole_consumer(reply, stream, &group, &name, &consumer, count)?;
        }
    }
    Ok(())
}

fn delivery(reply: &mut ReplyWriter<'_>, pending: &Pending) {
    reply.unsigned(pending.delivered_ms);
    reply.unsigned(pending.deliveries);
}

fn whole_consumer(
    reply: &mut ReplyWriter<'_>,
    stream: &Stream<'_>,
    group: &Group,
    name: &[u8],
    consumer: &Consumer,
    count: u64,
) -> Outcome {
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(name);
    number(reply, "seen-time", consumer.seen_ms);
    optional(reply, "active-time", Some(consumer.active_ms.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX))));
    number(reply, "pel-count", consumer.pending);
    reply.bulk(b"pending");
    let most = if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
    let ids = stream.pending_at(group, consumer, EntryId::MIN, most)?;
    reply.counted(Aggregate::Array, |reply| {
        for id in &ids {
            if let Some(pending) = stream.pending_entry(group, *id)? {
                reply.array(3);
                write_id(reply, *id);
                delivery(reply, &pending);
            }
        }
        Ok(ids.len())
    })
}
