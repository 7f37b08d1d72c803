//! The admin plane: one listener on a runtime of its own, so that no data client can starve it. A connection that begins with `*`
//! speaks RESP, any other HTTP.

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
use crate::{commands::Plane, config::Settings, metrics, node::Node};

/// Most connections at once: operator, peers, probes, people.
const CONNECTIONS_MAX: usize = 512;
/// For a connection to say its first word, and for an HTTP request's head.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// The node, once it is there.
pub(super) type Slot = Arc<OnceLock<Arc<Node>>>;

/// Accepts connections of one listener until the process ends.
pub(super) async fn accept(listener: TcpListener, settings: Arc<Settings>, node: Slot, places: Arc<Semaphore>) {
    let routes = routes(node.clone()).merge(profiles::routes(node.clone(), settings.clone()));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting an admin connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (routes, settings, node) = (routes.clone(), settings.clone(), node.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(stream, peer, &settings, &node, routes).await {
                tracing::debug!(%peer, %error, "an admin connection ended");
            }
            drop(place);
        });
    }
}

/// How many admin connections there may be, over all listeners.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, settings: &Settings, node: &Slot, routes: Router) -> anyhow::Result<()> {
    listen::prepare(&stream, settings)?;
    let mut first = [0];
    let count = timeout(FIRST_WORD, stream.peek(&mut first)).await??;
    if count == 0 {
        return Ok(());
    }
    if first[0] != b'*' {
        let service = TowerToHyperService::new(routes.layer(Extension(Peer(peer.ip()))));
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(FIRST_WORD)
            .serve_connection(TokioIo::new(stream), service)
            .await?;
        return Ok(());
    }
    if settings.admin_password.is_empty() && !peer.ip().to_canonical().is_loopback() {
        let text = "-DENIED no admin-password is set, so the admin plane's commands are for loopback peers only\r\n";
        return Ok(stream.write_all(text.as_bytes()).await?);
    }
    match node.get() {
        Some(node) => Connection::new(stream, peer, node.clone(), Turns::alone(node), Plane::Admin).serve().await,
        None => stream.write_all(b"-LOADING the store is opening its data\r\n").await?,
    }
    Ok(())
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
