//! Scripts: EVAL and its kin, SCRIPT.
//!
//! A script runs inside its thread's turn: its changes gather with those of the turn and are committed with them, so that they come
//! back all or none after a crash. What it may cost has bounds: time, memory, bytes written; a script that is ended by one of them, or by
//! SCRIPT KILL, has changed nothing. One that runs for longer than others wait for it is undone, and run again alone, on a thread of its
//! own, while everybody else is told BUSY (`server/slow.rs`). The keys it names are claimed before it runs; a key that it uses without naming it is claimed when it gets
//! there, and if somebody else has that one just then, the script is undone and run again with the key claimed.

mod bitwise;
mod cache;
mod calls;
mod interpreter;
mod json;
pub(super) mod libraries;
mod msgpack;
mod packing;
mod patterns;
mod redis;
mod values;

use std::{cell::RefCell, sync::Arc, time::Instant};

use bytes::Bytes;
use mlua::{Lua, MultiValue, Table, Value};

pub(super) use self::cache::count as cached;
pub(super) use self::calls::Caller;
pub use self::interpreter::{forget as forget_interpreter, memory_held};
use self::{
    calls::Calls,
    interpreter::{Ended, Failure, Interpreter, Sha},
};
use super::{CommandError, Context, Plane, session::Pace};
use crate::{
    clients::{Busy, Run, SlowScript},
    protocol::Request,
    types::{PayloadReader, open_payload, parse_integer, seal_payload, write_text},
};

type Outcome = Result<(), CommandError>;

/// So often a script is run again for keys it did not name.
const UNNAMED_MAX: usize = 1000;

/// What a script may do, as its first line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// It writes nothing.
    pub(super) no_writes: bool,
    /// Its commands may be of several slots.
    pub(super) cross_slot: bool,
    /// It does not run in a cluster.
    pub(super) no_cluster: bool,
}

impl Rights {
    /// Those that a list of flags gives.
    fn of(flags: &str) -> Result<Self, String> {
        let mut rights = Self::default();
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            match flag {
                "no-writes" => rights.no_writes = true,
                "allow-cross-slot-keys" => rights.cross_slot = true,
                "no-cluster" => rights.no_cluster = true,
                // Nothing is stale here, and memory is refused by the engine.
                "allow-oom" | "allow-stale" => {}
                other => return Err(other.to_owned()),
            }
        }
        Ok(rights)
    }

    /// Those of a script, by its first line; scripts without one may use keys of several slots that it names.
    fn of_script(body: &[u8]) -> Result<(Self, &[u8]), CommandError> {
        if !body.starts_with(b"#!") {
            return Ok((Self::default(), body));
        }
        let end = body.iter().position(|byte| *byte == b'\n').ok_or_else(|| CommandError::new("ERR Invalid script shebang"))?;
        let line = String::from_utf8_lossy(&body[2..end]).into_owned();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("lua") => {}
            other => {
                return Err(CommandError::new(format!(
                    "ERR Unexpected engine in script shebang: #!{}",
                    other.unwrap_or_default()
                )));
            }
        }
        let mut rights = Self::default();
        for word in words {
            let Some(flags) = word.strip_prefix("flags=") else {
                return Err(CommandError::new(format!("ERR Unknown lua shebang option: {word}")));
            };
            rights =
                Self::of(flags).map_err(|flag| CommandError::new(format!("ERR Unexpected flag in script shebang: {flag}")))?;
        }
        // The line stays, empty: places in messages are counted from it.
        Ok((rights, &body[end..]))
    }
}

/// Names and arguments of a script: the number of keys is word 2.
fn arguments(request: &Request) -> Result<(&[Bytes], &[Bytes]), CommandError> {
    let count = parse_integer(&request[2])?;
    let behind = &request[3..];
    match usize::try_from(count) {
        Err(_) => Err(CommandError::new("ERR Number of keys can't be negative")),
        Ok(count) if count > behind.len() => Err(CommandError::new("ERR Number of keys can't be greater than number of args")),
        Ok(count) => Ok(behind.split_at(count)),
    }
}

