//! FCALL and FUNCTION.

use bytes::Bytes;

use super::{
    CommandError, Context, glob,
    scripting::{self, libraries},
};
use crate::{clients::Busy, protocol::Request};

type Outcome = Result<(), CommandError>;

pub(super) fn fcall(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    scripting::call_function(cx, request, false)
}

pub(super) fn fcall_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    scripting::call_function(cx, request, true)
}

pub(super) fn function(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let rest = &request[2..];
    match request[1].to_ascii_lowercase().as_slice() {
        b"load" => load(cx, rest)?,
        b"delete" => {
            let name = String::from_utf8_lossy(&rest[0]);
            if !libraries::remove(cx.node, Some(&name))? {
                return Err(CommandError::new("ERR Library not found"));
            }
            cx.reply.ok();
        }
        b"flush" => {
            let known = |mode: &Bytes| mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync");
            if rest.len() > 1 {
                return Err(CommandError::subcommand("FUNCTION", &request[1]));
            }
            if !rest.iter().all(known) {
                return Err(CommandError::new("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
            }
            libraries::remove(cx.node, None)?;
            cx.reply.ok();
        }
        b"list" => list(cx, rest)?,
        b"stats" => stats(cx)?,
        b"dump" => {
            let payload = scripting::dump_libraries();
            cx.reply.bulk(&payload);
        }
        b"restore" if rest.len() > 2 => return Err(CommandError::subcommand("FUNCTION", &request[1])),
        b"restore" => restore(cx, rest)?,
        b"kill" => scripting::kill(cx, Busy::Function)?,
        _ => super::subcommands::help(cx.reply, "function"),
    }
    Ok(())
}

fn load(cx: &mut Context<'_, '_>, rest: &[Bytes]) -> Outcome {
    let (replace, code) = match rest {
        [code] => (false, code),
        [option, code] if option.eq_ignore_ascii_case(b"replace") => (true, code),
        [option, ..] => {
            let shown = String::from_utf8_lossy(option);
            return Err(CommandError::new(format!("ERR Unknown option given: {shown}")));
        }
        [] => return Err(CommandError::syntax()),
    };
    let added = libraries::add(cx.node, &[code.as_ref()], replace, false);
    let names = added.map_err(|why| why.text(|name| format!("ERR Library '{name}' already exists")))?;
    names.iter().for_each(|name| cx.reply.bulk(name.as_bytes()));
    Ok(())
}

fn restore(cx: &mut Context<'_, '_>, rest: &[Bytes]) -> Outcome {
    let policy = match rest {
        [_] => b"append".to_vec(),
        [_, policy] => policy.to_ascii_lowercase(),
        _ => return Err(CommandError::syntax()),
    };
    let (replace, alone) = match policy.as_slice() {
        b"append" => (false, false),
        b"replace" => (true, false),
        b"flush" => (false, true),
        _ => return Err(CommandError::new("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.")),
    };
    let codes = scripting::restore_libraries(&rest[0])?;
    let codes: Vec<&[u8]> = codes.iter().map(Vec::as_slice).collect();
    let added = libraries::add(cx.node, &codes, replace, alone);
    added.map_err(|why| why.text(|name| format!("ERR Library {name} already exists")))?;
    cx.reply.ok();
    Ok(())
}

fn list(cx: &mut Context<'_, '_>, rest: &[Bytes]) -> Outcome {
    let (mut pattern, mut with_code, mut words) = (None, false, rest.iter());
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"withcode" if !with_code => with_code = true,
            b"libraryname" if pattern.is_none() => {
                pattern = Some(words.next().ok_or_else(|| CommandError::new("ERR library name argument was not given"))?);
            }
            _ => {
                let shown = String::from_utf8_lossy(word);
                return Err(CommandError::new(format!("ERR Unknown argument {shown}")));
            }
        }
    }
    let all = libraries::all();
    let chosen: Vec<_> =
        all.iter().filter(|(name, _)| pattern.is_none_or(|pattern| glob::matches(pattern, name.as_bytes()))).collect();
    cx.reply.array(chosen.len());
    for (name, library) in chosen {
        cx.reply.map(if with_code { 4 } else { 3 });
        cx.reply.bulk(b"library_name");
        cx.reply.bulk(name.as_bytes());
        cx.reply.bulk(b"engine");
        cx.reply.bulk(b"LUA");
        cx.reply.bulk(b"functions");
        cx.reply.array(library.functions.len());
        for function in &library.functions {
            cx.reply.map(3);
            cx.reply.bulk(b"name");
            cx.reply.bulk(&function.name);
            cx.reply.bulk(b"description");
            cx.reply.bulk_or_null(function.description.as_deref());
            cx.reply.bulk(b"flags");
            cx.reply.set(function.flags.len());
            function.flags.iter().for_each(|flag| cx.reply.bulk(flag.as_bytes()));
        }
        if with_code {
            cx.reply.bulk(b"library_code");
            cx.reply.bulk(&library.code);
        }
    }
    Ok(())
}

fn stats(cx: &mut Context<'_, '_>) -> Outcome {
    let running = cx.node.clients.pause.slow_script().map(|script| script.run());
    if running.as_ref().is_some_and(|run| run.kind == Busy::Script) {
        return Err(CommandError::new(Busy::Script.text()));
    }
    let all = libraries::all();
    cx.reply.map(2);
    cx.reply.bulk(b"running_script");
    match running {
        // Whoever is not told BUSY asks between functions.
        None => cx.reply.null(),
        Some(run) => {
            cx.reply.map(3);
            cx.reply.bulk(b"name");
            cx.reply.bulk(run.name.as_bytes());
            cx.reply.bulk(b"command");
            cx.reply.array(run.words.len());
            run.words.iter().for_each(|word| cx.reply.bulk(word));
            cx.reply.bulk(b"duration_ms");
            cx.reply.unsigned(run.since.elapsed().as_millis() as u64);
        }
    }
    cx.reply.bulk(b"engines");
    cx.reply.map(1);
    cx.reply.bulk(b"LUA");
    cx.reply.map(2);
    cx.reply.bulk(b"libraries_count");
    cx.reply.unsigned(all.len() as u64);
    cx.reply.bulk(b"functions_count");
    cx.reply.unsigned(all.values().map(|library| library.functions.len() as u64).sum());
    Ok(())
}
