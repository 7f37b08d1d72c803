//! `redis.call`: a command executed for a script, and its reply as the script sees it.

use bytes::{Bytes, BytesMut};
use mlua::{Lua, Value};
use sluice_topology::Slot;

use super::{
    Rights,
    interpreter::{Control, Ended},
    values,
};
use crate::{
    cluster::Route,
    commands::{
        Context, debug,
        execute::{execute_at_once, execute_queued},
        run::{asks_to_wait, keys, needs_memory, out_of_memory, route},
        table::{self, CommandSpec, Flags, Handler},
        walk,
    },
    protocol::{ReplyWriter, Version},
};

/// Executes commands for one run of a script.
pub(in crate::commands) struct Caller<'c, 'n, 'r> {
    cx: &'c mut Context<'n, 'r>,
    rights: Rights,
    slot: Option<Slot>,
    calls: Calls,
    out: BytesMut,
}

/// What a run of a script did.
#[derive(Default)]
pub(super) struct Calls {
    /// A key it used without naming it, which somebody else has.
    pub(super) unnamed: Vec<Bytes>,
}

impl<'c, 'n, 'r> Caller<'c, 'n, 'r> {
    pub(super) fn new(cx: &'c mut Context<'n, 'r>, rights: Rights) -> Self {
        Self { cx, rights, slot: None, calls: Calls::default(), out: BytesMut::new() }
    }

    /// What it did.
    pub(super) fn finish(self) -> Calls {
        self.calls
    }

    /// Executes a command: whether it was not an error, and what it answered, in the version of the protocol that the script chose.
    pub(super) fn call(&mut self, lua: &Lua, control: &Control, version: i64, words: &[Value]) -> mlua::Result<(bool, Value)> {
        let refuse = |text: &str| -> mlua::Result<(bool, Value)> {
            let table = lua.create_table()?;
            table.raw_set("err", lua.create_string(text)?)?;
            Ok((false, Value::Table(table)))
        };
        let version = if version == 3 { Version::Resp3 } else { Version::Resp2 };
        if words.is_empty() {
            return refuse("ERR Please specify at least one argument for this redis lib call");
        }
        let request: Option<Vec<Bytes>> = words.iter().map(values::word).collect();
        let Some(request) = request else {
            return refuse("ERR Lua redis lib command arguments must be strings or integers");
        };
        let spec = match self.admit(control, &request) {
            Ok(spec) => spec,
            Err(text) => return refuse(&text),
        };
        self.out.clear();
        let mut reply = ReplyWriter::new(&mut self.out, version, self.cx.node.live.reply_len_max());
        let cx = &mut *self.cx;
        let waits = std::mem::replace(&mut cx.session.executing, true);
        let mut nested = Context {
            node: cx.node,
            session: &mut *cx.session,
            reply: &mut reply,
            writer: cx.writer,
            outbox: cx.outbox,
            now_ms: cx.now_ms,
            prefetch: None,
            clock: None,
            moment: None,
        };
        match spec.handler {
            Handler::Walk(walker) => {
                execute_at_once(&mut nested, spec, &request, |cx| walk::at_once(cx, &request, walker, &|| !control.look()));
            }
            Handler::LaterIn(_) => execute_at_once(&mut nested, spec, &request, |cx| debug::at_once(cx, &request)),
            _ => execute_queued(&mut nested, spec, &request),
        }
        cx.session.executing = waits;
        // What it publishes is held until its turn ends, as what it writes is.
        let gathered = cx.writer.borrow().gathered_bytes() + cx.outbox.borrow().published_bytes();
        if gathered as u64 > cx.node.settings.script_write_limit.0 {
            control.end(Ended::Large);
            return refuse("ERR the script has written too much");
        }
        let (value, is_error) = values::read(lua, &self.out, version)?;
        Ok((!is_error, value))
    }

    fn admit(&mut self, control: &Control, request: &[Bytes]) -> Result<&'static CommandSpec, String> {
        let spec = table::find(&request[0]).ok_or("ERR Unknown Redis command called from script")?;
        if !spec.admits(request.len()) {
            return Err("ERR Wrong number of args calling Redis command from script".into());
        }
        if matches!(spec.name, "xread" | "xreadgroup") && asks_to_wait(request) {
            return Err(format!("ERR {} command is not allowed with BLOCK option from scripts", spec.name));
        }
        if spec.flags.has(Flags::CONTAINER) {
            crate::commands::subcommands::check(spec, request).map_err(|error| error.to_string())?;
        }
        if is_refused(spec) {
            return Err("ERR This Redis command is not allowed from script".into());
        }
        let writes = spec.flags.has(Flags::WRITE);
        if writes && self.rights.no_writes {
            return Err("ERR Write commands are not allowed from read-only scripts.".into());
        }
        if writes {
            control.note_write();
        }
        if self.cx.node.memory.refuses() && needs_memory(spec) {
            self.cx.node.memory.count_refused();
            return Err(out_of_memory().to_string());
        }
        if self.cx.node.cluster.enabled() {
            self.check_slot(spec, request)?;
        }
        match route(self.cx.node, keys(spec, request), writes) {
            Ok(Route::Serve) => {}
            Ok(Route::Moved(_) | Route::Unserved) => {
                return Err("ERR Script attempted to access a non local key in a cluster node".into());
            }
            Ok(Route::Wait) => return Err("TRYAGAIN the slot is being moved".into()),
            Err(error) => return Err(error.to_string()),
        }
        if writes || spec.flags.has(Flags::CLAIMS) {
            let wanted = || keys(spec, request).map(|key| (Slot::of_key(key), key.as_ref()));
            let claimed = self.cx.writer.borrow_mut().try_claim(wanted(), spec.flags.has(Flags::FREES));
            if !claimed.map_err(|error| error.reply())? {
                self.calls.unnamed = keys(spec, request).map(|key| Bytes::copy_from_slice(key)).collect();
                control.end(Ended::Busy);
                return Err("TRYAGAIN a key is in use".into());
            }
        }
        Ok(spec)
    }

    /// In a cluster every key of a script has one slot, unless it says otherwise.
    fn check_slot(&mut self, spec: &CommandSpec, request: &[Bytes]) -> Result<(), String> {
        for key in keys(spec, request) {
            let slot = Slot::of_key(key);
            if self.slot.is_some_and(|first| first != slot) && !self.rights.cross_slot {
                return Err("ERR Script attempted to access keys that do not hash to the same slot".into());
            }
            self.slot = Some(slot);
        }
        Ok(())
    }
}

/// Commands that a script cannot use: those about its connection, about others, and those that cannot be part of a batch.
fn is_refused(spec: &CommandSpec) -> bool {
    match spec.group {
        "connection" => !matches!(spec.name, "ping" | "echo" | "select"),
        "transactions" | "scripting" => true,
        _ if spec.name == "debug" => !debug::in_scripts(),
        "pubsub" => !matches!(spec.name, "publish" | "spublish" | "pubsub"),
        _ => {
            spec.flags.intersects(Flags::ADMIN.and(Flags::ADMIN_PLANE))
                || !matches!(spec.handler, Handler::Now(_) | Handler::Walk(_))
        }
    }
}