pub(super) fn eval(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let sha = redis::sha1_hex(&request[1]);
    cache::seen(sha, &request[1]);
    script(cx, request, sha, &request[1], false)
}

pub(super) fn eval_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let sha = redis::sha1_hex(&request[1]);
    cache::seen(sha, &request[1]);
    script(cx, request, sha, &request[1], true)
}

pub(super) fn evalsha(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (sha, body) = known(&request[1])?;
    script(cx, request, sha, &body, false)
}

pub(super) fn evalsha_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (sha, body) = known(&request[1])?;
    script(cx, request, sha, &body, true)
}

fn known(name: &[u8]) -> Result<(Sha, Bytes), CommandError> {
    let sha: Option<Sha> = name.to_ascii_lowercase().try_into().ok();
    let found = sha.and_then(|sha| Some((sha, cache::body(sha)?)));
    found.ok_or_else(|| CommandError::new("NOSCRIPT No matching script. Please use EVAL."))
}

fn script(cx: &mut Context<'_, '_>, request: &Request, sha: Sha, body: &[u8], read_only: bool) -> Outcome {
    let (keys, values) = arguments(request)?;
    let (rights, text) = Rights::of_script(body)?;
    if read_only && body.starts_with(b"#!") && !rights.no_writes {
        return Err(CommandError::new("ERR Can not execute a script with write flag using *_ro command."));
    }
    let described = Described { kind: Busy::Script, name: &sha, request };
    run(cx, described, Rights { no_writes: rights.no_writes || read_only, ..rights }, |interpreter| {
        let function = interpreter.script(sha, text).map_err(|error| {
            CommandError::new(format!("ERR Error compiling script (new function): {}", interpreter::message(&error)))
        })?;
        let table = |words: &[Bytes]| words_table(&interpreter.lua, words).map_err(|error| broken(&error));
        Ok((function, Some((table(keys)?, table(values)?)), MultiValue::new()))
    })
}

/// What is called, as others are told of it.
#[derive(Clone, Copy)]
struct Described<'q> {
    kind: Busy,
    name: &'q [u8],
    request: &'q Request,
}

impl Described<'_> {
    fn name(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }

    /// A run of it that begins now.
    fn run(&self) -> Run {
        Run { kind: self.kind, name: self.name(), words: self.request.clone(), since: Instant::now() }
    }
}

fn words_table(lua: &Lua, words: &[Bytes]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(words.len(), 0)?;
    for (position, word) in words.iter().enumerate() {
        table.raw_set(position + 1, lua.create_string(word)?)?;
    }
    Ok(table)
}

fn broken(error: &mlua::Error) -> CommandError {
    CommandError::new(format!("ERR the script did not run: {}", interpreter::message(error)))
}

/// What is called: a function, its KEYS and ARGV where they are globals, and its arguments.
type Called = (mlua::Function, Option<(Table, Table)>, MultiValue);

