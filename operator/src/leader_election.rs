//! Leader election on a `coordination.k8s.io` Lease. Every write names the resource version it was decided on, so two candidates
//! never both win; expiry is judged by this process's own monotonic clock from when it saw the lease change, so clocks that disagree
//! change nothing. [`rules`] decides, [`run`] asks and writes.

mod rules;
mod run;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use rules::{Decision, LeaseView, Timing, Watcher, decide};
pub use run::{Candidate, Election, Outcome};

/// Until when this process may act as the leader. Cheap to copy and to ask.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Validity>>);

#[derive(Clone, Copy, Debug)]
enum Validity {
    Never,
    Until(Instant),
    Always,
}

impl Leadership {
    /// Of a candidate that has not won yet.
    pub fn none() -> Self {
        Self(Arc::new(Mutex::new(Validity::Never)))
    }

    /// Of an operator that runs without leader election.
    pub fn unconditional() -> Self {
        Self(Arc::new(Mutex::new(Validity::Always)))
    }

    /// Whether this process may act now.
    pub fn is_current(&self) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Validity::Never => false,
            Validity::Until(end) => Instant::now() < end,
            Validity::Always => true,
        }
    }

    /// Lets this process act until then.
    pub(crate) fn extend(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Validity::Until(end);
    }

    /// Ends it.
    pub(crate) fn revoke(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Validity::Never;
    }
}
