//! DUMP, RESTORE, OBJECT.

use super::{Class, CommandError, Context, subcommands};
use crate::{
    protocol::Request,
    types::{TypeError, parse_integer},
};

type Outcome = Result<(), CommandError>;

/// Numbers that Redis keeps once for all keys.
const SHARED: std::ops::Range<i64> = 0..10_000;

pub(super) fn dump(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let len_max = cx.node.settings.proto_max_bulk_len.0 as usize;
    match cx.keyspace().dump(&request[1], len_max) {
        Ok(Some(payload)) => cx.reply.bulk(&payload),
        Ok(None) => cx.reply.null(),
        Err(TypeError::TooLong) => {
            return Err(CommandError::new(format!("ERR the payload would have more than {len_max} bytes (proto-max-bulk-len)")));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub(super) fn restore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (mut replace, mut absolute) = (false, false);
    let mut words = request[4..].iter();
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"replace" => replace = true,
            b"absttl" => absolute = true,
            // Nothing is evicted here: they are read, and have no use.
            b"idletime" if words.len() > 0 => {
                let seconds = words.next().map(|word| parse_integer(word)).ok_or_else(CommandError::syntax)??;
                if seconds < 0 {
                    return Err(CommandError::new("ERR Invalid IDLETIME value, must be >= 0"));
                }
            }
            b"freq" if words.len() > 0 => {
                let frequency = words.next().map(|word| parse_integer(word)).ok_or_else(CommandError::syntax)??;
                if !(0..=255).contains(&frequency) {
                    return Err(CommandError::new("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                }
            }
            _ => return Err(CommandError::syntax()),
        }
    }
    let key = &request[1];
    if !replace && cx.keyspace().kind(key)?.is_some() {
        return Err(CommandError::new("BUSYKEY Target key name already exists."));
    }
    let ttl = parse_integer(&request[2])?;
    let ttl = u64::try_from(ttl).map_err(|_| CommandError::new("ERR Invalid TTL value, must be >= 0"))?;
    let at_ms = (ttl > 0).then(|| if absolute { ttl } else { ttl.saturating_add(cx.now_ms) });
    cx.keyspace().restore(key, &request[3], at_ms)?;
    cx.event(Class::Generic, "restore", key);
    cx.reply.ok();
    Ok(())
}

pub(super) fn object(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let subcommand = request[1].to_ascii_lowercase();
    if subcommand == b"help" {
        subcommands::help(cx.reply, "object");
        return Ok(());
    }
    let keys = cx.keyspace();
    let Some(encoding) = keys.encoding(&request[2])? else {
        cx.reply.null();
        return Ok(());
    };
    match subcommand.as_slice() {
        b"encoding" => cx.reply.bulk(encoding.as_bytes()),
        b"refcount" => {
            // As Redis has it of the small numbers that it shares.
            let shared = keys.get(&request[2], |value| value.and_then(|value| parse_integer(value).ok()));
            let shared = encoding == "int" && shared?.is_some_and(|number| SHARED.contains(&number));
            cx.reply.integer(if shared { i64::from(i32::MAX) } else { 1 });
        }
        // Nobody is evicted here, so nobody counts.
        b"idletime" => cx.reply.integer(0),
        _ => {
            return Err(CommandError::new(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
                 policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }
    Ok(())
}
