//! What migrations hold of the stream in memory, at either end: counted where it is held, and bounded over all units.
//!
//! Past the bound a unit keeps one batch of each stage, so that it goes on, and waits for room with more: the source for acknowledgements,
//! the target for its disk.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    held: AtomicU64,
    /// 0: without a bound.
    limit: AtomicU64,
    given_back: Notify,
}

/// Bytes of somebody's, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Held {
    buffers: Option<Arc<Buffers>>,
    bytes: u64,
}

impl Buffers {
    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.given_back.notify_waiters();
    }

    /// Bytes held, and how many may be; 0: without a bound.
    pub(super) fn account(&self) -> (u64, u64) {
        (self.held.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed))
    }

    /// Counts so many bytes more.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let mut held = Held { buffers: Some(self.clone()), bytes: 0 };
        held.set(bytes);
        held
    }

    /// Whether more has to wait.
    pub(super) fn is_full(&self) -> bool {
        let (held, limit) = self.account();
        limit > 0 && held >= limit
    }

    /// Waits until more need not wait, or whoever asks holds nothing that could be given back: asked anew whenever somebody has.
    pub(super) async fn room(&self, holds_nothing: impl Fn() -> bool) {
        loop {
            let given_back = self.given_back.notified();
            if !self.is_full() || holds_nothing() {
                return;
            }
            given_back.await;
        }
    }
}

impl Held {
    /// So many they are by now.
    pub(super) fn set(&mut self, bytes: usize) {
        let Some(buffers) = &self.buffers else { return };
        let (before, now) = (self.bytes, bytes as u64);
        self.bytes = now;
        if now >= before {
            buffers.held.fetch_add(now - before, Ordering::Relaxed);
        } else {
            buffers.held.fetch_sub(before - now, Ordering::Relaxed);
            buffers.given_back.notify_waiters();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn room_comes_when_somebody_gives_back() {
        let buffers = Arc::new(Buffers::default());
        let mut first = buffers.hold(100);
        assert!(!buffers.is_full() && buffers.room(|| false).now_or_never().is_some(), "there is no bound yet");
        buffers.set_limit(150);
        let second = buffers.hold(60);
        assert_eq!(buffers.account(), (160, 150));
        assert!(buffers.room(|| true).now_or_never().is_some(), "it goes on with one");
        let mut waiting = Box::pin(buffers.room(|| false));
        assert!(waiting.as_mut().now_or_never().is_none());
        first.set(80);
        assert!(waiting.as_mut().now_or_never().is_some());
        first.set(90);
        let mut waiting = Box::pin(buffers.room(|| false));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waiting.as_mut().now_or_never().is_some());
        drop(first);
        assert_eq!(buffers.account(), (0, 150));
        let mut nobodys = Held::default();
        nobodys.set(7);
        assert_eq!(buffers.account().0, 0);
    }
}
