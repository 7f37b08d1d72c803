//! Transactions: MULTI queues, EXEC executes all of it in one turn and so in one batch, under the stripes of every key named.
//!
//! A command that fails changes nothing and undoes nothing, as in Redis. Commands that are executed by futures cannot share a batch: a
//! transaction that holds one is executed in pieces while every other client is paused ([`Step::Apart`](super::Step)).

use bytes::Bytes;
use sluice_topology::Slot;

use super::{
    CommandError, Context,
    execute::execute_queued,
    run::unknown,
    session::Session,
    table::{self, CommandSpec, Flags, Handler},
};
use crate::{
    clients::{ClientFlags, Watched, Watching},
    protocol::Request,
};

type Outcome = Result<(), CommandError>;

/// What a queued word costs beside its bytes.
const WORD_COST: usize = 32;
/// Keys that a connection watches at most.
const WATCHED_MAX: usize = 1 << 12;

/// What MULTI has queued.
#[derive(Default)]
pub struct Transaction {
    /// Its commands, in order.
    pub queued: Vec<Request>,
    /// Bytes of them.
    pub bytes: usize,
    /// A command was refused: EXEC refuses all.
    pub spoiled: bool,
}

impl Transaction {
    /// Its commands and their rows of the table.
    pub fn commands(&self) -> impl Iterator<Item = (&'static CommandSpec, &Request)> {
        self.queued.iter().filter_map(|request| Some((table::find(request.first()?)?, request)))
    }

    /// Every key it names.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.commands().flat_map(|(spec, request)| spec.keys.of(request).filter_map(|at| request.get(at)))
    }

    /// Whether one of its commands is all of that.
    pub fn any(&self, flags: Flags) -> bool {
        self.commands().any(|(spec, _)| spec.flags.has(flags))
    }

    /// Whether what it writes only gives space back.
    pub fn frees(&self) -> bool {
        self.commands().all(|(spec, _)| !spec.flags.has(Flags::WRITE) || spec.flags.has(Flags::FREES))
    }

    /// Whether one of its commands is executed by a future.
    pub fn has_later(&self) -> bool {
        self.commands().any(|(spec, _)| !matches!(spec.handler, Handler::Now(_)))
    }
}

pub(super) fn multi(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    if cx.session.transaction.is_some() {
        return Err(CommandError::new("ERR MULTI calls can not be nested"));
    }
    cx.session.transaction = Some(Box::default());
    cx.session.client.queued.set(1);
    cx.reply.ok();
    Ok(())
}

/// Queues a command. It has passed every check that it would pass outside of a transaction.
pub(super) fn queue(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if let Some(transaction) = &mut cx.session.transaction {
        let limit = cx.node.settings.client_query_buffer_limit.0;
        transaction.bytes += request.iter().map(|word| word.len() + WORD_COST).sum::<usize>();
        if transaction.bytes as u64 > limit {
            // What is there is of no use any more.
            **transaction = Transaction { spoiled: true, bytes: transaction.bytes, ..Transaction::default() };
            return Err(CommandError::new(format!(
                "ERR the transaction has more than {limit} bytes (client-query-buffer-limit): EXEC less at once"
            )));
        }
        transaction.queued.push(request.clone());
        cx.session.client.queued.set(1 + transaction.queued.len() as u64);
    }
    cx.reply.simple("QUEUED");
    Ok(())
}

pub(super) fn discard(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    if cx.session.transaction.is_none() {
        return Err(CommandError::new("ERR DISCARD without MULTI"));
    }
    forget(cx.session);
    cx.reply.ok();
    Ok(())
}

/// Ends a transaction and its watches.
pub fn forget(session: &mut Session) {
    session.transaction = None;
    session.client.queued.set(0);
    unwatch_all(session);
}

fn unwatch_all(session: &mut Session) {
    session.watching = None;
    session.client.watched.set(0);
    session.client.set_flag(ClientFlags::DIRTY, false);
}

