//! Unknown outcomes: a source brings decided switches to their end after a restart; a target that hears nothing asks its source.

use std::{sync::Arc, time::Duration};

use sluice_topology::admin::Reply;

use super::{
    AttemptId, MigrationError, Migrations, blocking,
    rules::{self, Order, Outcome},
};

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

    /// What became of attempt n, for a target that asks: a switch that is done is `Aborted` too: its target was
    /// live before, and has nothing left to learn.
    pub async fn outcome(self: &Arc<Self>, attempt: u64) -> Result<Outcome, MigrationError> {
        let this = self.clone();
        blocking(move || {
            // In this order: an attempt leaves `active` only after its end is durable.
            let active = this.active().contains(&attempt);
            Ok(rules::outcome(this.journal.decided(attempt)?, active))
        })
        .await
    }

    async fn ask(self: &Arc<Self>, id: AttemptId) -> Result<(), MigrationError> {
        let unknown = || MigrationError::Refused(format!("node {} is not in the topology", id.0));
        let node = self.cluster.node(id.0).ok_or_else(unknown)?;
        let (source, number) = (id.0.to_string(), id.1.to_string());
        let words: [&[u8]; 4] = [b"CLUSTERX", b"OUTCOME", source.as_bytes(), number.as_bytes()];
        let reply = self.cluster.dial(&node).await?.call(&words).await?;
        let outcome = match &reply {
            Reply::Bulk(text) => Outcome::parse(text),
            _ => None,
        };
        let outcome = outcome.ok_or_else(|| MigrationError::Wire(format!("the answer to OUTCOME is {reply:?}")))?;
        let step = self.import(id)?.lock().await.step();
        match rules::learned(outcome, step) {
            None => Ok(()),
            Some(Order::Commit) => self.import_commit(id).await,
            Some(order) => {
                tracing::info!(source = %id.0, attempt = id.1, ?step, "the source has ended this attempt");
                self.import_end(id, order).await
            }
        }
    }
}
