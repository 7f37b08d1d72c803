//! The admin plane: one listener on a runtime of its own, so that no data client can starve it. A connection that begins with `*`
//! speaks RESP, any other HTTP. With tls-cluster yes one that begins with a handshake speaks either inside of it; in the clear nothing is left but
//! probes and metrics.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Extension, Router, http::StatusCode, response::IntoResponse, routing::get};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use sluice_topology::tls::Stream;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    connection::Connection,
    listen,
    profiles::{self, Peer},
    turns::Turns,
};
use crate::{
    commands,
    config::Settings,
    metrics,
    node::Node,
    tls::{FIRST_BYTE, Tls},
};

/// Most connections at once: operator, peers, probes, people.
const CONNECTIONS_MAX: usize = 512;
/// For a connection to say its first word, and for an HTTP request's head.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// The node, once it is there.
pub(super) type Slot = Arc<OnceLock<Arc<Node>>>;

/// What every connection of the plane is given.
#[derive(Clone)]
pub(super) struct Plane {
    settings: Arc<Settings>,
    node: Slot,
    /// What is spoken where a peer begins a handshake; with it commands go by TLS alone.
    tls: Option<Arc<Tls>>,
    routes: Router,
    /// How many connections there may be, over all listeners.
    places: Arc<Semaphore>,
}

impl Plane {
    pub(super) fn new(settings: Arc<Settings>, node: Slot, tls: Option<Arc<Tls>>) -> Self {
        let routes = routes(node.clone()).merge(profiles::routes(node.clone(), settings.clone()));
        Self { settings, node, tls, routes, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Accepts connections of one listener until the process ends.
    pub(super) async fn accept(self, listener: TcpListener) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting an admin connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let plane = self.clone();
            tokio::spawn(async move {
                if let Err(error) = plane.serve(stream, peer).await {
                    tracing::debug!(%peer, %error, "an admin connection ended");
                }
                drop(place);
            });
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
        listen::prepare(&stream, &self.settings)?;
        let mut stream = Stream::Plain(stream);
        let Some(first) = timeout(FIRST_WORD, stream.first_byte()).await?? else { return Ok(()) };
        let (mut stream, first) = match (&self.tls, first, stream) {
            (Some(tls), FIRST_BYTE, Stream::Plain(stream)) => {
                let mut stream = tls.accept(stream).await?;
                let Some(first) = timeout(FIRST_WORD, stream.first_byte()).await?? else { return Ok(()) };
                (stream, first)
            }
            (_, first, stream) => (stream, first),
        };
        let in_the_clear = self.tls.is_some() && !stream.is_encrypted();
        if first != b'*' {
            let peer = Peer { address: peer.ip(), in_the_clear };
            let service = TowerToHyperService::new(self.routes.layer(Extension(peer)));
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(FIRST_WORD)
                .serve_connection(TokioIo::new(stream), service)
                .await?;
            return Ok(());
        }
        let refusal = if in_the_clear {
            Some(
                "-ERR the admin plane takes commands by TLS alone (tls-cluster is yes): connect with it, as redis-cli --tls does\r\n",
            )
        } else if self.settings.admin_password.is_empty() && !peer.ip().to_canonical().is_loopback() {
            Some("-DENIED no admin-password is set, so the admin plane's commands are for loopback peers only\r\n")
        } else if self.node.get().is_none() {
            Some("-LOADING the store is opening its data\r\n")
        } else {
            None
        };
        match (refusal, self.node.get()) {
            (None, Some(node)) => {
                Connection::new(stream, peer, node.clone(), Turns::alone(node), commands::Plane::Admin).serve().await;
            }
            (refusal, _) => {
                stream.write_all(refusal.unwrap_or_default().as_bytes()).await?;
                stream.end().await;
            }
        }
        Ok(())
    }
}

fn routes(node: Slot) -> Router {
    let (ready, metrics) = (node.clone(), node);
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async move { readiness(&ready) }))
        .route("/metrics", get(|| async move { render(&metrics) }))
}

fn readiness(node: &Slot) -> (StatusCode, &'static str) {
    match node.get() {
        None => (StatusCode::SERVICE_UNAVAILABLE, "opening the data\n"),
        Some(node) if node.ready() => (StatusCode::OK, "ok\n"),
        Some(node) if node.cluster.known().cluster_id.is_none() => {
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for the topology\n")
        }
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "asking the peers, or shutting down\n"),
    }
}

fn render(node: &Slot) -> axum::response::Response {
    match node.get().map(|node| metrics::render(node.clone())) {
        Some(Ok(text)) => {
            ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "opening the data\n").into_response(),
    }
}
