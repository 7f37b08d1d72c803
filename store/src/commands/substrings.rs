//! Commands of parts of strings, and of changes that rest on what a string holds.

use super::{CommandError, Context, strings::expiry};
use crate::{
    clients::Class,
    protocol::Request,
    types::{Compared, Match, Touch, Ttl, TypeError, longest_common, parse_integer, range},
};

type Outcome = Result<(), CommandError>;

pub(super) fn getrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (start, end) = (parse_integer(&request[2])?, parse_integer(&request[3])?);
    let keys = cx.keyspace();
    keys.get(&request[1], |value| {
        let value = value.unwrap_or_default();
        cx.reply.bulk(&value[range(value.len(), start, end)]);
    })?;
    Ok(())
}

pub(super) fn setrange(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let offset = parse_integer(&request[2])?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::new("ERR offset is out of range"))?;
    let len_max = cx.node.settings.proto_max_bulk_len.0 as usize;
    let length = cx.keyspace().set_range(&request[1], offset, &request[3], len_max)?;
    if !request[3].is_empty() {
        cx.event(Class::String, "setrange", &request[1]);
    }
    cx.reply.unsigned(length as u64);
    Ok(())
}

pub(super) fn msetnx(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if request.len().is_multiple_of(2) {
        return Err(CommandError::arity("msetnx"));
    }
    let pairs = request[1..].chunks_exact(2).map(|pair| (pair[0].as_ref(), pair[1].as_ref()));
    let applied = cx.keyspace().set_many_if_missing(pairs)?;
    if applied {
        request[1..].chunks_exact(2).for_each(|pair| cx.event(Class::String, "set", &pair[0]));
    }
    cx.reply.integer(i64::from(applied));
    Ok(())
}

pub(super) fn getex(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let touch = match &request[2..] {
        [] => Touch::Keep,
        [word] if word.eq_ignore_ascii_case(b"persist") => Touch::Persist,
        [word, number] if is_expiry(word) => {
            // As in Redis the key is looked at before the number.
            if !cx.keyspace().get(&request[1], |value| value.is_some())? {
                cx.reply.null();
                return Ok(());
            }
            Touch::At(expires("getex", word, number, cx.now_ms)?)
        }
        _ => return Err(CommandError::syntax()),
    };
    let value = cx.keyspace().get_and_touch(&request[1], touch)?;
    match touch {
        Touch::At(at) if value.is_some() => {
            let (class, name) = if at <= cx.now_ms { (Class::Generic, "del") } else { (Class::Generic, "expire") };
            cx.event(class, name, &request[1]);
        }
        Touch::Persist if value.is_some() => cx.event(Class::Generic, "persist", &request[1]),
        _ => {}
    }
    cx.reply.bulk_or_null(value.as_deref());
    Ok(())
}

fn is_expiry(word: &[u8]) -> bool {
    ["ex", "px", "exat", "pxat"].iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// EX, PX, EXAT or PXAT and its number, as a Unix time in milliseconds.
fn expires(command: &str, word: &[u8], number: &[u8], now_ms: u64) -> Result<u64, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"ex" => expiry(command, number, true, now_ms),
        b"px" => expiry(command, number, false, now_ms),
        b"exat" => expiry(command, number, true, 0),
        b"pxat" => expiry(command, number, false, 0),
        _ => Err(CommandError::syntax()),
    }
}

fn answer(cx: &mut Context<'_, '_>, compared: Compared) {
    cx.reply.integer(match compared {
        Compared::Missing => -1,
        Compared::Different => 0,
        Compared::Changed => 1,
    });
}

pub(super) fn cas(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let ttl = match &request[4..] {
        [] => Ttl::None,
        [word] if word.eq_ignore_ascii_case(b"keepttl") => Ttl::Keep,
        [word, number] => Ttl::At(expires("cas", word, number, cx.now_ms)?),
        _ => return Err(CommandError::syntax()),
    };
    let compared = cx.keyspace().compare_and_set(&request[1], &request[2], &request[3], ttl)?;
    if compared == Compared::Changed {
        cx.event(Class::String, "set", &request[1]);
    }
    answer(cx, compared);
    Ok(())
}

pub(super) fn cad(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let compared = cx.keyspace().compare_and_delete(&request[1], &request[2])?;
    if compared == Compared::Changed {
        cx.event(Class::Generic, "del", &request[1]);
    }
    answer(cx, compared);
    Ok(())
}

pub(super) fn lcs(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let moment = cx.moment(2);
    let keys = cx.keyspace().as_of(moment.as_deref());
    let text = |key: &[u8]| match keys.get(key, |value| value.unwrap_or_default().to_vec()) {
        Err(TypeError::WrongType) => Err(CommandError::new("ERR The specified keys must contain string values")),
        other => Ok(other?),
    };
    let (first, second) = (text(&request[1])?, text(&request[2])?);
    let (mut length_alone, mut indexes, mut with_lengths, mut shortest) = (false, false, false, 0);
    let mut words = request[3..].iter();
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"len" => length_alone = true,
            b"idx" => indexes = true,
            b"withmatchlen" => with_lengths = true,
            b"minmatchlen" => {
                shortest = parse_integer(words.next().ok_or_else(CommandError::syntax)?)?.max(0);
            }
            _ => return Err(CommandError::syntax()),
        }
    }
    if length_alone && indexes {
        return Err(CommandError::new("ERR If you want both the length and indexes, please just use IDX."));
    }
    let bytes_max = cx.node.settings.proto_max_bulk_len.0 as usize;
    let found = longest_common(&first, &second, bytes_max)
        .ok_or_else(|| CommandError::new("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"))?;
    let (common, matches) = found;
    if length_alone {
        cx.reply.unsigned(common.len() as u64);
    } else if indexes {
        let long: Vec<&Match> = matches.iter().filter(|run| run.length as i64 >= shortest).collect();
        cx.reply.map(2);
        cx.reply.bulk(b"matches");
        cx.reply.array(long.len());
        for run in long {
            cx.reply.array(if with_lengths { 3 } else { 2 });
            for start in [run.first, run.second] {
                cx.reply.array(2);
                cx.reply.unsigned(start as u64);
                cx.reply.unsigned((start + run.length - 1) as u64);
            }
            if with_lengths {
                cx.reply.unsigned(run.length as u64);
            }
        }
        cx.reply.bulk(b"len");
        cx.reply.unsigned(common.len() as u64);
    } else {
        cx.reply.bulk(&common);
    }
    Ok(())
}
