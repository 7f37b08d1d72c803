//! Libraries of functions go to the node that slots move to, so that FCALL finds there what it found here.
//!
//! A job has its target take the libraries that it does not have: once before the first switch, then whenever they have changed, before a
//! unit's last rounds and, once its switch is decided, before the target makes it live. The source begins to answer MOVED while no library is
//! being loaded, and only if the target was sent all of them: who was told that a library is loaded here finds it there.

use std::sync::{MutexGuard, PoisonError};

use sluice_topology::NodeEntry;

use super::{AttemptId, MigrationError, Migrations, blocking, journal::SourceUnit};
use crate::engine::{Opened, SystemKind};

impl Migrations {
    /// Changes the libraries of this node, one change at a time.
    pub fn change_libraries<T, E>(&self, change: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut count = self.libraries();
        let outcome = change();
        *count += 1;
        outcome
    }

    /// How many changes of the libraries there were; there is none while this is held.
    pub(super) fn libraries(&self) -> MutexGuard<'_, u64> {
        self.libraries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of an attempt is here: libraries come with units alone.
    pub fn imports_unit(&self, id: AttemptId) -> Result<(), MigrationError> {
        self.import(id).map(drop)
    }

    /// Sends the target of a unit the libraries of this node, unless its job has sent them since they changed. Returns as of which change
    /// the target has them.
    pub(super) async fn share_libraries(
        self: &std::sync::Arc<Self>,
        node: &NodeEntry,
        attempt: u64,
        unit: &SourceUnit,
    ) -> Result<u64, MigrationError> {
        // Looked at before they are read: what is loaded meanwhile is sent again.
        let change = *self.libraries();
        let job = self.jobs.find(unit.job);
        if job.as_ref().is_some_and(|job| job.shared_libraries() == Some(change)) {
            return Ok(change);
        }
        let this = self.clone();
        let records = blocking(move || Ok(this.engine.system_records(SystemKind::Function)?)).await?;
        if !records.is_empty() {
            let (me, number) = (self.cluster.me().to_string(), attempt.to_string());
            let mut client = self.cluster.dial(node).await?;
            for (_, record) in &records {
                let code = Opened::open("the record of a library of functions", record)?.rest();
                let words: [&[u8]; 6] = [b"CLUSTERX", b"IMPORT", b"LIBRARY", me.as_bytes(), number.as_bytes(), code];
                client.call(&words).await?;
            }
        }
        job.iter().for_each(|job| job.note_shared_libraries(change));
        Ok(change)
    }
}
