//! A job: which units it has, how many are on their way at once, and what becomes of those that fail.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use sluice_topology::{
    SlotRanges,
    admin::{AdminError, MigrationState},
};
use tokio::task::JoinSet;

use super::{MigrationError, Migrations, blocking, jobs::Job, source::Moved};

/// First pause after a failed attempt.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// How often the end of switches of the last run is looked for at least.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Slots that are switched together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unit {
    slots: SlotRanges,
    /// About what they hold.
    bytes: u64,
    failures: u32,
}

impl Unit {
    fn pause(&self, most: Duration) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => (BACKOFF_FIRST * 2u32.saturating_pow(failures - 1)).min(most),
        }
    }
}

impl Migrations {
    /// Moves what of a job's slots is this node's. Ends when all are switched, one fails for good, or somebody cancels.
    pub(super) async fn run(self: Arc<Self>, job: Arc<Job>) {
        let (id, slots) = (job.status().job, job.status().slots);
        tracing::info!(job = %id, %slots, target = %job.status().target, "migration started");
        // Unit after unit leaves this node: their space comes back for less once neighbours have left too.
        let held = self.engine.hold_reclaim();
        let outcome = self.run_units(&job).await;
        drop(held);
        if self.engine.closing() {
            // The journal has the job: the next start goes on with it.
            return;
        }
        let state = match outcome {
            Ok(()) => MigrationState::Done,
            Err(MigrationError::Cancelled) => MigrationState::Cancelled,
            Err(error) => {
                tracing::error!(job = %id, %error, "migration failed");
                job.update(|status| status.last_error = error.to_string());
                MigrationState::Failed
            }
        };
        let this = self.clone();
        if let Err(error) = blocking(move || Ok(this.journal.forget_job(id)?)).await {
            tracing::warn!(job = %id, %error, "the end of a migration was not journalled; the next start looks at it again");
        }
        tracing::info!(job = %id, ?state, "migration ended");
        job.end(state);
    }

    async fn run_units(self: &Arc<Self>, job: &Arc<Job>) -> Result<(), MigrationError> {
        // Switches that the last run decided end first: whose their slots are is not this node's to say until then.
        let mut changes = self.cluster.changes();
        while !self.fenced().intersection(&job.status().slots).is_empty() {
            // A change may be told of a moment before the switch is off the list.
            let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
        }
        let (this, slots) = (self.clone(), job.status().slots.intersection(&self.cluster.owned()));
        let (unit_slots, unit_bytes) = (self.limits.unit_slots, self.limits.unit_bytes);
        let units = blocking(move || Ok(split(&this.engine.approximate_bytes(&slots), unit_slots, unit_bytes))).await?;
        let left = units.iter().map(|unit| unit.slots.len() as u32).sum::<u32>();
        job.update(|status| {
            status.slots_done = status.slots_total - left;
            status.bytes_total = status.bytes_done + units.iter().map(|unit| unit.bytes).sum::<u64>();
        });
        let (mut waiting, mut running, mut ending) = (VecDeque::from(units), JoinSet::new(), Ok(()));
        loop {
            while ending.is_ok()
                && running.len() < self.pace.limits().1
                && let Some(unit) = waiting.pop_front()
            {
                let (this, job) = (self.clone(), job.clone());
                running.spawn(async move {
                    let moved = this.move_in_time(&job, &unit).await;
                    (unit, moved)
                });
            }
            let Some(ended) = running.join_next().await else { return ending };
            let (unit, outcome) = ended.map_err(|error| MigrationError::Worker(error.to_string()))?;
            match outcome {
                Ok(moved) => job.update(|status| {
                    status.slots_done += unit.slots.len() as u32;
                    status.keys_done += moved.keys;
                    status.bytes_done += unit.bytes;
                    status.switch_pause_ms_max = status.switch_pause_ms_max.max(moved.pause.as_millis() as u64);
                }),
                Err(error) => match self.again(job, unit, &error) {
                    Some(units) => units.into_iter().rev().for_each(|unit| waiting.push_front(unit)),
                    None if ending.is_ok() => ending = Err(error),
                    None => {}
                },
            }
        }
    }

