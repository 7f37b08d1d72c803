//! Live writers. Each owns its keys, so it knows what every one of them must hold, and keeps that account in memory: what was
//! acknowledged must be there; what failed may be there or not, as the failure does not say; anything else was never written.

use std::{collections::HashMap, sync::Arc, time::Duration, time::Instant};

use redis::{RedisResult, cluster_async::ClusterConnection};
use serde::Serialize;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::stats::Stats;

/// Writers at once.
pub(super) const WRITERS: usize = 8;
/// Counters and logs of one writer.
const SHARED_KEYS: u64 = 16;
/// Bytes after which a log goes on in a new key.
const LOG_TOKENS_MAX: u64 = 200;

/// What one writer wrote.
#[derive(Default)]
pub(super) struct Account {
    writer: usize,
    /// In front of every key: a hash tag, where all of a writer's keys are to be in one slot.
    tag: String,
    /// Keys written once: the value is made from the number.
    once: HashMap<u64, Fate>,
    /// INCR: acknowledged and unknown increments by counter.
    counters: HashMap<u64, (u64, u64)>,
    /// APPEND: tokens in order by log, and whether each was acknowledged.
    logs: HashMap<u64, Vec<(u64, bool)>>,
    /// One key written over and over: the number acknowledged last, the number tried last.
    latest: (u64, u64),
    acknowledged: u64,
    unknown: u64,
    stale: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Written,
    Deleted,
    WriteUnknown,
    DeleteUnknown,
}

/// What a verification found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveReport {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Requests whose outcome the client could not tell.
    pub unknown: u64,
    /// Keys read.
    pub keys_read: u64,
    /// Acknowledged writes that were not there.
    pub missing: u64,
    /// Values, or deleted keys that came back, which were never written.
    pub wrong: u64,
    /// INCR and APPEND found more often than asked for: a retry by the client after a broken connection.
    pub applied_again: u64,
    /// Reads during the writing that did not show the writer's own last write.
    pub stale: u64,
    /// The first few of what is missing or wrong.
    pub examples: Vec<String>,
}

impl LiveReport {
    fn found(&mut self, kind: &str, count: u64, example: impl FnOnce() -> String) {
        match kind {
            "missing" => self.missing += count,
            "wrong" => self.wrong += count,
            _ => {}
        }
        if self.examples.len() < 20 {
            self.examples.push(format!("{kind}: {}", example()));
        }
    }
}

impl Account {
    pub(super) fn new(writer: usize, tag: String) -> Self {
        Self { writer, tag, ..Self::default() }
    }

    pub(super) fn figures(&self) -> (u64, u64) {
        (self.acknowledged, self.unknown)
    }

    fn once_key(&self, number: u64) -> String {
        format!("{}live:{}:once:{number}", self.tag, self.writer)
    }

    fn once_value(&self, number: u64) -> String {
        format!("value {number} of writer {}, {}", self.writer, "x".repeat((number % 97) as usize))
    }

    fn counter_key(&self, counter: u64) -> String {
        format!("{}live:{}:counter:{counter}", self.tag, self.writer)
    }

    fn log_key(&self, log: u64) -> String {
        format!("{}live:{}:log:{log}", self.tag, self.writer)
    }

    fn latest_key(&self) -> String {
        format!("{}live:{}:latest", self.tag, self.writer)
    }

    fn count(&mut self, acknowledged: bool) {
        if acknowledged {
            self.acknowledged += 1;
        } else {
            self.unknown += 1;
        }
    }

    /// Writes until told to stop; returns what was written.
    pub(super) async fn write(
        mut self,
        mut connection: ClusterConnection,
        stats: Arc<Stats>,
        pace: Duration,
        stop: watch::Receiver<bool>,
        progress: watch::Sender<(u64, u64)>,
        first: u64,
    ) -> (Self, u64) {
        let mut clock = tokio::time::interval(pace);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut number = first;
        while !*stop.borrow() {
            clock.tick().await;
            self.step(&mut connection, &stats, number).await;
            let _ = progress.send(self.figures());
            number += 1;
        }
        (self, number)
    }

