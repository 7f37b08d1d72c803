//! One run of the story: what was loaded, the live writers, and the account of both.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use redis::{RedisResult, cluster_async::ClusterConnection};
use serde::Serialize;
use sluice_topology::{Slot, SlotRanges};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    client::Target,
    input::Lines,
    live::{Account, LiveReport, WRITERS},
    stats::{PhaseReport, Stats},
};

/// Requests in flight while loading and verifying. Below 50, the queue of one connection of redis 1.8.1: a request that waits for room
/// in it is not polled while the client asks for the slots anew, whose own question then waits behind it for ever.
const IN_FLIGHT: usize = 32;

/// One run of the story.
pub struct Session {
    target: Target,
    connection: ClusterConnection,
    lines: Lines,
    rate: u32,
    slots: SlotRanges,
    stats: Arc<Stats>,
    phases: Mutex<Vec<PhaseReport>>,
    loaded: AtomicU64,
    load_seconds: Mutex<f64>,
    live: tokio::sync::Mutex<Live>,
    progress: Mutex<Vec<watch::Receiver<(u64, u64)>>>,
    verified: Mutex<Option<Report>>,
}

#[derive(Default)]
struct Live {
    stop: Option<watch::Sender<bool>>,
    writers: Vec<JoinHandle<(Account, u64)>>,
    accounts: Vec<(Account, u64)>,
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    seconds: f64,
    /// Loaded keys that were read back.
    loaded_checked: u64,
    loaded_missing: u64,
    loaded_wrong: u64,
    live: LiveReport,
    /// The first few loaded keys that are missing or wrong.
    examples: Vec<String>,
}

impl Report {
    /// Whether every acknowledged write is there and nothing that was never written.
    pub fn is_whole(&self) -> bool {
        self.loaded_missing + self.loaded_wrong + self.live.missing + self.live.wrong + self.live.stale == 0
    }
}

/// Everything known so far.
#[derive(Serialize)]
pub struct Status {
    loaded: u64,
    load_seconds: f64,
    live_acknowledged: u64,
    live_unknown: u64,
    now: PhaseReport,
    phases: Vec<PhaseReport>,
    verified: Option<Report>,
}

impl Session {
    /// Connects to that cluster for a run with that input, and live writes at that rate a second.
    pub async fn start(target: Target, lines: Lines, rate: u32) -> anyhow::Result<Self> {
        let connection = target.connect().await?;
        Ok(Self {
            target,
            connection,
            lines,
            rate,
            slots: SlotRanges::full(),
            stats: Arc::new(Stats::new("start")),
            phases: Mutex::default(),
            loaded: AtomicU64::new(0),
            load_seconds: Mutex::default(),
            live: tokio::sync::Mutex::default(),
            progress: Mutex::default(),
            verified: Mutex::default(),
        })
    }

    /// Has the live writers write only to keys of these slots, each to one of them.
    pub fn within(mut self, slots: SlotRanges) -> Self {
        self.slots = slots;
        self
    }

    /// Writes the first `keys` lines of the input.
    pub async fn load(&self, keys: usize) -> anyhow::Result<u64> {
        let started = Instant::now();
        self.lines.must_have(keys)?;
        let mut results = stream::iter(0..keys)
            .map(|index| set(self.connection.clone(), self.lines.clone(), index))
            .buffer_unordered(IN_FLIGHT);
        self.loaded.store(0, Ordering::Relaxed);
        while let Some(result) = results.next().await {
            result?;
            self.loaded.fetch_add(1, Ordering::Relaxed);
        }
        *self.load_seconds.lock().unwrap_or_else(PoisonError::into_inner) = started.elapsed().as_secs_f64();
        Ok(keys as u64)
    }

