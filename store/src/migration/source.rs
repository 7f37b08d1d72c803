//! The source's side: one job, unit by unit.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_topology::{
    Slot, SlotEpoch, SlotRanges,
    admin::{AdminClient, MigrationState},
    merge::SlotRow,
};
use tokio::sync::mpsc;

use super::{
    MigrationError, Migrations, blocking,
    import::{BeginRequest, FORMAT, Sent, SlotClaim},
    jobs::Job,
    journal::{Journal, SourceUnit},
    wire,
};
use crate::engine::SystemBatch;

/// Batches read ahead of the link.
const BATCHES_AHEAD: usize = 2;
/// First pause after a failed attempt.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// What one unit moved.
struct Moved {
    keys: u64,
    bytes: u64,
    pause: Duration,
}

impl Migrations {
    /// Moves a job's units one after another. Ends when all are switched, one fails for good, or somebody cancels.
    pub(super) async fn run(self: Arc<Self>, job: Arc<Job>) {
        let (slots, id) = (job.status().slots, job.status().job);
        tracing::info!(job = %id, %slots, target = %job.status().target, "migration started");
        let mut units: VecDeque<SlotRanges> = slots.split(self.limits.unit_slots).into();
        let (mut failures, mut backoff) = (0, BACKOFF_FIRST);
        while let Some(unit) = units.pop_front() {
            let outcome = if job.cancelled() { Err(MigrationError::Cancelled) } else { self.move_unit(&job, &unit).await };
            match outcome {
                Ok(moved) => {
                    (failures, backoff) = (0, BACKOFF_FIRST);
                    job.update(|status| {
                        status.slots_done += unit.len() as u32;
                        status.keys_done += moved.keys;
                        status.bytes_done += moved.bytes;
                        status.switch_pause_ms_max = status.switch_pause_ms_max.max(moved.pause.as_millis() as u64);
                    });
                }
                Err(MigrationError::Cancelled) => {
                    tracing::info!(job = %id, "migration cancelled");
                    job.end(MigrationState::Cancelled);
                    return;
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(job = %id, %unit, failures, %error, "a migration attempt failed");
                    job.update(|status| status.last_error = error.to_string());
                    if failures >= self.limits.attempts_max || permanent(&error) {
                        tracing::error!(job = %id, %error, "migration failed");
                        job.end(MigrationState::Failed);
                        return;
                    }
                    // What does not fit into the time writes may wait is tried in halves.
                    if matches!(error, MigrationError::SwitchTimeout(_)) && unit.len() > 1 {
                        for half in unit.split(unit.len().div_ceil(2)).into_iter().rev() {
                            units.push_front(half);
                        }
                    } else {
                        units.push_front(unit);
                    }
                    job.step("waiting");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(self.limits.backoff_max);
                }
            }
        }
        tracing::info!(job = %id, "migration done");
        job.end(MigrationState::Done);
    }

    /// One attempt for one unit. An error means that the attempt is aborted and this node serves the unit; once the switch is decided
    /// it only returns when the target has confirmed it.
    async fn move_unit(self: &Arc<Self>, job: &Job, slots: &SlotRanges) -> Result<Moved, MigrationError> {
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
        let started = Instant::now();
        match self.try_switch(job, attempt, &unit).await {
            Ok((keys, bytes)) => {
                job.step("committed");
                self.finish(attempt, &unit).await;
                Ok(Moved { keys, bytes, pause: started.elapsed() })
            }
            Err(error) => {
                self.undo(attempt, &unit).await?;
                Err(error)
            }
        }
    }

