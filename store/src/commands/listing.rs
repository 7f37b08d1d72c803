//! The table of commands as COMMAND answers it.

use bytes::Bytes;

use super::{
    CommandError, CommandSpec, Flags, Keys, find, glob,
    subcommands::{Subcommand, subcommand, subcommands},
    table,
};
use crate::protocol::{ReplyWriter, Request};

/// COMMAND and its subcommands.
pub(super) fn command(reply: &mut ReplyWriter<'_>, request: &Request) -> Result<(), CommandError> {
    let Some(word) = request.get(1) else {
        all(reply);
        return Ok(());
    };
    let words = &request[2..];
    match word.to_ascii_lowercase().as_slice() {
        b"count" => reply.unsigned(table().count() as u64),
        b"list" => return list(reply, words),
        b"info" if words.is_empty() => all(reply),
        b"info" => {
            reply.array(words.len());
            words.iter().for_each(|name| some(reply, name));
        }
        b"docs" => docs(reply, words),
        b"getkeys" => {
            let (_, keys) = keys(words)?;
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
        b"getkeysandflags" => {
            let (spec, keys) = keys(words)?;
            reply.array(keys.len());
            for key in keys {
                reply.array(2);
                reply.bulk(key);
                let flags = key_flags(spec);
                reply.set(flags.len());
                flags.iter().for_each(|flag| reply.simple(flag));
            }
        }
        _ => super::subcommands::help(reply, "command"),
    }
    Ok(())
}

fn all(reply: &mut ReplyWriter<'_>) {
    reply.array(table().count());
    table().for_each(|spec| entry(reply, spec));
}

/// A command, or one of its subcommands as `command|subcommand`.
fn some(reply: &mut ReplyWriter<'_>, name: &[u8]) {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let (command, sub) = (parts.next().and_then(find), parts.next());
    match (command, sub) {
        (Some(spec), None) => entry(reply, spec),
        (Some(spec), Some(sub)) => match subcommand(spec.name, sub) {
            Some(known) => subentry(reply, spec, known),
            None => reply.null_array(),
        },
        (None, _) => reply.null_array(),
    }
}

/// Names of all commands and their subcommands that a filter lets pass.
fn list(reply: &mut ReplyWriter<'_>, words: &[Bytes]) -> Result<(), CommandError> {
    let passes: Box<dyn Fn(&CommandSpec, &str) -> bool> = match words {
        [] => Box::new(|_, _| true),
        [option, kind, value] if option.eq_ignore_ascii_case(b"filterby") => match kind.to_ascii_lowercase().as_slice() {
            // There are no modules.
            b"module" => Box::new(|_, _| false),
            b"aclcat" => {
                let value = String::from_utf8_lossy(value).to_ascii_lowercase();
                Box::new(move |spec, _| categories(spec).contains(&value.as_str()))
            }
            b"pattern" => {
                let value = value.to_ascii_lowercase();
                Box::new(move |_, name| glob::matches(&value, name.as_bytes()))
            }
            _ => return Err(CommandError::syntax()),
        },
        _ => return Err(CommandError::syntax()),
    };
    let mut names = Vec::new();
    for spec in table() {
        let subs = subcommands(spec.name).map(|known| format!("{}|{}", spec.name, known.name));
        names.extend(std::iter::once(spec.name.to_owned()).chain(subs).filter(|name| passes(spec, name)));
    }
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

fn docs(reply: &mut ReplyWriter<'_>, names: &[Bytes]) {
    let chosen: Vec<&CommandSpec> =
        if names.is_empty() { table().collect() } else { names.iter().filter_map(|name| find(name)).collect() };
    reply.map(chosen.len());
    for spec in chosen {
        let subs: Vec<&Subcommand> = subcommands(spec.name).collect();
        reply.bulk(spec.name.as_bytes());
        reply.map(if subs.is_empty() { 4 } else { 5 });
        let group = if spec.group == "zset" { "sorted-set" } else { spec.group };
        for (key, value) in [("summary", spec.summary), ("since", spec.since), ("group", group), ("complexity", spec.complexity)]
        {
            reply.bulk(key.as_bytes());
            reply.bulk(value.as_bytes());
        }
        if subs.is_empty() {
            continue;
        }
        reply.bulk(b"subcommands");
        reply.map(subs.len());
        for known in subs {
            reply.bulk(format!("{}|{}", spec.name, known.name).as_bytes());
            reply.map(2);
            for (key, value) in [("summary", known.summary), ("group", group)] {
                reply.bulk(key.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
    }
}

/// The keys of a request, and its command.
fn keys(request: &[Bytes]) -> Result<(&'static CommandSpec, Vec<&Bytes>), CommandError> {
    let spec = request.first().and_then(|name| find(name)).ok_or_else(|| CommandError::new("ERR Invalid command specified"))?;
    if !spec.keys.any() || spec.flags.has(Flags::CHANNELS) {
        return Err(CommandError::new("ERR The command has no key arguments"));
    }
    let count = request.len() as i32;
    if (spec.arity > 0 && count != spec.arity) || count < -spec.arity {
        return Err(CommandError::new("ERR Invalid number of arguments specified for command"));
    }
    let keys: Vec<&Bytes> = spec.keys.of(request).filter_map(|position| request.get(position)).collect();
    if keys.is_empty() {
        return Err(CommandError::new("ERR Invalid arguments specified for command"));
    }
    Ok((spec, keys))
}

/// What a command does to its keys, in Redis' words.
fn key_flags(spec: &CommandSpec) -> &'static [&'static str] {
    if !spec.flags.has(Flags::WRITE) {
        &["RO", "access"]
    } else if spec.flags.has(Flags::BLIND) {
        &["OW", "update"]
    } else if matches!(spec.name, "del" | "unlink") {
        &["RM", "delete"]
    } else {
        &["RW", "access", "update"]
    }
}

/// ACL categories, by what a command is and does.
fn categories(spec: &CommandSpec) -> Vec<&'static str> {
    let of_group = match spec.group {
        "generic" => "keyspace",
        "sorted-set" | "zset" | "sorted_set" => "sortedset",
        "transactions" => "transaction",
        "server" | "cluster" => "",
        group => group,
    };
    let named = [
        ("write", spec.flags.has(Flags::WRITE)),
        ("read", spec.flags.has(Flags::READONLY)),
        ("admin", spec.flags.has(Flags::ADMIN)),
        (
            "dangerous",
            spec.flags.has(Flags::ADMIN) || matches!(spec.name, "flushdb" | "flushall" | "keys" | "swapdb" | "sort" | "info"),
        ),
        ("blocking", spec.flags.has(Flags::WAITS)),
        ("fast", spec.flags.has(Flags::FAST)),
        ("slow", !spec.flags.has(Flags::FAST)),
    ];
    let named = named.into_iter().filter(|(_, has)| *has).map(|(name, _)| name);
    named.chain(Some(of_group).filter(|group| !group.is_empty())).collect()
}

fn flags(spec: &CommandSpec) -> Vec<&'static str> {
    let more = [
        ("denyoom", spec.flags.has(Flags::WRITE) && !spec.flags.has(Flags::FREES)),
        ("pubsub", spec.group == "pubsub"),
        ("blocking", spec.flags.has(Flags::WAITS)),
        ("no_multi", spec.flags.has(Flags::NO_MULTI)),
        ("movablekeys", spec.keys.movable()),
    ];
    spec.flags.names().into_iter().chain(more.into_iter().filter(|(_, has)| *has).map(|(name, _)| name)).collect()
}

/// Name, arity, flags, key positions, ACL categories, tips, key specifications, subcommands.
fn entry(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    head(reply, spec, spec.name, spec.arity);
    for position in spec.keys.classic() {
        reply.integer(i64::from(position));
    }
    tail(reply, spec);
    let subs: Vec<&Subcommand> = subcommands(spec.name).collect();
    reply.array(subs.len());
    subs.iter().for_each(|known| subentry(reply, spec, known));
}

fn subentry(reply: &mut ReplyWriter<'_>, spec: &CommandSpec, known: &Subcommand) {
    head(reply, spec, &format!("{}|{}", spec.name, known.name), known.arity);
    for position in spec.keys.classic() {
        reply.integer(i64::from(position));
    }
    tail(reply, spec);
    reply.array(0);
}

fn head(reply: &mut ReplyWriter<'_>, spec: &CommandSpec, name: &str, arity: i32) {
    reply.array(10);
    reply.bulk(name.as_bytes());
    reply.integer(i64::from(arity));
    let flags = flags(spec);
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
}

fn tail(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    let categories = categories(spec);
    reply.set(categories.len());
    categories.iter().for_each(|category| reply.simple(&format!("@{category}")));
    reply.array(0);
    key_specification(reply, spec);
}

/// Where the keys begin and how they go on, for clients that route by it. What is behind a word of the request has none.
fn key_specification(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    let (index, kind, rows): (i64, &str, [(&str, i64); 3]) = match spec.keys {
        Keys::Range { first, last, step } => {
            let last = if last < 0 { last } else { last - first };
            (i64::from(first), "range", [("lastkey", i64::from(last)), ("keystep", i64::from(step)), ("limit", 0)])
        }
        Keys::Counted { at, destination: false } => (at as i64, "keynum", [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]),
        _ => {
            reply.array(0);
            return;
        }
    };
    reply.array(1);
    reply.map(3);
    reply.bulk(b"flags");
    let flags = key_flags(spec);
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(index);
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(rows.len());
    for (name, value) in rows {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    }
}
