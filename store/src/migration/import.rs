//! The target's side: stage, fill, prepare, make live or give up.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sluice_topology::{ClusterId, JobId, NodeId, Slot, SlotEpoch, SlotRanges, merge::SlotRow};
use tokio::sync::{mpsc, oneshot};

use super::{
    AttemptId, MigrationError, Migrations, behind_others, blocking,
    builder::{self, Part},
    journal::{ImportStep, Journal, TargetUnit},
    link::Tally,
    rules::{self, Obeyed, Order},
    wire::{Frame, FrameKind, Joiner},
};
use crate::engine::{Ingested, SystemBatch, free_space};

/// Format of what migrations exchange. 3: libraries of functions come along; 4: so do packed collections.
pub(super) const FORMAT: u32 = 4;

/// What a source asks a target to take: the argument of `CLUSTERX IMPORT BEGIN`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginRequest {
    /// Format of this exchange.
    pub format: u32,
    /// The cluster both belong to.
    pub cluster_id: ClusterId,
    /// The source.
    pub source: NodeId,
    /// The target.
    pub target: NodeId,
    /// The source's number of the job.
    pub job: JobId,
    /// The source's number of the attempt.
    pub attempt: u64,
    /// The unit's slots, with the epochs of the source's ownership.
    pub slots: Vec<SlotClaim>,
    /// About how many bytes they hold.
    pub bytes: u64,
    /// The source's clock, Unix milliseconds.
    pub now_ms: u64,
}

/// A slot of a unit, and since which switch its source owns it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotClaim {
    /// The slot.
    pub slot: Slot,
    /// The epoch of the source's ownership.
    pub epoch: SlotEpoch,
}

/// What a source has sent, once its writes wait and nothing is left to send: the last argument of `CLUSTERX IMPORT PREPARE`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// Records.
    pub records: u64,
    /// CRC32 over the sums of all frames.
    pub digest: u32,
    /// Every key version the source has given out is below this one: what the target makes later must share none with what came.
    pub versions_end: u64,
    /// The source's clock of expiry, Unix milliseconds: what it has called expired must be so at the target.
    pub now_ms: u64,
}

/// What becomes of what comes.
enum Intake {
    /// Nothing may come: what came before a restart, or before an error, is not known to be complete.
    Closed,
    /// The snapshot; the builder runs once there is anything of it.
    Snapshot(Option<Building>),
    /// Changes, on top of a snapshot that is in the database.
    Changes(Joiner),
}

/// The builder at its work.
struct Building {
    parts: mpsc::Sender<Part>,
    ended: oneshot::Receiver<Result<Ingested, MigrationError>>,
}

impl Building {
    /// Waits for it; without an end of the snapshot it gives up.
    async fn end(self) -> Result<Ingested, MigrationError> {
        drop(self.parts);
        self.ended.await.map_err(|error| MigrationError::Worker(error.to_string()))?
    }
}

/// A unit being taken over.
pub(super) struct Import {
    unit: TargetUnit,
    /// Counts the links: what comes by an older one is refused.
    link: u64,
    tally: Tally,
    intake: Intake,
}

impl Import {
    pub(super) fn recovered(unit: TargetUnit) -> Self {
        Self { unit, link: 0, tally: Tally::default(), intake: Intake::Closed }
    }

    pub(super) fn step(&self) -> ImportStep {
        self.unit.step
    }

    /// Slots that are not live yet.
    pub(super) fn slots_under_way(&self) -> SlotRanges {
        let live = self.unit.step == ImportStep::Live;
        self.unit.slots.keys().filter(|_| !live).copied().collect()
    }
}

impl Migrations {
    /// BEGIN n: checks the claim and stages a generation in each slot.
    pub async fn import_begin(self: &Arc<Self>, request: BeginRequest) -> Result<(), MigrationError> {
        let this = self.clone();
        blocking(move || {
            this.check_claim(&request)?;
            let id = (request.source, request.attempt);
            let slots = request.slots.iter().map(|claim| claim.slot);
            let mut unit = TargetUnit { step: ImportStep::Staged, job: request.job, slots: BTreeMap::new() };
            this.engine.stage(slots, |generations| {
                let claims = request.slots.iter();
                unit.slots =
                    claims.filter_map(|claim| Some((claim.slot, (*generations.get(&claim.slot)?, claim.epoch)))).collect();
                let mut batch = SystemBatch::new();
                Journal::put_target(&mut batch, id, &unit);
                batch
            })?;
            let import = Import { intake: Intake::Snapshot(None), ..Import::recovered(unit) };
            this.imports().insert(id, Arc::new(tokio::sync::Mutex::new(import)));
            Ok(())
        })
        .await
    }