    /// From BEGIN to COMMITTED. Writes of the unit wait from the moment it is staged.
    async fn try_switch(self: &Arc<Self>, job: &Job, attempt: u64, unit: &SourceUnit) -> Result<(u64, u64), MigrationError> {
        let node = self
            .cluster
            .node(unit.target)
            .ok_or_else(|| MigrationError::Refused(format!("node {} has left the topology", unit.target)))?;
        let mut target = self.cluster.dial(&node).await?;
        let me = self.cluster.me();
        let number = attempt.to_string();
        let name = me.to_string();
        job.step("staged");
        let begin = self.begin_request(attempt, unit)?;
        target.call(&[b"CLUSTERX", b"IMPORT", b"BEGIN", begin.as_bytes()]).await?;
        if job.cancelled() {
            return Err(MigrationError::Cancelled);
        }
        job.step("copying");
        let deadline = Instant::now() + self.limits.switch_timeout;
        let (this, slots) = (self.clone(), unit.ranges());
        blocking(move || {
            this.cluster.park(&slots, false);
            Ok(())
        })
        .await?;
        let copied = self.copy(&mut target, &name, &number, &unit.ranges(), deadline).await?;
        job.step("preparing");
        // Read after the unit's writes were parked: whatever has a version in it got it before.
        let sent = Sent { records: copied.records, digest: copied.digest, versions_end: self.engine.versions_end() };
        let sent = serde_json::to_string(&sent).map_err(|error| MigrationError::Wire(error.to_string()))?;
        let prepare: [&[u8]; 6] = [b"CLUSTERX", b"IMPORT", b"PREPARE", name.as_bytes(), number.as_bytes(), sent.as_bytes()];
        target.call(&prepare).await?;
        if job.cancelled() {
            return Err(MigrationError::Cancelled);
        }
        self.in_time(deadline)?;
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
        Ok((copied.keys, copied.bytes))
    }

    fn begin_request(&self, attempt: u64, unit: &SourceUnit) -> Result<String, MigrationError> {
        let cluster_id = self.cluster.known().cluster_id.ok_or_else(|| MigrationError::Refused("no cluster".into()))?;
        let request = BeginRequest {
            format: FORMAT,
            cluster_id,
            source: self.cluster.me(),
            target: unit.target,
            job: unit.job,
            attempt,
            slots: unit.slots.iter().map(|(slot, epoch)| SlotClaim { slot: *slot, epoch: *epoch }).collect(),
        };
        serde_json::to_string(&request).map_err(|error| MigrationError::Wire(error.to_string()))
    }

