//! The data plane: connections of clients.

use std::sync::{Arc, atomic::Ordering};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::{connection::Connection, listen};
use crate::{commands::Plane, node::Node};

/// Accepts clients of one listener until the process ends.
pub(super) async fn accept(listener: TcpListener, node: Arc<Node>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let node = node.clone();
                tokio::spawn(async move {
                    if let Err(error) = welcome(stream, peer.ip().to_canonical().is_loopback(), &node).await {
                        tracing::debug!(%peer, %error, "a connection was not taken");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors: what is open goes on, and some of it will end.
                tracing::warn!(%error, "accepting a client failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// Counts a client out when it goes, however that happens.
struct Counted<'a>(&'a Node);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.stats.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn welcome(mut stream: TcpStream, loopback: bool, node: &Arc<Node>) -> std::io::Result<()> {
    listen::prepare(&stream, &node.settings)?;
    let open = node.stats.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let _counted = Counted(node);
    node.stats.connections_total.fetch_add(1, Ordering::Relaxed);
    if open > u64::from(node.settings.maxclients) {
        node.stats.connections_rejected.fetch_add(1, Ordering::Relaxed);
        return stream.write_all(b"-ERR max number of clients reached\r\n").await;
    }
    if node.settings.protected_mode && node.settings.requirepass.is_empty() && !loopback {
        let text = "-DENIED Sluice is running in protected mode: no password is set, so only loopback clients are served. \
                    Set requirepass, or protected-mode no if the network is trusted.\r\n";
        return stream.write_all(text.as_bytes()).await;
    }
    Connection::new(stream, node.clone(), Plane::Data).serve().await;
    Ok(())
}
