//! Takes part in the election: reads the lease, asks the rules, writes with the resource version it read.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use super::{Decision, Leadership, LeaseView, Timing, Watcher, decide};
use crate::{error::is_status, signals::until};

/// Who takes part, and for which lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// This process; differs from every other, also from an earlier one in the same pod.
    pub identity: String,
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub lease: String,
    /// Times.
    pub timing: Timing,
}

/// How one round of the election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This process holds the lease.
    Leading,
    /// Another does.
    Standby,
}

/// One process's part in the election.
pub struct Election {
    candidate: Candidate,
    api: Api<Lease>,
    leadership: Leadership,
    watcher: Watcher,
}

impl Election {
    /// Takes part from now on; `leadership` tells the rest of the process.
    pub fn new(client: Client, candidate: Candidate, leadership: Leadership) -> Self {
        let api = Api::namespaced(client, &candidate.namespace);
        Self { candidate, api, leadership, watcher: Watcher::default() }
    }

    /// Goes on until `shutdown` says true or a lease that was held is lost. Gives the lease back on shutdown.
    pub async fn run(mut self, leading: watch::Sender<bool>, mut shutdown: watch::Receiver<bool>) {
        let mut held = false;
        loop {
            let limit = self.candidate.timing.deadline;
            match timeout(limit, self.round()).await {
                Ok(Ok(Outcome::Leading)) if !held => {
                    info!(identity = %self.candidate.identity, lease = %self.candidate.lease, "leading");
                    held = true;
                    leading.send_replace(true);
                }
                Ok(Ok(Outcome::Leading)) => {}
                Ok(Ok(Outcome::Standby)) if held => {
                    warn!("the lease was taken by another");
                    break;
                }
                Ok(Ok(Outcome::Standby)) => {}
                Ok(Err(error)) => warn!(%error, "the lease could not be read or written"),
                Err(_) => warn!("the API did not answer about the lease in time"),
            }
            if held && !self.leadership.is_current() {
                warn!("the lease could not be renewed in time");
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(self.candidate.timing.retry) => {}
                () = until(&mut shutdown, true) => {
                    if held {
                        self.leadership.revoke();
                        let _ = timeout(Duration::from_secs(3), self.give_back()).await;
                    }
                    break;
                }
            }
        }
        self.leadership.revoke();
        leading.send_replace(false);
    }

    /// Reads the lease once, and does what the rules say.
    pub async fn round(&mut self) -> Result<Outcome, kube::Error> {
        let asked = Instant::now();
        let lease = self.api.get_opt(&self.candidate.lease).await?;
        let view = lease.as_ref().map(view);
        let now = Instant::now();
        let since = view.as_ref().map_or(now, |view| self.watcher.note(&view.resource_version, now));
        let written = match (decide(&self.candidate.identity, view.as_ref(), since, now), lease) {
            (Decision::StandBy, _) => return Ok(Outcome::Standby),
            (Decision::Create, _) | (_, None) => self.api.create(&PostParams::default(), &self.lease(None)).await,
            (_, Some(lease)) => {
                let next = self.lease(Some(lease));
                self.api.replace(&self.candidate.lease, &PostParams::default(), &next).await
            }
        };
        match written {
            Ok(_) => {
                // Counted from before the request: others count from when the write happened, which is later.
                self.leadership.extend(asked + self.candidate.timing.deadline);
                Ok(Outcome::Leading)
            }
            // Somebody else was faster; the next round sees who.
            Err(error) if is_status(&error, 409) => Ok(Outcome::Standby),
            Err(error) => Err(error),
        }
    }

    async fn give_back(&mut self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.candidate.lease).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.candidate.identity) {
            spec.holder_identity = Some(String::new());
            self.api.replace(&self.candidate.lease, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// The lease as it shall be: of a new holder, or renewed.
    fn lease(&self, old: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old_spec = old.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = old_spec.holder_identity.as_deref() == Some(&self.candidate.identity);
        let transitions = old_spec.lease_transitions.unwrap_or(0);
        let metadata = old.map_or_else(
            || ObjectMeta {
                name: Some(self.candidate.lease.clone()),
                namespace: Some(self.candidate.namespace.clone()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata,
        );
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.candidate.identity.clone()),
                lease_duration_seconds: i32::try_from(self.candidate.timing.duration.as_secs()).ok(),
                acquire_time: if same { old_spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn view(lease: &Lease) -> LeaseView {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(15);
    LeaseView {
        holder: spec.holder_identity.unwrap_or_default(),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        duration: Duration::from_secs(seconds),
    }
}