    fn check_claim(&self, request: &BeginRequest) -> Result<(), MigrationError> {
        let refused = |why: String| Err(MigrationError::Refused(why));
        let known = self.cluster.known();
        if request.format != FORMAT {
            return refused(format!("the source speaks format {}, this node {FORMAT}: upgrade the older one", request.format));
        }
        if known.cluster_id != Some(request.cluster_id) {
            return refused(format!("the source is of cluster {}, this node is not", request.cluster_id));
        }
        if request.target != self.cluster.me() || self.cluster.retired() {
            return refused(format!("the unit is for node {}, this is {}", request.target, self.cluster.me()));
        }
        if known.retired.contains(&request.source) {
            return refused(format!("node {} is retired", request.source));
        }
        if self.imports().contains_key(&(request.source, request.attempt)) {
            return refused(format!("attempt {} is under way already", request.attempt));
        }
        if request.slots.is_empty() {
            return refused("a unit without slots".into());
        }
        let fenced = self.fenced();
        if let Some(claim) = request.slots.iter().find(|claim| !rules::may_take_back(fenced.contains(claim.slot))) {
            // In a moment it is over: the source tries again.
            return Err(MigrationError::Unconfirmed(claim.slot));
        }
        let skew_ms = self.engine.now_ms().abs_diff(request.now_ms);
        if skew_ms > self.limits.clock_skew_max_ms {
            return refused(format!(
                "the clocks of source and target are {skew_ms} ms apart, {} are allowed: keys would expire early or late; set the clocks, or raise migrate-clock-skew-max-ms",
                self.limits.clock_skew_max_ms
            ));
        }
        // As it is now: what the watch saw last may be of before somebody made room, and this refusal is final.
        let free = free_space(&self.engine.options().directory)
            .map_err(|error| MigrationError::Refused(format!("the room on the disk is not known: {error}")))?;
        let kept = self.engine.disk_free_min();
        let needed = request.bytes.saturating_add(kept);
        if free < needed {
            return refused(format!(
                "the unit needs about {} bytes, {kept} are to stay free, and the disk has {free}: make room, or use a larger volume",
                request.bytes
            ));
        }
        for claim in &request.slots {
            let row = self.cluster.row(claim.slot);
            if !rules::may_stage(self.cluster.me(), row, request.source, claim.epoch) {
                return refused(format!(
                    "slot {} is not the source's at epoch {}: this node knows epoch {}",
                    claim.slot, claim.epoch, row.epoch
                ));
            }
        }
        Ok(())
    }