    async fn step(&mut self, connection: &mut ClusterConnection, stats: &Stats, number: u64) {
        match number % 8 {
            0..=2 => {
                let (key, value) = (self.once_key(number), self.once_value(number));
                let done = send::<()>(connection, stats, redis::cmd("SET").arg(key).arg(value)).await.is_some();
                self.once.insert(number, if done { Fate::Written } else { Fate::WriteUnknown });
                self.count(done);
            }
            3 | 4 => {
                let counter = number / 8 % SHARED_KEYS;
                let done = send::<i64>(connection, stats, redis::cmd("INCR").arg(self.counter_key(counter))).await.is_some();
                let entry = self.counters.entry(counter).or_default();
                if done {
                    entry.0 += 1;
                } else {
                    entry.1 += 1;
                }
                self.count(done);
            }
            5 => {
                let log = number / 8 % SHARED_KEYS + number / 8 / SHARED_KEYS / LOG_TOKENS_MAX * SHARED_KEYS;
                let token = format!("{number};");
                let done = send::<i64>(connection, stats, redis::cmd("APPEND").arg(self.log_key(log)).arg(token)).await.is_some();
                self.logs.entry(log).or_default().push((number, done));
                self.count(done);
            }
            6 => self.overwrite_and_read(connection, stats, number).await,
            _ => {
                // Deletes a key written a while ago, which must not come back.
                let victim = (number / 8).saturating_sub(32) * 8;
                if self.once.get(&victim) == Some(&Fate::Written) {
                    let done = send::<i64>(connection, stats, redis::cmd("DEL").arg(self.once_key(victim))).await.is_some();
                    self.once.insert(victim, if done { Fate::Deleted } else { Fate::DeleteUnknown });
                    self.count(done);
                }
            }
        }
    }

    /// One key again and again, and at once read back: a second node that thought it owned the slot would show itself here.
    async fn overwrite_and_read(&mut self, connection: &mut ClusterConnection, stats: &Stats, number: u64) {
        let done = send::<()>(connection, stats, redis::cmd("SET").arg(self.latest_key()).arg(number)).await.is_some();
        self.latest.1 = number;
        if done {
            self.latest.0 = number;
        }
        self.count(done);
        let found = send::<Option<u64>>(connection, stats, redis::cmd("GET").arg(self.latest_key())).await;
        if let Some(found) = found.filter(|found| found.unwrap_or(0) < self.latest.0) {
            self.stale += 1;
            eprintln!("stale read: {} holds {found:?}, {} was acknowledged", self.latest_key(), self.latest.0);
        }
    }

