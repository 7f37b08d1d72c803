//! The source's side of one unit: snapshot, catch-up, switch.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, TryFutureExt as _};
use sluice_topology::{Slot, SlotEpoch, SlotRanges, admin::AdminError, merge::SlotRow};
use tokio::{
    sync::mpsc,
    time::{Instant as Deadline, timeout_at},
};

use super::{
    GivesWay, MigrationError, Migrations, behind_others, blocking,
    brake::{Brake, Moving},
    buffers::Held,
    import::{BeginRequest, FORMAT, Sent, SlotClaim},
    jobs::Job,
    journal::{Journal, SourceUnit},
    link::Link,
    rules,
    run::BACKOFF_FIRST,
    wire::{Cutter, FrameKind, Piece},
};
use crate::{
    engine::{ChangedKey, RawRecord, Subscription, SystemBatch},
    traces::{self, Steps},
};

/// Pieces read ahead of the link.
const PIECES_AHEAD: usize = 2;
/// What is left is sent while writes wait, once that should take no longer.
const LAST_ROUND: Duration = Duration::from_millis(4);
/// A round that leaves more than so many hundredths of what the one before it left does not converge.
const CONVERGING: usize = 70;
/// Rounds in a row that do not, before writers are slowed.
const ROUNDS_PATIENT: u32 = 2;
/// How often the end of a switch is put off for libraries of functions that were loaded meanwhile: its slots wait.
const LIBRARY_ROUNDS_MAX: u32 = 16;
/// Switches of one attempt that may run out of time before the attempt is given up.
const SWITCHES_MAX: u32 = 8;

/// What one unit moved.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) keys: u64,
    pub(super) pause: Duration,
}

/// A unit on its way, at its source.
struct Transfer<'a> {
    migrations: &'a Arc<Migrations>,
    job: &'a Arc<Job>,
    slots: SlotRanges,
    link: Link,
    changes: Arc<Subscription>,
    brake: Brake,
    keys: u64,
}

impl Migrations {
    /// One attempt for one unit. An error means that the attempt is aborted and this node serves the unit; once the switch is decided
    /// it only returns when the target has confirmed it.
    pub(super) async fn move_unit(
        self: &Arc<Self>,
        job: &Arc<Job>,
        slots: &SlotRanges,
        bytes: u64,
    ) -> Result<Moved, MigrationError> {
        let status = job.status();
        job.update(|status| status.attempts += 1);
        let foreign = slots.difference(&self.cluster.owned());
        if !foreign.is_empty() {
            return Err(MigrationError::Refused(format!("slots {foreign} are not this node's any more")));
        }
        let claimed = slots.iter().map(|slot| (slot, self.cluster.row(slot).epoch)).collect();
        let unit = SourceUnit { target: status.target, job: status.job, slots: claimed, committed: false };
        let (this, recorded) = (self.clone(), unit.clone());
        let attempt = blocking(move || {
            let attempt = this.journal.started(&recorded)?;
            this.active().insert(attempt);
            Ok(attempt)
        })
        .await?;
        let mut steps = Steps::of(traces::span("migration unit"));
        for (name, number) in [("sluice.migration.attempt", attempt), ("sluice.migration.slots", slots.len() as u64)] {
            steps.whole().count(name, number);
        }
        for (name, word) in
            [("sluice.migration.job", status.job.to_string()), ("sluice.migration.target", status.target.to_string())]
        {
            steps.whole().set(name, word);
        }
        // Until the unit is the target's, or this node's alone again.
        let _moving = Moving::begin(self.cluster.clone(), slots.clone());
        let outcome = self.transfer(job, attempt, &unit, bytes, &mut steps).await;
        steps.judge(&outcome);
        match outcome {
            Ok((keys, parked)) => {
                job.step("committed");
                steps.next("committed");
                steps.whole().count("sluice.migration.keys", keys);
                self.finish(attempt, &unit).await;
                Ok(Moved { keys, pause: parked.elapsed() })
            }
            Err(error) => {
                self.undo(attempt, &unit).await?;
                Err(error)
            }
        }
    }

