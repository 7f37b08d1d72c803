//! Serving clients that wait: whoever has changed their keys executes their requests, in its own turn and right behind its own command.

use std::{cell::RefCell, sync::Arc};

use bytes::BytesMut;

use super::{Context, Plane, Session, Step, Waited, run};
use crate::{
    blocked::{TurnEnd, Waiter, Woken},
    clients::Outbox,
    engine::{Home, Kind, Writer},
    node::Node,
    protocol::ReplyWriter,
    types::Keyspace,
};

/// The turn in which clients are served.
pub struct Serving<'t> {
    /// The node.
    pub node: &'t Arc<Node>,
    /// What gathers the turn's changes.
    pub writer: &'t RefCell<Writer>,
    /// What gathers what others are told.
    pub outbox: &'t RefCell<Outbox>,
    /// The time, Unix milliseconds.
    pub now_ms: u64,
    /// The turn's end.
    pub end: &'t Arc<TurnEnd>,
}

/// How an attempt to serve a client ended.
enum Attempt {
    /// It is not waiting any more.
    Over,
    /// It waits on: there was nothing for it.
    Nothing,
}

/// Serves who waits for keys that the turn's writer has changed, the oldest first, until nothing is left that somebody waits for. Each
/// client is served once at most, so this ends.
pub fn serve(turn: &Serving<'_>) {
    loop {
        let ready = turn.writer.borrow_mut().take_ready();
        if ready.is_empty() {
            return;
        }
        for (home, key) in ready {
            serve_key(turn, home, &key);
        }
    }
}

fn serve_key(turn: &Serving<'_>, home: Home, key: &[u8]) {
    let mut kind = turn.kind(home, key);
    for waiter in turn.node.blocked.waiting_for(home.database, key) {
        if kind != Some(waiter.wait.kind) && !waiter.wait.when_gone {
            continue;
        }
        if matches!(turn.attempt(&waiter), Attempt::Over) {
            kind = turn.kind(home, key);
        }
    }
}

impl Serving<'_> {
    /// What a key holds; a key that cannot be read holds nothing for anybody.
    fn kind(&self, home: Home, key: &[u8]) -> Option<Kind> {
        Keyspace::new(&self.node.engine, self.writer, home.database, self.now_ms).kind(key).ok().flatten()
    }

    fn attempt(&self, waiter: &Arc<Waiter>) -> Attempt {
        let mut session = Session::new(waiter.client.clone(), Plane::Data, true);
        session.database = waiter.database;
        session.version = waiter.version;
        session.waited = Some(Waited { ticket: waiter.ticket, deadline: waiter.wait.deadline });
        let (gathered, told) = (self.writer.borrow().gathered(), self.outbox.borrow().len());
        // What others gathered and observed in this turn is theirs.
        let observed = self.writer.borrow().take_observed();
        let mut out = BytesMut::new();
        let mut reply = ReplyWriter::new(&mut out, waiter.version, self.node.live.reply_len_max());
        let mut context = Context {
            node: self.node,
            session: &mut session,
            reply: &mut reply,
            writer: self.writer,
            outbox: self.outbox,
            now_ms: self.now_ms,
            prefetch: None,
            clock: None,
            moment: None,
        };
        let step = run(&mut context, &waiter.wait.request);
        let changed = self.writer.borrow().gathered() != gathered || self.writer.borrow().take_observed();
        self.writer.borrow().observed_again(observed);
        match step {
            // It has to know when its keys expire.
            Step::Blocked(wait) if wait.expires.is_some() || waiter.wait.expires.is_some() => {
                self.writer.borrow_mut().truncate(gathered);
                if self.node.blocked.take(waiter) {
                    waiter.wake(Woken::Retry);
                }
                Attempt::Over
            }
            Step::Blocked(_) => Attempt::Nothing,
            Step::Done => {
                let woken = Woken::Served { reply: out, changed, end: self.end.clone() };
                // Its connection has gone, or has ended the wait: it is as if it had not been executed.
                if !(self.node.blocked.take(waiter) && waiter.wake(woken)) {
                    self.writer.borrow_mut().truncate(gathered);
                    self.outbox.borrow_mut().truncate(told);
                }
                Attempt::Over
            }
            // Its other keys are somebody else's just now, or its slot is about to leave: it waits for that by itself.
            Step::Busy | Step::Slow | Step::Wait | Step::Paused | Step::Apart | Step::Later(_) | Step::Large(_) => {
                if self.node.blocked.take(waiter) {
                    waiter.wake(Woken::Retry);
                }
                Attempt::Over
            }
        }
    }
}
