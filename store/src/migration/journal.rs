//! What is durable about migrations, in the `system` family: units at their source, units at their target, and the counters that give
//! out job and attempt numbers, each durable before it is used.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sluice_topology::{JobId, NodeId, Slot, SlotEpoch, SlotRanges};

use super::{
    AttemptId,
    rules::{self, AtStart},
};
use crate::engine::{Engine, EngineError, Generation, Opened, Seal, SystemBatch, SystemKind};

const STARTED: u8 = 1;
const COMMITTED: u8 = 2;

/// A unit at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceUnit {
    pub(super) target: NodeId,
    pub(super) job: JobId,
    /// The slots, with the epochs of this node's ownership: after a restart the rows may already say what the switch did.
    pub(super) slots: BTreeMap<Slot, SlotEpoch>,
    /// Whether the switch is decided.
    pub(super) committed: bool,
}

impl SourceUnit {
    pub(super) fn ranges(&self) -> SlotRanges {
        self.slots.keys().copied().collect()
    }
}

/// A job at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobRecord {
    pub(super) target: NodeId,
    pub(super) slots: SlotRanges,
}

/// How far a unit is at its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ImportStep {
    Staged = 1,
    Prepared = 2,
    Live = 3,
}

/// A unit at its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetUnit {
    pub(super) step: ImportStep,
    pub(super) job: JobId,
    /// Where each slot is staged, and the epoch of its owner before the switch.
    pub(super) slots: BTreeMap<Slot, (Generation, SlotEpoch)>,
}

impl TargetUnit {
    pub(super) fn generations(&self) -> BTreeMap<Slot, Generation> {
        self.slots.iter().map(|(slot, (generation, _))| (*slot, *generation)).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    attempt: u64,
    job: u64,
}

pub(super) struct Journal {
    engine: Arc<Engine>,
    counters: Mutex<Counters>,
}

impl Journal {
    pub(super) fn open(engine: Arc<Engine>) -> Result<Self, EngineError> {
        let counters = match engine.system_record(SystemKind::MigrationCounter, b"")? {
            None => Counters { attempt: 0, job: 0 },
            Some(bytes) => decode_counters(&bytes)?,
        };
        Ok(Self { engine, counters: Mutex::new(counters) })
    }

    /// Begins a job, under a number that was never used: a start goes on with it until it has ended.
    pub(super) fn begin_job(&self, job: &JobRecord) -> Result<JobId, EngineError> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Counters { job: counters.job + 1, ..*counters };
        let mut batch = SystemBatch::new();
        put_counters(&mut batch, next);
        batch.put(SystemKind::MigrationJob, &next.job.to_be_bytes(), encode_job(job));
        self.engine.write_system(batch)?;
        *counters = next;
        Ok(JobId(next.job))
    }

    /// The job has ended, however.
    pub(super) fn forget_job(&self, job: JobId) -> Result<(), EngineError> {
        let mut batch = SystemBatch::new();
        batch.delete(SystemKind::MigrationJob, &job.0.to_be_bytes());
        self.engine.write_system(batch)
    }

    /// Jobs that have not ended.
    pub(super) fn jobs(&self) -> Result<Vec<(JobId, JobRecord)>, EngineError> {
        let records = self.engine.system_records(SystemKind::MigrationJob)?;
        records.iter().map(|(key, bytes)| Ok((JobId(attempt_of(key)?), decode_job(bytes)?))).collect()
    }

