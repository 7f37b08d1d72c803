//! A collector of traces: OTLP over HTTP, as a store sends it, decoded and kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};

/// What it does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes it.
    Takes,
    /// Says that it cannot.
    Refuses,
    /// Says nothing, for ever.
    Silent,
}

#[derive(Default)]
struct Received {
    mood: Option<Mood>,
    requests: Vec<(HeaderMap, Bytes)>,
}

/// A collector on loopback. Dropped, it is gone.
pub struct Collector {
    address: String,
    received: Arc<Mutex<Received>>,
    server: JoinHandle<()>,
}

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector {
    /// Starts one that takes what it is sent.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let received: Arc<Mutex<Received>> = Arc::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(received.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, received, server })
    }

    /// Its address, for `otlp-endpoint`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on it does that.
    pub fn set(&self, mood: Mood) {
        lock(&self.received).mood = Some(mood);
    }

    /// How often it was sent something, taken or not.
    pub fn requests(&self) -> usize {
        lock(&self.received).requests.len()
    }

    /// Every byte it was sent.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.received).requests.iter().flat_map(|(_, body)| body.to_vec()).collect()
    }

    /// A header of the last request.
    pub fn header(&self, name: &str) -> Option<String> {
        let received = lock(&self.received);
        received.requests.last().and_then(|(headers, _)| Some(headers.get(name)?.to_str().ok()?.to_owned()))
    }

    /// Every span it was sent, with what is said of who sent it.
    pub fn spans(&self) -> anyhow::Result<Vec<Seen>> {
        let mut spans = Vec::new();
        for (_, body) in &lock(&self.received).requests {
            for from in ExportTraceServiceRequest::decode(body.clone())?.resource_spans {
                let resource = from.resource.unwrap_or_default().attributes;
                let of_all = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(of_all.map(|span| Seen { span, resource: resource.clone() }));
            }
        }
        Ok(spans)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mood = {
        let mut received = lock(&received);
        received.requests.push((headers, body));
        received.mood.unwrap_or(Mood::Takes)
    };
    match mood {
        Mood::Takes => StatusCode::OK,
        Mood::Refuses => StatusCode::SERVICE_UNAVAILABLE,
        Mood::Silent => std::future::pending().await,
    }
}

/// A span that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The span.
    pub span: Span,
    resource: Vec<KeyValue>,
}

impl Seen {
    /// What it says of itself, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        text_of(&self.span.attributes, name)
    }

    /// What is said of who sent it, as text.
    pub fn resource(&self, name: &str) -> Option<String> {
        text_of(&self.resource, name)
    }

    /// Whether it is a part of that one.
    pub fn is_part_of(&self, whole: &Self) -> bool {
        self.span.parent_span_id == whole.span.span_id && self.span.trace_id == whole.span.trace_id
    }

    /// Whether it says that it failed.
    pub fn failed(&self) -> bool {
        // STATUS_CODE_ERROR.
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

fn text_of(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(yes) => yes.to_string(),
        other => format!("{other:?}"),
    })
}
