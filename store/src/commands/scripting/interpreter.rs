//! The Lua of a data thread: one state with bounded memory, a sandbox without files, processes or byte code, scripts compiled once.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState, chunk::ChunkMode};

use super::{bitwise, json, msgpack, packing, patterns, redis};
use crate::clients::SlowScript;

/// Instructions between two looks at the time.
const LOOK_EVERY: u32 = 1000;
/// Scripts a thread keeps compiled.
const COMPILED_MAX: usize = 1000;

/// Name of a script's SHA1, 40 hexadecimal digits.
pub(super) type Sha = [u8; 40];

/// Why a script was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// SCRIPT KILL, FUNCTION KILL.
    Killed,
    /// It ran longer than others wait for it: it is run again, alone.
    Slow,
    /// It ran longer than it may.
    Late,
    /// A key it did not name is somebody else's right now: it is run again with that key claimed.
    Busy,
    /// It has gathered more than it may.
    Large,
    /// It has used more memory than it may.
    Memory,
}

/// What ends a script, shared with the hook.
#[derive(Default)]
pub(super) struct Control {
    deadline: Cell<Option<Instant>>,
    ended: Cell<Option<Ended>>,
    /// What it is to pass the deadline.
    late: Cell<Option<Ended>>,
    written: Cell<bool>,
    /// By what others end it, while it is run alone.
    slow: RefCell<Option<Arc<SlowScript>>>,
}

impl Control {
    /// What runs next ends in this way when its time is over, and when `slow` is told to end.
    pub(super) fn begin(&self, late: Ended, slow: Option<Arc<SlowScript>>) {
        self.late.set(Some(late));
        self.written.set(false);
        *self.slow.borrow_mut() = slow;
    }

    /// It has executed a command that writes.
    pub(super) fn note_write(&self) {
        self.written.set(true);
        if let Some(slow) = self.slow.borrow().as_ref() {
            slow.note_write();
        }
    }

    /// Ends the script that runs.
    pub(super) fn end(&self, why: Ended) {
        self.ended.set(self.ended.get().or(Some(why)));
    }

    /// Whether it has.
    pub(super) fn has_written(&self) -> bool {
        self.written.get()
    }

    /// Whether the script is to end: it was told to, or its time is over.
    pub(super) fn look(&self) -> bool {
        if self.slow.borrow().as_ref().is_some_and(|slow| slow.take_kill()) {
            self.end(Ended::Killed);
        } else if self.deadline.get().is_some_and(|deadline| Instant::now() >= deadline) {
            self.end(self.late.get().unwrap_or(Ended::Late));
        }
        self.ended().is_some()
    }

    /// Why the script that ran last was ended.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }
}

/// See the module's text.
pub(super) struct Interpreter {
    pub(super) lua: Lua,
    pub(super) control: Rc<Control>,
    globals: Table,
    environment: Table,
    running: Table,
    library_environment: Function,
    run: Function,
    scripts: HashMap<Sha, Function>,
    /// Functions by name, in lower case, and of which loading they are.
    pub(super) functions: HashMap<Bytes, Function>,
    pub(super) loaded: u64,
    /// Bytes it was last counted as.
    shown: usize,
}

/// Raised in Rust, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}", String::from_utf8_lossy(.message))]
struct Raised {
    message: Vec<u8>,
    place: Option<(String, i64)>,
    /// Whether what is caught is a table, as of `redis.call`, or a text.
    table: bool,
}

impl Raised {
    fn here(lua: &Lua, message: Vec<u8>, table: bool) -> mlua::Error {
        // As in C, a text says where it was raised if a script called for it, and not when pcall did.
        let place = if table { place(lua) } else { place_at(lua, 1) };
        mlua::Error::external(Self { message, place, table })
    }
}

/// A script's error, and where it was raised.
pub(super) struct Failure {
    pub(super) message: Vec<u8>,
    pub(super) place: Option<(String, i64)>,
}

thread_local! {
    static INTERPRETER: RefCell<Option<Interpreter>> = const { RefCell::new(None) };
}

