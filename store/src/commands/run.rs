//! From a request to its reply: look it up, check it, route it by its slot, execute it.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::Ordering,
};

use bytes::Bytes;
use sluice_topology::Slot;

use super::{
    CommandError, Context, Session,
    execute::execute,
    large::LargeReply,
    session::{Pace, Plane, Unanswered},
    subcommands,
    table::{self, CommandSpec, Flags, Handler},
    transactions::{self, Transaction},
};
use crate::{
    blocked::Wait,
    clients::{Busy, Paused},
    cluster::Route,
    engine::{Home, Writer},
    node::Node,
    protocol::{ReplyWriter, Request, Version},
    types::Prefetch,
};

/// Most keys read ahead at once.
const PREFETCH_KEYS_MAX: usize = 256;

/// Writes the reply of a command that was executed by a future.
pub type LaterReply = Box<dyn FnOnce(&mut ReplyWriter<'_>) + Send>;

/// A command that is executed by a future.
pub type Later = Pin<Box<dyn Future<Output = Result<LaterReply, CommandError>> + Send>>;

/// The reply `+OK`, later.
#[allow(clippy::redundant_closure_for_method_calls, reason = "the method alone is not general enough over its lifetime")]
pub(super) fn ok_later() -> LaterReply {
    Box::new(|reply| reply.ok())
}

/// How far a request came.
pub enum Step {
    /// The reply is written.
    Done,
    /// CLIENT PAUSE: the connection waits for its end, then runs it again. Nothing was executed.
    Paused,
    /// Its slot is being switched: the connection waits for a change, then runs it again. Nothing was executed.
    Wait,
    /// What the writer has gathered has to be committed first, and the keys claimed, waiting for them. Nothing was executed.
    Busy,
    /// A script has passed its time: the connection executes the request again, alone. Nothing was executed.
    Slow,
    /// EXEC of what cannot be one batch: the connection executes it in pieces, with everybody else paused. Nothing was executed.
    Apart,
    /// The reply comes from a future.
    Later(Later),
    /// The reply is sent in pieces, once the turn is committed.
    Large(Box<LargeReply>),
    /// There is nothing to answer with yet: the connection waits for that. Nothing was changed.
    Blocked(Wait),
}

/// The keys of a request, by the table; none when it is no command.
pub(super) fn keys<'q>(spec: &CommandSpec, request: &'q [Bytes]) -> impl Iterator<Item = &'q Bytes> + use<'q> {
    spec.keys.of(request).filter_map(|position| request.get(position))
}

/// The name of a request's command by the table, and its slot, for whoever tells of it without its words.
pub fn described(request: &[Bytes]) -> (&'static str, Option<Slot>) {
    match request.first().and_then(|name| table::find(name)) {
        Some(spec) => (spec.name, keys(spec, request).next().map(|key| Slot::of_key(key))),
        None => ("unknown", None),
    }
}

/// Claims the keys that a request changes, waiting for them: what [`Step::Busy`] asks for. Not for a slow script, of which the client is
/// told.
pub fn claim(node: &Node, session: &Session, writer: &mut Writer, request: &Request) {
    let give_up = || node.clients.pause.is_busy(session.id());
    let spec = request.first().and_then(|name| table::find(name));
    if spec.is_some_and(|spec| spec.name == "exec") {
        return writer.claim(transactions::claimed_by_exec(session), &give_up);
    }
    let unnamed = session.unnamed.iter().map(|key| (Slot::of_key(key), key.as_ref()));
    let named = spec.into_iter().flat_map(|spec| keys(spec, request)).map(|key| (Slot::of_key(key), key.as_ref()));
    writer.claim(named.chain(unnamed), &give_up);
}