    /// DATA: takes the next frame of an attempt. Returns for how long it waited for the disk to take what came before.
    pub async fn import_data(
        self: &Arc<Self>,
        source: NodeId,
        link: u64,
        frame: bytes::Bytes,
    ) -> Result<Duration, MigrationError> {
        let frame = Frame::decode(&frame)?;
        let id = (source, frame.attempt);
        let mut import = self.import(id)?.lock_owned().await;
        if import.unit.step != ImportStep::Staged {
            return Err(MigrationError::UnknownAttempt(id.1));
        }
        if link != import.link {
            return Err(MigrationError::Wire(format!("a batch comes by link {link}, and link {} was made since", import.link)));
        }
        if frame.sequence != import.tally.frames {
            let (came, expected) = (frame.sequence, import.tally.frames);
            return Err(MigrationError::Wire(format!("batch {came} came where {expected} was expected")));
        }
        let counted = (frame.records, frame.sum);
        if let (FrameKind::Snapshot, Intake::Snapshot(None)) = (frame.kind, &import.intake) {
            import.intake = Intake::Snapshot(Some(self.builder(&import.unit)));
        }
        match (frame.kind, &mut import.intake) {
            (FrameKind::Snapshot, Intake::Snapshot(Some(building))) => {
                let started = Instant::now();
                let held = self.buffers.hold(frame.payload.len());
                // With none that waits for the builder it goes on, whatever others hold, and itself of a value that is not whole yet.
                self.buffers.room(|| building.parts.capacity() == builder::PIECES_AHEAD).await;
                let part = Part::Piece(frame.payload, frame.records, held);
                let place = building.parts.reserve().await.map(|place| place.send(part));
                let waited = started.elapsed();
                self.stages.receiver.add(waited);
                if place.is_err() {
                    return Err(self.broken_off(&mut import).await);
                }
                import.tally.add(counted.0, counted.1);
                Ok(waited)
            }
            (FrameKind::SnapshotEnd, Intake::Snapshot(building)) => {
                let (building, buffers) = (building.take(), self.buffers.clone());
                // Whatever becomes of this request: only a snapshot that was taken whole lets changes in.
                import.intake = Intake::Closed;
                let started = Instant::now();
                let ended = tokio::spawn(async move {
                    if let Some(building) = building {
                        let _ = building.parts.send(Part::End).await;
                        let ingested = building.end().await?;
                        tracing::debug!(source = %id.0, attempt = id.1, ?ingested, "the snapshot of a unit is in the database");
                    }
                    import.tally.add(counted.0, counted.1);
                    import.intake = Intake::Changes(Joiner::counted(&buffers));
                    Ok::<(), MigrationError>(())
                });
                ended.await.map_err(|error| MigrationError::Worker(error.to_string()))??;
                Ok(started.elapsed())
            }
            (FrameKind::Changes, Intake::Changes(_)) => {
                let (this, held) = (self.clone(), self.buffers.hold(frame.payload.len()));
                blocking(move || {
                    let _held = held;
                    let Intake::Changes(mut joiner) = std::mem::replace(&mut import.intake, Intake::Closed) else {
                        return Err(MigrationError::UnknownAttempt(id.1));
                    };
                    let started = Instant::now();
                    let staged = import.unit.generations();
                    this.engine.put_staged(|put| builder::join(&mut joiner, &frame.payload, frame.records, &staged, put))?;
                    import.tally.add(counted.0, counted.1);
                    import.intake = Intake::Changes(joiner);
                    Ok(started.elapsed())
                })
                .await
            }
            (_, Intake::Closed) => Err(MigrationError::UnknownAttempt(id.1)),
            (kind, _) => Err(MigrationError::Wire(format!("a batch of kind {kind:?} comes where it must not"))),
        }
    }

    fn builder(self: &Arc<Self>, unit: &TargetUnit) -> Building {
        let (parts, mut come) = mpsc::channel(builder::PIECES_AHEAD);
        let (this, staged) = (self.clone(), unit.generations());
        let ended = behind_others("migrate-build", move || {
            builder::build(&this.engine, &staged, this.limits.file_bytes, &this.stages, &this.buffers, &mut come)
        });
        Building { parts, ended }
    }

    /// The builder has ended before its time: its reason.
    async fn broken_off(&self, import: &mut Import) -> MigrationError {
        match std::mem::replace(&mut import.intake, Intake::Closed) {
            Intake::Snapshot(Some(building)) => match building.end().await {
                Err(error) => error,
                Ok(_) => MigrationError::Worker("it ended early".into()),
            },
            _ => MigrationError::Worker("it is not there".into()),
        }
    }

    /// RESUME n: a source whose link broke goes on. Returns the batch that is expected next, and the new link's number.
    pub async fn import_resume(&self, id: AttemptId) -> Result<(u64, u64), MigrationError> {
        let mut import = self.import(id)?.lock_owned().await;
        if matches!(import.intake, Intake::Closed) || import.unit.step != ImportStep::Staged {
            return Err(MigrationError::UnknownAttempt(id.1));
        }
        import.link += 1;
        Ok((import.tally.frames, import.link))
    }