    /// From BEGIN to COMMITTED; with the keys since when the unit's writes wait.
    async fn transfer(
        self: &Arc<Self>,
        job: &Arc<Job>,
        attempt: u64,
        unit: &SourceUnit,
        bytes: u64,
        steps: &mut Steps,
    ) -> Result<(u64, Instant), MigrationError> {
        let node = self
            .cluster
            .node(unit.target)
            .ok_or_else(|| MigrationError::Refused(format!("node {} has left the topology", unit.target)))?;
        job.step("staging");
        steps.next("staging");
        let begin = self.begin_request(attempt, unit, bytes)?;
        let link = Link::open(self.clone(), job.clone(), node.clone(), attempt, &begin).await?;
        let (this, slots) = (self.clone(), unit.ranges());
        let subscribed = slots.clone();
        let changes = blocking(move || Ok(this.engine.subscribe(&subscribed, this.changes_bytes()))).await?;
        let brake = Brake::new(self.cluster.clone(), slots.clone());
        let mut transfer = Transfer { migrations: self, job, slots, link, changes: Arc::new(changes), brake, keys: 0 };
        job.step("snapshot");
        steps.next("snapshot");
        transfer.snapshot().await?;
        let mut switches = 0;
        let parked = loop {
            job.step("catching up");
            steps.next("catching up");
            self.share_libraries(&node, attempt, unit).await?;
            transfer.catch_up().await?;
            job.step("switching");
            steps.next("switching");
            let parked = Instant::now();
            match transfer.last_round().await {
                Ok(()) => break parked,
                Err(error @ MigrationError::SwitchTimeout(_)) if switches < SWITCHES_MAX => {
                    // Nothing was said of a switch yet: the writes go on, slower, and the copy as well.
                    switches += 1;
                    tracing::info!(attempt, switches, %error, "a switch is put off");
                    self.cluster.unpark(&transfer.slots);
                    transfer.brake.harder();
                }
                Err(error) => return Err(error),
            }
        };
        steps.next("preparing");
        transfer.prepare(attempt, parked).await?;
        steps.next("deciding");
        let (this, decided) = (self.clone(), unit.clone());
        blocking(move || {
            // Reads too: from the decision on this node must not show what the target may already have changed.
            this.cluster.park(&decided.ranges(), true);
            this.undecided().insert(attempt, decided.ranges());
            this.journal.commit(attempt, &decided).map_err(|error| {
                // Whether the decision is on disk is not known: nothing may be served until a restart has read it.
                tracing::error!(attempt, %error, "the decision of a switch was not confirmed by the disk; its slots stay closed");
                MigrationError::from(error)
            })
        })
        .await?;
        Ok((transfer.keys, parked))
    }

    fn begin_request(&self, attempt: u64, unit: &SourceUnit, bytes: u64) -> Result<String, MigrationError> {
        let cluster_id = self.cluster.known().cluster_id.ok_or_else(|| MigrationError::Refused("no cluster".into()))?;
        let request = BeginRequest {
            format: FORMAT,
            cluster_id,
            source: self.cluster.me(),
            target: unit.target,
            job: unit.job,
            attempt,
            slots: unit.slots.iter().map(|(slot, epoch)| SlotClaim { slot: *slot, epoch: *epoch }).collect(),
            bytes,
            now_ms: self.engine.now_ms(),
        };
        serde_json::to_string(&request).map_err(|error| MigrationError::Wire(error.to_string()))
    }

    /// ABORTED(n) at this node, then the unit is served again; the target is told, and asks if it does not hear it.
    async fn undo(self: &Arc<Self>, attempt: u64, unit: &SourceUnit) -> Result<(), MigrationError> {
        if self.undecided().contains_key(&attempt) {
            // The journal's answer to the decision is unknown: see `transfer`.
            return Err(MigrationError::Undecided(attempt));
        }
        let (this, aborted) = (self.clone(), unit.clone());
        blocking(move || {
            this.journal.abort(attempt)?;
            this.active().remove(&attempt);
            this.cluster.unpark(&aborted.ranges());
            Ok(())
        })
        .await?;
        if let Some(node) = self.cluster.node(unit.target)
            && let Err(error) = self.tell(&node, "ABORT", attempt).await
        {
            tracing::debug!(attempt, %error, "the target was not told of an aborted attempt; it will ask");
        }
        Ok(())
    }

    /// From COMMITTED to DONE: the target is told until it confirms, however long that takes; then the slots are its own.
    pub(super) async fn finish(self: &Arc<Self>, attempt: u64, unit: &SourceUnit) {
        let (mut backoff, mut rounds) = (BACKOFF_FIRST, 0);
        loop {
            match self.try_finish(attempt, unit, rounds < LIBRARY_ROUNDS_MAX).await {
                Ok(()) => return,
                Err(MigrationError::Libraries) => rounds += 1,
                Err(error) => {
                    tracing::warn!(attempt, slots = %unit.ranges(), %error, "a decided switch is not confirmed yet; its slots wait");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(self.limits.backoff_max);
                }
            }
        }
    }

