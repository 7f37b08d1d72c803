//! The status of a migration, from what the nodes say.

use sluice_topology::{
    NodeId, SlotRanges,
    admin::{MigrationState, MigrationStatus},
};

use super::decide::{Step, Verdict};
use crate::api::{Condition, ConditionType, MigrationPhase, SlotMigration, SlotMigrationStatus, set_condition};

/// Longest error text kept.
const ERROR_LEN_MAX: usize = 512;

/// What a status is made from.
pub struct Progress<'a> {
    /// The object.
    pub migration: &'a SlotMigration,
    /// Its slots.
    pub slots: &'a SlotRanges,
    /// What was decided.
    pub verdict: &'a Verdict,
    /// The target: node and shard.
    pub target: (NodeId, u32),
    /// The source, when the spec names one.
    pub source: Option<(NodeId, u32)>,
    /// A job that was started in this pass: node, shard, number.
    pub started: Option<(NodeId, u32, u64)>,
    /// What went wrong in this pass.
    pub error: Option<String>,
    /// The time, RFC 3339.
    pub now: &'a str,
}

fn wide<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn narrow<T: TryInto<i32>>(value: T) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// Composes the status.
pub fn progress(pass: &Progress<'_>) -> SlotMigrationStatus {
    let old = pass.migration.status.clone().unwrap_or_default();
    let mut status =
        SlotMigrationStatus { observed_generation: pass.migration.metadata.generation, conditions: Vec::new(), ..old.clone() };
    status.slots_total = narrow(pass.slots.len());
    status.slots_done = narrow(pass.verdict.done);
    status.percent = narrow(pass.verdict.done.saturating_mul(100) / pass.slots.len().max(1));
    if pass.target.0.as_bytes() != &[0; NodeId::LEN] {
        status.target_node = Some(pass.target.0.to_string());
        status.target_shard = Some(narrow(pass.target.1));
    }
    if let Some((id, shard)) = pass.source {
        status.source_node = Some(id.to_string());
        status.source_shard = Some(narrow(shard));
    }
    if let Some((id, shard, job)) = pass.started {
        // What the jobs before had moved is kept: the next one counts from 0.
        status.earlier = vec![old.keys, old.bytes];
        status.job = Some(wide(job));
        status.source_node = Some(id.to_string());
        status.source_shard = Some(narrow(shard));
        status.jobs = old.jobs.saturating_add(1);
        status.attempts = 0;
    }
    // The error of the job before stands until the migration is complete: a retry is not silent.
    let ended = pass.verdict.last.as_ref().filter(|job| job.state == MigrationState::Failed && old.job == Some(wide(job.job.0)));
    if let Some(job) = ended.filter(|job| !job.last_error.is_empty()) {
        status.last_error = job.last_error.chars().take(ERROR_LEN_MAX).collect();
    }
    let current = match &pass.verdict.step {
        Step::Watch(job) | Step::Stop { job, .. } => Some(job.as_ref()),
        _ => pass.verdict.last.as_ref().filter(|job| status.job == Some(wide(job.job.0)) && pass.started.is_none()),
    };
    if let Some(job) = current {
        take_job(&mut status, &old, job);
    }
    if let Some(error) = &pass.error {
        status.last_error = error.chars().take(ERROR_LEN_MAX).collect();
    }
    let (state, reason, message) = match &pass.verdict.step {
        Step::Complete => (MigrationPhase::Complete, "Complete", String::new()),
        Step::Cancelled => {
            (MigrationPhase::Cancelled, "Cancelled", "spec.cancel is set; slots already moved stay where they are".into())
        }
        Step::Held(why) => (MigrationPhase::Paused, "Paused", why.clone()),
        Step::Stop { .. } => (MigrationPhase::Running, "Stopping", "the job ends at its next unit of slots".into()),
        Step::Wait(why) => (MigrationPhase::Waiting, "Waiting", why.clone()),
        Step::Watch(_) => (MigrationPhase::Running, "Running", String::new()),
        Step::Start { .. } if pass.started.is_some() => (MigrationPhase::Running, "Running", String::new()),
        Step::Start { .. } => (MigrationPhase::Waiting, "Retrying", status.last_error.clone()),
    };
    if state.is_final() {
        status.step = String::new();
    }
    if state == MigrationPhase::Complete {
        status.last_error = String::new();
    }
    status.state = state;
    let moving = !state.is_final() && state != MigrationPhase::Paused;
    let conditions = [
        Condition::of(ConditionType::Progressing, moving, reason, message),
        Condition::of(ConditionType::Complete, state == MigrationPhase::Complete, reason, ""),
    ];
    for condition in conditions {
        let condition = Condition { observed_generation: status.observed_generation, ..condition };
        set_condition(&mut status.conditions, &old.conditions, condition, pass.now);
    }
    status
}

/// Takes over what a job says of itself.
fn take_job(status: &mut SlotMigrationStatus, old: &SlotMigrationStatus, job: &MigrationStatus) {
    let number = wide(job.job.0);
    if status.job != Some(number) {
        // A job that another operator started: counted as one of this migration's from now on.
        status.earlier = vec![old.keys, old.bytes];
        status.job = Some(number);
        status.jobs = old.jobs.saturating_add(1);
    }
    let before = |position: usize| status.earlier.get(position).copied().unwrap_or(0);
    (status.keys, status.bytes) = (before(0).saturating_add(wide(job.keys_done)), before(1).saturating_add(wide(job.bytes_done)));
    status.step.clone_from(&job.step);
    status.attempts = wide(job.attempts);
    status.longest_pause_ms = old.longest_pause_ms.max(wide(job.switch_pause_ms_max));
    if !job.last_error.is_empty() {
        status.last_error = job.last_error.chars().take(ERROR_LEN_MAX).collect();
    }
}

/// The status of a migration that can never run as it is written.
pub(super) fn invalid(migration: &SlotMigration, why: &str, now: &str) -> SlotMigrationStatus {
    let old = migration.status.clone().unwrap_or_default();
    let mut status = SlotMigrationStatus {
        observed_generation: migration.metadata.generation,
        state: MigrationPhase::Invalid,
        last_error: why.chars().take(ERROR_LEN_MAX).collect(),
        conditions: Vec::new(),
        ..old.clone()
    };
    for condition in [
        Condition::of(ConditionType::Progressing, false, "Invalid", why),
        Condition::of(ConditionType::Degraded, true, "Invalid", why),
    ] {
        set_condition(&mut status.conditions, &old.conditions, condition, now);
    }
    status
}
