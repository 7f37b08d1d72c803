//! A thread's turns: the connections that have something to do execute it one after the other, their changes are committed as one batch,
//! then they all answer. So fifty clients that send one command each share one record in the log, and one fsync.
//!
//! The first connection of a turn wakes the committer, a task of the same thread, which therefore runs behind every connection that
//! was ready before it.

use std::{
    cell::RefCell,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use crate::{
    blocked::TurnEnd,
    clients::Outbox,
    engine::{EngineError, SyncPolicy, Writer, Written},
    node::Node,
};

/// The turn that is under way on a thread.
pub(super) struct Turn {
    /// What gathers its changes.
    pub(super) writer: RefCell<Writer>,
    /// What others are told once they are applied.
    pub(super) outbox: RefCell<Outbox>,
    end: Arc<TurnEnd>,
    wanted: bool,
    committer: Option<Waker>,
}

impl Turn {
    /// The end of the turn under way.
    pub(super) fn end(&self) -> Arc<TurnEnd> {
        self.end.clone()
    }
}

/// The turns of a thread, or of a single connection.
pub(super) struct Turns {
    turn: Mutex<Turn>,
    node: Arc<Node>,
    /// Whether a committer runs; without one, whoever executes commits.
    shared: bool,
    /// Whether nobody else serves clients: what it syncs, it syncs for all of them.
    sole: bool,
}

impl Turns {
    /// Turns that the connections of a thread share; [`Turns::commit_turns`] has to run on it.
    /// `sole`: there is no other such thread.
    pub(super) fn shared(node: &Arc<Node>, sole: bool) -> Arc<Self> {
        Self::new(node, true, sole)
    }

    /// Turns of one connection alone.
    pub(super) fn alone(node: &Arc<Node>) -> Arc<Self> {
        Self::new(node, false, false)
    }

    fn new(node: &Arc<Node>, shared: bool, sole: bool) -> Arc<Self> {
        let writer = RefCell::new(Writer::new(node.engine.clone()));
        let turn = Turn { writer, outbox: RefCell::default(), end: Arc::default(), wanted: false, committer: None };
        Arc::new(Self { turn: Mutex::new(turn), node: node.clone(), shared, sole })
    }

    /// The turn under way, to execute in. Never held across a wait.
    pub(super) fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the turn; its end is what the caller waits for before it answers.
    pub(super) fn leave(&self, mut turn: MutexGuard<'_, Turn>) -> Arc<TurnEnd> {
        let end = turn.end.clone();
        if !self.shared {
            self.commit(&mut turn);
        } else if !turn.wanted {
            turn.wanted = true;
            if let Some(committer) = turn.committer.take() {
                committer.wake();
            }
        }
        end
    }

    /// Ends the turn under way now: a key it needs is somebody else's, or it has become large. The next one begins.
    pub(super) fn commit(&self, turn: &mut Turn) {
        let end = std::mem::take(&mut turn.end);
        turn.wanted = false;
        let outcome = turn.writer.borrow_mut().commit();
        let engine = &self.node.engine;
        let mut outbox = turn.outbox.borrow_mut();
        self.node.cluster.bus().publish(outbox.messages());
        self.node.clients.deliver(&mut outbox, outcome.is_ok());
        drop(outbox);
        let always = engine.options().wal && engine.sync_policy() == SyncPolicy::Always;
        match outcome {
            Ok(Some(Written { sequence })) if always && !(self.sole && engine.sync_here(sequence)) => {
                end.complete(&Ok(()), false);
                let engine = engine.clone();
                tokio::spawn(async move {
                    let outcome = engine.durable(sequence).await.map_err(|error| Arc::from(error.to_string()));
                    end.complete_durable(outcome);
                });
            }
            Ok(_) => end.complete(&Ok(()), true),
            Err(error) => end.complete(&Err(refusal(&error)), true),
        }
    }

    /// Commits one turn after the other, as long as the thread lives.
    pub(super) async fn commit_turns(self: Arc<Self>) {
        loop {
            poll_fn(|cx| {
                let mut turn = self.turn();
                if turn.wanted {
                    return Poll::Ready(());
                }
                turn.committer = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            self.commit(&mut self.turn());
        }
    }
}

fn refusal(error: &EngineError) -> Arc<str> {
    Arc::from(error.reply())
}
