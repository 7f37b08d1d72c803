//! Striped key locks: two writers of one key never run at once. A writer that holds stripes never waits for another: it tries, and when
//! it fails lets go of everything before it waits. So no two can wait for each other, however many keys a batch has.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sluice_topology::Slot;

const STRIPES: usize = 1 << 16;
/// A waiter looks again at least this often: a wake that it misses costs this and nothing else.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A stripe's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stripe(u32);

pub(crate) struct Stripes {
    held: Box<[AtomicBool]>,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        let held = (0..STRIPES).map(|_| AtomicBool::new(false)).collect();
        Self { held, waiting: AtomicUsize::new(0), lock: Mutex::new(()), freed: Condvar::new() }
    }

    /// The stripe of a key.
    pub(crate) fn of(slot: Slot, key: &[u8]) -> Stripe {
        // FNV-1a: short keys, no adversary gains more than waiting for himself.
        let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(slot.get());
        let hash = key.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Stripe(((hash ^ (hash >> 32)) as usize % STRIPES) as u32)
    }

    /// Takes a stripe if nobody holds it.
    pub(crate) fn try_lock(&self, stripe: Stripe) -> bool {
        !self.held[stripe.0 as usize].swap(true, Ordering::Acquire)
    }

    /// Takes a stripe, waiting for it. The caller holds only stripes of smaller numbers.
    pub(crate) fn lock(&self, stripe: Stripe) {
        if self.try_lock(stripe) {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.try_lock(stripe) {
            guard = self.freed.wait_timeout(guard, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Gives stripes back.
    pub(crate) fn unlock(&self, stripes: &[Stripe]) {
        for stripe in stripes {
            self.held[stripe.0 as usize].store(false, Ordering::Release);
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicU64},
        thread,
    };

    use super::*;

    #[test]
    fn a_stripe_is_one_writers_at_a_time() {
        let (stripes, inside, total) = (Arc::new(Stripes::new()), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (stripes, inside, total) = (stripes.clone(), inside.clone(), total.clone());
                thread::spawn(move || {
                    for _ in 0..500 {
                        stripes.lock(Stripe(7));
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        total.fetch_add(1, Ordering::SeqCst);
                        stripes.unlock(&[Stripe(7)]);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(total.load(Ordering::SeqCst), 2000);
        assert!(stripes.try_lock(Stripe(7)) && !stripes.try_lock(Stripe(7)));
    }
}
