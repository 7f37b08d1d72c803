//! A span under way.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Span as _, SpanBuilder, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::SdkTracer;

struct Open {
    tracer: SdkTracer,
    span: opentelemetry_sdk::trace::Span,
}

/// Something that is going on; dropped, it has ended. Nothing at all while traces are off.
pub struct Span(Option<Box<Open>>);

impl Span {
    /// What nobody will see.
    pub const fn none() -> Self {
        Self(None)
    }

    pub(super) fn begin(tracer: &SdkTracer, builder: SpanBuilder, parent: &Context) -> Self {
        let span = tracer.build_with_context(builder, parent);
        Self(Some(Box::new(Open { tracer: tracer.clone(), span })))
    }

    fn part(&self, builder: SpanBuilder) -> Self {
        let Some(open) = &self.0 else { return Self::none() };
        let parent = Context::new().with_remote_span_context(open.span.span_context().clone());
        Self::begin(&open.tracer, builder, &parent)
    }

    /// A part of it that begins now.
    pub fn child(&self, name: &'static str) -> Self {
        self.part(SpanBuilder::from_name(name))
    }

    /// A part of it that is over.
    pub fn child_between(&self, name: &'static str, from: SystemTime, to: SystemTime) {
        let mut child = self.part(SpanBuilder::from_name(name).with_start_time(from));
        child.end_at(to);
    }

    /// Its end was then.
    pub(super) fn end_at(&mut self, at: SystemTime) {
        if let Some(open) = &mut self.0 {
            open.span.end_with_timestamp(at);
        }
    }

    /// Says something of it. Never anything that a client has sent.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// The same of a number without sign.
    pub fn count(&mut self, name: &'static str, number: u64) {
        self.set(name, i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Something happened in it.
    pub fn event_at(&mut self, name: &'static str, at: SystemTime) {
        if let Some(open) = &mut self.0 {
            open.span.add_event_with_timestamp(name, at, Vec::new());
        }
    }

    /// It failed. Why is for the log: what an error says may be anything.
    pub fn fail(&mut self) {
        if let Some(open) = &mut self.0 {
            open.span.set_status(Status::error(""));
        }
    }

    /// It failed, if this is an error.
    pub fn judge<T, E>(&mut self, outcome: &Result<T, E>) {
        if outcome.is_err() {
            self.fail();
        }
    }
}

/// Something that is done step by step.
pub struct Steps {
    // In this order: a step does not end behind the whole.
    step: Span,
    whole: Span,
}

impl Steps {
    /// Before the first step.
    pub const fn of(whole: Span) -> Self {
        Self { whole, step: Span::none() }
    }

    /// The next step begins, the one before it has ended.
    pub fn next(&mut self, name: &'static str) {
        // Ended first, so that they do not overlap.
        self.step = Span::none();
        self.step = self.whole.child(name);
    }

    /// All of it.
    pub fn whole(&mut self) -> &mut Span {
        &mut self.whole
    }

    /// The step that is going on failed, and so did all of it, if this is an error.
    pub fn judge<T, E>(&mut self, outcome: &Result<T, E>) {
        self.step.judge(outcome);
        self.whole.judge(outcome);
    }
}