/// Does something with this thread's interpreter; `None` while one of its scripts runs.
pub(super) fn with<R>(memory_max: usize, with: impl FnOnce(&mut Interpreter) -> mlua::Result<R>) -> Option<mlua::Result<R>> {
    INTERPRETER.with(|cell| {
        let mut held = cell.try_borrow_mut().ok()?;
        // Lua 5.1 collects nothing when memory runs out: what one script has left must not be what the next one lacks.
        let crowded =
            |held: &Option<Interpreter>| held.as_ref().is_some_and(|interpreter| interpreter.lua.used_memory() > memory_max / 2);
        if crowded(&held) {
            let collected = held.as_ref().map(|interpreter| interpreter.lua.gc_collect());
            if collected.is_some_and(|outcome| outcome.is_err()) || crowded(&held) {
                *held = None;
            }
        }
        if held.is_none() {
            match Interpreter::new(memory_max) {
                Ok(made) => *held = Some(made),
                Err(error) => return Some(Err(error)),
            }
        }
        let outcome = held.as_mut().map(|interpreter| {
            let outcome = with(interpreter);
            interpreter.show_memory();
            outcome
        });
        if held.as_ref().is_some_and(|interpreter| interpreter.control.ended() == Some(Ended::Memory)) {
            // What it holds is not worth keeping.
            *held = None;
        }
        outcome
    })
}

/// Forgets this thread's interpreter: the thread runs scripts no more, for now.
pub fn forget() {
    INTERPRETER.with(|cell| {
        if let Ok(mut held) = cell.try_borrow_mut() {
            *held = None;
        }
    });
}

/// Bytes that the interpreters of all threads hold.
static MEMORY: AtomicUsize = AtomicUsize::new(0);

/// Bytes that scripts hold, in all threads.
pub fn memory_held() -> u64 {
    MEMORY.load(Ordering::Relaxed) as u64
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        MEMORY.fetch_sub(self.shown, Ordering::Relaxed);
    }
}

impl Interpreter {
    fn show_memory(&mut self) {
        let held = self.lua.used_memory();
        MEMORY.fetch_add(held.wrapping_sub(self.shown), Ordering::Relaxed);
        self.shown = held;
    }

    fn new(memory_max: usize) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        lua.set_memory_limit(memory_max)?;
        let control = Rc::new(Control::default());
        let natives = natives(&lua, &control, memory_max)?;
        let raise_at = lua.create_function(|lua, message: mlua::LuaString| {
            let message = message.to_string_lossy();
            Ok(match place(lua) {
                Some((source, line)) => format!("{}:{line}: {message}", source.trim_start_matches('@')),
                None => message,
            })
        })?;
        let sandbox: Table = lua.load(include_str!("sandbox.lua")).set_name("=sandbox").call((natives, raise_at))?;
        let watched = control.clone();
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(LOOK_EVERY), move |_, _| {
            if watched.look() { Err(mlua::Error::runtime("the script was ended")) } else { Ok(VmState::Continue) }
        })?;
        let environment: Table = sandbox.get("environment")?;
        lua.load("local natives, environment = ...; natives.environment = environment")
            .call::<()>((lua.named_registry_value::<Table>("natives")?, &environment))?;
        Ok(Self {
            globals: sandbox.get("globals")?,
            running: sandbox.get("running")?,
            library_environment: sandbox.get("library_environment")?,
            run: sandbox.get("run")?,
            environment,
            control,
            scripts: HashMap::new(),
            functions: HashMap::new(),
            loaded: 0,
            shown: 0,
            lua,
        })
    }

    /// A script's function, compiled unless it is.
    pub(super) fn script(&mut self, sha: Sha, body: &[u8]) -> mlua::Result<Function> {
        if let Some(compiled) = self.scripts.get(&sha) {
            return Ok(compiled.clone());
        }
        let compiled = compile(&self.lua, body, "@user_script", &self.environment)?;
        if self.scripts.len() >= COMPILED_MAX {
            self.scripts.clear();
        }
        self.scripts.insert(sha, compiled.clone());
        Ok(compiled)
    }

    /// Executes the code of a library: `register` hears of each of its functions.
    pub(super) fn load_library(
        &mut self,
        code: &[u8],
        register: Function,
        deadline: Instant,
    ) -> mlua::Result<Result<(), Failure>> {
        let environment: Table = self.library_environment.call(())?;
        let compiled = compile(&self.lua, code, "@user_function", &environment)?;
        self.control.begin(Ended::Late, None);
        self.running.raw_set("register", register)?;
        let outcome = self.call(&compiled, mlua::MultiValue::new(), deadline);
        self.running.raw_set("register", Value::Nil)?;
        Ok(outcome?.map(drop))
    }

    /// Calls a function with `call` as its `redis.call`; KEYS and ARGV are globals of scripts. The first thing it returns, and whether it
    /// chose the third version of the protocol.
    pub(super) fn invoke(
        &mut self,
        function: &Function,
        globals: Option<(&Table, &Table)>,
        arguments: mlua::MultiValue,
        call: Function,
        deadline: Instant,
    ) -> mlua::Result<Result<(Value, bool), Failure>> {
        if let Some((keys, arguments)) = globals {
            self.globals.raw_set("KEYS", keys)?;
            self.globals.raw_set("ARGV", arguments)?;
        }
        self.running.raw_set("call", call)?;
        self.running.raw_set("version", 2)?;
        let outcome = self.call(function, arguments, deadline);
        self.running.raw_set("call", Value::Nil)?;
        let resp3 = self.running.raw_get::<i64>("version")? == 3;
        self.globals.raw_set("KEYS", Value::Nil)?;
        self.globals.raw_set("ARGV", Value::Nil)?;
        Ok(outcome?.map(|value| (value, resp3)))
    }

    fn call(&self, function: &Function, arguments: mlua::MultiValue, deadline: Instant) -> mlua::Result<Result<Value, Failure>> {
        json::reset(&self.lua);
        self.control.ended.set(None);
        self.control.deadline.set(Some(deadline));
        let mut all = arguments;
        all.push_front(Value::Function(function.clone()));
        let outcome: mlua::Result<(bool, Value)> = self.run.call(all);
        self.control.deadline.set(None);
        match outcome? {
            (true, value) => Ok(Ok(value)),
            (false, problem) => {
                let exhausted = match &problem {
                    Value::Error(error) => matches!(**error, mlua::Error::MemoryError(_)),
                    Value::String(text) => text.as_bytes().ends_with(b"not enough memory"),
                    _ => false,
                };
                if exhausted {
                    self.control.end(Ended::Memory);
                }
                Ok(Err(Failure::of(&problem)))
            }
        }
    }
}