/// Reads ahead the records that a run of requests asks for, by one call into RocksDB; keys they change are claimed first. `None` when
/// there is nothing to gain.
pub fn prefetch<'n>(node: &'n Node, writer: &mut Writer, session: &Session, run: &[Request]) -> Option<Prefetch<'n>> {
    let (mut wanted, database) = (Vec::new(), session.database);
    for request in run {
        let Some(spec) = request.first().and_then(|name| table::find(name)) else { continue };
        if wanted.len() >= PREFETCH_KEYS_MAX || !matches!(spec.handler, Handler::Now(_)) {
            break;
        }
        // What is read behind WATCH, or by EXEC, has to be read once the keys are claimed.
        if spec.flags.has(Flags::AT_ONCE) {
            break;
        }
        if spec.flags.has(Flags::BLIND) || spec.flags.has(Flags::CHANNELS) || !spec.keys.any() {
            continue;
        }
        // Inside the gate, as of when a slot is looked at: one that is not served now may be so when the request is executed, and hold what
        // was not there when it was read. One that is served now does not leave and come back meanwhile.
        writer.enter();
        // Nor are keys claimed that a slow script may come to need.
        if node.clients.pause.is_busy(session.id()) {
            break;
        }
        match route(node, keys(spec, request), spec.flags.has(Flags::WRITE)) {
            Ok(Route::Serve) => {}
            Ok(Route::Wait) => break,
            _ => continue,
        }
        if spec.flags.has(Flags::WRITE) {
            let keys = keys(spec, request).map(|key| (Slot::of_key(key), key.as_ref()));
            let claimed = writer.try_claim(keys, spec.flags.has(Flags::FREES));
            if !claimed.unwrap_or(false) {
                break;
            }
        }
        let together = keys(spec, request).nth(1).is_some();
        wanted.extend(keys(spec, request).map(|key| (Home { database, slot: Slot::of_key(key) }, key.clone(), together)));
    }
    (wanted.len() > 1).then(|| Prefetch::read(&node.engine, writer, wanted))
}

/// Executes a request, or says what to wait for.
pub fn run(cx: &mut Context<'_, '_>, request: &Request) -> Step {
    let begun = cx.begin();
    // A bug in one command is that command's alone: what it gathered is forgotten, what others of the turn gathered is not.
    let outcome = catch_unwind(AssertUnwindSafe(|| try_run(cx, request)));
    let failed = |_| {
        Err(CommandError::new("ERR the command failed inside the store, which is a bug: its log says where. Nothing was changed"))
    };
    match outcome.unwrap_or_else(failed) {
        Ok(step) => {
            if matches!(step, Step::Busy) {
                // A script that has to be run again.
                cx.undo(begun);
            }
            if let Err(error) = cx.refuse_overflow() {
                // An error changes nothing.
                cx.fail(begun, &error);
            }
            match cx.session.unanswered.take() {
                Some(Unanswered::Waits(wait)) => Step::Blocked(wait),
                Some(Unanswered::Large(reply)) => Step::Large(reply),
                None if matches!(cx.session.pace, Pace::TooSlow(_)) => Step::Slow,
                None => step,
            }
        }
        Err(error) => {
            cx.fail(begun, &error);
            Step::Done
        }
    }
}

