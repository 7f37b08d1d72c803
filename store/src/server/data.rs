//! The data plane: connections of clients.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sluice_topology::tls::Stream;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::mpsc,
};

use super::{connection::Connection, listen, turns::Turns};
use crate::{commands::Plane, node::Node, tls::Tls};

/// The stack of a thread that executes commands: what scripts nest (tables inside of tables) takes a level of it each.
pub(super) const STACK_BYTES: usize = 8 << 20;

/// Threads that serve clients: each has a runtime, turns, and the connections it was given.
pub(super) struct DataThreads {
    threads: Vec<Thread>,
    next: AtomicUsize,
}

/// A client that has connected, and what TLS is spoken with.
type Accepted = (std::net::TcpStream, SocketAddr, Option<Arc<Tls>>);

struct Thread {
    connections: mpsc::UnboundedSender<Accepted>,
    ended: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl DataThreads {
    /// Starts them.
    pub(super) fn start(count: usize, node: &Arc<Node>) -> anyhow::Result<Self> {
        let threads = (0..count).map(|number| Thread::start(number, count == 1, node.clone())).collect::<anyhow::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// Accepts clients of one listener until the process ends, and gives them to the threads in turn.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<Arc<Tls>>) {
        loop {
            match listener.accept().await.and_then(|(stream, peer)| Ok((stream.into_std()?, peer, tls.clone()))) {
                Ok(accepted) => {
                    let thread = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
                    // A thread that has ended takes no clients: the process is ending.
                    let _ = self.threads[thread].connections.send(accepted);
                }
                Err(error) => {
                    // Out of descriptors: what is open goes on, and some of it will end.
                    tracing::warn!(%error, "accepting a client failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Ends them and their connections; waits for each at most that long.
    pub(super) fn stop(self, limit: Duration) {
        for Thread { connections, ended } in self.threads {
            drop(connections);
            let _ = ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(limit);
        }
    }
}

impl Thread {
    fn start(number: usize, sole: bool, node: Arc<Node>) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().thread_stack_size(STACK_BYTES).enable_all().build()?;
        let (connections, mut accepted) = mpsc::unbounded_channel::<Accepted>();
        let (ending, ended) = std::sync::mpsc::channel();
        std::thread::Builder::new().name(format!("data-{number}")).stack_size(STACK_BYTES).spawn(move || {
            runtime.block_on(async {
                let turns = Turns::shared(&node, sole);
                tokio::spawn(turns.clone().commit_turns());
                while let Some((stream, peer, tls)) = accepted.recv().await {
                    let (node, turns) = (node.clone(), turns.clone());
                    tokio::spawn(async move {
                        if let Err(error) = welcome(stream, peer, tls, &node, turns).await {
                            tracing::debug!(%peer, %error, "a connection was not taken");
                        }
                    });
                }
            });
            // Connections end here, and with them all that uses the engine.
            drop(runtime);
            drop(node);
            let _ = ending.send(());
        })?;
        Ok(Self { connections, ended: Mutex::new(ended) })
    }
}

/// Counts a client out when it goes, however that happens.
struct Counted<'a>(&'a Node);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.stats.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn welcome(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    node: &Arc<Node>,
    turns: Arc<Turns>,
) -> anyhow::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    listen::prepare(&stream, &node.settings)?;
    let open = node.stats.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let _counted = Counted(node);
    node.stats.connections_total.fetch_add(1, Ordering::Relaxed);
    if open > u64::from(node.live.maxclients()) {
        node.stats.connections_rejected.fetch_add(1, Ordering::Relaxed);
        // A handshake would take what there is too little of: who speaks TLS sees the end alone, as of Redis.
        if tls.is_none() {
            Stream::Plain(stream).write_all(b"-ERR max number of clients reached\r\n").await?;
        }
        return Ok(());
    }
    let mut stream = match tls {
        Some(tls) => tls.accept(stream).await?,
        None => Stream::Plain(stream),
    };
    if node.settings.protected_mode && node.settings.requirepass.is_empty() && !peer.ip().to_canonical().is_loopback() {
        let text = "-DENIED Sluice is running in protected mode: no password is set, so only loopback clients are served. \
                    Set requirepass, or protected-mode no if the network is trusted.\r\n";
        stream.write_all(text.as_bytes()).await?;
        stream.end().await;
        return Ok(());
    }
    Connection::new(stream, peer, node.clone(), turns, Plane::Data).serve().await;
    Ok(())
}