impl Failure {
    fn of(problem: &Value) -> Self {
        let unknown = || Self { message: b"ERR unknown error".to_vec(), place: None };
        let Value::Table(problem) = problem else { return unknown() };
        let message = match problem.raw_get::<Value>("err") {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            _ => return unknown(),
        };
        let place = problem.raw_get::<String>("source").ok().zip(problem.raw_get::<i64>("line").ok());
        Self { message, place }
    }
}

/// Compiles text, never byte code.
fn compile(lua: &Lua, text: &[u8], name: &str, environment: &Table) -> mlua::Result<Function> {
    lua.load(text).set_mode(ChunkMode::Text).set_name(name).set_environment(environment.clone()).into_function()
}

/// The innermost place of a script in the stack.
fn place(lua: &Lua) -> Option<(String, i64)> {
    (0..16).find_map(|level| place_at(lua, level))
}

fn place_at(lua: &Lua, level: usize) -> Option<(String, i64)> {
    lua.inspect_stack(level, |frame| {
        let source = frame.source().source?.into_owned();
        let line = i64::try_from(frame.current_line()?).ok()?;
        source.starts_with("@user_").then_some((source, line))
    })?
}

/// Executes a command for the script that runs: whether it succeeded, and what it answered.
fn call_command(lua: &Lua, words: mlua::MultiValue) -> mlua::Result<(bool, Value)> {
    let running: Table = lua.named_registry_value::<Table>("natives")?.raw_get("running")?;
    let Some(invoke) = running.raw_get::<Option<Function>>("call")? else {
        let message = b"ERR redis.call/pcall can only be called inside a script invocation".to_vec();
        return Err(Raised::here(lua, message, true));
    };
    // As a table: a second time they would not fit Lua's stack, of which they may take all.
    let (count, table) = (words.len(), lua.create_table_with_capacity(words.len(), 0)?);
    for (position, word) in words.into_iter().enumerate() {
        table.raw_set(position + 1, word)?;
    }
    invoke.call((running.raw_get::<i64>("version")?, count, table))
}

/// A library whose functions raise what they answer as `false, message`, and return what they answer behind `true`.
fn raising(lua: &Lua, library: &Table, table: bool) -> mlua::Result<Table> {
    let raising = lua.create_table()?;
    for pair in library.pairs::<mlua::LuaString, Value>() {
        let (name, value) = pair?;
        let Value::Function(function) = value else {
            raising.raw_set(name, value)?;
            continue;
        };
        let shown = name.to_string_lossy();
        let raises = move |lua: &Lua, arguments: mlua::MultiValue| {
            let mut answers: mlua::MultiValue = match function.call(arguments) {
                Ok(answers) => answers,
                Err(error @ mlua::Error::MemoryError(_)) => return Err(error),
                Err(error) => return Err(Raised::here(lua, format!("{} (in '{shown}')", message(&error)).into_bytes(), table)),
            };
            if answers.pop_front() == Some(Value::Boolean(true)) {
                return Ok(answers);
            }
            let text = match answers.pop_front() {
                Some(Value::String(text)) => text.as_bytes().to_vec(),
                _ => b"unknown error".to_vec(),
            };
            let text = if table { [&b"ERR "[..], &text].concat() } else { text };
            Err(Raised::here(lua, text, table))
        };
        raising.raw_set(name, lua.create_function(raises)?)?;
    }
    Ok(raising)
}