    /// STARTED(n): an attempt number that was never used, durable together with what it is for.
    pub(super) fn started(&self, unit: &SourceUnit) -> Result<u64, EngineError> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Counters { attempt: counters.attempt + 1, ..*counters };
        let mut batch = SystemBatch::new();
        put_counters(&mut batch, next);
        batch.put(SystemKind::MigrationSource, &next.attempt.to_be_bytes(), encode_source(unit));
        self.engine.write_system(batch)?;
        *counters = next;
        Ok(next.attempt)
    }

    /// COMMITTED(n): the decision.
    pub(super) fn commit(&self, attempt: u64, unit: &SourceUnit) -> Result<(), EngineError> {
        let mut batch = SystemBatch::new();
        let committed = SourceUnit { committed: true, ..unit.clone() };
        batch.put(SystemKind::MigrationSource, &attempt.to_be_bytes(), encode_source(&committed));
        self.engine.write_system(batch)
    }

    /// ABORTED(n): from now on the answer to "what became of n" is "aborted".
    pub(super) fn abort(&self, attempt: u64) -> Result<(), EngineError> {
        let mut batch = SystemBatch::new();
        Self::forget_source(&mut batch, attempt);
        self.engine.write_system(batch)
    }

    /// The write that ends an attempt at its source, for DONE(n).
    pub(super) fn forget_source(batch: &mut SystemBatch, attempt: u64) {
        batch.delete(SystemKind::MigrationSource, &attempt.to_be_bytes());
    }

    /// Aborts every attempt without a decision: what a start does.
    pub(super) fn abort_undecided(&self) -> Result<(), EngineError> {
        let mut batch = SystemBatch::new();
        for (attempt, unit) in self.sources()? {
            if rules::at_start(unit.committed) == AtStart::Abort {
                tracing::info!(attempt, slots = %unit.ranges(), "aborted a migration attempt that the last run left undecided");
                Self::forget_source(&mut batch, attempt);
            }
        }
        self.engine.write_system(batch)
    }

    /// Attempts that are decided and not yet done.
    pub(super) fn committed(&self) -> Result<Vec<(u64, SourceUnit)>, EngineError> {
        Ok(self.sources()?.into_iter().filter(|(_, unit)| rules::at_start(unit.committed) == AtStart::Fence).collect())
    }

    /// Whether that attempt is decided; `None` when it is not in the journal.
    pub(super) fn decided(&self, attempt: u64) -> Result<Option<bool>, EngineError> {
        match self.engine.system_record(SystemKind::MigrationSource, &attempt.to_be_bytes())? {
            None => Ok(None),
            Some(bytes) => Ok(Some(decode_source(&bytes)?.committed)),
        }
    }

    fn sources(&self) -> Result<Vec<(u64, SourceUnit)>, EngineError> {
        let records = self.engine.system_records(SystemKind::MigrationSource)?;
        records.iter().map(|(key, bytes)| Ok((attempt_of(key)?, decode_source(bytes)?))).collect()
    }

    /// Adds the write of a unit at its target.
    pub(super) fn put_target(batch: &mut SystemBatch, id: AttemptId, unit: &TargetUnit) {
        batch.put(SystemKind::MigrationTarget, &target_key(id), encode_target(unit));
    }

    /// Adds the write that ends a unit at its target.
    pub(super) fn forget_target(batch: &mut SystemBatch, id: AttemptId) {
        batch.delete(SystemKind::MigrationTarget, &target_key(id));
    }

    /// Units at their target that are not yet forgotten.
    pub(super) fn imports(&self) -> Result<Vec<(AttemptId, TargetUnit)>, EngineError> {
        let records = self.engine.system_records(SystemKind::MigrationTarget)?;
        records
            .iter()
            .map(|(key, bytes)| {
                let (source, attempt) = key.split_first_chunk::<{ NodeId::LEN }>().ok_or_else(damaged_key)?;
                Ok(((NodeId::from_bytes(*source), attempt_of(attempt)?), decode_target(bytes)?))
            })
            .collect()
    }
}

fn put_counters(batch: &mut SystemBatch, counters: Counters) {
    batch.put(SystemKind::MigrationCounter, b"", encode_counters(counters));
}

fn encode_counters(counters: Counters) -> Vec<u8> {
    Seal::new().u64(counters.attempt).u64(counters.job).finish()
}

fn decode_counters(bytes: &[u8]) -> Result<Counters, EngineError> {
    let mut record = Opened::open("the migration counters", bytes)?;
    let counters = Counters { attempt: record.u64()?, job: record.u64()? };
    record.end()?;
    Ok(counters)
}

fn damaged_key() -> EngineError {
    EngineError::Damaged("a record of the migration journal has a key of the wrong length".into())
}

fn attempt_of(key: &[u8]) -> Result<u64, EngineError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| damaged_key())
}

fn target_key((source, attempt): AttemptId) -> Vec<u8> {
    [&source.as_bytes()[..], &attempt.to_be_bytes()].concat()
}

fn encode_job(job: &JobRecord) -> Vec<u8> {
    Seal::new().bytes(job.target.as_bytes()).bytes(job.slots.to_string().as_bytes()).finish()
}

fn decode_job(bytes: &[u8]) -> Result<JobRecord, EngineError> {
    const WHAT: &str = "a job of the migration journal";
    let mut record = Opened::open(WHAT, bytes)?;
    let target = NodeId::from_bytes(record.array()?);
    let text = std::str::from_utf8(record.rest()).ok();
    // As they are written, and in no other way.
    let slots = text.and_then(|text| text.parse().ok().filter(|slots: &SlotRanges| slots.to_string() == text));
    Ok(JobRecord { target, slots: slots.ok_or_else(|| EngineError::Damaged(format!("{WHAT} names no slots")))? })
}

fn encode_source(unit: &SourceUnit) -> Vec<u8> {
    let seal = Seal::new()
        .u8(if unit.committed { COMMITTED } else { STARTED })
        .bytes(unit.target.as_bytes())
        .u64(unit.job.0)
        .u16(unit.slots.len() as u16);
    unit.slots.iter().fold(seal, |seal, (slot, epoch)| seal.u16(slot.get()).u64(epoch.0)).finish()
}

