//! Traces: what the store does, as OpenTelemetry spans, sent to a collector by OTLP over HTTP.
//!
//! Off unless `otlp-endpoint` says where to: then there is no thread, no connection, and a run of commands pays one load. A span that ends
//! goes into a bounded queue; one thread sends what is in it. What finds no place there, and what the collector does not take, is dropped
//! and counted: nobody waits for a collector. Spans have names, numbers and outcomes in them, and neither keys nor values nor any other
//! word of a request, nor the texts of errors.

mod commands;
mod export;
mod options;
mod span;

use std::sync::OnceLock;

pub use commands::{CommandSpan, Commands};
pub use export::{Counts, Traces};
pub use options::{TraceOptions, TracesError, check_endpoint};
pub use span::{Span, Steps};

/// Those of this process: set once at its start, when it has traces at all.
static TRACES: OnceLock<Traces> = OnceLock::new();

/// Has this process make traces, and send them.
pub fn start(options: TraceOptions) -> Result<(), TracesError> {
    let _ = TRACES.set(Traces::start(options)?);
    Ok(())
}

/// Those of this process, if it makes any.
pub fn traces() -> Option<&'static Traces> {
    TRACES.get()
}

/// What samples commands, while any are sampled.
pub fn commands() -> Option<&'static Commands> {
    TRACES.get().map(Traces::commands).filter(|commands| commands.per_million() > 0)
}

/// A span that begins now; nothing when traces are off.
pub fn span(name: &'static str) -> Span {
    TRACES.get().map_or_else(Span::none, |traces| traces.span(name))
}
