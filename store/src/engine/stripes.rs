//! Striped key locks: two writers of one key never run at once. A writer that holds stripes never waits for another: it tries, and when
//! it fails lets go of everything before it waits. So no two can wait for each other, however many keys a batch has.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sluice_topology::Slot;

const STRIPES: usize = 1 << 16;
/// A waiter looks again at least this often: a wake that it misses costs this and nothing else.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Nobody holds the stripe.
const FREE: u32 = 0;

/// Who holds stripes: a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(u32);

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The stripe is the holder's from now on.
    Taken,
    /// It was before.
    Held,
    /// It is somebody else's.
    Busy,
}

/// A stripe's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stripe(u32);

pub(crate) struct Stripes {
    holders: Box<[AtomicU32]>,
    next_holder: AtomicU32,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        let holders = (0..STRIPES).map(|_| AtomicU32::new(FREE)).collect();
        Self {
            holders,
            next_holder: AtomicU32::new(1),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    /// The stripe of a key.
    pub(crate) fn of(slot: Slot, key: &[u8]) -> Stripe {
        // FNV-1a: short keys, no adversary gains more than waiting for himself.
        let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(slot.get());
        let hash = key.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Stripe(((hash ^ (hash >> 32)) as usize % STRIPES) as u32)
    }

    /// A holder that nobody else is, but for one of four thousand million holders ago.
    pub(crate) fn holder(&self) -> Holder {
        match self.next_holder.fetch_add(1, Ordering::Relaxed) {
            FREE => self.holder(),
            number => Holder(number),
        }
    }

    /// Takes a stripe if nobody holds it.
    pub(crate) fn try_lock(&self, stripe: Stripe, holder: Holder) -> Tried {
        let place = &self.holders[stripe.0 as usize];
        match place.compare_exchange(FREE, holder.0, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Tried::Taken,
            Err(found) if found == holder.0 => Tried::Held,
            Err(_) => Tried::Busy,
        }
    }

    /// Takes a stripe, waiting for it until `give_up` says so: false, it was not taken. The caller holds only stripes of smaller numbers.
    pub(crate) fn lock(&self, stripe: Stripe, holder: Holder, give_up: &dyn Fn() -> bool) -> bool {
        if self.try_lock(stripe, holder) == Tried::Taken {
            return true;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = true;
        while self.try_lock(stripe, holder) == Tried::Busy {
            if give_up() {
                taken = false;
                break;
            }
            guard = self.freed.wait_timeout(guard, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    /// Whether that holder has the stripe.
    pub(crate) fn holds(&self, stripe: Stripe, holder: Holder) -> bool {
        self.holders[stripe.0 as usize].load(Ordering::Relaxed) == holder.0
    }

    /// Gives stripes back.
    pub(crate) fn unlock(&self, stripes: &[Stripe]) {
        for stripe in stripes {
            self.holders[stripe.0 as usize].store(FREE, Ordering::Release);
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
                    let holder = stripes.holder();
                    for _ in 0..500 {
                        assert!(stripes.lock(Stripe(7), holder, &|| false));
                        assert!(stripes.holds(Stripe(7), holder));
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
        let (one, other) = (stripes.holder(), stripes.holder());
        let tries = [one, one, other].map(|holder| stripes.try_lock(Stripe(7), holder));
        assert_eq!(tries, [Tried::Taken, Tried::Held, Tried::Busy]);
        let looks = AtomicU64::new(0);
        assert!(!stripes.lock(Stripe(7), other, &|| looks.fetch_add(1, Ordering::SeqCst) == 3), "who gives up has it not");
    }
}
