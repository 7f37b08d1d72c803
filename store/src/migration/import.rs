//! The target's side: stage, fill, prepare, make live or give up.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use sluice_topology::{ClusterId, JobId, NodeId, Slot, SlotEpoch, SlotRanges, merge::SlotRow};

use super::{
    AttemptId, MigrationError, Migrations, blocking,
    journal::{ImportStep, Journal, TargetUnit},
    wire,
};
use crate::engine::SystemBatch;

/// Format of what migrations exchange.
pub(super) const FORMAT: u32 = 1;

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
    /// Records.
    pub records: u64,
    /// CRC32 over all batches.
    pub digest: u32,
    /// Every key version the source has given out is below this one: what the target makes later must share none with what came.
    pub versions_end: u64,
}

/// A unit being taken over.
pub(super) struct Import {
    unit: TargetUnit,
    next_sequence: u64,
    records: u64,
    digest: crc32fast::Hasher,
    /// A recovered unit takes no more data: what came before the restart is not known to be complete.
    closed: bool,
}

impl Import {
    pub(super) fn recovered(unit: TargetUnit) -> Self {
        Self { unit, next_sequence: 0, records: 0, digest: crc32fast::Hasher::new(), closed: true }
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
            let import = Import { closed: false, ..Import::recovered(unit) };
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
        for claim in &request.slots {
            let row = self.cluster.row(claim.slot);
            let older = row.epoch < claim.epoch && row.owner != Some(self.cluster.me());
            let same = row.epoch == claim.epoch && row.owner == Some(request.source);
            if !(older || same) {
                return refused(format!(
                    "slot {} is not the source's at epoch {}: this node knows epoch {}",
                    claim.slot, claim.epoch, row.epoch
                ));
            }
        }
        Ok(())
    }

    /// DATA n: writes a batch where nobody can see it.
    pub async fn import_data(
        self: &Arc<Self>,
        id: AttemptId,
        sequence: u64,
        sum: u32,
        batch: bytes::Bytes,
    ) -> Result<(), MigrationError> {
        let mut import = self.import(id)?.lock_owned().await;
        let this = self.clone();
        blocking(move || {
            if crc32fast::hash(&batch) != sum {
                return Err(MigrationError::Wire(format!("batch {sequence} of attempt {} fails its checksum", id.1)));
            }
            if import.closed || import.unit.step != ImportStep::Staged {
                return Err(MigrationError::UnknownAttempt(id.1));
            }
            if sequence != import.next_sequence {
                let expected = import.next_sequence;
                return Err(MigrationError::Wire(format!("batch {sequence} came where {expected} was expected")));
            }
            let records = wire::decode(&batch, |slot| import.unit.slots.contains_key(&slot))?;
            let count = records.len() as u64;
            let staged = records.into_iter().filter_map(|record| Some((import.unit.slots.get(&record.slot)?.0, record)));
            this.engine.put_staged(staged)?;
            import.digest.update(&batch);
            import.records += count;
            import.next_sequence += 1;
            Ok(())
        })
        .await
    }

    /// PREPARE n: compares what came with what was sent, makes it durable, and says so durably.
    pub async fn import_prepare(self: &Arc<Self>, id: AttemptId, sent: Sent) -> Result<(), MigrationError> {
        let mut import = self.import(id)?.lock_owned().await;
        let this = self.clone();
        blocking(move || {
            match import.unit.step {
                ImportStep::Staged if !import.closed => {}
                ImportStep::Prepared | ImportStep::Live => return Ok(()),
                ImportStep::Staged => return Err(MigrationError::UnknownAttempt(id.1)),
            }
            let (have, sum) = (import.records, import.digest.clone().finalize());
            if (have, sum) != (sent.records, sent.digest) {
                let sent = sent.records;
                return Err(MigrationError::Wire(format!("{sent} records were sent and {have} came, or their digests differ")));
            }
            this.engine.raise_versions_above(sent.versions_end)?;
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
            match import.unit.step {
                ImportStep::Live => return Ok(()),
                ImportStep::Prepared => {}
                ImportStep::Staged => {
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

    /// ABORT n, or FORGET n once it is live: ends the unit here. What was staged is dropped.
    pub async fn import_end(self: &Arc<Self>, id: AttemptId, live: bool) -> Result<(), MigrationError> {
        let Ok(import) = self.import(id) else { return Ok(()) };
        let mut import = import.lock_owned().await;
        let this = self.clone();
        blocking(move || {
            // Whoever waits for this unit's lock finds it closed.
            import.closed = true;
            let mut batch = SystemBatch::new();
            Journal::forget_target(&mut batch, id);
            match (import.unit.step, live) {
                (ImportStep::Live, true) => this.engine.write_system(batch)?,
                (ImportStep::Staged | ImportStep::Prepared, false) => {
                    this.engine.abort(&import.unit.generations(), batch)?;
                }
                (step, _) => {
                    let (attempt, what) = (id.1, if live { "forgotten" } else { "aborted" });
                    return Err(MigrationError::Wire(format!("attempt {attempt} is at {step:?} and cannot be {what}")));
                }
            }
            this.imports().remove(&id);
            Ok(())
        })
        .await
    }
}
