//! Orders over HTTP, as `kubectl get --raw` and `create --raw` carry them through the API server: a pod without a shell has no other
//! way in. Every order is answered when it is done.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio::{net::TcpListener, signal::unix};

use sluice_tests::load::Session;

/// Serves until SIGTERM.
pub(crate) async fn serve(address: SocketAddr, session: Session) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/status", get(|State(session): State<Arc<Session>>| async move { json(&session.status()) }))
        .route("/load", post(load))
        .route("/phase", post(phase))
        .route(
            "/live/start",
            post(|State(session): State<Arc<Session>>| async move { answer(session.start_live().await.map(|()| "started")) }),
        )
        .route(
            "/live/stop",
            post(|State(session): State<Arc<Session>>| async move { answer(session.stop_live().await.map(|()| "stopped")) }),
        )
        .route("/verify", post(|State(session): State<Arc<Session>>| async move { answer(session.verify().await) }))
        .with_state(Arc::new(session));
    let listener = TcpListener::bind(address).await?;
    println!("connected; waiting for orders on {address}");
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        _ = terminate.recv() => Ok(()),
    }
}

async fn load(State(session): State<Arc<Session>>, request: Request) -> Response {
    let Some(keys) = parameter(&request, "keys").and_then(|text| text.parse().ok()) else {
        return (StatusCode::BAD_REQUEST, "keys=NUMBER is needed\n").into_response();
    };
    answer(session.load(keys).await)
}

async fn phase(State(session): State<Arc<Session>>, request: Request) -> Response {
    match parameter(&request, "name") {
        Some(name) => json(&session.next_phase(&name)),
        None => (StatusCode::BAD_REQUEST, "name=NAME is needed\n").into_response(),
    }
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value.to_owned())
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn answer<T: Serialize>(result: anyhow::Result<T>) -> Response {
    match result {
        Ok(value) => json(&value),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}
