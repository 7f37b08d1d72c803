//! Unknown outcomes: a source brings decided switches to their end after a restart; a target that hears nothing asks its source.

use std::{sync::Arc, time::Duration};

use sluice_topology::admin::Reply;

use super::{AttemptId, MigrationError, Migrations, blocking, journal::ImportStep};

/// How often a target asks about units it has heard nothing of.
const ASK_EVERY: Duration = Duration::from_secs(2);

impl Migrations {
    /// Runs until the process ends: decided switches first, then the jobs of the last run, then the asking.
    pub async fn resolve(self: Arc<Self>) {
        match self.journal.committed() {
            Ok(units) => {
                for (attempt, unit) in units {
                    let this = self.clone();
                    tokio::spawn(async move { this.finish(attempt, &unit).await });
                }
            }
            Err(error) => tracing::error!(%error, "the migration journal cannot be read; decided switches wait for a restart"),
        }
        self.go_on();
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let ids: Vec<AttemptId> = self.imports().keys().copied().collect();
            for id in ids {
                if let Err(error) = self.ask(id).await {
                    tracing::debug!(source = %id.0, attempt = id.1, %error, "the outcome of an import is not known yet");
                }
            }
        }
    }

    /// What became of attempt n, for a target that asks: `committed`, `pending`, or `aborted` (which a switch that is done also is:
    /// its target was live before it was done, and has nothing left to learn).
    pub async fn outcome(self: &Arc<Self>, attempt: u64) -> Result<&'static str, MigrationError> {
        let this = self.clone();
        blocking(move || {
            // In this order: an attempt leaves `active` only after its end is durable.
            let active = this.active().contains(&attempt);
            match this.journal.decided(attempt)? {
                Some(true) => Ok("committed"),
                Some(false) => Ok("pending"),
                None if active => Ok("pending"),
                None => Ok("aborted"),
            }
        })
        .await
    }

    async fn ask(self: &Arc<Self>, id: AttemptId) -> Result<(), MigrationError> {
        let unknown = || MigrationError::Refused(format!("node {} is not in the topology", id.0));
        let node = self.cluster.node(id.0).ok_or_else(unknown)?;
        let (source, number) = (id.0.to_string(), id.1.to_string());
        let words: [&[u8]; 4] = [b"CLUSTERX", b"OUTCOME", source.as_bytes(), number.as_bytes()];
        let reply = self.cluster.dial(&node).await?.call(&words).await?;
        let Reply::Bulk(outcome) = reply else {
            return Err(MigrationError::Wire("the answer to OUTCOME is no text".into()));
        };
        let step = self.import(id)?.lock().await.step();
        match (outcome.as_ref(), step) {
            (b"committed", ImportStep::Prepared) => self.import_commit(id).await,
            (b"aborted", step) => {
                tracing::info!(source = %id.0, attempt = id.1, ?step, "the source has ended this attempt");
                self.import_end(id, step == ImportStep::Live).await
            }
            _ => Ok(()),
        }
    }
}