    /// Reads back every key of this account.
    pub(super) async fn verify(&self, connection: &mut ClusterConnection, report: &mut LiveReport) -> RedisResult<()> {
        report.acknowledged += self.acknowledged;
        report.unknown += self.unknown;
        report.stale += self.stale;
        for (number, fate) in &self.once {
            let key = self.once_key(*number);
            let found: Option<String> = redis::cmd("GET").arg(&key).query_async(connection).await?;
            report.keys_read += 1;
            match (fate, found) {
                (Fate::Written, None) => report.found("missing", 1, || key),
                (Fate::Deleted, Some(_)) => report.found("wrong", 1, || format!("{key} was deleted and is there")),
                (_, Some(value)) if value != self.once_value(*number) => {
                    report.found("wrong", 1, || format!("{key} holds {value:?}"));
                }
                _ => {}
            }
        }
        for (counter, (acknowledged, unknown)) in &self.counters {
            let key = self.counter_key(*counter);
            let found: Option<u64> = redis::cmd("GET").arg(&key).query_async(connection).await?;
            let found = found.unwrap_or(0);
            report.keys_read += 1;
            if found < *acknowledged {
                report.found("missing", acknowledged - found, || {
                    format!("{key} is {found}, {acknowledged} increments were acknowledged")
                });
            }
            report.applied_again += found.saturating_sub(acknowledged + unknown);
        }
        for (log, tokens) in &self.logs {
            let key = self.log_key(*log);
            let found: Option<String> = redis::cmd("GET").arg(&key).query_async(connection).await?;
            report.keys_read += 1;
            verify_log(&key, tokens, &found.unwrap_or_default(), report);
        }
        if self.latest.1 > 0 {
            let key = self.latest_key();
            let found: Option<u64> = redis::cmd("GET").arg(&key).query_async(connection).await?;
            let found = found.unwrap_or(0);
            report.keys_read += 1;
            if found < self.latest.0 {
                report.found("missing", 1, || format!("{key} is {found}, {} was acknowledged", self.latest.0));
            } else if found > self.latest.1 {
                report.found("wrong", 1, || format!("{key} is {found}, {} was the last written", self.latest.1));
            }
        }
        Ok(())
    }
}

/// A log holds its acknowledged tokens in order; those of unknown outcome may be anywhere or nowhere.
fn verify_log(key: &str, tokens: &[(u64, bool)], found: &str, report: &mut LiveReport) {
    let mut left: HashMap<u64, u64> = HashMap::new();
    let mut order = Vec::new();
    for token in found.split_terminator(';') {
        match token.parse::<u64>() {
            Ok(number) if tokens.iter().any(|(known, _)| *known == number) => {
                *left.entry(number).or_default() += 1;
                order.push(number);
            }
            _ => report.found("wrong", 1, || format!("{key} holds {token:?}, which was never appended")),
        }
    }
    for (number, acknowledged) in tokens {
        match left.get(number) {
            None if *acknowledged => report.found("missing", 1, || format!("{key} lacks {number}")),
            Some(count) => report.applied_again += count - 1,
            None => {}
        }
    }
    let acknowledged: Vec<u64> = tokens.iter().filter(|(_, done)| *done).map(|(number, _)| *number).collect();
    let mut first_seen: Vec<u64> = Vec::new();
    for number in order {
        if acknowledged.binary_search(&number).is_ok() && !first_seen.contains(&number) {
            first_seen.push(number);
        }
    }
    if !first_seen.is_sorted() {
        report.found("wrong", 1, || format!("{key} holds its tokens out of order"));
    }
}

/// Sends one request; a failure is noted, never repeated here: the client has done its retries.
async fn send<T: redis::FromRedisValue>(connection: &mut ClusterConnection, stats: &Stats, command: &redis::Cmd) -> Option<T> {
    let started = Instant::now();
    match command.query_async::<T>(connection).await {
        Ok(reply) => {
            stats.succeeded(started.elapsed());
            Some(reply)
        }
        Err(error) => {
            stats.failed(started.elapsed(), &error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[(u64, bool)], found: &str) -> LiveReport {
        let mut report = LiveReport::default();
        verify_log("log", tokens, found, &mut report);
        report
    }

    #[test]
    fn a_log_must_hold_what_was_acknowledged() {
        let whole = check(&[(1, true), (2, true)], "1;2;");
        assert_eq!((whole.missing, whole.wrong, whole.applied_again), (0, 0, 0));
        assert_eq!(check(&[(1, true), (2, true)], "1;").missing, 1);
        assert_eq!(check(&[(1, true), (2, false)], "1;").missing, 0);
    }

    #[test]
    fn a_log_holds_nothing_else_and_in_order() {
        assert_eq!(check(&[(1, true)], "1;7;").wrong, 1);
        assert_eq!(check(&[(1, true), (2, true)], "2;1;").wrong, 1);
        assert_eq!(check(&[(1, true)], "1;1;").applied_again, 1);
    }
}
