//! What every reconcile is given.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use sluice_topology::LeaderEpoch;
use tracing::debug;

use crate::{error::Error, leader_election::Leadership, metrics::Metrics, network::Network};

/// What the operator remembers of one cluster between reconciles. All of it may be lost at any time.
#[derive(Clone, Debug, Default)]
pub struct ClusterMemory {
    /// The leader epoch this process took for the cluster.
    pub leader_epoch: Option<LeaderEpoch>,
    /// When the document was last written because slots had moved.
    pub slots_written_at: Option<Instant>,
    /// By object: hashes of what was applied and of what the API made of it.
    pub applied: HashMap<String, (u64, u64)>,
}

/// What stores are, as far as a SluiceCluster does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDefaults {
    /// Their image.
    pub image: String,
    /// Settings, by name.
    pub settings: BTreeMap<String, String>,
}

/// What every reconcile is given.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The way to the nodes.
    pub network: Arc<dyn Network>,
    /// What stores are where a spec does not say.
    pub store: StoreDefaults,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// Counters.
    pub metrics: Arc<Metrics>,
    recorder: Recorder,
    memory: Mutex<HashMap<String, ClusterMemory>>,
    failures: Mutex<HashMap<String, u32>>,
    marks: Mutex<HashMap<String, Mark>>,
}

/// When something was last done, and how often.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    count: u32,
}

/// The longest delay before a failed reconcile is tried again.
const BACKOFF_MAX: Duration = Duration::from_mins(1);

impl Context {
    /// A context without memory.
    pub fn new(
        client: Client,
        network: Arc<dyn Network>,
        store: StoreDefaults,
        leadership: Leadership,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reporter = Reporter { controller: "sluice-operator".into(), instance: std::env::var("POD_NAME").ok() };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            network,
            store,
            leadership,
            metrics,
            memory: Mutex::default(),
            failures: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// Ends a reconcile that may not act any more. Asked before every write.
    pub fn may_act(&self) -> Result<(), Error> {
        if self.leadership.is_current() {
            self.metrics.api_writes.inc();
            Ok(())
        } else {
            Err(Error::NotLeader)
        }
    }

    /// Looks at or changes what is remembered of a cluster.
    pub fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut ClusterMemory) -> T) -> T {
        change(self.memory.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_default())
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, uid: &str) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Notes a failed reconcile of an object, and says when to try again: 1 s, doubling up to a minute.
    pub fn failed(&self, key: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.to_owned()).or_default();
        let delay = Duration::from_secs(1 << (*count).min(6)).min(BACKOFF_MAX);
        *count = count.saturating_add(1);
        delay
    }

    /// Notes a reconcile that went well.
    pub fn succeeded(&self, key: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn mark(&self, key: &str) -> Option<Mark> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Whether that was noted within that time.
    pub fn seen_within(&self, key: &str, time: Duration) -> bool {
        self.left_of(key, time).is_some()
    }

    /// How much of that time is left since it was noted; `None` when it has passed, or nothing was noted.
    pub fn left_of(&self, key: &str, time: Duration) -> Option<Duration> {
        self.mark(key).and_then(|mark| time.checked_sub(mark.at.elapsed())).filter(|left| !left.is_zero())
    }

    /// How often that was noted.
    pub fn attempts(&self, key: &str) -> u32 {
        self.mark(key).map_or(0, |mark| mark.count)
    }

    /// Notes that something was done now.
    pub fn note(&self, key: &str) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = marks.get(key).map_or(0, |mark| mark.count).saturating_add(1);
        marks.insert(key.to_owned(), Mark { at: Instant::now(), count });
    }

    /// Forgets what was noted.
    pub fn forget_marks(&self, keys: &[String]) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !keys.contains(key));
    }

    /// Publishes an Event. Failing to is logged, and fails nothing else.
    pub async fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
        if self.may_act().is_err() {
            return;
        }
        // The API refuses notes past 1 kB.
        let note: String = note.chars().take(900).collect();
        let event = Event { type_, reason: reason.into(), note: Some(note), action: "Reconcile".into(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, about).await {
            debug!(%error, reason, "the event could not be published");
        }
    }
}
