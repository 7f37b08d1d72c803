//! From a request to its reply: look it up, check it, route it by its slot, execute it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use sluice_topology::Slot;

use super::{
    CommandError, Session,
    session::Plane,
    table::{self, CommandSpec, Flags, Handler},
};
use crate::{
    cluster::Route,
    node::Node,
    protocol::{ReplyWriter, Request},
    types::Keyspace,
};

/// What a command may use.
pub struct Context<'n, 'r> {
    /// The node.
    pub node: &'n Arc<Node>,
    /// The connection.
    pub session: &'n mut Session,
    /// Where the reply goes.
    pub reply: &'n mut ReplyWriter<'r>,
}

impl<'n> Context<'n, '_> {
    /// The keys as of now.
    pub fn keyspace(&self) -> Keyspace<'n> {
        Keyspace::new(&self.node.engine, self.node.engine.now_ms())
    }
}

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
    /// Its slot is being switched: the connection waits for a change, then runs it again. Nothing was executed.
    Wait,
    /// The reply comes from a future.
    Later(Later),
}

/// Executes a request, or says what to wait for.
pub fn run(node: &Arc<Node>, session: &mut Session, request: &Request, reply: &mut ReplyWriter<'_>) -> Step {
    let mark = reply.mark();
    match try_run(node, session, request, reply) {
        Ok(step) => {
            check_length(node, reply, mark);
            step
        }
        Err(error) => {
            reply.rewind(mark);
            reply.error(&error.to_string());
            node.stats.errors.fetch_add(1, Ordering::Relaxed);
            Step::Done
        }
    }
}

/// Puts an error in the place of a reply that did not fit.
pub fn check_length(node: &Node, reply: &mut ReplyWriter<'_>, mark: usize) {
    if reply.overflowed() {
        let limit = node.settings.client_output_buffer_limit.0;
        reply.rewind(mark);
        reply.error(&format!("ERR the reply is longer than {limit} bytes (client-output-buffer-limit): ask for less at once"));
        node.stats.errors.fetch_add(1, Ordering::Relaxed);
    }
}

fn try_run(
    node: &Arc<Node>,
    session: &mut Session,
    request: &Request,
    reply: &mut ReplyWriter<'_>,
) -> Result<Step, CommandError> {
    let name = request.first().ok_or_else(CommandError::syntax)?;
    let Some(spec) = table::find(name) else { return Err(unknown(request)) };
    if !session.authenticated && !spec.flags.has(Flags::NO_AUTH) {
        return Err(CommandError::new("NOAUTH Authentication required."));
    }
    let enough = if spec.arity < 0 { request.len() as i32 >= -spec.arity } else { request.len() as i32 == spec.arity };
    if !enough {
        return Err(CommandError::arity(spec.name));
    }
    check_plane(spec, session.plane)?;
    // Entered before ownership and generations are looked at, left when the command is done: whoever changes them drains the gate.
    let _inside = node.engine.enter();
    match route(node, spec, request)? {
        Route::Serve => {}
        Route::Wait => return Ok(Step::Wait),
        Route::Moved(text) => return Err(CommandError::new(text)),
        Route::Unserved => return Err(CommandError::new("CLUSTERDOWN Hash slot not served")),
    }
    match spec.handler {
        Handler::Now(execute) => {
            execute(&mut Context { node, session, reply }, request)?;
            Ok(Step::Done)
        }
        Handler::Later(begin) => Ok(Step::Later(begin(node, request)?)),
    }
}

fn unknown(request: &Request) -> CommandError {
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
        Plane::Admin if spec.keys.first > 0 => {
            Err(CommandError::new(format!("NOPERM '{}' is a command for clients: use port", spec.name)))
        }
        _ => Ok(()),
    }
}

fn route(node: &Node, spec: &CommandSpec, request: &Request) -> Result<Route, CommandError> {
    let key_len_max = node.settings.key_size_max.0 as usize;
    let mut slot: Option<Slot> = None;
    for position in spec.keys.of(request.len()) {
        let Some(key) = request.get(position) else { continue };
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
    Ok(slot.map_or(Route::Serve, |slot| node.cluster.route(slot, spec.flags.has(Flags::WRITE))))
}
