//! Executing a request that is admitted, routed and claimed: its time, its watchers, the events of keys that come and are missed.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_topology::Slot;

use super::{
    CommandError, Context, Later, Session, Step, monitor,
    run::{keys, route, unknown},
    session::{Pace, Unanswered},
    table::{self, CommandSpec, Flags, Handler},
    walk,
};
use crate::{
    clients::{Class, SlowCommand, shortened},
    cluster::Route,
    engine::system_ms,
    node::Node,
    protocol::Request,
};

/// Executes an admitted, routed, claimed request.
pub(super) fn execute(cx: &mut Context<'_, '_>, spec: &'static CommandSpec, request: &Request) -> Result<Step, CommandError> {
    let gathered = cx.writer.borrow().gathered();
    let first = cx.session.waited.is_none();
    if first {
        spec.calls.add();
        cx.session.requests += 1;
    }
    // As in Redis, what EXEC executes is shown before EXEC, and the administration's commands to nobody.
    let shown = first && cx.node.clients.monitored() && !spec.flags.has(Flags::ADMIN);
    cx.session.client.note_command(spec.name);
    // Never its words: they are the user's.
    tracing::debug!(client = cx.session.id(), request = cx.session.requests, command = spec.name, "executing");
    match spec.handler {
        Handler::Now(execute) => {
            let absent = absent_keys(cx, spec, request)?;
            let told = cx.outbox.borrow().len();
            let outcome = execute(cx, request);
            if let Some(begun) = cx.clock {
                let now = Instant::now();
                cx.clock = Some(now);
                // What is answered in pieces is noted once it was read.
                if !matches!(cx.session.unanswered, Some(Unanswered::Large(_))) {
                    note_time(cx.node, cx.session, spec, request, now - begun);
                }
            }
            if outcome.is_ok() && cx.session.rerun {
                // Inside EXEC all of it is executed again.
                cx.session.rerun = cx.session.executing;
                return Ok(Step::Busy);
            }
            if shown {
                monitor::show(cx, spec, request);
            }
            if let Err(error) = outcome {
                spec.calls.add_failed();
                return Err(error);
            }
            if cx.node.clients.any_watched() && cx.writer.borrow().gathered() != gathered && spec.flags.has(Flags::WRITE) {
                touch_changed(cx, spec, request, gathered)?;
            }
            if !absent.is_empty() {
                tell_of_absent(cx, spec, absent, told)?;
            }
            Ok(Step::Done)
        }
        Handler::Later(_) | Handler::LaterIn(_) | Handler::Walk(_) if shown => {
            monitor::show(cx, spec, request);
            Ok(Step::Later(begin_later(cx.node, cx.session, request)?))
        }
        Handler::Later(_) | Handler::LaterIn(_) | Handler::Walk(_) => Ok(Step::Later(begin_later(cx.node, cx.session, request)?)),
    }
}

/// Tells those who watch a key that it was changed: one that a command names and leaves as it is, is not.
fn touch_changed(
    cx: &Context<'_, '_>,
    spec: &'static CommandSpec,
    request: &Request,
    gathered: usize,
) -> Result<(), CommandError> {
    let all = cx.keyspace();
    for key in keys(spec, request) {
        let version = match all.live(key)? {
            Some(stored) => stored.record()?.collection().ok().flatten().map(|collection| collection.version),
            None => None,
        };
        if cx.writer.borrow().changed_since(gathered, all.home(key), key, version) {
            cx.node.clients.touch(cx.session.database, key);
        }
    }
    Ok(())
}

/// The keys of a request that are not there, while somebody wants to hear of keys that come or are missed.
fn absent_keys(cx: &Context<'_, '_>, spec: &'static CommandSpec, request: &Request) -> Result<Vec<Bytes>, CommandError> {
    let class = if spec.flags.has(Flags::WRITE) { Class::New } else { Class::Missed };
    if !cx.node.clients.notify().wants(class) || spec.flags.has(Flags::CHANNELS) {
        return Ok(Vec::new());
    }
    let mut absent = Vec::new();
    for key in keys(spec, request) {
        if cx.keyspace().live(key)?.is_none() {
            absent.push(key.clone());
        }
    }
    Ok(absent)
}

/// Tells that keys were missed, or that they are there now: before what else the command has to tell.
fn tell_of_absent(cx: &mut Context<'_, '_>, spec: &CommandSpec, absent: Vec<Bytes>, told: usize) -> Result<(), CommandError> {
    let database = cx.session.database;
    for key in absent {
        if !spec.flags.has(Flags::WRITE) {
            cx.event(Class::Missed, "keymiss", &key);
        } else if cx.keyspace().live(&key)?.is_some() {
            cx.outbox.borrow_mut().event_at(told, database, "new", &key);
        }
    }
    Ok(())
}