/// Puts an error in the place of a reply that did not fit.
pub fn check_length(node: &Node, reply: &mut ReplyWriter<'_>, mark: usize) {
    if reply.overflowed() {
        reply.rewind(mark);
        reply.error(&too_long(node).to_string());
        node.stats.errors.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn too_long(node: &Node) -> CommandError {
    let limit = node.live.reply_len_max();
    CommandError::new(format!("ERR the reply is longer than {limit} bytes (client-output-buffer-limit): ask for less at once"))
}

fn try_run(cx: &mut Context<'_, '_>, request: &Request) -> Result<Step, CommandError> {
    let node = cx.node;
    let spec = admit(cx, request).map_err(|error| refused(cx, request, error))?;
    // Entered before ownership and generations are looked at, left when the turn's changes are committed: whoever changes them
    // drains the gate.
    cx.writer.borrow_mut().enter();
    let in_multi = cx.session.transaction.is_some();
    let executes_queued = in_multi && spec.name == "exec";
    if node.memory.refuses()
        && (needs_memory(spec) || executes_queued && transaction(cx.session).commands().any(|(spec, _)| needs_memory(spec)))
    {
        node.memory.count_refused();
        return Err(refused(cx, request, out_of_memory()));
    }
    let queues = in_multi && !spec.flags.has(Flags::AT_ONCE);
    let routed = if executes_queued {
        let writes = transaction(cx.session).any(Flags::WRITE);
        route(node, transaction(cx.session).keys(), writes)
    } else {
        route(node, keys(spec, request), spec.flags.has(Flags::WRITE))
    };
    let refusal = match routed {
        Ok(Route::Serve) => None,
        // What is queued waits when it is executed.
        Ok(Route::Wait) if queues => None,
        // The switch may be waiting for the very script.
        Ok(Route::Wait) => match told_busy(cx, spec, request) {
            Some(busy) if cx.session.waited.is_none() => Some(CommandError::new(busy.text())),
            _ => return Ok(Step::Wait),
        },
        Ok(Route::Moved(text)) => Some(CommandError::new(text)),
        Ok(Route::Unserved) => Some(CommandError::new("CLUSTERDOWN Hash slot not served")),
        Err(error) => Some(error),
    };
    if let Some(error) = refusal {
        if executes_queued {
            transactions::forget(cx.session);
            return Err(error);
        }
        return Err(refused(cx, request, error));
    }
    match node.clients.pause.now(cx.session.id()) {
        Paused::Busy(_) => match told_busy(cx, spec, request) {
            // It has waited for keys, and goes on waiting.
            Some(_) if cx.session.waited.is_some() => return Ok(Step::Paused),
            Some(busy) => return Err(refused(cx, request, CommandError::new(busy.text()))),
            None => {}
        },
        Paused::All if cx.session.plane == Plane::Data => return Ok(Step::Paused),
        Paused::Writes => {
            let writes = |flags: Flags| flags.intersects(Flags::WRITE.and(Flags::TELLS));
            let queued = executes_queued && transaction(cx.session).commands().any(|(spec, _)| writes(spec.flags));
            if queued || writes(spec.flags) {
                return Ok(Step::Paused);
            }
        }
        _ => {}
    }
    if queues {
        transactions::queue(cx, request)?;
        return Ok(Step::Done);
    }
    // What was published before a subscription changes reaches those who were subscribed then.
    let subscribes = spec.flags.has(Flags::SUBSCRIBES) || executes_queued && transaction(cx.session).any(Flags::SUBSCRIBES);
    if subscribes && !cx.outbox.borrow().is_empty() {
        return Ok(Step::Busy);
    }
    if executes_queued {
        if !transaction(cx.session).spoiled && transaction(cx.session).has_later() {
            return Ok(Step::Apart);
        }
        let frees = transaction(cx.session).frees();
        if !cx.writer.borrow_mut().try_claim(transactions::claimed_by_exec(cx.session), frees)? {
            return Ok(Step::Busy);
        }
    } else if claims(spec, request) {
        let keys = keys(spec, request).map(|key| (Slot::of_key(key), key.as_ref()));
        let frees = spec.flags.has(Flags::FREES) || !spec.flags.has(Flags::WRITE);
        if !cx.writer.borrow_mut().try_claim(keys, frees)? {
            return match node.clients.pause.now(cx.session.id()) {
                // WATCH does not wait for a slow script either.
                Paused::Busy(busy) => Err(refused(cx, request, CommandError::new(busy.text()))),
                _ => Ok(Step::Busy),
            };
        }
    }
    execute(cx, spec, request)
}

/// What a client is told of a slow script, in the place of having its request executed.
fn told_busy(cx: &Context<'_, '_>, spec: &CommandSpec, request: &Request) -> Option<Busy> {
    let Paused::Busy(busy) = cx.node.clients.pause.now(cx.session.id()) else { return None };
    let subcommand = || request.get(1).and_then(|word| subcommands::subcommand(spec.name, word));
    let allowed = spec.flags.has(Flags::ALLOW_BUSY)
        || matches!(spec.name, "script" | "function")
            && subcommand().is_some_and(|known| matches!((spec.name, known.name), (_, "kill") | ("function", "stats")));
    (cx.session.plane == Plane::Data && !allowed).then_some(busy)
}

/// Whether a command is refused when memory is short: a write to keys that does not only give space back.
pub(super) fn needs_memory(spec: &CommandSpec) -> bool {
    spec.keys.any() && spec.flags.has(Flags::WRITE) && !spec.flags.has(Flags::FREES)
}

/// The text is Redis'.
pub(super) fn out_of_memory() -> CommandError {
    CommandError::new("OOM command not allowed when used memory > 'maxmemory'.")
}

/// Whether a request has its keys claimed. One that may wait for them does: otherwise a change would fall between the look and the wait.
fn claims(spec: &CommandSpec, request: &Request) -> bool {
    spec.keys.any()
        && (spec.flags.intersects(Flags::WRITE.and(Flags::CLAIMS)) || spec.flags.has(Flags::WAITS) && asks_to_wait(request))
}

/// What MULTI has queued; nothing outside of it.
fn transaction(session: &Session) -> &Transaction {
    static NONE: Transaction = Transaction { queued: Vec::new(), bytes: 0, spoiled: false };
    session.transaction.as_deref().unwrap_or(&NONE)
}

/// Whether there is such a command, and this connection may execute it, with so many words.
fn admit(cx: &Context<'_, '_>, request: &Request) -> Result<&'static CommandSpec, CommandError> {
    let name = request.first().ok_or_else(CommandError::syntax)?;
    let Some(spec) = table::find(name) else { return Err(unknown(request)) };
    if !cx.session.authenticated && !spec.flags.has(Flags::NO_AUTH) {
        return Err(CommandError::new("NOAUTH Authentication required."));
    }
    if !spec.admits(request.len()) {
        return Err(CommandError::arity(spec.name));
    }
    if spec.flags.has(Flags::CONTAINER) {
        subcommands::check(spec, request)?;
    }
    check_plane(spec, cx.session.plane)?;
    if spec.flags.has(Flags::NO_MULTI) && cx.session.transaction.is_some() {
        return Err(CommandError::new("ERR Command not allowed inside a transaction"));
    }
    if cx.session.subscribed && cx.session.version == Version::Resp2 && !allowed_while_subscribed(spec) {
        let name = match request.get(1).and_then(|word| subcommands::subcommand(spec.name, word)) {
            Some(known) => format!("{}|{}", spec.name, known.name),
            None => spec.name.to_owned(),
        };
        return Err(CommandError::new(format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        )));
    }
    Ok(spec)
}

