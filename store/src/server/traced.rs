//! The commands of a connection that get spans.

use bytes::Bytes;

use crate::{
    commands::{Session, described},
    dice::Dice,
    traces::{CommandSpan, Commands},
};

/// Which of them are under way.
pub(super) struct Traced {
    dice: Dice,
    /// The one that is being executed, or waits.
    current: Option<CommandSpan>,
    /// Those whose replies wait for the turn's end; and whether they rest on its changes.
    answered: Vec<(CommandSpan, bool)>,
}

impl Traced {
    pub(super) fn new(client: u64) -> Self {
        Self { dice: Dice::seeded(client), current: None, answered: Vec::new() }
    }

    /// Here a command begins. One that is executed again was chosen, or not, before.
    pub(super) fn begin(&mut self, commands: &Commands, session: &Session, request: &[Bytes]) {
        self.current = commands.choose(&mut self.dice, session.id(), || {
            let (name, slot) = described(request);
            (name, session.database, slot)
        });
    }

    /// The current one was executed: all of its reply, or a piece.
    pub(super) fn replied(&mut self, session: &Session, reply: &[u8]) {
        if let Some(span) = &mut self.current {
            span.replied(session.requests, reply);
        }
    }

    /// That was all; its reply waits for the turn's end.
    pub(super) fn answered(&mut self, rests_on_changes: bool) {
        self.answered.extend(self.current.take().map(|span| (span, rests_on_changes)));
    }

    /// The current one has to wait.
    pub(super) fn waits_for(&mut self, what: &'static str) {
        if let Some(span) = &mut self.current {
            span.waits_for(what);
        }
    }

    /// The turn was not committed.
    pub(super) fn taken_back(&mut self, text: &str) {
        self.answered.iter_mut().filter(|(_, changed)| *changed).for_each(|(span, _)| span.failed(text.as_bytes()));
    }

    /// The turn has ended: its replies may be sent.
    pub(super) fn settled(&mut self) {
        self.answered.drain(..).for_each(|(span, _)| span.end());
    }

    /// What stopped a run is answered.
    pub(super) fn ended(&mut self) {
        if let Some(span) = self.current.take() {
            span.end();
        }
    }
}