fn decode_source(bytes: &[u8]) -> Result<SourceUnit, EngineError> {
    const WHAT: &str = "a source record of the migration journal";
    let mut record = Opened::open(WHAT, bytes)?;
    let committed = match record.u8()? {
        STARTED => false,
        COMMITTED => true,
        other => return Err(EngineError::Damaged(format!("{WHAT} is at the unknown step {other}"))),
    };
    let (target, job) = (NodeId::from_bytes(record.array()?), JobId(record.u64()?));
    let slots = slots_of(WHAT, &mut record, |record| Ok(SlotEpoch(record.u64()?)))?;
    record.end()?;
    Ok(SourceUnit { target, job, slots, committed })
}

/// Slots in their order, each once, with what is said of each.
fn slots_of<'r, T>(
    what: &str,
    record: &mut Opened<'r>,
    each: impl Fn(&mut Opened<'r>) -> Result<T, EngineError>,
) -> Result<BTreeMap<Slot, T>, EngineError> {
    let mut slots = BTreeMap::new();
    for _ in 0..record.u16()? {
        let slot = Slot::new(record.u16()?).filter(|slot| slots.last_key_value().is_none_or(|(last, _)| last < slot));
        let slot = slot.ok_or_else(|| EngineError::Damaged(format!("{what} names no slot, or one twice")))?;
        slots.insert(slot, each(record)?);
    }
    Ok(slots)
}

/// See [`crate::fuzzing::codecs`].
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzing(bytes: &[u8]) {
    for bytes in [bytes, &Seal::new().bytes(bytes).finish()] {
        if let Ok(unit) = decode_source(bytes) {
            assert_eq!(encode_source(&unit), bytes, "a source record");
        }
        if let Ok(unit) = decode_target(bytes) {
            assert_eq!(encode_target(&unit), bytes, "a target record");
        }
        if let Ok(job) = decode_job(bytes) {
            assert_eq!(encode_job(&job), bytes, "a job");
        }
        if let Ok(counters) = decode_counters(bytes) {
            assert_eq!(encode_counters(counters), bytes, "the counters");
        }
    }
}

fn encode_target(unit: &TargetUnit) -> Vec<u8> {
    let seal = Seal::new().u8(unit.step as u8).u64(unit.job.0).u16(unit.slots.len() as u16);
    let fields = unit.slots.iter();
    fields.fold(seal, |seal, (slot, (generation, epoch))| seal.u16(slot.get()).u32(generation.0).u64(epoch.0)).finish()
}

fn decode_target(bytes: &[u8]) -> Result<TargetUnit, EngineError> {
    const WHAT: &str = "a target record of the migration journal";
    let mut record = Opened::open(WHAT, bytes)?;
    let step = match record.u8()? {
        1 => ImportStep::Staged,
        2 => ImportStep::Prepared,
        3 => ImportStep::Live,
        other => return Err(EngineError::Damaged(format!("{WHAT} is at the unknown step {other}"))),
    };
    let job = JobId(record.u64()?);
    let slots = slots_of(WHAT, &mut record, |record| Ok((Generation(record.u32()?), SlotEpoch(record.u64()?))))?;
    record.end()?;
    Ok(TargetUnit { step, job, slots })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn units_round_trip_and_notice_damage(
            node in any::<[u8; 20]>(), job in any::<u64>(), committed in any::<bool>(), step in 0usize..3,
            slots in proptest::collection::btree_map(0u16..16384, (any::<u32>(), any::<u64>()), 0..70), bit in 0usize..600
        ) {
            let slot = |number: &u16| Slot::new(*number).unwrap();
            let step = [ImportStep::Staged, ImportStep::Prepared, ImportStep::Live][step];
            let (target, job) = (NodeId::from_bytes(node), JobId(job));
            let epochs = slots.iter().map(|(number, (_, epoch))| (slot(number), SlotEpoch(*epoch))).collect();
            let source = SourceUnit { target, job, slots: epochs, committed };
            let staged = slots.iter().map(|(number, (generation, epoch))| (slot(number), (Generation(*generation), SlotEpoch(*epoch))));
            let import = TargetUnit { step, job, slots: staged.collect() };
            let spoil = |mut bytes: Vec<u8>| {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            prop_assert_eq!(&decode_source(&encode_source(&source)).unwrap(), &source);
            prop_assert!(decode_source(&spoil(encode_source(&source))).is_err());
            prop_assert_eq!(&decode_target(&encode_target(&import)).unwrap(), &import);
            prop_assert!(decode_target(&spoil(encode_target(&import))).is_err());
            let job = JobRecord { target, slots: source.ranges() };
            prop_assert_eq!(&decode_job(&encode_job(&job)).unwrap(), &job);
            prop_assert!(decode_job(&spoil(encode_job(&job))).is_err());
        }

        #[test]
        fn keys_round_trip(source in any::<[u8; 20]>(), attempt in any::<u64>()) {
            let key = target_key((NodeId::from_bytes(source), attempt));
            let (node, rest) = key.split_first_chunk::<{ NodeId::LEN }>().unwrap();
            prop_assert_eq!((*node, attempt_of(rest).unwrap()), (source, attempt));
            prop_assert!(attempt_of(&key).is_err());
        }
    }
}
