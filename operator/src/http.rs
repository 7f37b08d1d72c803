//! Probes and metrics over HTTP.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, http::header, response::IntoResponse, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::{metrics::Metrics, signals::until};

/// Serves `/livez`, `/readyz` and `/metrics` until `shutdown` says true. A process that waits for the lease is live and ready too.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>, mut shutdown: watch::Receiver<bool>) -> std::io::Result<()> {
    let text = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.text())
                .into_response()
        }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(text));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            until(&mut shutdown, true).await;
        })
        .await
}
