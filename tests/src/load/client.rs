//! The connection: an ordinary Redis Cluster client with retries, as an application would set it up.

use std::time::Duration;

use anyhow::Context as _;
use redis::{TlsCertificates, cluster::ClusterClientBuilder, cluster_async::ClusterConnection};

/// One answer may take so long; a write that waits for a slot to switch its owner is answered well within.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A request with all its retries may take so long: a pod that is restarted serves again within.
const OVERALL_TIMEOUT: Duration = Duration::from_mins(2);

/// Where a cluster is, and how to get in.
#[derive(Clone)]
pub struct Target {
    /// Some of its nodes, as `host:port`.
    pub nodes: Vec<String>,
    /// Its password.
    pub password: Option<String>,
    /// Certificates of the authorities its nodes are known by, in PEM, where clients connect by TLS.
    pub authorities: Option<Vec<u8>>,
}

impl Target {
    /// A cluster without a password.
    pub fn new(nodes: Vec<String>) -> Self {
        Self { nodes, password: None, authorities: None }
    }

    /// Connects to the cluster.
    pub async fn connect(&self) -> anyhow::Result<ClusterConnection> {
        let scheme = if self.authorities.is_some() { "rediss" } else { "redis" };
        let urls = self.nodes.iter().map(|node| format!("{scheme}://{node}"));
        let mut builder = ClusterClientBuilder::new(urls)
            .retries(1000)
            // Between 10 and 500 ms each time: with a growing base, the client's arithmetic overflows at the 62nd retry.
            .retry_wait_formula(500, 1)
            .min_retry_wait(10)
            .max_retry_wait(500)
            .connection_timeout(Duration::from_secs(2))
            .response_timeout(RESPONSE_TIMEOUT)
            .overall_response_timeout(Some(OVERALL_TIMEOUT));
        if let Some(password) = &self.password {
            builder = builder.password(password);
        }
        if let Some(authorities) = &self.authorities {
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert: Some(authorities.clone()) });
        }
        let client = builder.build().with_context(|| format!("the nodes {:?} are not host:port", self.nodes))?;
        client.get_async_connection().await.with_context(|| format!("no cluster answers at {:?}", self.nodes))
    }
}
