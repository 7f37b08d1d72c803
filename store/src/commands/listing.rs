//! The table of commands as COMMAND answers it.

use bytes::Bytes;

use super::{CommandError, CommandSpec, find, table};
use crate::protocol::ReplyWriter;

pub(super) fn all(reply: &mut ReplyWriter<'_>) {
    reply.array(table().count());
    table().for_each(|spec| entry(reply, spec));
}

pub(super) fn some(reply: &mut ReplyWriter<'_>, names: &[Bytes]) {
    if names.is_empty() {
        return all(reply);
    }
    reply.array(names.len());
    for name in names {
        match find(name) {
            Some(spec) => entry(reply, spec),
            None => reply.null(),
        }
    }
}

pub(super) fn names(reply: &mut ReplyWriter<'_>) {
    reply.array(table().count());
    table().for_each(|spec| reply.bulk(spec.name.as_bytes()));
}

pub(super) fn docs(reply: &mut ReplyWriter<'_>, names: &[Bytes]) {
    let chosen: Vec<&CommandSpec> =
        if names.is_empty() { table().collect() } else { names.iter().filter_map(|name| find(name)).collect() };
    reply.map(chosen.len());
    for spec in chosen {
        reply.bulk(spec.name.as_bytes());
        reply.map(3);
        for (key, value) in [("summary", spec.summary), ("since", spec.since), ("complexity", spec.complexity)] {
            reply.bulk(key.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }
}

pub(super) fn keys(reply: &mut ReplyWriter<'_>, request: &[Bytes]) -> Result<(), CommandError> {
    let spec = request.first().and_then(|name| find(name)).ok_or_else(|| CommandError::new("ERR Invalid command specified"))?;
    let count = request.len() as i32;
    if (spec.arity > 0 && count != spec.arity) || count < -spec.arity {
        return Err(CommandError::new("ERR Invalid number of arguments specified for command"));
    }
    let positions: Vec<usize> = spec.keys.of(request).collect();
    if positions.is_empty() {
        return Err(CommandError::new("ERR The command has no key arguments"));
    }
    reply.array(positions.len());
    positions.iter().for_each(|position| reply.bulk(&request[*position]));
    Ok(())
}

/// Name, arity, flags, key positions, and four lists that Redis 7 has behind them: ACL categories, tips, key specs, subcommands.
fn entry(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(i64::from(spec.arity));
    let flags = spec.flags.names();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    for position in spec.keys.classic() {
        reply.integer(i64::from(position));
    }
    for _ in 0..4 {
        reply.array(0);
    }
}
