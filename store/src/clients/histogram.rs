//! Latencies of one command, in buckets of powers of two microseconds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Up to 2^25 µs: half a minute; what takes longer is in the last.
const BUCKETS: usize = 26;

/// See the module's text.
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

impl Histogram {
    /// Nothing counted.
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], micros: AtomicU64::new(0) }
    }

    /// Counts a command.
    pub fn add(&self, micros: u64) {
        let bucket = micros.max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.buckets.iter().chain([&self.micros]).for_each(|number| number.store(0, Ordering::Relaxed));
    }

    /// What all of them took together, in microseconds.
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }

    /// Commands in each bucket, with its upper bound in microseconds; in the last those that took longer.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, count)| (1 << bucket, count.load(Ordering::Relaxed)))
    }

    /// Upper bounds in microseconds, and how many commands took at most so long, where there is a difference; and the number of all.
    pub fn cumulative(&self) -> (u64, Vec<(u64, u64)>) {
        let (mut sum, mut bounds) = (0, Vec::new());
        for (bound, count) in self.buckets() {
            sum += count;
            if count > 0 {
                bounds.push((bound, sum));
            }
        }
        (sum, bounds)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulative() {
        let histogram = Histogram::new();
        [0, 1, 2, 3, 4, 1000, u64::MAX / 4].into_iter().for_each(|micros| histogram.add(micros));
        assert_eq!(histogram.cumulative(), (7, vec![(1, 2), (2, 3), (4, 5), (1024, 6), (1 << 25, 7)]));
        assert_eq!(histogram.micros(), 1010 + u64::MAX / 4);
        histogram.reset();
        assert_eq!((histogram.cumulative(), histogram.micros()), ((0, Vec::new()), 0));
    }
}