/// Runs what `prepare` makes of the thread's interpreter, and answers what it returns. What it changed before it failed stays, as in
/// Redis; but nothing stays of what was ended by a limit.
fn run(
    cx: &mut Context<'_, '_>,
    described: Described<'_>,
    rights: Rights,
    prepare: impl FnOnce(&mut Interpreter) -> Result<Called, CommandError>,
) -> Outcome {
    if rights.no_cluster && cx.node.cluster.enabled() {
        return Err(CommandError::new("ERR Can not run script on cluster, 'no-cluster' flag is set."));
    }
    let memory_max = cx.node.settings.script_memory_limit.0 as usize;
    let slow = match &cx.session.pace {
        Pace::Alone(slow) => Some(slow.clone()),
        _ => None,
    };
    let most = cx.node.live.script_time_limit();
    let others_wait = cx.node.live.busy_reply_threshold().filter(|time| slow.is_none() && *time < most);
    let (limit, late) = others_wait.map_or((most, Ended::Late), |time| (time, Ended::Slow));
    if let Some(slow) = &slow {
        slow.begin(described.run());
    }
    let (database, executing) = (cx.session.database, cx.session.executing);
    let caller = RefCell::new(Caller::new(cx, rights));
    let outcome = interpreter::with(memory_max, |interpreter| {
        let (function, globals, arguments) = match prepare(interpreter) {
            Ok(called) => called,
            Err(error) => return Ok(Err(error)),
        };
        let (lua, control) = (interpreter.lua.clone(), interpreter.control.clone());
        control.begin(late, slow);
        let outcome = lua.scope(|scope| {
            let call = scope.create_function_mut(|lua, (version, count, words): (i64, usize, Table)| {
                let words: Vec<Value> = (1..=count).map(|position| words.raw_get(position)).collect::<mlua::Result<_>>()?;
                caller.borrow_mut().call(lua, &control, version, &words)
            })?;
            let globals = globals.as_ref().map(|(keys, values)| (keys, values));
            interpreter.invoke(&function, globals, arguments, call, Instant::now() + limit)
        })?;
        Ok(Ok((outcome, control.ended(), control.has_written())))
    });
    let Calls { unnamed, .. } = caller.into_inner().finish();
    cx.session.database = database;
    cx.session.executing = executing;
    let (outcome, ended, written) = match outcome {
        None => return Err(CommandError::new("ERR This Redis command is not allowed from script")),
        Some(Err(error)) => return Err(broken(&error)),
        Some(Ok(Err(error))) => return Err(error),
        Some(Ok(Ok(ended))) => ended,
    };
    if ended != Some(Ended::Busy) {
        cx.session.unnamed.clear();
    }
    match ended {
        None => {}
        Some(Ended::Killed) => {
            let message = b"ERR Script killed by user with SCRIPT KILL...".to_vec();
            let failure = Failure { message, place: outcome.err().and_then(|failure| failure.place) };
            return Err(CommandError::new(failure_text(&described.name(), &failure)));
        }
        Some(Ended::Slow) => {
            tracing::warn!(
                script = described.name(),
                "a script has run for {} ms: it is run again, alone, and others are answered BUSY; SCRIPT KILL or FUNCTION KILL ends it",
                limit.as_millis()
            );
            cx.session.pace = Pace::TooSlow(Arc::new(SlowScript::new(described.run(), written)));
            cx.session.rerun = true;
            return Ok(());
        }
        Some(Ended::Busy) if cx.session.unnamed.len() < UNNAMED_MAX => {
            cx.session.unnamed.extend(unnamed);
            cx.session.rerun = true;
            return Ok(());
        }
        Some(ended) => return Err(over_limit(cx, ended)),
    }
    match outcome {
        Ok((value, booleans)) => {
            if let Some(text) = values::error_of(&value) {
                cx.node.stats.count_error(&text);
            }
            values::write(cx.reply, &value, booleans).map_err(|error| broken(&error))
        }
        Err(failure) => {
            // An error as the answer: what was changed before it stays.
            let text = failure_text(&described.name(), &failure);
            cx.reply.error(&text);
            cx.node.stats.count_error(&text);
            Ok(())
        }
    }
}

/// What is said of a script that met one of its bounds.
fn over_limit(cx: &Context<'_, '_>, ended: Ended) -> CommandError {
    let (did, limit) = match ended {
        Ended::Late => (format!("ran for more than {} ms", cx.node.live.script_time_limit().as_millis()), "script-time-limit"),
        Ended::Large => (format!("wrote more than {} bytes", cx.node.settings.script_write_limit.0), "script-write-limit"),
        Ended::Memory => {
            (format!("used more than {} bytes of memory", cx.node.settings.script_memory_limit.0), "script-memory-limit")
        }
        Ended::Busy | Ended::Killed | Ended::Slow => {
            return CommandError::new("TRYAGAIN the script uses keys it does not name, which others are changing");
        }
    };
    CommandError::new(format!("ERR the script {did} ({limit}) and was ended; nothing was changed"))
}

fn failure_text(name: &str, failure: &Failure) -> String {
    let message = String::from_utf8_lossy(&failure.message);
    let message = message.trim_start_matches('-');
    match &failure.place {
        Some((source, line)) => format!("{message} script: {name}, on {source}:{line}."),
        None => format!("{message} script: {name}."),
    }
}