/// A request took that long: for the slow log, the latency monitor and the histograms.
fn note_time(node: &Node, session: &Session, spec: &CommandSpec, request: &Request, took: Duration) {
    spec.calls.add_time(took);
    let slow = &node.clients.slow;
    if !slow.concerns(took) {
        return;
    }
    if slow.keeps_histograms() {
        spec.calls.latency.add(took.as_micros() as u64);
    }
    let event = if spec.flags.has(Flags::FAST) { "fast-command" } else { "command" };
    slow.note(took, system_ms() / 1000, event, || {
        // What EXEC executes is logged by itself.
        (spec.name != "exec").then(|| SlowCommand {
            id: 0,
            at_seconds: 0,
            micros: 0,
            words: shortened(&monitor::redacted(spec, request)),
            peer: session.client.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            name: session.client.described().name,
        })
    });
}

/// A request that was executed by a future took that long.
pub fn note_later_time(node: &Node, session: &Session, request: &Request, took: Duration) {
    if let Some(spec) = request.first().and_then(|name| table::find(name)) {
        note_time(node, session, spec, request, took);
    }
}

/// Begins what is executed by a future.
pub fn begin_later(node: &Arc<Node>, session: &Session, request: &Request) -> Result<Later, CommandError> {
    match request.first().and_then(|name| table::find(name)).map(|spec| spec.handler) {
        Some(Handler::Later(begin)) => begin(node, request),
        Some(Handler::LaterIn(begin)) => begin(node, session, request),
        Some(Handler::Walk(walker)) => Ok(walk::later(node, session.database, request, walker)),
        Some(Handler::Now(_)) | None => Err(unknown(request)),
    }
}

/// Executes one of the commands that EXEC executes; what it answers is one element of the answer, whatever becomes of it.
pub(super) fn execute_queued(cx: &mut Context<'_, '_>, spec: &'static CommandSpec, request: &Request) {
    let begun = cx.begin();
    let error = match execute(cx, spec, request) {
        // Whoever executes the transaction sees to it.
        Ok(Step::Busy) if cx.session.rerun => return,
        Ok(Step::Busy) => uses_others_keys(),
        Ok(_) => match cx.refuse_overflow() {
            Ok(()) => return,
            Err(error) => error,
        },
        Err(error) => error,
    };
    cx.fail(begun, &error);
}

/// Executes, for a script, what a client's request has done by a future; what it answers is the answer, whatever becomes of it.
pub(super) fn execute_at_once<'n, 'r>(
    cx: &mut Context<'n, 'r>,
    spec: &'static CommandSpec,
    request: &Request,
    work: impl FnOnce(&mut Context<'n, 'r>) -> Result<(), CommandError>,
) {
    spec.calls.add();
    if cx.node.clients.monitored() {
        monitor::show(cx, spec, request);
    }
    let begun = cx.begin();
    if let Err(error) = work(cx).and_then(|()| cx.refuse_overflow()) {
        spec.calls.add_failed();
        cx.fail(begun, &error);
    }
}

/// Inside a transaction in pieces nothing waits for keys.
fn uses_others_keys() -> CommandError {
    CommandError::new("TRYAGAIN the script uses keys it does not name, which another client is changing")
}

/// Nor is a script run again alone there: the transaction is half done.
fn too_slow() -> CommandError {
    CommandError::new(
        "ERR the script ran for longer than busy-reply-threshold, which it cannot in a transaction with commands that cannot be one \
         batch with others, such as FLUSHALL; it was ended and has changed nothing",
    )
}

/// Executes the commands in front of a transaction that is executed in pieces, up to the next that is executed by a future. Claims their
/// keys, waiting for them: the writer is outside the gate. Says of each where its answer begins, and whether it rests on changes.
pub fn run_piece(cx: &mut Context<'_, '_>, commands: &mut VecDeque<Request>, mut answered: impl FnMut(usize, bool)) {
    let spec = |request: &Request| {
        let spec = request.first().and_then(|name| table::find(name));
        spec.filter(|spec| matches!(spec.handler, Handler::Now(_)))
    };
    let piece = commands.iter().map_while(|request| Some((spec(request)?, request)));
    let keys_of_piece: Vec<Bytes> = piece.flat_map(|(spec, request)| keys(spec, request)).cloned().collect();
    let wanted = keys_of_piece.iter().map(|key| (Slot::of_key(key), key.as_ref()));
    cx.writer.borrow_mut().claim(wanted, &|| false);
    cx.writer.borrow_mut().enter();
    while let Some((found, request)) = commands.front().and_then(|request| Some((spec(request)?, request.clone()))) {
        commands.pop_front();
        let begun = cx.begin();
        match route(cx.node, keys(found, &request), found.flags.has(Flags::WRITE)) {
            Ok(Route::Serve) => execute_queued(cx, found, &request),
            Ok(Route::Moved(text)) => cx.reply.error(&text),
            Ok(Route::Wait) => cx.reply.error("TRYAGAIN the slot is being moved"),
            Ok(Route::Unserved) => cx.reply.error("CLUSTERDOWN Hash slot not served"),
            Err(error) => cx.reply.error(&error.to_string()),
        }
        if std::mem::take(&mut cx.session.rerun) {
            cx.session.unnamed.clear();
            let error = match std::mem::take(&mut cx.session.pace) {
                Pace::TooSlow(_) => too_slow(),
                _ => uses_others_keys(),
            };
            cx.fail(begun, &error);
        }
        let writer = cx.writer.borrow();
        answered(begun.replied, writer.gathered() != begun.gathered || writer.take_observed());
    }
}
