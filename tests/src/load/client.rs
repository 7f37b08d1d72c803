//! The connection: an ordinary Redis Cluster client with retries, as an application would set it up.

use std::time::Duration;

use anyhow::Context as _;
use redis::{cluster::ClusterClientBuilder, cluster_async::ClusterConnection};

/// One answer may take so long; a write that waits for a slot to switch its owner is answered well within.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A request with all its retries may take so long: a pod that is restarted serves again within.
const OVERALL_TIMEOUT: Duration = Duration::from_mins(2);

/// Connects to the cluster that `nodes` are part of.
pub async fn connect(nodes: &[String], password: Option<&str>) -> anyhow::Result<ClusterConnection> {
    let urls = nodes.iter().map(|node| format!("redis://{node}"));
    let mut builder = ClusterClientBuilder::new(urls)
        .retries(1000)
        // Between 10 and 500 ms each time: with a growing base, the client's arithmetic overflows at the 62nd retry.
        .retry_wait_formula(500, 1)
        .min_retry_wait(10)
        .max_retry_wait(500)
        .connection_timeout(Duration::from_secs(2))
        .response_timeout(RESPONSE_TIMEOUT)
        .overall_response_timeout(Some(OVERALL_TIMEOUT));
    if let Some(password) = password {
        builder = builder.password(password);
    }
    let client = builder.build().with_context(|| format!("the nodes {nodes:?} are not host:port"))?;
    client.get_async_connection().await.with_context(|| format!("no cluster answers at {nodes:?}"))
}
