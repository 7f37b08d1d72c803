//! The real redis-server that a store is compared with.

use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use sluice_tests::store::{free_port, wait_for};

/// A redis-server that ends with the test.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let port = free_port()?;
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server is needed to compare with: `make setup` installs it")?;
        Ok(Self { child, port })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        wait_for("redis-server", || async { Ok(client.get_multiplexed_async_connection().await.is_ok()) }).await?;
        Ok(client.get_multiplexed_async_connection().await?)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
