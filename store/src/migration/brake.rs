//! What a unit's slots are held to while it is copied: work of the background stays out, and writers that outrun the copy are slowed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluice_topology::SlotRanges;

use crate::{
    cluster::Cluster,
    engine::{FeedLost, Subscription},
};

/// Writers wait for a part of each period.
const PERIOD: Duration = Duration::from_millis(20);
/// The part is so many of these.
const PARTS: u32 = 10;
/// What every step of the brake adds.
const STEP: u32 = 3;

/// Slots whose background work rests: what it deletes is not told of by the change feed, and the target has work of its own to do there.
pub(super) struct Moving {
    cluster: Arc<Cluster>,
    slots: SlotRanges,
}

impl Moving {
    /// From now on; whoever relies on it drains the gate after this.
    pub(super) fn begin(cluster: Arc<Cluster>, slots: SlotRanges) -> Self {
        cluster.set_moving(&slots, true);
        Self { cluster, slots }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.cluster.set_moving(&self.slots, false);
    }
}

#[derive(Default)]
struct State {
    /// Parts of each period in which writers wait.
    parts: u32,
    /// They wait right now.
    holds: bool,
    over: bool,
}

/// Slows the writers of a unit, by having them wait for a part of each period. Never in force while the unit is being switched.
pub(super) struct Brake {
    cluster: Arc<Cluster>,
    slots: SlotRanges,
    state: Arc<Mutex<State>>,
}

impl Brake {
    /// A brake that is not in force.
    pub(super) fn new(cluster: Arc<Cluster>, slots: SlotRanges) -> Self {
        Self { cluster, slots, state: Arc::default() }
    }

    /// Slows writers more than before.
    pub(super) fn harder(&mut self) {
        let mut state = lock(&self.state);
        let idle = state.parts == 0;
        state.parts = (state.parts + STEP).min(PARTS - 1);
        drop(state);
        if idle {
            tracing::info!(slots = %self.slots, "writers of slots that move are slowed down: they change more than can be copied");
            tokio::spawn(work(self.cluster.clone(), self.slots.clone(), self.state.clone()));
        }
    }

    /// Slows writers as what waits to be copied nears its bound.
    pub(super) fn for_waiting(&mut self, changes: &Subscription) -> Result<(), FeedLost> {
        let ((_, bytes), bytes_max) = (changes.waiting()?, changes.bytes_max());
        let wanted = if bytes > bytes_max / 4 * 3 {
            PARTS - 1
        } else if bytes > bytes_max / 2 {
            PARTS / 2
        } else {
            0
        };
        while lock(&self.state).parts < wanted {
            self.harder();
        }
        Ok(())
    }

    /// Lets writers go on. On return they are not held, and will not be before [`Brake::harder`].
    pub(super) fn release(&mut self) {
        end(&self.cluster, &self.slots, &self.state);
        self.state = Arc::default();
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        self.release();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(cluster: &Cluster, slots: &SlotRanges, state: &Mutex<State>) {
    let mut state = lock(state);
    state.over = true;
    if std::mem::take(&mut state.holds) {
        cluster.unpark(slots);
    }
}

async fn work(cluster: Arc<Cluster>, slots: SlotRanges, state: Arc<Mutex<State>>) {
    loop {
        for hold in [true, false] {
            let pause = {
                // Under the lock: once the brake is over, nothing here touches the slots any more.
                let mut state = lock(&state);
                if state.over {
                    return;
                }
                state.holds = hold;
                if hold {
                    cluster.hold_writes(&slots);
                } else {
                    cluster.unpark(&slots);
                }
                PERIOD * if hold { state.parts } else { PARTS - state.parts } / PARTS
            };
            tokio::time::sleep(pause).await;
        }
    }
}
