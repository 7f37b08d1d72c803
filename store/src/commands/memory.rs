//! MEMORY: what keys and the process take.

use super::{CommandError, Context, info, subcommands};
use crate::{memory, protocol::Request, types::parse_integer};

type Outcome = Result<(), CommandError>;

/// Elements of a collection that are looked at unless SAMPLES says otherwise.
const SAMPLES: u64 = 5;

pub(super) fn memory(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match request[1].to_ascii_lowercase().as_slice() {
        b"usage" => usage(cx, request)?,
        b"doctor" => cx.reply.verbatim(&info::memory::doctor(cx.node)),
        b"malloc-stats" => cx.reply.verbatim(&memory::report()),
        b"purge" => {
            cx.node.memory.purge();
            cx.reply.ok();
        }
        b"stats" => stats(cx),
        _ => subcommands::help(cx.reply, "memory"),
    }
    Ok(())
}

/// Bytes that a key takes in storage, before compression: of a collection, by the mean of some of its elements.
fn usage(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let samples = match &request[3..] {
        [] => SAMPLES,
        [option, count] if option.eq_ignore_ascii_case(b"samples") => match parse_integer(count)? {
            0 => u64::MAX,
            count => u64::try_from(count).map_err(|_| CommandError::syntax())?,
        },
        _ => return Err(CommandError::syntax()),
    };
    match cx.keyspace().usage(&request[2], samples)? {
        Some(bytes) => cx.reply.unsigned(bytes),
        None => cx.reply.null(),
    }
    Ok(())
}

fn stats(cx: &mut Context<'_, '_>) {
    let rows = info::memory::stats(cx.node);
    cx.reply.map(rows.len());
    for (name, value) in rows {
        cx.reply.bulk(name.as_bytes());
        cx.reply.unsigned(value);
    }
}