    /// PREPARE n: compares what came with what was sent, makes it durable, and says so durably.
    pub async fn import_prepare(self: &Arc<Self>, id: AttemptId, sent: Sent) -> Result<(), MigrationError> {
        let mut import = self.import(id)?.lock_owned().await;
        let this = self.clone();
        blocking(move || {
            let whole = matches!(&import.intake, Intake::Changes(joiner) if joiner.at_a_boundary());
            match rules::obey(Order::Prepare, import.unit.step, whole) {
                Obeyed::Do => {}
                Obeyed::Done => return Ok(()),
                Obeyed::Refuse => return Err(MigrationError::UnknownAttempt(id.1)),
            }
            let have = (import.tally.frames, import.tally.records, import.tally.digest.clone().finalize());
            if have != (sent.frames, sent.records, sent.digest) {
                return Err(MigrationError::Wire(format!(
                    "{} batches of {} records were sent and {} of {} came, or their digests differ",
                    sent.frames, sent.records, have.0, have.1
                )));
            }
            this.engine.raise_versions_above(sent.versions_end)?;
            this.engine.raise_clock(sent.now_ms)?;
            this.engine.sync_log()?;
            let prepared = TargetUnit { step: ImportStep::Prepared, ..import.unit.clone() };
            let mut batch = SystemBatch::new();
            Journal::put_target(&mut batch, id, &prepared);
            this.engine.write_system(batch)?;
            import.unit = prepared;
            Ok(())
        })
        .await
    }

    /// COMMIT n: makes the unit live, one durable write. Only the source's decision leads here. Repeating it changes nothing.
    pub async fn import_commit(self: &Arc<Self>, id: AttemptId) -> Result<(), MigrationError> {
        let mut import = self.import(id)?.lock_owned().await;
        let this = self.clone();
        blocking(move || {
            match rules::obey(Order::Commit, import.unit.step, false) {
                Obeyed::Do => {}
                Obeyed::Done => return Ok(()),
                Obeyed::Refuse => {
                    return Err(MigrationError::Wire(format!("attempt {} is to be committed and was never prepared", id.1)));
                }
            }
            let me = this.cluster.me();
            let rows: Vec<(Slot, SlotRow)> = (import.unit.slots.iter())
                .map(|(slot, (_, epoch))| (*slot, SlotRow { owner: Some(me), epoch: SlotEpoch(epoch.0 + 1) }))
                .collect();
            let live = TargetUnit { step: ImportStep::Live, ..import.unit.clone() };
            let mut batch = SystemBatch::new();
            Journal::put_target(&mut batch, id, &live);
            let generations = live.generations();
            this.cluster.switch(&rows, batch, |records| this.engine.activate(&generations, records))?;
            tracing::info!(source = %id.0, attempt = id.1, slots = generations.len(), "slots are live on this node");
            import.unit = live;
            Ok(())
        })
        .await
    }

    /// ABORT n: ends the unit here; what was staged is dropped.
    pub async fn import_abort(self: &Arc<Self>, id: AttemptId) -> Result<(), MigrationError> {
        self.import_end(id, Order::Abort).await
    }

    /// FORGET n: the source is done with a unit that is live here.
    pub async fn import_forget(self: &Arc<Self>, id: AttemptId) -> Result<(), MigrationError> {
        self.import_end(id, Order::Forget).await
    }

    pub(super) async fn import_end(self: &Arc<Self>, id: AttemptId, order: Order) -> Result<(), MigrationError> {
        let Ok(import) = self.import(id) else { return Ok(()) };
        let mut import = import.lock_owned().await;
        let this = self.clone();
        blocking(move || {
            let step = import.unit.step;
            if rules::obey(order, step, false) == Obeyed::Refuse {
                return Err(MigrationError::Wire(format!("attempt {} is at {step:?} and cannot be ended by {order:?}", id.1)));
            }
            // Whoever waits for this unit's lock finds it closed; a builder gives up.
            import.intake = Intake::Closed;
            let mut batch = SystemBatch::new();
            Journal::forget_target(&mut batch, id);
            match step {
                ImportStep::Live => this.engine.write_system(batch)?,
                _ => this.engine.abort(&import.unit.generations(), batch)?,
            }
            this.imports().remove(&id);
            Ok(())
        })
        .await
    }
}

/// See [`crate::fuzzing::codecs`].
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzing(bytes: &[u8]) {
    fn again<T: Serialize + for<'d> Deserialize<'d>>(bytes: &[u8]) {
        let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
        let written = serde_json::to_vec(&read).unwrap_or_default();
        let again = serde_json::from_slice::<T>(&written).ok().and_then(|read| serde_json::to_vec(&read).ok());
        assert_eq!(again, Some(written), "a message of a migration");
    }
    again::<BeginRequest>(bytes);
    again::<Sent>(bytes);
}