    /// `all`: not before the target was sent every library of functions.
    async fn try_finish(self: &Arc<Self>, attempt: u64, unit: &SourceUnit, all: bool) -> Result<(), MigrationError> {
        let unknown = || MigrationError::Refused(format!("node {} is not in the topology", unit.target));
        let node = self.cluster.node(unit.target).ok_or_else(unknown)?;
        let shared = match self.share_libraries(&node, attempt, unit).await {
            Ok(change) => Some(change),
            Err(MigrationError::Peer(error @ AdminError::Refused { .. })) => {
                // What is decided is decided.
                tracing::warn!(attempt, target = %unit.target, %error, "slots move without the libraries of functions that were loaded last");
                None
            }
            Err(error) => return Err(error),
        };
        self.tell(&node, "COMMIT", attempt).await?;
        let (this, done) = (self.clone(), unit.clone());
        blocking(move || {
            let given =
                |(slot, epoch): (&Slot, &SlotEpoch)| (*slot, SlotRow { owner: Some(done.target), epoch: SlotEpoch(epoch.0 + 1) });
            let learned = |(slot, row): &(Slot, SlotRow)| rules::records(this.cluster.row(*slot), *row);
            let rows: Vec<(Slot, SlotRow)> = done.slots.iter().map(given).filter(learned).collect();
            let mut batch = SystemBatch::new();
            Journal::forget_source(&mut batch, attempt);
            // From the look at them until MOVED is answered no library is loaded here.
            let mut unchanged = None;
            this.cluster.switch(&rows, batch, |records| {
                let changes = unchanged.insert(this.libraries());
                match shared.filter(|shared| *shared != **changes) {
                    Some(_) if all => return Err(MigrationError::Libraries),
                    Some(_) => tracing::warn!(
                        attempt,
                        "functions are loaded faster than they are sent: slots move without the last of them"
                    ),
                    None => {}
                }
                Ok(this.engine.drop_slots(done.slots.keys().copied(), records)?)
            })?;
            this.undecided().remove(&attempt);
            this.active().remove(&attempt);
            Ok(())
        })
        .await?;
        // Not waited for: the unit is done, and its target would ask.
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.tell(&node, "FORGET", attempt).await {
                tracing::debug!(attempt, %error, "the target was not told that a switch is done; it will ask");
            }
        });
        Ok(())
    }

    async fn tell(&self, node: &sluice_topology::NodeEntry, word: &str, attempt: u64) -> Result<(), MigrationError> {
        let (me, number) = (self.cluster.me().to_string(), attempt.to_string());
        let words: [&[u8]; 5] = [b"CLUSTERX", b"IMPORT", word.as_bytes(), me.as_bytes(), number.as_bytes()];
        self.cluster.dial(node).await?.call(&words).await?;
        Ok(())
    }
}