    /// Starts the live writers, or goes on with them.
    pub async fn start_live(&self) -> anyhow::Result<()> {
        let mut live = self.live.lock().await;
        anyhow::ensure!(live.stop.is_none(), "live writers are running already");
        let (stop, stopped) = watch::channel(false);
        let mut accounts = std::mem::take(&mut live.accounts);
        if accounts.is_empty() {
            let tag = |writer| if self.slots == SlotRanges::full() { String::new() } else { tag(writer, &self.slots) };
            accounts = (0..WRITERS).map(|writer| (Account::new(writer, tag(writer)), 1)).collect();
        }
        let pace = Duration::from_secs(1) * WRITERS as u32 / self.rate.max(1);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.clear();
        for (account, first) in accounts {
            let (sender, receiver) = watch::channel(account.figures());
            progress.push(receiver);
            live.writers.push(tokio::spawn(account.write(
                self.connection.clone(),
                Arc::clone(&self.stats),
                pace,
                stopped.clone(),
                sender,
                first,
            )));
        }
        live.stop = Some(stop);
        Ok(())
    }

    /// Ends the live writers, each after its current request.
    pub async fn stop_live(&self) -> anyhow::Result<()> {
        let mut live = self.live.lock().await;
        if let Some(stop) = live.stop.take() {
            let _ = stop.send(true);
            for writer in std::mem::take(&mut live.writers) {
                live.accounts.push(writer.await?);
            }
        }
        Ok(())
    }

    /// Ends the phase that runs and begins another.
    pub fn next_phase(&self, name: &str) -> PhaseReport {
        let ended = self.stats.next_phase(name);
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).push(ended.clone());
        ended
    }

    /// Stops the live writers and reads every acknowledged write back.
    ///
    /// Over a connection of its own: redis 1.8.1's cluster connection can forget the last requests that were redirected, when no others
    /// follow that would wake it up, and reading is where requests come to an end.
    pub async fn verify(&self) -> anyhow::Result<Report> {
        self.stop_live().await?;
        let connection = self.target.connect().await?;
        let started = Instant::now();
        let loaded = usize::try_from(self.loaded.load(Ordering::Relaxed))?;
        let mut report = Report {
            seconds: 0.0,
            loaded_checked: 0,
            loaded_missing: 0,
            loaded_wrong: 0,
            live: LiveReport::default(),
            examples: Vec::new(),
        };
        let mut results =
            stream::iter(0..loaded).map(|index| get(connection.clone(), self.lines.clone(), index)).buffer_unordered(IN_FLIGHT);
        while let Some(result) = results.next().await {
            let (index, found) = result?;
            let (key, value) = self.lines.line(index);
            report.loaded_checked += 1;
            let problem = match &found {
                Some(found) if found == value => continue,
                Some(_) => "another value",
                None => "missing",
            };
            report.loaded_missing += u64::from(found.is_none());
            report.loaded_wrong += u64::from(found.is_some());
            if report.examples.len() < 20 {
                report.examples.push(format!("{key}: {problem}"));
            }
        }
        let live = self.live.lock().await;
        for (account, _) in &live.accounts {
            account.verify(&mut connection.clone(), &mut report.live).await?;
        }
        report.seconds = started.elapsed().as_secs_f64();
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        Ok(report)
    }

    /// Everything known so far.
    pub fn status(&self) -> Status {
        let progress: Vec<(u64, u64)> =
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|writer| *writer.borrow()).collect();
        Status {
            loaded: self.loaded.load(Ordering::Relaxed),
            load_seconds: *self.load_seconds.lock().unwrap_or_else(PoisonError::into_inner),
            live_acknowledged: progress.iter().map(|(acknowledged, _)| acknowledged).sum(),
            live_unknown: progress.iter().map(|(_, unknown)| unknown).sum(),
            now: self.stats.report(),
            phases: self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            verified: self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A hash tag of one of these slots, each writer's its own.
fn tag(writer: usize, slots: &SlotRanges) -> String {
    let mut tags = (0..).map(|number| format!("{{{writer}-{number}}}"));
    tags.find(|tag| slots.contains(Slot::of_key(tag.as_bytes()))).unwrap_or_default()
}

// Owned arguments, so that a stream of these can live in a task.
async fn set(mut connection: ClusterConnection, lines: Lines, index: usize) -> RedisResult<()> {
    let (key, value) = lines.line(index);
    redis::cmd("SET").arg(key).arg(value).query_async(&mut connection).await
}

async fn get(mut connection: ClusterConnection, lines: Lines, index: usize) -> RedisResult<(usize, Option<String>)> {
    let found = redis::cmd("GET").arg(&lines.line(index).0).query_async(&mut connection).await?;
    Ok((index, found))
}