    fn in_time(&self, deadline: Instant) -> Result<(), MigrationError> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(MigrationError::SwitchTimeout(self.limits.switch_timeout.as_millis() as u64))
    }

    /// DATA: every record of the unit, while its writes wait.
    async fn copy(
        self: &Arc<Self>,
        target: &mut AdminClient,
        name: &str,
        number: &str,
        slots: &SlotRanges,
        deadline: Instant,
    ) -> Result<Copied, MigrationError> {
        let (sender, mut batches) = mpsc::channel::<Batch>(BATCHES_AHEAD);
        let (this, slots) = (self.clone(), slots.clone());
        let reader = tokio::task::spawn_blocking(move || this.read(&slots, &sender));
        let mut copied = Copied::default();
        let mut digest = crc32fast::Hasher::new();
        let mut sequence = 0u64;
        while let Some(batch) = batches.recv().await {
            self.in_time(deadline)?;
            let (place, sum) = (sequence.to_string(), crc32fast::hash(&batch.bytes).to_string());
            let data: [&[u8]; 8] = [
                b"CLUSTERX",
                b"IMPORT",
                b"DATA",
                name.as_bytes(),
                number.as_bytes(),
                place.as_bytes(),
                sum.as_bytes(),
                &batch.bytes,
            ];
            target.call(&data).await?;
            digest.update(&batch.bytes);
            sequence += 1;
            copied.records += batch.records;
            copied.keys += batch.keys;
            copied.bytes += batch.bytes.len() as u64;
        }
        reader.await.map_err(|error| MigrationError::Worker(error.to_string()))??;
        copied.digest = digest.finalize();
        Ok(copied)
    }

    /// Reads the unit into batches; ends early when nobody takes them any more.
    fn read(&self, slots: &SlotRanges, sender: &mpsc::Sender<Batch>) -> Result<(), MigrationError> {
        let _reader = self.engine.long_reader("migration");
        let mut batch = Batch::default();
        let mut payload = Vec::new();
        let send = |batch: &mut Batch, payload: &mut Vec<u8>| {
            batch.bytes = Bytes::from(std::mem::take(payload));
            sender.blocking_send(std::mem::take(batch)).map_err(|_| MigrationError::Cancelled)
        };
        for slot in slots.iter() {
            self.engine.raw_records(slot, |record| {
                if !payload.is_empty() && payload.len() + wire::encoded_len(&record) > self.limits.batch_bytes {
                    send(&mut batch, &mut payload)?;
                }
                wire::encode(&mut payload, &record);
                batch.records += 1;
                batch.keys += u64::from(record.family.to_byte() == 0);
                Ok::<(), MigrationError>(())
            })?;
        }
        if !payload.is_empty() {
            send(&mut batch, &mut payload)?;
        }
        Ok(())
    }

    /// ABORTED(n) at this node, then the unit is served again; the target is told, and asks if it does not hear it.
    async fn undo(self: &Arc<Self>, attempt: u64, unit: &SourceUnit) -> Result<(), MigrationError> {
        if self.undecided().contains_key(&attempt) {
            // The journal's answer to the decision is unknown: see `try_switch`.
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
        let mut backoff = BACKOFF_FIRST;
        loop {
            match self.try_finish(attempt, unit).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(attempt, slots = %unit.ranges(), %error, "a decided switch is not confirmed yet; its slots wait");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(self.limits.backoff_max);
                }
            }
        }
    }

    async fn try_finish(self: &Arc<Self>, attempt: u64, unit: &SourceUnit) -> Result<(), MigrationError> {
        let unknown = || MigrationError::Refused(format!("node {} is not in the topology", unit.target));
        let node = self.cluster.node(unit.target).ok_or_else(unknown)?;
        self.tell(&node, "COMMIT", attempt).await?;
        let (this, done) = (self.clone(), unit.clone());
        blocking(move || {
            let rows: Vec<(Slot, SlotRow)> = (done.slots.iter())
                .map(|(slot, epoch)| (*slot, SlotRow { owner: Some(done.target), epoch: SlotEpoch(epoch.0 + 1) }))
                .collect();
            let mut batch = SystemBatch::new();
            Journal::forget_source(&mut batch, attempt);
            this.cluster.switch(&rows, batch, |records| this.engine.drop_slots(done.slots.keys().copied(), records))?;
            this.undecided().remove(&attempt);
            this.active().remove(&attempt);
            Ok(())
        })
        .await?;
        if let Err(error) = self.tell(&node, "FORGET", attempt).await {
            tracing::debug!(attempt, %error, "the target was not told that a switch is done; it will ask");
        }
        Ok(())
    }

    async fn tell(&self, node: &sluice_topology::NodeEntry, word: &str, attempt: u64) -> Result<(), MigrationError> {
        let (me, number) = (self.cluster.me().to_string(), attempt.to_string());
        let words: [&[u8]; 5] = [b"CLUSTERX", b"IMPORT", word.as_bytes(), me.as_bytes(), number.as_bytes()];
        self.cluster.dial(node).await?.call(&words).await?;
        Ok(())
    }
}

#[derive(Default)]
struct Batch {
    bytes: Bytes,
    records: u64,
    keys: u64,
}

#[derive(Default)]
struct Copied {
    records: u64,
    keys: u64,
    bytes: u64,
    digest: u32,
}

/// Whether trying again cannot help.
fn permanent(error: &MigrationError) -> bool {
    match error {
        MigrationError::Refused(_) | MigrationError::Undecided(_) => true,
        MigrationError::Peer(sluice_topology::admin::AdminError::Refused { message, .. }) => message.contains("MIGRATEREFUSED"),
        _ => false,
    }
}
