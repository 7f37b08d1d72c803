//! How fast and in what portions: the rate limit, and batches that fit the link. All of it may be changed while jobs run.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Smallest batch; the largest is a setting.
const BATCH_MIN: usize = 1 << 20;
/// For the link to be busy with one batch.
const BATCH_TIME: Duration = Duration::from_millis(10);
/// What the rate limit lets through at once after a pause.
const BURST: Duration = Duration::from_millis(100);
/// Packed when the beginning of a batch shrinks below so many thousandths.
const PACK_BELOW: usize = 800;
/// Packed when waiting for the link alone took so many thousandths of the time.
const LINK_BOUND: u128 = 500;

/// The limits of all migrations of a node, as they are now.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: AtomicU64,
    units: AtomicUsize,
    /// When what was sent so far may have been sent.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64, units: usize) -> Self {
        Self { bytes_per_second: AtomicU64::new(bytes_per_second), units: AtomicUsize::new(units), due: Mutex::default() }
    }

    pub(super) fn set(&self, bytes_per_second: u64, units: usize) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
        self.units.store(units, Ordering::Relaxed);
    }

    /// Bytes a second over all jobs, 0: as fast as it goes; units of one job at once.
    pub(super) fn limits(&self) -> (u64, usize) {
        (self.bytes_per_second.load(Ordering::Relaxed), self.units.load(Ordering::Relaxed).max(1))
    }

    /// Waits until so many more bytes may be sent.
    pub(super) async fn take(&self, bytes: usize) {
        let (rate, _) = self.limits();
        if rate == 0 {
            return;
        }
        let wait = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let from = due.map_or(now, |due| due.max(now.checked_sub(BURST).unwrap_or(now)));
            let next = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *due = Some(next);
            from.saturating_duration_since(now)
        };
        tokio::time::sleep(wait).await;
    }
}

/// What a link has shown of itself, and the batches that fit it.
#[derive(Debug)]
pub(super) struct Fit {
    batch_max: usize,
    batch: Arc<AtomicUsize>,
    packs: bool,
    /// Since the last look: bytes that were acknowledged, and how long nothing could be sent because of the link, the peer's own waits not
    /// counted.
    acknowledged: u64,
    held_up: Duration,
    since: Instant,
}

impl Fit {
    pub(super) fn new(batch_max: usize, now: Instant) -> Self {
        let batch = Arc::new(AtomicUsize::new(BATCH_MIN.min(batch_max)));
        Self { batch_max, batch, packs: false, acknowledged: 0, held_up: Duration::ZERO, since: now }
    }

    /// Bytes of the next batch, for whoever fills them.
    pub(super) fn batch(&self) -> Arc<AtomicUsize> {
        self.batch.clone()
    }

    /// Whether a batch is packed of which so many thousandths would be left; `sample` is asked where that is worth anything.
    pub(super) fn packs(&self, sample: impl FnOnce() -> usize) -> bool {
        self.packs && sample() < PACK_BELOW
    }

    /// A batch was acknowledged; the sender had waited for it, the peer of that for its own disk.
    pub(super) fn acknowledged(&mut self, bytes: usize, waited: Duration, peer_waited: Duration, now: Instant) {
        self.acknowledged += bytes as u64;
        self.held_up += waited.saturating_sub(peer_waited);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < 20 * BATCH_TIME {
            return;
        }
        let in_time = u128::from(self.acknowledged) * BATCH_TIME.as_micros() / elapsed.as_micros().max(1);
        let batch = usize::try_from(in_time).unwrap_or(usize::MAX).clamp(BATCH_MIN.min(self.batch_max), self.batch_max);
        self.batch.store(batch, Ordering::Relaxed);
        self.packs = self.held_up.as_micros() * 1000 > elapsed.as_micros() * LINK_BOUND;
        (self.acknowledged, self.held_up, self.since) = (0, Duration::ZERO, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(fit: &Fit) -> usize {
        fit.batch().load(Ordering::Relaxed)
    }

    #[test]
    fn batches_grow_with_the_link_and_are_packed_where_the_link_is_what_is_waited_for() {
        let started = Instant::now();
        let mut fit = Fit::new(4 << 20, started);
        assert_eq!((batch(&fit), fit.packs(|| 500)), (1 << 20, false));
        // 1 MiB every 2 ms, nothing waited for: half a gibibyte a second.
        (1..=150)
            .for_each(|at| fit.acknowledged(1 << 20, Duration::ZERO, Duration::ZERO, started + Duration::from_millis(2 * at)));
        assert_eq!((batch(&fit), fit.packs(|| 500)), (4 << 20, false));
        let later = started + Duration::from_secs(1);
        let mut fit = Fit::new(4 << 20, later);
        // 1 MiB every 100 ms, almost all of it waiting, first for the peer's disk, then for the link.
        let wait = Duration::from_millis(90);
        (1..=10).for_each(|at| fit.acknowledged(1 << 20, wait, wait, later + Duration::from_millis(100 * at)));
        assert_eq!((batch(&fit), fit.packs(|| 500)), (1 << 20, false));
        (11..=20).for_each(|at| fit.acknowledged(1 << 20, wait, Duration::ZERO, later + Duration::from_millis(100 * at)));
        assert_eq!((batch(&fit), fit.packs(|| 500)), (1 << 20, true));
        assert!(!fit.packs(|| 950));
    }

    #[tokio::test]
    async fn a_limit_holds_from_when_it_is_set_and_over_all_who_send() {
        let pace = Pace::new(0, 1);
        pace.take(1 << 40).await;
        pace.set(10 << 20, 0);
        assert_eq!(pace.limits(), (10 << 20, 1));
        let started = Instant::now();
        for _ in 0..4 {
            pace.take(1 << 20).await;
        }
        // The first goes at once; a timer is never early.
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
}
