//! Libraries of functions: their code is durable, what it registers is made anew in each thread that uses it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, LazyLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mlua::{Function, MultiValue, Table, Value};

use super::{
    Rights, broken,
    interpreter::{self, Ended, Interpreter},
};
use crate::{
    commands::CommandError,
    engine::{EngineError, Opened, Seal, SystemBatch, SystemKind},
    node::Node,
};

/// Bytes of all code together.
const BYTES_MAX: usize = 64 << 20;
/// For the code of a library to register its functions.
const LOAD_LIMIT: Duration = Duration::from_millis(500);

/// A function as its library registered it.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Registered {
    pub(in crate::commands) name: Bytes,
    pub(in crate::commands) description: Option<Bytes>,
    pub(in crate::commands) flags: Vec<String>,
    pub(in crate::commands) rights: Rights,
}

/// A library.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Library {
    pub(in crate::commands) code: Bytes,
    pub(in crate::commands) functions: Vec<Registered>,
}

/// All libraries, and of which change they are: a thread whose functions are of another one makes them anew.
#[derive(Default)]
struct Libraries {
    change: u64,
    by_name: Arc<BTreeMap<String, Library>>,
}

static LIBRARIES: LazyLock<RwLock<Libraries>> = LazyLock::new(RwLock::default);