/// WATCH. The keys are claimed: whoever is changing one of them has committed, and whoever changes one later sees the watch.
pub(super) fn watch(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if cx.session.transaction.is_some() {
        return Err(CommandError::new("ERR WATCH inside MULTI is not allowed"));
    }
    let (keys, database) = (cx.keyspace(), cx.session.database);
    let mut watching = cx.session.watching.take().unwrap_or_else(|| cx.node.clients.watching());
    if watching.keys().len() + request.len() - 1 > WATCHED_MAX {
        cx.session.watching = Some(watching);
        return Err(CommandError::new(format!("ERR a connection watches at most {WATCHED_MAX} keys")));
    }
    for key in &request[1..] {
        if !watching.has(database, key) {
            let present = keys.live(key)?.is_some();
            let generation = cx.node.engine.live(keys.home(key));
            watching.add(Watched { database, key: key.clone(), present, generation });
        }
    }
    cx.session.client.watched.set(watching.keys().len() as u64);
    cx.session.watching = Some(watching);
    cx.reply.ok();
    Ok(())
}

pub(super) fn unwatch(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    unwatch_all(cx.session);
    cx.reply.ok();
    Ok(())
}

/// Whether a watched key is not what it was: changed by a command, gone because it expired, or flushed, swapped or moved with its slot.
fn has_changed(cx: &Context<'_, '_>, watching: &Watching) -> Result<bool, CommandError> {
    if watching.is_dirty() {
        return Ok(true);
    }
    for watched in watching.keys() {
        let keys = cx.keyspace().in_database(watched.database);
        let present = keys.live(&watched.key)?.is_some();
        let replaced = present && cx.node.engine.live(keys.home(&watched.key)) != watched.generation;
        if present != watched.present || replaced {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends the transaction and its watches; `None`: a watched key has changed, and EXEC has answered that.
pub fn take(cx: &mut Context<'_, '_>) -> Result<Option<Taken>, CommandError> {
    let transaction = cx.session.transaction.take().ok_or_else(|| CommandError::new("ERR EXEC without MULTI"))?;
    let changed = match &cx.session.watching {
        Some(watching) => has_changed(cx, watching)?,
        None => false,
    };
    let watching = cx.session.watching.take();
    forget(cx.session);
    if transaction.spoiled {
        return Err(CommandError::new("EXECABORT Transaction discarded because of previous errors."));
    }
    if changed {
        cx.reply.null_array();
        return Ok(None);
    }
    Ok(Some(Taken { transaction, watching }))
}

/// A transaction that is being executed. What was watched is so until it has been.
pub struct Taken {
    /// Its commands.
    pub transaction: Box<Transaction>,
    watching: Option<Watching>,
}

/// EXEC of what fits a batch. Every key is claimed.
pub(super) fn exec(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    let begun = cx.begin();
    let Some(Taken { transaction, watching }) = take(cx)? else { return Ok(()) };
    let database = cx.session.database;
    cx.reply.array(transaction.queued.len());
    cx.session.executing = true;
    // What patterns name is claimed by nobody: of all SORTs of the transaction it is as of one moment.
    let sorts = |spec: &CommandSpec| matches!(spec.name, "sort" | "sort_ro");
    let several = transaction.commands().filter(|(spec, _)| sorts(spec)).nth(1).is_some();
    let mut moment = None;
    for request in &transaction.queued {
        let spec = request.first().and_then(|name| table::find(name));
        // A script sees, and may change, what keys hold now: what comes behind it is as of no earlier moment.
        if spec.is_some_and(|spec| spec.group == "scripting") {
            moment = None;
        } else if several && moment.is_none() && spec.is_some_and(sorts) {
            moment = Some(cx.node.engine.moment());
        }
        match spec {
            Some(spec) => cx.within(moment.as_ref(), |cx| execute_queued(cx, spec, request)),
            None => cx.reply.error(&unknown(request).to_string()),
        }
        if cx.session.rerun {
            break;
        }
    }
    cx.session.executing = false;
    if cx.session.rerun {
        // A script used a key that nobody named and somebody else has: all of it is taken back, and executed once that is claimed too.
        cx.undo(begun);
        cx.session.database = database;
        cx.session.client.queued.set(1 + transaction.queued.len() as u64);
        (cx.session.transaction, cx.session.watching) = (Some(transaction), watching);
    }
    Ok(())
}

/// The keys that EXEC has to have claimed: those its commands name, and those that are watched.
pub(super) fn claimed_by_exec(session: &Session) -> impl Iterator<Item = (Slot, &[u8])> {
    let named = session.transaction.iter().flat_map(|transaction| transaction.keys()).map(AsRef::as_ref);
    let watched = session.watching.iter().flat_map(Watching::keys).map(|watched| watched.key.as_ref());
    let used = session.unnamed.iter().map(AsRef::as_ref);
    named.chain(watched).chain(used).map(|key| (Slot::of_key(key), key))
}