/// A request is refused before it is executed or queued: inside MULTI that spoils the transaction, and ends it if it was EXEC.
fn refused(cx: &mut Context<'_, '_>, request: &Request, error: CommandError) -> CommandError {
    if let Some(spec) = request.first().and_then(|name| table::find(name)) {
        spec.calls.add_rejected();
    }
    if let Some(transaction) = &mut cx.session.transaction {
        transaction.spoiled = true;
    }
    if !request.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
        return error;
    }
    transactions::forget(cx.session);
    let text = error.to_string();
    CommandError::new(format!("EXECABORT Transaction discarded because of: {}", text.strip_prefix("ERR ").unwrap_or(&text)))
}

/// Whether a command that only reads is asked to wait: XREAD BLOCK.
pub(super) fn asks_to_wait(request: &[Bytes]) -> bool {
    request[1..].iter().take_while(|word| !word.eq_ignore_ascii_case(b"streams")).any(|word| word.eq_ignore_ascii_case(b"block"))
}

/// Whether what a request answers is a push.
pub fn pushes(request: &Request) -> bool {
    request.first().and_then(|name| table::find(name)).is_some_and(|spec| spec.flags.has(Flags::SUBSCRIBES))
}

fn allowed_while_subscribed(spec: &CommandSpec) -> bool {
    spec.flags.has(Flags::SUBSCRIBES) || matches!(spec.name, "ping" | "quit" | "reset")
}

pub(super) fn unknown(request: &Request) -> CommandError {
    let shown = |word: &bytes::Bytes| String::from_utf8_lossy(&word[..word.len().min(128)]).into_owned();
    let name = request.first().map(shown).unwrap_or_default();
    let arguments: String =
        request.iter().skip(1).take(8).fold(String::new(), |text, word| text + &format!("'{}' ", shown(word)));
    CommandError::new(format!("ERR unknown command '{name}', with args beginning with: {arguments}"))
}

/// Data commands have no place on the admin plane, which they could starve; the operator's have none on the data port.
fn check_plane(spec: &CommandSpec, plane: Plane) -> Result<(), CommandError> {
    match plane {
        Plane::Data if spec.flags.has(Flags::ADMIN_PLANE) => {
            Err(CommandError::new(format!("NOPERM '{}' is a command of the admin plane: use admin-port", spec.name)))
        }
        Plane::Admin if spec.keys.any() => {
            Err(CommandError::new(format!("NOPERM '{}' is a command for clients: use port", spec.name)))
        }
        _ => Ok(()),
    }
}

pub(super) fn route<'k>(node: &Node, keys: impl Iterator<Item = &'k Bytes>, writes: bool) -> Result<Route, CommandError> {
    let key_len_max = node.settings.key_size_max.0 as usize;
    let mut slot: Option<Slot> = None;
    for key in keys {
        if key.len() > key_len_max {
            return Err(CommandError::new(format!(
                "ERR the key has {} bytes, at most {key_len_max} are allowed (key-size-max)",
                key.len()
            )));
        }
        if node.cluster.enabled() {
            let of_key = Slot::of_key(key);
            if slot.is_some_and(|slot| slot != of_key) {
                return Err(CommandError::new("CROSSSLOT Keys in request don't hash to the same slot"));
            }
            slot = Some(of_key);
        }
    }
    Ok(slot.map_or(Route::Serve, |slot| node.cluster.route(slot, writes)))
}
