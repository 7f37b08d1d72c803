//! Why a connection's run of requests stopped, and why the connection ends.

use bytes::Bytes;

use crate::{
    blocked::Registered,
    commands::{LargeReply, Later},
    protocol::Request,
};

/// Why a connection ends.
pub(super) enum End {
    /// The client is gone, or too slow, or said so.
    Closed,
    /// It does not: this request is executed on a thread of its own, and then it goes on.
    Slow(Request),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

/// Why a run stopped before its end.
pub(super) enum Stopped {
    /// Nothing is left, or others are to have a turn.
    Turn,
    /// This request's slot is being switched.
    Wait(Request),
    /// CLIENT PAUSE holds this request back.
    Paused(Request),
    /// This request has a script that has passed its time.
    Slow(Request),
    /// A transaction that is executed in pieces.
    Apart,
    /// This request has to claim its keys first, waiting for them.
    Busy(Request),
    /// The reply comes from a future.
    Later(Later, Request),
    /// The reply is sent in pieces.
    Large(Box<LargeReply>, Request),
    /// It waits for keys.
    Blocked(Box<Registered>),
}

/// Bytes of requests.
pub(super) fn bytes_of<'r>(requests: impl IntoIterator<Item = &'r Request>) -> usize {
    requests.into_iter().flatten().map(Bytes::len).sum()
}

impl Stopped {
    /// Bytes of the request that stopped it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Turn | Self::Apart => 0,
            Self::Wait(request) | Self::Paused(request) | Self::Busy(request) | Self::Slow(request) => bytes_of([request]),
            Self::Later(_, request) | Self::Large(_, request) => bytes_of([request]),
            Self::Blocked(registered) => bytes_of([&registered.waiter().wait.request, &registered.waiter().wait.keys]),
        }
    }
}
