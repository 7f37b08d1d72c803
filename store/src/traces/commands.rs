//! Commands of clients: a sample of them gets a span each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use opentelemetry::{
    Context,
    trace::{SpanBuilder, SpanKind},
};
use opentelemetry_sdk::trace::SdkTracer;
use sluice_topology::Slot;

use super::span::Span;
use crate::dice::Dice;

const MILLION: u64 = 1_000_000;

/// What samples commands.
pub struct Commands {
    tracer: SdkTracer,
    per_million: AtomicU32,
    places: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// Gives back what a command under way holds.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A command that was chosen, until it is answered.
pub struct CommandSpan {
    tracer: SdkTracer,
    begun: SystemTime,
    executed: Option<SystemTime>,
    /// Its name, by the table of commands.
    name: &'static str,
    database: u8,
    slot: Option<Slot>,
    /// Number of its client, and of it among that client's requests: as in the log at debug.
    client: u64,
    request: u64,
    reply_bytes: u64,
    error: Option<&'static str>,
    waited_for: Option<&'static str>,
    _place: Place,
}

impl Commands {
    pub(super) fn new(tracer: SdkTracer, per_million: u32, most: usize, dropped: Arc<AtomicU64>) -> Self {
        Self { tracer, per_million: AtomicU32::new(per_million), places: Arc::new(AtomicUsize::new(most)), dropped }
    }

    /// Of a million commands, how many are chosen.
    pub fn per_million(&self) -> u32 {
        self.per_million.load(Ordering::Relaxed)
    }

    /// Changes that.
    pub fn set_per_million(&self, per_million: u32) {
        self.per_million.store(per_million, Ordering::Relaxed);
    }

    /// Whether the next command is chosen; `None` also when too many that were are under way, which counts as dropped.
    pub fn choose(
        &self,
        dice: &mut Dice,
        client: u64,
        describe: impl FnOnce() -> (&'static str, u8, Option<Slot>),
    ) -> Option<CommandSpan> {
        if !falls(dice, self.per_million()) {
            return None;
        }
        let taken = self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |places| places.checked_sub(1));
        if taken.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let place = Place(self.places.clone());
        let (name, database, slot) = describe();
        Some(CommandSpan {
            tracer: self.tracer.clone(),
            begun: SystemTime::now(),
            executed: None,
            name,
            database,
            slot,
            client,
            request: 0,
            reply_bytes: 0,
            error: None,
            waited_for: None,
            _place: place,
        })
    }
}

/// Codes of errors that the store itself gives. Any other may be a user's word: scripts make errors of their own.
const CODES: [&str; 25] = [
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "ERR",
    "EXECABORT",
    "INVALIDOBJ",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGROUP",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOTBUSY",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

impl CommandSpan {
    /// It had to wait for something, before or while it was executed.
    pub fn waits_for(&mut self, what: &'static str) {
        self.waited_for.get_or_insert(what);
    }

    /// It was executed, as that request of its client, and this is its reply, or a part of it.
    pub fn replied(&mut self, request: u64, reply: &[u8]) {
        self.executed.get_or_insert_with(SystemTime::now);
        self.request = request;
        if self.reply_bytes == 0
            && let Some(text) = reply.strip_prefix(b"-")
        {
            self.failed(text);
        }
        self.reply_bytes += reply.len() as u64;
    }

    /// It was answered with that error in the end.
    pub fn failed(&mut self, text: &[u8]) {
        let code = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        self.error = Some(CODES.into_iter().find(|known| known.as_bytes() == code).unwrap_or("other"));
    }

    /// It is answered.
    pub fn end(self) {
        let builder = SpanBuilder::from_name(self.name).with_kind(SpanKind::Server).with_start_time(self.begun);
        let mut span = Span::begin(&self.tracer, builder, &Context::new());
        span.set("db.system.name", "redis");
        span.set("db.operation.name", self.name);
        span.set("db.namespace", self.database.to_string());
        span.count("sluice.client", self.client);
        span.count("sluice.request", self.request);
        span.count("sluice.reply.bytes", self.reply_bytes);
        if let Some(slot) = self.slot {
            span.count("sluice.slot", u64::from(slot.get()));
        }
        if let Some(what) = self.waited_for {
            span.set("sluice.waited_for", what);
        }
        if let Some(code) = self.error {
            span.set("error.type", code);
            span.fail();
        }
        if let Some(at) = self.executed {
            // From here on it waited to be committed, durable where that is promised.
            span.event_at("executed", at);
        }
    }
}

/// Says yes so many times of a million.
fn falls(dice: &mut Dice, per_million: u32) -> bool {
    dice.below(MILLION) < u64::from(per_million)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_a_million_are_chosen_whatever_the_connection() {
        for per_million in [0, 1000, 250_000, 1_000_000] {
            let chosen = (0..1000).map(|seed| {
                let mut dice = Dice::seeded(seed);
                (0..1000).filter(|_| falls(&mut dice, per_million)).count() as u64
            });
            let (chosen, expected) = (chosen.sum::<u64>(), u64::from(per_million));
            assert!(chosen.abs_diff(expected) <= expected / 5, "{chosen} of a million, {expected} were asked for");
            assert!(per_million > 0 || chosen == 0);
        }
    }

    #[test]
    fn short_connections_are_chosen_from_as_well() {
        let chosen = (0..100_000).filter(|seed| falls(&mut Dice::seeded(*seed), 10_000)).count();
        assert!((800..1200).contains(&chosen), "{chosen}");
    }
}
