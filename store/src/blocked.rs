//! Clients that wait for keys: BLPOP and its kin, XREAD BLOCK.
//!
//! A command that finds nothing registers its client here, inside the turn in which it looked and with its keys claimed, so that no change
//! falls between the look and the wait. Whoever changes such a key executes the requests that wait for it, the oldest first, behind its own
//! command in the same turn (`commands::serve`). A wait ends once: whoever takes it out of here ends it, be that a writer, the client's own
//! connection whose time is over, or the end of the node.

mod turn_end;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use sluice_topology::Slot;
use tokio::{sync::oneshot, time::Instant};

pub use turn_end::{Outcome, TurnEnd};

use crate::{
    clients::Client,
    engine::{Engine, Home, Kind},
    protocol::{Request, Version},
};

/// What a command waits for.
#[derive(Clone, Debug)]
pub struct Wait {
    /// What the keys have to hold.
    pub kind: Kind,
    /// The keys, those it is answered from; any of them will do.
    pub keys: Vec<Bytes>,
    /// Whether it is to be executed as well when one of them is gone, or holds something else.
    pub when_gone: bool,
    /// When the first of them expires, if `when_gone`.
    pub expires: Option<Instant>,
    /// Until then; `None`: without end.
    pub deadline: Option<Instant>,
    /// What is executed then: the request, with what it said of now in the words that will still mean the same.
    pub request: Request,
}

/// How a wait ended, unless its client ended it.
pub enum Woken {
    /// The request was executed in a turn of somebody else.
    Served {
        /// The reply.
        reply: BytesMut,
        /// Whether it rests on changes of that turn.
        changed: bool,
        /// The turn's end.
        end: Arc<TurnEnd>,
    },
    /// The client is to execute it itself, and to wait on in its old place if it finds nothing.
    Retry,
    /// The node takes no more writes.
    Closing,
}

/// A client that waits.
pub struct Waiter {
    /// Its place: who came first is served first.
    pub ticket: u64,
    /// Who it is.
    pub client: Arc<Client>,
    /// Its database.
    pub database: u8,
    /// The protocol of its replies.
    pub version: Version,
    /// What it waits for.
    pub wait: Wait,
    ended: Mutex<Option<oneshot::Sender<Woken>>>,
}

impl Waiter {
    /// Tells it; false when its connection has gone. Whoever took it out calls this, once.
    pub fn wake(&self, woken: Woken) -> bool {
        let sender = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        sender.is_some_and(|sender| sender.send(woken).is_ok())
    }

    fn homes(&self) -> impl Iterator<Item = (Home, &Bytes)> {
        self.wait.keys.iter().map(|key| (Home { database: self.database, slot: Slot::of_key(key) }, key))
    }
}

type Queues = HashMap<(u8, Bytes), BTreeMap<u64, Arc<Waiter>>>;

#[derive(Default)]
struct Waiting {
    queues: Queues,
    all: BTreeMap<u64, Arc<Waiter>>,
    next_ticket: u64,
    closed: bool,
}

/// See the module's text.
pub struct Blocked {
    engine: Arc<Engine>,
    waiting: Mutex<Waiting>,
}

impl Blocked {
    /// Nobody waits.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine, waiting: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client in; with a `ticket`, to its old place. The keys are claimed by the turn it is in.
    pub fn register(
        self: &Arc<Self>,
        client: Arc<Client>,
        database: u8,
        version: Version,
        mut wait: Wait,
        ticket: Option<u64>,
    ) -> Registered {
        let (sender, woken) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.next_ticket += 1;
        let ticket = ticket.unwrap_or(waiting.next_ticket);
        wait.keys.sort_unstable();
        wait.keys.dedup();
        // Copies: slices would keep what was received with them for as long as the wait.
        wait.keys.iter_mut().chain(&mut wait.request).for_each(|text| *text = Bytes::copy_from_slice(text));
        let waiter = Arc::new(Waiter { ticket, client, database, version, wait, ended: Mutex::new(Some(sender)) });
        if waiting.closed {
            drop(waiting);
            waiter.wake(Woken::Closing);
        } else {
            for (home, key) in waiter.homes() {
                waiting.queues.entry((database, key.clone())).or_default().insert(ticket, waiter.clone());
                self.engine.awaited().add(home, key);
            }
            waiting.all.insert(ticket, waiter.clone());
        }
        Registered { blocked: self.clone(), waiter, woken }
    }

    /// Takes a client out: it is the caller's to wake. False when somebody else did.
    pub fn take(&self, waiter: &Waiter) -> bool {
        self.take_from(&mut self.lock(), waiter)
    }

    fn take_from(&self, waiting: &mut Waiting, waiter: &Waiter) -> bool {
        // Another wait of the same client may have its ticket by now.
        if !waiting.all.get(&waiter.ticket).is_some_and(|there| std::ptr::eq(&raw const **there, waiter)) {
            return false;
        }
        waiting.all.remove(&waiter.ticket);
        for (home, key) in waiter.homes() {
            let place = (waiter.database, key.clone());
            if let Some(queue) = waiting.queues.get_mut(&place) {
                queue.remove(&waiter.ticket);
                if queue.is_empty() {
                    waiting.queues.remove(&place);
                }
            }
            self.engine.awaited().remove(home, key);
        }
        true
    }

    /// Who waits for that key, the oldest first.
    pub fn waiting_for(&self, database: u8, key: &[u8]) -> Vec<Arc<Waiter>> {
        let waiting = self.lock();
        let queue = waiting.queues.get(&(database, Bytes::copy_from_slice(key)));
        queue.map(|queue| queue.values().cloned().collect()).unwrap_or_default()
    }

    /// How many clients wait.
    pub fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Has everybody of a database look again by themselves: it holds something else now.
    pub fn retry(&self, database: u8) {
        self.wake_all(|waiter| (waiter.database == database).then_some(Woken::Retry), false);
    }

    /// Wakes everybody, and lets nobody wait any more.
    pub fn close(&self) {
        self.wake_all(|_| Some(Woken::Closing), true);
    }

    fn wake_all(&self, how: impl Fn(&Waiter) -> Option<Woken>, close: bool) {
        let mut waiting = self.lock();
        waiting.closed |= close;
        let all: Vec<Arc<Waiter>> = waiting.all.values().cloned().collect();
        let taken: Vec<(Arc<Waiter>, Woken)> = all
            .into_iter()
            .filter_map(|waiter| how(&waiter).map(|woken| (waiter, woken)))
            .filter(|(waiter, _)| self.take_from(&mut waiting, waiter))
            .collect();
        drop(waiting);
        for (waiter, woken) in taken {
            waiter.wake(woken);
        }
    }
}

/// A client's place among those who wait; it leaves when this is dropped.
pub struct Registered {
    blocked: Arc<Blocked>,
    waiter: Arc<Waiter>,
    woken: oneshot::Receiver<Woken>,
}

impl Registered {
    /// What waits.
    pub fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// How it ended, once somebody else has ended it.
    pub async fn woken(&mut self) -> Woken {
        // Whoever takes it out wakes it.
        (&mut self.woken).await.unwrap_or(Woken::Retry)
    }

    /// Ends the wait; false when somebody else has, and [`Registered::woken`] says how.
    pub fn give_up(&self) -> bool {
        self.blocked.take(&self.waiter)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.blocked.take(&self.waiter);
    }
}
