//! What a command works with, and how all of it is taken back.

use std::{cell::RefCell, ops::Deref, sync::Arc, time::Instant};

use super::{CommandError, Session, run::too_long};
use crate::{
    clients::{Class, Outbox},
    engine::{View, Writer},
    node::Node,
    protocol::ReplyWriter,
    types::{Keyspace, Prefetch},
};

/// What a command may use.
pub struct Context<'n, 'r> {
    /// The node.
    pub node: &'n Arc<Node>,
    /// The connection.
    pub session: &'n mut Session,
    /// Where the reply goes.
    pub reply: &'n mut ReplyWriter<'r>,
    /// What gathers its changes.
    pub writer: &'n RefCell<Writer>,
    /// What gathers what others are told once its changes are applied.
    pub outbox: &'n RefCell<Outbox>,
    /// The time, Unix milliseconds: one for a run.
    pub now_ms: u64,
    /// Records read ahead for its run.
    pub prefetch: Option<&'n Prefetch<'n>>,
    /// When what came before it had ended, while times are measured.
    pub clock: Option<Instant>,
    /// Of what the transaction under way reads without having claimed it.
    pub moment: Option<&'n View<'n>>,
}

/// A view of one moment: a command's own, or that of its transaction.
pub enum Moment<'n> {
    /// A command's own.
    Own(View<'n>),
    /// That of its transaction.
    Shared(&'n View<'n>),
}

impl<'n> Deref for Moment<'n> {
    type Target = View<'n>;

    fn deref(&self) -> &View<'n> {
        match self {
            Self::Own(view) => view,
            Self::Shared(view) => view,
        }
    }
}

impl<'n> Context<'n, '_> {
    /// The keys as of now.
    pub fn keyspace(&self) -> Keyspace<'n> {
        Keyspace::new(&self.node.engine, self.writer, self.session.database, self.now_ms)
            .with_prefetch(self.prefetch)
            .within(self.node.live.command_memory_max())
    }

    /// A view of now, for a command that reads that many keys without claiming them: so that all it reads is of one moment. `None` for
    /// one key. Inside EXEC it is that of the transaction, if it has one.
    pub fn moment(&self, keys: usize) -> Option<Moment<'n>> {
        (keys > 1).then(|| self.moment.map_or_else(|| Moment::Own(self.node.engine.moment()), Moment::Shared))
    }

    /// Does something in which [`Context::moment`] is this one.
    pub(super) fn within(&mut self, moment: Option<&View<'_>>, work: impl FnOnce(&mut Context<'_, '_>)) {
        let mut inner = Context {
            node: self.node,
            session: &mut *self.session,
            reply: &mut *self.reply,
            writer: self.writer,
            outbox: self.outbox,
            now_ms: self.now_ms,
            prefetch: self.prefetch,
            clock: self.clock,
            moment,
        };
        work(&mut inner);
        self.clock = inner.clock;
    }

    /// Something happened to a key: told to who asked for keyspace notifications, once the turn's changes are applied. Called after the
    /// change; costs one load while nobody asks.
    pub fn event(&mut self, class: Class, name: &'static str, key: &[u8]) {
        self.event_in(self.session.database, class, name, key);
    }

    /// [`Context::event`] of a key in another database.
    pub fn event_in(&mut self, database: u8, class: Class, name: &'static str, key: &[u8]) {
        if self.node.clients.notify().wants(class) {
            self.outbox.borrow_mut().event(database, name, key);
        }
    }

    /// For a command that takes away what it answers with: an answer that did not fit is an error, which undoes the command.
    pub fn refuse_overflow(&self) -> Result<(), CommandError> {
        if self.reply.overflowed() { Err(too_long(self.node)) } else { Ok(()) }
    }

    /// After a command that may have taken the last element of a key: tells that the key is gone, if it is. Looks only when somebody asks.
    pub fn event_if_gone(&mut self, key: &[u8]) -> Result<(), CommandError> {
        if self.node.clients.notify().wants(Class::Generic) && self.keyspace().kind(key)?.is_none() {
            self.event(Class::Generic, "del", key);
        }
        Ok(())
    }

    /// Here a command begins.
    pub(super) fn begin(&self) -> Begun {
        Begun { replied: self.reply.mark(), gathered: self.writer.borrow().gathered(), told: self.outbox.borrow().len() }
    }

    /// Takes back all of a command: its changes, what others would be told of them, its reply.
    pub(super) fn undo(&mut self, begun: Begun) {
        self.writer.borrow_mut().truncate(begun.gathered);
        self.outbox.borrow_mut().truncate(begun.told);
        self.reply.rewind(begun.replied);
    }

    /// A command failed: it is taken back, and the error is its reply.
    pub(super) fn fail(&mut self, begun: Begun, error: &CommandError) {
        self.undo(begun);
        let text = error.to_string();
        self.reply.error(&text);
        tracing::debug!(client = self.session.id(), request = self.session.requests, error = text, "answered with an error");
        self.node.stats.count_error(&text);
    }
}

/// Where a command began: what it is taken back to.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    /// Where its reply begins.
    pub(super) replied: usize,
    /// What was gathered before it.
    pub(super) gathered: usize,
    /// What others were to be told before it.
    told: usize,
}