impl Transfer<'_> {
    /// Every record of one moment. On return the target has all of it in its database.
    async fn snapshot(&mut self) -> Result<(), MigrationError> {
        let (engine, slots) = (self.migrations.engine.clone(), self.slots.clone());
        self.pump(FrameKind::Snapshot, move |push| {
            let _reader = engine.long_reader("migration");
            engine.raw_records(&slots, push)
        })
        .await?;
        self.link.send(FrameKind::SnapshotEnd, Piece::default()).await?;
        self.link.settle().await
    }

    /// Rounds of what has changed meanwhile, until so little is left that it can be sent while writes wait.
    async fn catch_up(&mut self) -> Result<(), MigrationError> {
        let (mut before, mut patience) = (usize::MAX, ROUNDS_PATIENT);
        loop {
            self.go_on()?;
            let keys = self.changes.take()?;
            let (taken, started) = (keys.len(), Instant::now());
            self.send_keys(keys).await?;
            let (left, _) = self.changes.waiting()?;
            let expected = started.elapsed().mul_f64(left as f64 / taken.max(1) as f64);
            if left == 0 || (taken > 0 && expected <= LAST_ROUND) {
                return Ok(());
            }
            if left > before / 100 * CONVERGING {
                patience = patience.saturating_sub(1);
                if patience == 0 {
                    self.brake.harder();
                }
            }
            before = left;
        }
    }

    /// Holds the unit's writes back and sends what is left. On return the target has everything.
    async fn last_round(&mut self) -> Result<(), MigrationError> {
        self.brake.release();
        let deadline = Deadline::now() + self.migrations.limits.switch_timeout;
        let (this, slots) = (self.migrations.clone(), self.slots.clone());
        blocking(move || {
            this.cluster.park(&slots, false);
            Ok(())
        })
        .await?;
        let keys = self.changes.take()?;
        let again = keys.clone();
        match timeout_at(deadline, self.send_keys(keys)).await {
            Ok(sent) => sent,
            Err(_) => {
                // What was on its way may have been cut: all of it is sent once more, over a new link.
                self.link.renew();
                self.changes.put_back(again);
                Err(MigrationError::SwitchTimeout(self.migrations.limits.switch_timeout.as_millis() as u64))
            }
        }
    }

    /// PREPARE n: the target compares what it has with what was sent, makes it durable and says so.
    async fn prepare(&mut self, attempt: u64, parked: Instant) -> Result<(), MigrationError> {
        let migrations = self.migrations;
        self.job.step("preparing");
        let tally = self.link.tally().clone();
        // Read after the unit's writes were parked: whatever has a version in it got it before, whatever has expired did before.
        let (versions_end, now_ms) = (migrations.engine.versions_end(), migrations.engine.now_ms());
        let sent = Sent { frames: tally.frames, records: tally.records, digest: tally.digest.finalize(), versions_end, now_ms };
        let sent = serde_json::to_string(&sent).map_err(|error| MigrationError::Wire(error.to_string()))?;
        let (name, number) = (migrations.cluster.me().to_string(), attempt.to_string());
        let words: [&[u8]; 6] = [b"CLUSTERX", b"IMPORT", b"PREPARE", name.as_bytes(), number.as_bytes(), sent.as_bytes()];
        let limit = migrations.limits.switch_timeout;
        let late = || MigrationError::SwitchTimeout(limit.as_millis() as u64);
        let left = limit.saturating_sub(parked.elapsed());
        tokio::time::timeout(left, self.link.call(&words)).await.map_err(|_| late())??;
        // A slot that was emptied or taken away after all is not what was sent.
        self.changes.waiting()?;
        self.go_on()?;
        if parked.elapsed() >= limit { Err(late()) } else { Ok(()) }
    }

    fn go_on(&self) -> Result<(), MigrationError> {
        if self.job.cancelled() { Err(MigrationError::Cancelled) } else { Ok(()) }
    }

    /// Sends those keys as they are now, and waits until the target has them.
    async fn send_keys(&mut self, keys: Vec<ChangedKey>) -> Result<(), MigrationError> {
        if keys.is_empty() {
            return Ok(());
        }
        let engine = self.migrations.engine.clone();
        self.pump(FrameKind::Changes, move |push| engine.raw_now(&keys, push)).await?;
        self.link.settle().await
    }

    /// Sends what a reader, on a thread of its own, pushes.
    async fn pump(
        &mut self,
        kind: FrameKind,
        read: impl FnOnce(&mut dyn FnMut(RawRecord<'_>) -> Result<(), MigrationError>) -> Result<(), MigrationError> + Send + 'static,
    ) -> Result<(), MigrationError> {
        let (sender, mut pieces) = mpsc::channel::<(Piece, Held)>(PIECES_AHEAD);
        let (migrations, batch) = (self.migrations.clone(), self.link.batch());
        let work = move || {
            let mut cutter = Cutter::new(|piece| {
                // Nobody takes it any more when the unit was given up.
                let held = migrations.buffers.hold(piece.len());
                migrations.stages.reader.of(|| sender.blocking_send((piece, held))).map_err(|_| MigrationError::Cancelled)
            });
            let mut way = (kind == FrameKind::Snapshot).then(GivesWay::new);
            read(&mut |record| {
                cutter.push(&record, batch.load(Ordering::Relaxed))?;
                way.iter_mut().for_each(|way| way.after(&record));
                Ok(())
            })?;
            cutter.finish()
        };
        // Of the snapshot: what is changed since is sent while writes are slowed, or wait.
        let failed = |error: &dyn std::fmt::Display| MigrationError::Worker(error.to_string());
        let reader = match kind {
            FrameKind::Snapshot => behind_others("migrate-read", work).map_err(|error| failed(&error)).left_future(),
            _ => tokio::task::spawn_blocking(work).map_err(|error| failed(&error)).right_future(),
        };
        while let Some((piece, held)) = pieces.recv().await {
            // From here on it is counted as what is in flight.
            drop(held);
            self.go_on()?;
            if kind == FrameKind::Snapshot {
                self.keys += u64::from(piece.keys);
            }
            self.brake.for_waiting(&self.changes)?;
            self.link.send(kind, piece).await?;
        }
        reader.await?
    }
}