/// What the sandbox is made of.
fn natives(lua: &Lua, control: &Rc<Control>, memory_max: usize) -> mlua::Result<Table> {
    let natives = lua.create_table()?;
    natives.raw_set("null", Value::NULL)?;
    natives.raw_set("cjson", raising(lua, &json::library(lua)?, false)?)?;
    natives.raw_set("cmsgpack", raising(lua, &msgpack::library(lua)?, false)?)?;
    natives.raw_set("struct", raising(lua, &packing::library(lua)?, false)?)?;
    natives.raw_set("bit", raising(lua, &bitwise::library(lua)?, false)?)?;
    natives.raw_set("patterns", raising(lua, &patterns::library(lua, control, memory_max)?, false)?)?;
    natives.raw_set("redis", raising(lua, &redis::library(lua)?, true)?)?;
    natives.raw_set("place", lua.create_function(|lua, ()| Ok(place(lua).unzip()))?)?;
    let plain = |lua: &Lua, problem: Value| {
        let Value::Error(error) = &problem else { return Ok(problem) };
        let Some(raised) = error.downcast_ref::<Raised>() else { return Ok(Value::String(lua.create_string(message(error))?)) };
        if !raised.table {
            let before = raised.place.as_ref().map(|(source, line)| format!("{}:{line}: ", source.trim_start_matches('@')));
            let text = [before.unwrap_or_default().as_bytes(), &raised.message].concat();
            return Ok(Value::String(lua.create_string(text)?));
        }
        let table = lua.create_table()?;
        table.raw_set("err", lua.create_string(&raised.message)?)?;
        if let Some((source, line)) = &raised.place {
            table.raw_set("source", source.as_str())?;
            table.raw_set("line", *line)?;
        }
        Ok(Value::Table(table))
    };
    natives.raw_set("plain", lua.create_function(plain)?)?;
    natives.raw_set(
        "call",
        lua.create_function(|lua, words: mlua::MultiValue| {
            let (ok, value) = call_command(lua, words)?;
            if ok {
                return Ok(value);
            }
            let message = match &value {
                Value::Table(answer) => answer.raw_get::<mlua::LuaString>("err")?.as_bytes().to_vec(),
                _ => b"ERR unknown error".to_vec(),
            };
            Err(Raised::here(lua, message, true))
        })?,
    )?;
    let register = |lua: &Lua, arguments: mlua::MultiValue| {
        let running: Table = lua.named_registry_value::<Table>("natives")?.raw_get("running")?;
        let problem = match running.raw_get::<Option<Function>>("register")? {
            Some(register) => register.call::<Option<String>>(arguments)?,
            None => Some("redis.register_function can only be called on FUNCTION LOAD command".into()),
        };
        problem.map_or(Ok(()), |problem| Err(Raised::here(lua, format!("ERR {problem}").into_bytes(), true)))
    };
    natives.raw_set("register", lua.create_function(register)?)?;
    natives.raw_set("pcall", lua.create_function(|lua, words| Ok(call_command(lua, words)?.1))?)?;
    let watched = control.clone();
    natives.raw_set("ended", lua.create_function(move |_, ()| Ok(watched.ended().is_some()))?)?;
    lua.set_named_registry_value("natives", &natives)?;
    let load = |lua: &Lua, (text, name): (mlua::LuaString, Option<mlua::LuaString>)| {
        let environment = lua.named_registry_value::<Table>("natives")?.raw_get::<Table>("environment")?;
        let text = text.as_bytes().to_vec();
        let name = name.map_or_else(|| String::from_utf8_lossy(&text).into_owned(), |name| name.to_string_lossy());
        Ok(match compile(lua, &text, &name, &environment) {
            Ok(function) => (Value::Function(function), Value::Nil),
            // As loadstring does: nothing, and why.
            Err(error) => (Value::Nil, Value::String(lua.create_string(message(&error))?)),
        })
    };
    natives.raw_set("load", lua.create_function(load)?)?;
    Ok(natives)
}

/// What an error says, without what mlua says around it.
pub(super) fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } | mlua::Error::RuntimeError(message) | mlua::Error::MemoryError(message) => {
            message.clone()
        }
        mlua::Error::CallbackError { cause, .. } => message(cause),
        other => other.to_string(),
    }
}
