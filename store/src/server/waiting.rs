//! A connection whose command waits: for keys, until it is served, its time is over, its client goes, or the node or the slot does; or for a
//! slot that is being switched.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use sluice_topology::Slot;
use tokio::io::AsyncReadExt as _;

use super::{
    connection::Connection,
    stopped::{End, Stopped},
};
use crate::{
    blocked::{Registered, TurnEnd, Woken},
    clients::Unblock,
    cluster::Route,
    commands::{Serving, Waited, serve},
    engine::EngineError,
    protocol::Request,
};

/// What a client may send ahead while it waits, before it is read no further: that it has gone is noticed behind that only later.
const AHEAD_MAX: usize = 1 << 20;

/// What happened to a wait.
enum Event {
    /// Somebody else ended it.
    Woken(Woken),
    /// Its time is over.
    TimedOut,
    /// One of its keys has expired.
    Expired,
    /// CLIENT UNBLOCK.
    Unblocked(Unblock),
    /// Slots of the node have changed.
    Slots,
    /// The client has sent something, or its end.
    Read(std::io::Result<usize>),
}

impl Connection {
    /// Waits, and answers; what was executed meanwhile in another turn is answered at its end.
    pub(super) async fn wait_for_keys(&mut self, mut registered: Registered) -> Result<(Stopped, Arc<TurnEnd>), End> {
        self.session.client.set_blocked(true);
        let outcome = self.wait_until_woken(&mut registered).await;
        self.session.client.set_blocked(false);
        match outcome? {
            Answer::Error(text) => self.refuse(&text),
            Answer::TimedOut => {
                let mark = self.out.len();
                self.reply().null_array();
                self.leave_out_from(mark);
            }
            Answer::Served(Woken::Served { reply, changed, end }) => {
                let mark = self.out.len();
                self.out.extend_from_slice(&reply);
                self.leave_out_from(mark);
                self.replies.push((mark, changed));
                self.traced.replied(&self.session, &self.out[mark..]);
                return Ok((Stopped::Turn, end));
            }
            Answer::Served(Woken::Closing) => self.refuse(&EngineError::Closed.reply()),
            Answer::Served(Woken::Retry) => {
                let waiter = registered.waiter().clone();
                self.session.waited = Some(Waited { ticket: waiter.ticket, deadline: waiter.wait.deadline });
                return Ok(self.execute(Some(waiter.wait.request.clone())));
            }
        }
        Ok((Stopped::Turn, TurnEnd::of_nothing()))
    }

    /// The request's slot is being switched: it waits its bounded time, and is executed again at every change.
    pub(super) async fn wait_and_execute(&mut self, request: Request) -> Result<(Stopped, Arc<TurnEnd>), End> {
        self.node.stats.parked.fetch_add(1, Ordering::Relaxed);
        let limit = Duration::from_millis(self.node.live.park_timeout_ms());
        let deadline = tokio::time::Instant::now() + limit;
        let mut changes = self.node.cluster.changes();
        let mut waiting = request;
        loop {
            // Seen before the try: a change after it is not missed.
            changes.borrow_and_update();
            // A run behind it waits with it: replies keep the order of their requests.
            match self.execute(Some(waiting)) {
                (Stopped::Wait(request), end) if self.replies.is_empty() => {
                    end.committed().await.ok();
                    waiting = request;
                }
                other => return Ok(other),
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                let text = format!("TRYAGAIN the slot is being moved and was not free within {} ms", limit.as_millis());
                self.reply().error(&text);
                return Ok((Stopped::Turn, TurnEnd::of_nothing()));
            }
        }
    }

    pub(super) fn refuse(&mut self, text: &str) {
        let mark = self.out.len();
        self.reply().error(text);
        self.leave_out_from(mark);
        self.traced.replied(&self.session, &self.out[mark..]);
    }

    /// CLIENT REPLY may ask for no reply.
    fn leave_out_from(&mut self, mark: usize) {
        if self.session.replies.leaves_out() {
            self.out.truncate(mark);
        }
    }

    /// Serves who waits for what was changed in turns that are over.
    pub(super) fn serve_ready(&mut self) {
        let turns = self.turns.clone();
        let turn = turns.turn();
        if turn.writer.borrow().has_ready() {
            turn.writer.borrow_mut().enter();
            let now_ms = self.node.engine.now_ms();
            serve(&Serving { node: &self.node, writer: &turn.writer, outbox: &turn.outbox, now_ms, end: &turn.end() });
        }
        turns.leave(turn);
    }

    async fn wait_until_woken(&mut self, registered: &mut Registered) -> Result<Answer, End> {
        let slot = registered.waiter().wait.keys.first().map(|key| Slot::of_key(key));
        let mut changes = self.node.cluster.changes();
        let mut ahead = true;
        loop {
            // Seen before the look: a change after it is not missed.
            changes.borrow_and_update();
            let gone = match slot.map(|slot| self.node.cluster.route(slot, true)) {
                Some(Route::Moved(text)) => Some(text),
                Some(Route::Unserved) => Some("CLUSTERDOWN Hash slot not served".to_owned()),
                _ => None,
            };
            if let Some(text) = gone {
                return Ok(if registered.give_up() { Answer::Error(text) } else { Answer::Served(registered.woken().await) });
            }
            let event = {
                let client = &self.session.client;
                let (deadline, expires) = (registered.waiter().wait.deadline, registered.waiter().wait.expires);
                let cluster = self.node.cluster.enabled();
                let (stream, buffer) = (&mut self.stream, &mut self.reader.buffer);
                if ahead {
                    buffer.reserve(super::connection::READ_MIN);
                }
                tokio::select! {
                    biased;
                    woken = registered.woken() => Event::Woken(woken),
                    how = poll_fn(|_| client.unblocked().map_or(Poll::Pending, Poll::Ready)) => Event::Unblocked(how),
                    () = until(deadline) => Event::TimedOut,
                    () = until(expires) => Event::Expired,
                    Ok(()) = changes.changed(), if cluster => Event::Slots,
                    read = stream.read_buf(buffer), if ahead => Event::Read(read),
                }
            };
            let answer = match event {
                Event::Slots => continue,
                Event::Read(read) => {
                    if read? == 0 {
                        return Err(End::Closed);
                    }
                    ahead = self.reader.buffer.len() < AHEAD_MAX;
                    continue;
                }
                Event::Expired => Answer::Served(Woken::Retry),
                Event::Woken(woken) => return Ok(Answer::Served(woken)),
                Event::TimedOut | Event::Unblocked(Unblock::Timeout) => Answer::TimedOut,
                Event::Unblocked(Unblock::Error) => Answer::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned()),
            };
            // Whoever ended it first counts.
            return Ok(if registered.give_up() { answer } else { Answer::Served(registered.woken().await) });
        }
    }
}

/// What a wait is answered with.
enum Answer {
    Error(String),
    TimedOut,
    Served(Woken),
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
