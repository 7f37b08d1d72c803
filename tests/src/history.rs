//! What concurrent clients did to a cluster, and whether one order of it all explains what they saw: linearizability, key by key.
//!
//! [`Recording`] runs clients and writes down every call with its begin, its end and its reply; [`check`] judges what was written down.
//! A client calls again only after an answer that proves that nothing was executed. Whatever else leaves a call without its reply leaves
//! it *open*: it may have happened at any time since, or never.

mod client;
mod linear;
mod model;
mod recording;

pub use client::Answered;
pub use linear::{Violation, check};
pub use model::{Operation, Reply, State};
pub use recording::{Plan, Recording};

use std::collections::BTreeMap;

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who called.
    pub client: usize,
    /// What was asked for.
    pub operation: Operation,
    /// When it was first sent, in nanoseconds of one clock.
    pub began: u64,
    /// When the reply had come, and the reply; `None`: the call is open.
    pub ended: Option<(u64, Reply)>,
}

/// The calls of a run, by key; in whatever order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By key.
    pub calls: BTreeMap<String, Vec<Call>>,
    /// Error replies that neither the model knows nor prove anything; their calls are open.
    pub errors: BTreeMap<String, usize>,
}

impl History {
    /// How many calls there are, and how many of them are open.
    pub fn size(&self) -> (usize, usize) {
        let calls = || self.calls.values().flatten();
        (calls().count(), calls().filter(|call| call.ended.is_none()).count())
    }

    /// Whether one order explains it, key by key; the first key for which none does.
    pub fn check(&self) -> Result<(), Violation> {
        self.calls.iter().try_for_each(|(key, calls)| check(key, calls))
    }
}
