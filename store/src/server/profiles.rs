//! Profiles over HTTP, on the admin plane: what `pprof` and a browser ask for. Who may give RESP commands there may ask: with an
//! admin-password whoever has it (HTTP Basic as user `default`, or Bearer), without one loopback peers. A profile has the names of functions and
//! numbers of bytes, no key and no value. With tls-cluster yes they are given by https alone.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{RawQuery, Request},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::admin::Slot;
use crate::{
    commands::same_password,
    config::Settings,
    memory::{self, CpuProfileError, DumpLimits, ProfileError, SECONDS_MAX},
};

/// Seconds of a CPU profile that does not say.
const SECONDS: u64 = 30;

/// Whom a connection is with. Put beside the routes of each.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// It speaks in the clear where only what needs no password may be asked so.
    pub(super) in_the_clear: bool,
}

/// The routes, for whoever may use them.
pub(super) fn routes(node: Slot, settings: Arc<Settings>) -> Router {
    let limits = {
        let settings = settings.clone();
        move || node.get().map_or_else(|| settings.dump_limits(), |node| node.live.current().dump_limits())
    };
    let directory = PathBuf::from(&settings.dir);
    Router::new()
        .route("/debug/pprof/heap", get(move |RawQuery(query): RawQuery| heap(query.unwrap_or_default(), limits())))
        .route("/debug/pprof/heap/activate", post(|| switch(true)))
        .route("/debug/pprof/heap/deactivate", post(|| switch(false)))
        .route("/debug/pprof/profile", get(move |RawQuery(query): RawQuery| cpu(query.unwrap_or_default(), directory.clone())))
        .layer(middleware::from_fn(move |peer, request, next| admit(settings.clone(), peer, request, next)))
}

async fn admit(settings: Arc<Settings>, Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    if peer.in_the_clear {
        let text = "profiles are given by TLS alone (tls-cluster is yes): ask by https\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let password = &settings.admin_password;
    if password.is_empty() {
        if peer.address.to_canonical().is_loopback() {
            return next.run(request).await;
        }
        let text = "no admin-password is set, so profiles are for loopback peers only\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if given_password(request.headers()).is_some_and(|given| same_password(password.as_bytes(), &given)) {
        return next.run(request).await;
    }
    let wanted = [(header::WWW_AUTHENTICATE, "Basic realm=\"admin plane\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, wanted, "give the admin-password: HTTP Basic as user `default`, or Bearer\n").into_response()
}

fn given_password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().as_bytes().to_vec());
    }
    let decoded = BASE64_STANDARD.decode(value.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    decoded.strip_prefix(b"default:").map(<[u8]>::to_vec)
}

fn has(query: &str, name: &str) -> bool {
    query.split('&').any(|part| part.split('=').next() == Some(name))
}

/// Runs what takes locks or long on a thread for that.
async fn offload(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    let failed = |error| (StatusCode::INTERNAL_SERVER_ERROR, format!("a worker failed: {error}\n")).into_response();
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

fn refused(error: &ProfileError) -> Response {
    let status = match error {
        ProfileError::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ProfileError::NotEnabled | ProfileError::NotActive => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n")).into_response()
}

async fn heap(query: String, limits: DumpLimits) -> Response {
    offload(move || {
        if has(&query, "raw") {
            return memory::raw_profile(&limits)
                .map_or_else(|error| refused(&error), |text| download("text/plain", "heap.heap", text));
        }
        let profile = match memory::heap_profile(&limits) {
            Ok(profile) => profile,
            Err(error) => return refused(&error),
        };
        shown(&query, &profile, "Heap in use, by who allocated it", "heap.pb.gz")
    })
    .await
}

fn shown(query: &str, profile: &memory::Profile, title: &str, file: &str) -> Response {
    if has(query, "flamegraph") {
        return ([(header::CONTENT_TYPE, "image/svg+xml")], profile.to_flamegraph(title)).into_response();
    }
    match profile.to_pprof() {
        Ok(bytes) => download("application/octet-stream", file, bytes),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn download(kind: &str, file: &str, bytes: Vec<u8>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\""))];
    (headers, bytes).into_response()
}

async fn switch(active: bool) -> Response {
    offload(move || match memory::set_active(active) {
        Ok(()) => (StatusCode::OK, if active { "enabled\n" } else { "disabled\n" }).into_response(),
        Err(error) => refused(&error),
    })
    .await
}

async fn cpu(query: String, directory: PathBuf) -> Response {
    let given = query.split('&').find_map(|part| part.strip_prefix("seconds="));
    let seconds = match given.map_or(Ok(SECONDS), str::parse::<u64>) {
        Ok(seconds) if (1..=SECONDS_MAX).contains(&seconds) => seconds,
        _ => return (StatusCode::BAD_REQUEST, format!("seconds has to be from 1 to {SECONDS_MAX}\n")).into_response(),
    };
    offload(move || match memory::cpu_profile(Duration::from_secs(seconds), &directory) {
        Ok(profile) => shown(&query, &profile, "Processor time, by who used it", "cpu.pb.gz"),
        Err(error @ CpuProfileError::Busy) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    })
    .await
}