    async fn move_in_time(self: &Arc<Self>, job: &Arc<Job>, unit: &Unit) -> Result<Moved, MigrationError> {
        let pause = unit.pause(self.limits.backoff_max);
        if !pause.is_zero() {
            job.step("waiting");
            tokio::time::sleep(pause).await;
        }
        if job.cancelled() {
            return Err(MigrationError::Cancelled);
        }
        self.move_unit(job, &unit.slots, unit.bytes).await
    }

    /// What is tried after a failure; `None`: nothing would help.
    fn again(&self, job: &Job, unit: Unit, error: &MigrationError) -> Option<Vec<Unit>> {
        if matches!(error, MigrationError::Cancelled) {
            return None;
        }
        let failures = unit.failures + 1;
        tracing::warn!(job = %job.status().job, unit = %unit.slots, failures, %error, "a migration attempt failed");
        job.update(|status| status.last_error = error.to_string());
        if failures >= self.limits.attempts_max || permanent(error) || self.engine.closing() {
            return None;
        }
        // What is too much for the time that writes may wait, or changes more than can be remembered, is tried in halves.
        let too_much = matches!(error, MigrationError::SwitchTimeout(_) | MigrationError::Feed(_));
        if too_much && unit.slots.len() > 1 {
            let halves = unit.slots.split(unit.slots.len().div_ceil(2));
            return Some(halves.into_iter().map(|slots| Unit { slots, bytes: unit.bytes / 2, failures }).collect());
        }
        Some(vec![Unit { failures, ..unit }])
    }
}

/// Runs of slots with at most so many slots, and bytes unless one slot has more.
fn split(sizes: &[(sluice_topology::Slot, u64)], slots_max: usize, bytes_max: u64) -> Vec<Unit> {
    let mut units: Vec<(Vec<sluice_topology::Slot>, u64)> = Vec::new();
    for (slot, bytes) in sizes {
        match units.last_mut().filter(|(slots, sum)| slots.len() < slots_max && sum + bytes <= bytes_max) {
            Some((slots, sum)) => {
                slots.push(*slot);
                *sum += bytes;
            }
            None => units.push((vec![*slot], *bytes)),
        }
    }
    units.into_iter().map(|(slots, bytes)| Unit { slots: slots.into_iter().collect(), bytes, failures: 0 }).collect()
}

/// Whether trying again cannot help.
fn permanent(error: &MigrationError) -> bool {
    match error {
        MigrationError::Refused(_) | MigrationError::Undecided(_) => true,
        MigrationError::Peer(AdminError::Refused { message, .. }) => message.contains("MIGRATEREFUSED"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sluice_topology::Slot;

    use super::*;

    #[test]
    fn units_are_bounded_in_slots_and_bytes() {
        let sizes: Vec<(Slot, u64)> = [10, 20, 500, 0, 0, 0, 90, 20]
            .into_iter()
            .enumerate()
            .map(|(at, bytes)| (Slot::new(at as u16).unwrap(), bytes))
            .collect();
        let units: Vec<(String, u64)> =
            split(&sizes, 3, 100).into_iter().map(|unit| (unit.slots.to_string(), unit.bytes)).collect();
        let expected = [("0-1", 30), ("2", 500), ("3-5", 0), ("6", 90), ("7", 20)];
        assert_eq!(units, expected.map(|(slots, bytes)| (slots.to_owned(), bytes)));
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let most = Duration::from_secs(1);
        let pauses =
            [0, 1, 2, 3, 40].map(|failures| Unit { slots: SlotRanges::empty(), bytes: 0, failures }.pause(most).as_millis());
        assert_eq!(pauses, [0, 200, 400, 800, 1000]);
    }
}
