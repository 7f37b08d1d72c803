//! What can go wrong in a reconcile.

use sluice_topology::{DocumentError, admin::AdminError};

/// Why a reconcile ended early. It is tried again with a delay that grows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused or did not answer.
    #[error("{what}: {}", brief(source))]
    Api {
        /// What was tried.
        what: String,
        /// The API's reason.
        #[source]
        source: Box<kube::Error>,
    },
    /// A node refused or did not answer.
    #[error("shard {shard}: {source}")]
    Node {
        /// The shard.
        shard: u32,
        /// Its reason.
        #[source]
        source: AdminError,
    },
    /// A document contradicts itself.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Something could not be written as JSON.
    #[error("an object cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Another leader has written the topology since.
    #[error("the topology of {cluster} was written by leader epoch {theirs}, ours is {ours}: standing back")]
    Superseded {
        /// The cluster.
        cluster: String,
        /// The epoch found.
        theirs: u64,
        /// The epoch this process took.
        ours: u64,
    },
    /// The lease ran out while acting.
    #[error("this operator is not the leader any more: nothing further is done")]
    NotLeader,
    /// An object of that name belongs to somebody else.
    #[error("{kind} {name} exists and does not belong to this cluster: rename the cluster, or remove the object")]
    NameTaken {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// No random bytes from the system.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// What was read back is not what the API promises.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// For `map_err`: says what was tried.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    /// Whether trying again is all there is to do: somebody else was faster, or leads.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NotLeader | Self::Superseded { .. }) || self.is_status(409)
    }

    /// Whether the API refused because the namespace is going: everything in it goes with it, and nothing is left to do.
    pub fn is_namespace_going(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_status(source, 403) && brief(source).contains("is being terminated"))
    }

    /// Whether the API answered with that HTTP status.
    pub fn is_status(&self, code: u16) -> bool {
        matches!(self, Self::Api { source, .. } if is_status(source, code))
    }
}

/// The API's own sentence, without the machine-readable part around it.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the API answered with that HTTP status.
pub fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
