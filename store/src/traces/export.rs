//! From a span that has ended to the collector: a bounded queue, and a thread that sends what is in it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{Context, KeyValue, trace::SpanBuilder, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    commands::Commands,
    options::{self, TraceOptions, TracesError},
    span::Span,
};

/// Most spans of one request to the collector.
const BATCH_MAX: usize = 512;
/// A span waits so long at most for others to go with.
const GATHER: Duration = Duration::from_secs(1);
/// Longest answer of a collector that is read.
const ANSWER_MAX: usize = 1 << 20;
/// For what is left in the queue, when the process ends.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// What became of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the collector.
    pub sent: u64,
    /// Found no place in the queue.
    pub dropped: u64,
    /// In batches that the collector did not take.
    pub failed: u64,
    /// Wait to be sent, or are being sent.
    pub waiting: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    dropped: Arc<AtomicU64>,
    failed: AtomicU64,
    waiting: AtomicU64,
}

/// Where spans go that have ended.
struct Queue {
    /// `None` once the process ends.
    sender: RwLock<Option<mpsc::Sender<SpanData>>>,
    counters: Arc<Counters>,
}

/// The SDK's way to the queue.
struct ToQueue(Arc<Queue>);

impl fmt::Debug for ToQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToQueue")
    }
}

impl SpanProcessor for ToQueue {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let sender = self.0.sender.read().unwrap_or_else(PoisonError::into_inner);
        let counters = &self.0.counters;
        counters.waiting.fetch_add(1, Ordering::Relaxed);
        if sender.as_ref().is_none_or(|sender| sender.try_send(span).is_err()) {
            counters.waiting.fetch_sub(1, Ordering::Relaxed);
            counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The thread, and how it is told to end.
struct Sender {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// See the module's text.
pub struct Traces {
    tracer: SdkTracer,
    commands: Commands,
    queue: Arc<Queue>,
    sender: Mutex<Option<Sender>>,
    /// Keeps the tracer at work.
    _provider: SdkTracerProvider,
}

impl Traces {
    /// Starts the thread. It connects when there is something to send.
    pub fn start(options: TraceOptions) -> Result<Self, TracesError> {
        let resource = Resource::builder()
            .with_service_name(options.service.clone())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", options.instance.clone()),
            ])
            .build();
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(PlainHttp::new(options.timeout))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(options::address(&options.endpoint))
            .with_headers(options.headers.as_ref().map(options::headers).transpose()?.unwrap_or_default())
            .with_timeout(options.timeout)
            // Its pauses would hold the thread back when the process ends; what is new comes with the next batch.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        exporter.set_resource(&resource);
        let (spans, waiting) = mpsc::channel(options.queue.max(1));
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue { sender: RwLock::new(Some(spans)), counters: counters.clone() });
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_span_processor(ToQueue(queue.clone()))
            .build();
        let tracer = provider.tracer("sluice-store");
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let sending = Sending { exporter, counters: counters.clone(), timeout: options.timeout, down: false };
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = sending.run(waiting) => {}
                    () = async { let _ = ended.await; sleep(END_TIMEOUT).await } => {
                        tracing::warn!("the collector of traces did not take the last of them in time");
                    }
                }
            });
            // A name that is being looked up does not hold the process.
            runtime.shutdown_background();
        })?;
        let commands =
            Commands::new(tracer.clone(), options.commands_per_million, options.queue.max(1), counters.dropped.clone());
        Ok(Self { tracer, commands, queue, sender: Mutex::new(Some(Sender { end, thread })), _provider: provider })
    }

    /// What samples commands.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// A span that begins now.
    pub fn span(&self, name: &'static str) -> Span {
        Span::begin(&self.tracer, SpanBuilder::from_name(name), &Context::new())
    }

    /// A span that began then.
    pub fn span_since(&self, name: &'static str, at: std::time::SystemTime) -> Span {
        Span::begin(&self.tracer, SpanBuilder::from_name(name).with_start_time(at), &Context::new())
    }

    /// What became of spans until now.
    pub fn counts(&self) -> Counts {
        let counters = &self.queue.counters;
        let [sent, dropped, failed, waiting] = [&counters.sent, &*counters.dropped, &counters.failed, &counters.waiting]
            .map(|counter| counter.load(Ordering::Relaxed));
        Counts { sent, dropped, failed, waiting }
    }

    /// Sends what is left, for a bounded time, and ends the thread.
    pub fn stop(&self) {
        drop(self.queue.sender.write().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(Sender { end, thread }) = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = end.send(());
            let _ = thread.join();
        }
    }
}

/// The thread's work.
struct Sending {
    exporter: opentelemetry_otlp::SpanExporter,
    counters: Arc<Counters>,
    timeout: Duration,
    /// Whether the last batch was not taken: told once, and once when it is over.
    down: bool,
}

impl Sending {
    /// Sends until nobody makes spans any more.
    async fn run(mut self, mut waiting: mpsc::Receiver<SpanData>) {
        while let Some(first) = waiting.recv().await {
            let (mut batch, until) = (vec![first], Instant::now() + GATHER);
            while batch.len() < BATCH_MAX
                && let Ok(Some(span)) = timeout_at(until, waiting.recv()).await
            {
                batch.push(span);
            }
            self.send(batch).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let why = match timeout(self.timeout, self.exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} ms (otlp-timeout-ms)", self.timeout.as_millis())),
        };
        let counter = if why.is_none() { &self.counters.sent } else { &self.counters.failed };
        counter.fetch_add(spans, Ordering::Relaxed);
        self.counters.waiting.fetch_sub(spans, Ordering::Relaxed);
        match (&why, self.down) {
            (Some(why), false) => tracing::warn!(why, "the collector of traces takes none: they are dropped until it does"),
            (None, true) => tracing::info!("the collector of traces takes them again"),
            _ => {}
        }
        self.down = why.is_some();
    }
}

/// HTTP/1.1 without TLS.
struct PlainHttp(Client<HttpConnector, Full<Bytes>>);

impl fmt::Debug for PlainHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainHttp")
    }
}

impl PlainHttp {
    fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = self.0.request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

impl HttpClient for PlainHttp {
    // What `async_trait` would write.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(self.exchange(request))
    }
}