/// Name and body of a library, by the first line of its code.
fn split(code: &[u8]) -> Result<(String, Vec<u8>), CommandError> {
    let error = |text: &str| CommandError::new(format!("ERR {text}"));
    if !code.starts_with(b"#!") {
        return Err(error("Missing library metadata"));
    }
    let end = code.iter().position(|byte| *byte == b'\n').ok_or_else(|| error("Invalid library metadata"))?;
    let line = String::from_utf8_lossy(&code[2..end]).into_owned();
    let (engine, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
    let words = rest.split_whitespace();
    if !engine.eq_ignore_ascii_case("lua") {
        return Err(error(&format!("Engine '{engine}' not found")));
    }
    let mut name = None;
    for word in words {
        match word.split_once('=') {
            Some(("name", _)) if name.is_some() => {
                return Err(error("Invalid metadata value, name argument was given multiple times"));
            }
            Some(("name", given)) => {
                let quoted = ['"', '\''].iter().find_map(|quote| given.strip_prefix(*quote)?.strip_suffix(*quote));
                name = Some(quoted.unwrap_or(given).to_owned());
            }
            _ => return Err(error(&format!("Invalid metadata value given: {word}"))),
        }
    }
    let name = name.ok_or_else(|| error("Library name was not given"))?;
    if !is_name(name.as_bytes()) {
        return Err(error(
            "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ));
    }
    // The line stays, empty: places in messages are counted from it.
    Ok((name, code[end..].to_vec()))
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Executes a library's code; what it registers.
fn register(interpreter: &mut Interpreter, body: &[u8]) -> mlua::Result<Result<Vec<(Registered, Function)>, String>> {
    let registered: RefCell<Vec<(Registered, Function)>> = RefCell::new(Vec::new());
    let lua = interpreter.lua.clone();
    let outcome = lua.scope(|scope| {
        let register = scope.create_function_mut(|_, arguments: MultiValue| {
            let outcome = registration(arguments).and_then(|new| {
                let mut all = registered.borrow_mut();
                if all.iter().any(|(known, _)| known.name.eq_ignore_ascii_case(&new.0.name)) {
                    return Err("Function already exists in the library".into());
                }
                all.push(new);
                Ok(())
            });
            Ok(outcome.err())
        })?;
        interpreter.load_library(body, register, Instant::now() + LOAD_LIMIT)
    });
    match outcome {
        Err(error @ mlua::Error::SyntaxError { .. }) => {
            Ok(Err(format!("Error compiling function: {}", interpreter::message(&error))))
        }
        Err(error) => Err(error),
        Ok(Err(_)) if interpreter.control.ended() == Some(Ended::Late) => Ok(Err("FUNCTION LOAD timeout".into())),
        Ok(Err(failure)) => {
            let message = String::from_utf8_lossy(&failure.message).into_owned();
            Ok(Err(format!("Error registering functions: {message}")))
        }
        Ok(Ok(())) if registered.borrow().is_empty() => Ok(Err("No functions registered".into())),
        Ok(Ok(())) => Ok(Ok(registered.into_inner())),
    }
}

/// `register_function(name, callback)`, or with a table of named arguments.
fn registration(arguments: MultiValue) -> Result<(Registered, Function), String> {
    let arguments: Vec<Value> = arguments.into_iter().collect();
    let text = |value: &Value| match value {
        Value::String(text) => Some(Bytes::copy_from_slice(&text.as_bytes())),
        _ => None,
    };
    let (mut name, mut callback, mut description, mut flags) = (None, None, None, Vec::new());
    match arguments.as_slice() {
        [Value::Table(named)] => {
            for pair in named.pairs::<Value, Value>() {
                let (key, value) = pair.map_err(|error| interpreter::message(&error))?;
                let key = text(&key).ok_or("named argument key given to redis.register_function is not a string")?;
                match key.as_ref() {
                    b"function_name" => {
                        name =
                            Some(text(&value).ok_or("function_name argument given to redis.register_function must be a string")?);
                    }
                    b"description" => {
                        description =
                            Some(text(&value).ok_or("description argument given to redis.register_function must be a string")?);
                    }
                    b"callback" => match value {
                        Value::Function(function) => callback = Some(function),
                        _ => return Err("callback argument given to redis.register_function must be a function".into()),
                    },
                    b"flags" => match value {
                        Value::Table(list) => {
                            for flag in list.sequence_values::<mlua::LuaString>() {
                                flags.push(flag.map_err(|_| "unknown flag given")?.to_string_lossy());
                            }
                        }
                        _ => {
                            return Err(
                                "flags argument to redis.register_function must be a table representing function flags".into()
                            );
                        }
                    },
                    _ => return Err("unknown argument given to redis.register_function".into()),
                }
            }
            if name.is_none() {
                return Err("redis.register_function must get a function name argument".into());
            }
            if callback.is_none() {
                return Err("redis.register_function must get a callback argument".into());
            }
        }
        [first, second] => {
            name = Some(text(first).ok_or("first argument to redis.register_function must be a string")?);
            match second {
                Value::Function(function) => callback = Some(function.clone()),
                _ => return Err("second argument to redis.register_function must be a function".into()),
            }
        }
        [_] => {
            return Err("calling redis.register_function with a single argument is only applicable to Lua table \
                        (representing named arguments)."
                .into());
        }
        _ => return Err("wrong number of arguments to redis.register_function".into()),
    }
    let (Some(name), Some(callback)) = (name, callback) else { return Err("wrong number of arguments".into()) };
    if !is_name(&name) {
        return Err(
            "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long".into()
        );
    }
    let rights = Rights::of(&flags.join(",")).map_err(|_| "unknown flag given")?;
    Ok((Registered { name, description, flags, rights }, callback))
}

/// Reads the libraries of a database that was just opened.
pub fn open(node: &Node) -> Result<(), EngineError> {
    let mut libraries = BTreeMap::new();
    for (name, code) in node.engine.system_records(SystemKind::Function)? {
        let name = String::from_utf8_lossy(&name).into_owned();
        let code = Opened::open("the record of a library of functions", &code)?.rest().to_vec();
        libraries.insert(name, Library { code: code.into(), functions: Vec::new() });
    }
    if !libraries.is_empty() {
        let memory_max = node.settings.script_memory_limit.0 as usize;
        for (name, library) in &mut libraries {
            let registered = split(&library.code).and_then(|(_, body)| try_register(memory_max, &body));
            match registered {
                Ok(functions) => library.functions = functions,
                Err(error) => tracing::error!(library = name, %error, "a library of functions does not load any more"),
            }
        }
        publish(libraries);
    }
    Ok(())
}

fn try_register(memory_max: usize, body: &[u8]) -> Result<Vec<Registered>, CommandError> {
    let outcome = interpreter::with(memory_max, |interpreter| register(interpreter, body));
    match outcome {
        None => Err(CommandError::new("ERR This Redis command is not allowed from script")),
        Some(Err(error)) => Err(broken(&error)),
        Some(Ok(Err(text))) => Err(CommandError::new(format!("ERR {text}"))),
        Some(Ok(Ok(registered))) => Ok(registered.into_iter().map(|(registered, _)| registered).collect()),
    }
}

fn publish(libraries: BTreeMap<String, Library>) {
    let mut all = LIBRARIES.write().unwrap_or_else(PoisonError::into_inner);
    all.change += 1;
    all.by_name = Arc::new(libraries);
}

/// The libraries there are.
pub(in crate::commands) fn all() -> Arc<BTreeMap<String, Library>> {
    LIBRARIES.read().unwrap_or_else(PoisonError::into_inner).by_name.clone()
}

/// Why libraries are not added.
pub(in crate::commands) enum NotAdded {
    /// There is one of that name.
    Exists(String),
    /// Its code is wrong, or there is no place for it.
    Refused(CommandError),
    /// Storage failed.
    Storage(EngineError),
}

impl NotAdded {
    /// As an error, with what is said of a library that there is.
    pub(in crate::commands) fn text(self, exists: impl FnOnce(&str) -> String) -> CommandError {
        match self {
            Self::Exists(name) => CommandError::new(exists(&name)),
            Self::Refused(error) => error,
            Self::Storage(error) => error.into(),
        }
    }
}

impl From<CommandError> for NotAdded {
    fn from(error: CommandError) -> Self {
        Self::Refused(error)
    }
}

impl From<EngineError> for NotAdded {
    fn from(error: EngineError) -> Self {
        Self::Storage(error)
    }
}

/// Adds libraries, durably, all or none; with `replace` in the place of those of the same names, with `alone` in the place of all others.
/// Their names.
pub(in crate::commands) fn add(node: &Node, codes: &[&[u8]], replace: bool, alone: bool) -> Result<Vec<String>, NotAdded> {
    node.migrations.change_libraries(|| add_alone(node, codes, replace, alone))
}

fn add_alone(node: &Node, codes: &[&[u8]], replace: bool, alone: bool) -> Result<Vec<String>, NotAdded> {
    let memory_max = node.settings.script_memory_limit.0 as usize;
    let old = all();
    let mut libraries = if alone { BTreeMap::new() } else { (*old).clone() };
    let (mut names, mut records) = (Vec::new(), SystemBatch::new());
    if alone {
        old.keys().for_each(|name| records.delete(SystemKind::Function, name.as_bytes()));
    }
    for code in codes {
        let (name, body) = split(code)?;
        if libraries.contains_key(&name) && !replace {
            return Err(NotAdded::Exists(name));
        }
        libraries.remove(&name);
        let functions = try_register(memory_max, &body)?;
        for new in &functions {
            if libraries.values().flat_map(|library| &library.functions).any(|known| known.name.eq_ignore_ascii_case(&new.name)) {
                let shown = String::from_utf8_lossy(&new.name);
                return Err(CommandError::new(format!("ERR Function {shown} already exists")).into());
            }
        }
        records.put(SystemKind::Function, name.as_bytes(), Seal::new().bytes(code).finish());
        libraries.insert(name.clone(), Library { code: Bytes::copy_from_slice(code), functions });
        names.push(name);
    }
    if libraries.values().map(|library| library.code.len()).sum::<usize>() > BYTES_MAX {
        return Err(CommandError::new(format!("ERR the libraries of functions would have more than {BYTES_MAX} bytes")).into());
    }
    node.engine.admit_write(false)?;
    node.engine.write_system(records)?;
    publish(libraries);
    Ok(names)
}

/// Takes over, durably, a library that slots come here with, unless there is one of its name, or one of its functions' names; the log says
/// so where it is another one.
pub(in crate::commands) fn adopt(node: &Node, code: &[u8]) -> Result<(), CommandError> {
    let name = split(code).map(|(name, _)| name).unwrap_or_default();
    let added = add(node, &[code], false, false);
    // No client is served by this thread, which is not to keep an interpreter for it.
    interpreter::forget();
    match added {
        Ok(_) => tracing::info!(library = name, "a library of functions came with slots that move here"),
        Err(NotAdded::Exists(_)) if all().get(&name).is_some_and(|own| own.code == code) => {}
        Err(NotAdded::Exists(_)) => tracing::warn!(
            library = name,
            "slots move here from a node with another library of functions of this name: this node keeps its own; FUNCTION LOAD REPLACE one of \
             them on both"
        ),
        Err(NotAdded::Refused(error)) => {
            tracing::warn!(library = name, %error, "a library of functions of slots that move here was not added: FCALL will not find it here");
        }
        Err(NotAdded::Storage(error)) => return Err(error.into()),
    }
    Ok(())
}

/// Removes a library, durably; `None`: all of them. False: there is none of that name.
pub(in crate::commands) fn remove(node: &Node, name: Option<&str>) -> Result<bool, CommandError> {
    node.migrations.change_libraries(|| remove_alone(node, name))
}

fn remove_alone(node: &Node, name: Option<&str>) -> Result<bool, CommandError> {
    let (mut libraries, mut records) = ((*all()).clone(), SystemBatch::new());
    match name {
        Some(name) if libraries.remove(name).is_none() => return Ok(false),
        Some(name) => records.delete(SystemKind::Function, name.as_bytes()),
        None => {
            libraries.keys().for_each(|name| records.delete(SystemKind::Function, name.as_bytes()));
            libraries.clear();
        }
    }
    node.engine.write_system(records)?;
    publish(libraries);
    Ok(true)
}

/// A function's rights. As in Redis, a name is found in any case.
pub(super) fn find(name: &[u8]) -> Option<Registered> {
    all().values().flat_map(|library| &library.functions).find(|known| known.name.eq_ignore_ascii_case(name)).cloned()
}

/// The function of that name in this thread's interpreter.
pub(super) fn callable(interpreter: &mut Interpreter, name: &[u8]) -> mlua::Result<Option<Function>> {
    let (change, libraries) = {
        let all = LIBRARIES.read().unwrap_or_else(PoisonError::into_inner);
        (all.change, all.by_name.clone())
    };
    if interpreter.loaded != change {
        interpreter.functions.clear();
        for library in libraries.values() {
            let Ok((_, body)) = split(&library.code) else { continue };
            if let Ok(registered) = register(interpreter, &body)? {
                let functions = registered.into_iter();
                let by_name = functions.map(|(registered, function)| (registered.name.to_ascii_lowercase().into(), function));
                interpreter.functions.extend(by_name);
            }
        }
        interpreter.loaded = change;
    }
    Ok(interpreter.functions.get(name.to_ascii_lowercase().as_slice()).cloned())
}

/// The two tables that a function is called with.
pub(super) fn call_arguments(keys: Table, values: Table) -> MultiValue {
    [Value::Table(keys), Value::Table(values)].into_iter().collect()
}
