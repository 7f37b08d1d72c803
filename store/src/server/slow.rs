//! A script that runs for longer than others wait for it (`busy-reply-threshold`).
//!
//! It was undone on the thread of its connection, which serves others again. Its request, EVAL or a whole transaction, is executed once more
//! from its beginning: on a thread of its own, in a turn of its own, with everybody else kept out, as in Redis. They are told BUSY rather than made
//! to wait. Nothing of it was seen before, so running it twice is as running it once, later.

use std::sync::Arc;

use super::{connection::Connection, stopped::Stopped, turns::Turns};
use crate::{
    blocked::TurnEnd,
    clients::SlowScript,
    commands::{Pace, forget_interpreter},
    protocol::Request,
};

impl Connection {
    /// Executes a request whose script has passed its time. It is not cut short when its client goes, but ends by itself, by
    /// `script-time-limit`, by SCRIPT KILL, or with the process. `None`: its thread failed, and the connection with it.
    pub(super) async fn execute_slow(mut self, request: Request) -> Option<(Self, (Stopped, Arc<TurnEnd>))> {
        let (node, client) = (self.node.clone(), self.session.client.clone());
        let Pace::TooSlow(script) = std::mem::take(&mut self.session.pace) else {
            let executed = self.execute(Some(request));
            return Some((self, executed));
        };
        let Ok(alone) = node.clients.pause.alone(client.id, Some(script.clone())).await else {
            // Another one was faster: of that it is told.
            let executed = self.execute(Some(request));
            return Some((self, executed));
        };
        if node.is_stopping() {
            // The process did not see it when it ended others.
            script.kill();
        }
        client.set_held(true);
        let work = tokio::task::spawn_blocking(move || {
            // Who looked before the others were kept out is still inside.
            self.node.engine.drain();
            let executed = self.execute_alone(script, request);
            forget_interpreter();
            (self, executed)
        });
        let executed = work.await.ok();
        client.set_held(false);
        drop(alone);
        executed
    }

    fn execute_alone(&mut self, script: Arc<SlowScript>, request: Request) -> (Stopped, Arc<TurnEnd>) {
        // The turns of its thread are for those who are to be told, and what else it has asked for comes later.
        let shared = std::mem::replace(&mut self.turns, Turns::alone(&self.node));
        let later = std::mem::take(&mut self.run);
        self.session.pace = Pace::Alone(script);
        let mut executed = self.execute(Some(request));
        // A key that it does not name was the background's for a moment.
        while let (Stopped::Busy(request), _) = executed {
            executed = self.execute(Some(request));
        }
        self.session.pace = Pace::Quick;
        self.turns = shared;
        self.run = later;
        executed
    }
}
