//! XGROUP and XACK.

use bytes::Bytes;

use super::{Outcome, check_name, ids, strict_id};
use crate::{
    commands::{Class, CommandError, Context},
    protocol::Request,
    types::{EntryId, parse_integer},
};

/// What XGROUP CREATE and SETID are told behind the id.
struct Options {
    make: bool,
    read: Option<u64>,
}

impl Options {
    fn parse(words: &[Bytes], subcommand: &[u8], creates: bool) -> Result<Self, CommandError> {
        let (mut options, mut words) = (Self { make: false, read: None }, words.iter());
        while let Some(word) = words.next() {
            if creates && word.eq_ignore_ascii_case(b"mkstream") {
                options.make = true;
                continue;
            }
            match words.next() {
                Some(number) if word.eq_ignore_ascii_case(b"entriesread") => {
                    options.read = match parse_integer(number)? {
                        -1 => None,
                        number => {
                            let text = "ERR value for ENTRIESREAD must be positive or -1";
                            Some(u64::try_from(number).map_err(|_| CommandError::new(text))?)
                        }
                    };
                }
                _ => return Err(CommandError::subcommand("XGROUP", subcommand)),
            }
        }
        Ok(options)
    }
}

fn no_stream() -> CommandError {
    CommandError::new(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
    )
}

/// There is no such group.
pub(super) fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
    CommandError::new(format!("NOGROUP No such consumer group '{group}' for key name '{key}'"))
}

/// There is no such key, or no such group.
pub(super) fn no_key_or_group(key: &[u8], group: &[u8], where_: &str) -> CommandError {
    let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
    CommandError::new(format!("NOGROUP No such key '{key}' or consumer group '{group}'{where_}"))
}

pub(in crate::commands) fn xgroup(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let subcommand = request[1].to_ascii_lowercase();
    if subcommand == b"help" {
        crate::commands::subcommands::help(cx.reply, "xgroup");
        return Ok(());
    }
    let (key, group) = (&request[2], &request[3]);
    let options = match subcommand.as_slice() {
        b"create" => Options::parse(&request[5..], &request[1], true)?,
        b"setid" => Options::parse(&request[5..], &request[1], false)?,
        _ => Options { make: false, read: None },
    };
    let stream = cx.keyspace().stream(key)?;
    let Some(stream) = stream else {
        if options.make {
            return create(cx, request, &options);
        }
        return Err(no_stream());
    };
    if subcommand != b"create" && subcommand != b"destroy" && stream.group(group)?.is_none() {
        return Err(no_group(key, group));
    }
    match subcommand.as_slice() {
        b"create" => create(cx, request, &options)?,
        b"setid" => {
            let last = if request[4] == "$" {
                None
            } else {
                Some(match &request[4][..] {
                    b"-" => EntryId::MIN,
                    b"+" => EntryId::MAX,
                    word => strict_id(word, 0)?,
                })
            };
            let set = cx.keyspace().stream_set_group(key, group, last, options.read)?;
            set.map_err(|_| no_group(key, group))?;
            cx.event(Class::Stream, "xgroup-setid", key);
            cx.reply.ok();
        }
        b"destroy" => {
            let destroyed = cx.keyspace().stream_destroy_group(key, group)?;
            if destroyed {
                cx.event(Class::Stream, "xgroup-destroy", key);
            }
            cx.reply.integer(i64::from(destroyed));
        }
        b"createconsumer" => {
            check_name(cx, &request[4])?;
            let created = cx.keyspace().stream_create_consumer(key, group, &request[4])?;
            let created = created.map_err(|_| no_group(key, group))?;
            if created {
                cx.event(Class::Stream, "xgroup-createconsumer", key);
            }
            cx.reply.integer(i64::from(created));
        }
        _ => {
            let deleted = cx.keyspace().stream_delete_consumer(key, group, &request[4])?;
            let deleted = deleted.map_err(|_| no_group(key, group))?;
            if deleted.is_some() {
                cx.event(Class::Stream, "xgroup-delconsumer", key);
            }
            cx.reply.unsigned(deleted.unwrap_or(0));
        }
    }
    Ok(())
}

fn create(cx: &mut Context<'_, '_>, request: &Request, options: &Options) -> Outcome {
    let last = if request[4] == "$" { None } else { Some(strict_id(&request[4], 0)?) };
    check_name(cx, &request[3])?;
    match cx.keyspace().stream_create_group(&request[2], &request[3], last, options.read, options.make)? {
        Some(true) => {
            cx.event(Class::Stream, "xgroup-create", &request[2]);
            cx.reply.ok();
            Ok(())
        }
        Some(false) => Err(CommandError::new("BUSYGROUP Consumer Group name already exists")),
        None => Err(no_stream()),
    }
}

pub(in crate::commands) fn xack(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    // As in Redis, a group that is not there has no wrong ids.
    let group = match cx.keyspace().stream(&request[1])? {
        Some(stream) => stream.group(&request[2])?,
        None => None,
    };
    if group.is_none() {
        cx.reply.integer(0);
        return Ok(());
    }
    let acknowledged = cx.keyspace().stream_acknowledge(&request[1], &request[2], &ids(&request[3..])?)?;
    cx.reply.unsigned(acknowledged);
    Ok(())
}