/// FCALL and `FCALL_RO`.
pub(super) fn call_function(cx: &mut Context<'_, '_>, request: &Request, read_only: bool) -> Outcome {
    let registered = libraries::find(&request[1]).ok_or_else(|| CommandError::new("ERR Function not found"))?;
    parse_integer(&request[2]).map_err(|_| CommandError::new("ERR Bad number of keys provided"))?;
    let (keys, values) = arguments(request)?;
    if read_only && !registered.rights.no_writes {
        return Err(CommandError::new("ERR Can not execute a script with write flag using *_ro command."));
    }
    let described = Described { kind: Busy::Function, name: &request[1], request };
    run(cx, described, registered.rights, |interpreter| {
        let function = libraries::callable(interpreter, &request[1]).map_err(|error| broken(&error))?;
        let function = function.ok_or_else(|| CommandError::new("ERR Function not found"))?;
        let table = |words: &[Bytes]| words_table(&interpreter.lua, words).map_err(|error| broken(&error));
        Ok((function, None, libraries::call_arguments(table(keys)?, table(values)?)))
    })
}

/// Opcode of a library in Redis' serialized form.
const LIBRARY: u8 = 245;

/// FUNCTION DUMP.
pub(super) fn dump_libraries() -> Vec<u8> {
    let mut bytes = Vec::new();
    for library in libraries::all().values() {
        bytes.push(LIBRARY);
        write_text(&mut bytes, &library.code);
    }
    seal_payload(bytes)
}

/// The code of each library in what FUNCTION DUMP answered, here or by a Redis server.
pub(super) fn restore_libraries(payload: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
    let damaged = || CommandError::new("ERR DUMP payload version or checksum are wrong");
    let mut reader = PayloadReader::new(open_payload(payload).ok_or_else(damaged)?);
    let mut codes = Vec::new();
    while !reader.is_empty() {
        let library = reader.byte() == Some(LIBRARY);
        let code = reader.text().filter(|_| library);
        codes.push(code.ok_or_else(|| CommandError::new("ERR given type is not a function"))?);
    }
    Ok(codes)
}

/// SCRIPT KILL and FUNCTION KILL: ends the script that others are told of. As in Redis not one that has written; but on the admin plane,
/// as nothing of it stays here.
pub(super) fn kill(cx: &mut Context<'_, '_>, kind: Busy) -> Outcome {
    let Some(script) = cx.node.clients.pause.slow_script() else {
        return Err(CommandError::new("NOTBUSY No scripts in execution right now."));
    };
    if cx.session.plane == Plane::Data && script.has_written() {
        return Err(CommandError::new(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script \
             termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        ));
    }
    if script.busy() != kind {
        return Err(CommandError::new(script.busy().text()));
    }
    script.kill();
    cx.reply.ok();
    Ok(())
}

pub(super) fn script_command(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match (request[1].to_ascii_lowercase().as_slice(), &request[2..]) {
        (b"load", [body]) => {
            let sha = redis::sha1_hex(body);
            let memory_max = cx.node.settings.script_memory_limit.0 as usize;
            let (_, text) = Rights::of_script(body)?;
            let compiled = interpreter::with(memory_max, |interpreter| Ok(interpreter.script(sha, text).map(drop)));
            if let Some(Ok(Err(error)) | Err(error)) = compiled {
                let text = interpreter::message(&error);
                return Err(CommandError::new(format!("ERR Error compiling script (new function): {text}")));
            }
            cache::keep(sha, body)?;
            cx.reply.bulk(&sha);
        }
        (b"exists", names) => {
            cx.reply.array(names.len());
            for name in names {
                cx.reply.integer(i64::from(known(name).is_ok()));
            }
        }
        (b"flush", mode) => {
            let known = |mode: &Bytes| mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync");
            if mode.len() > 1 || !mode.iter().all(known) {
                return Err(CommandError::new("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
            }
            cache::flush();
            cx.reply.ok();
        }
        (b"kill", []) => kill(cx, Busy::Script)?,
        (b"help", []) => super::subcommands::help(cx.reply, "script"),
        _ => return Err(CommandError::new("ERR the debugger of scripts is not served here")),
    }
    Ok(())
}
