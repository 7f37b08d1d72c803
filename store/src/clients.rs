//! Who is connected, and what reaches them besides their replies: messages, notifications, the end of their connection.
//!
//! Knows no socket: a connection registers, and looks at what its [`Client`] says whenever it is woken. Nothing here is locked by a
//! command that does not ask for it.

mod channels;
mod client;
mod histogram;
mod mailbox;
mod notifications;
mod outbox;
mod pause;
mod slow;
mod slow_script;
mod watches;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use sluice_topology::Slot;

pub use channels::{Channels, Subscription};
pub use client::{Client, ClientFlags, Described, Shown, Unblock};
pub use histogram::Histogram;
pub use mailbox::{Push, PushLimits};
pub use notifications::{Class, Notify};
pub use outbox::Outbox;
pub use pause::{Pause, Paused};
pub use slow::{Slow, SlowCommand, Spikes, shortened};
pub use slow_script::{Busy, Run, SlowScript};
pub use watches::{Watched, Watching};

use outbox::Post;
use watches::Watches;

use crate::engine::{HearsExpired, Home};

/// The clients of a node.
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    /// Who is subscribed to what.
    pub channels: Channels,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// How long commands take.
    pub slow: Slow,
    monitors: Mutex<Vec<Arc<Client>>>,
    monitored: AtomicUsize,
    watches: Watches,
    notify: AtomicU32,
    limits: [AtomicU64; 3],
    /// Clients that were ended because they did not take what they were sent.
    pub dropped: AtomicU64,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            connected: Mutex::default(),
            next_id: AtomicU64::new(1),
            channels: Channels::default(),
            pause: Pause::default(),
            slow: Slow::default(),
            monitors: Mutex::default(),
            monitored: AtomicUsize::new(0),
            watches: Watches::default(),
            notify: AtomicU32::new(0),
            limits: Default::default(),
            dropped: AtomicU64::new(0),
        }
    }
}

impl Clients {
    /// Takes a connection in; `listed`: others see it. It is taken out when what this returns is dropped.
    pub fn register(
        self: &Arc<Self>,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        descriptor: i32,
        listed: bool,
    ) -> Registered {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client::new(id, peer, local, descriptor));
        if listed {
            self.connected().insert(id, client.clone());
        }
        Registered { clients: self.clone(), client }
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody, the oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.connected().values().cloned().collect()
    }

    /// The client of that number.
    pub fn find(&self, id: u64) -> Option<Arc<Client>> {
        self.connected().get(&id).cloned()
    }

    /// Whether somebody looks at what is executed. One load.
    pub fn monitored(&self) -> bool {
        self.monitored.load(Ordering::Relaxed) > 0
    }

    fn monitors(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a client what is executed from now on.
    pub fn add_monitor(&self, client: &Arc<Client>) {
        let mut monitors = self.monitors();
        if monitors.iter().all(|other| other.id != client.id) {
            monitors.push(client.clone());
        }
        self.monitored.store(monitors.len(), Ordering::Relaxed);
    }

    /// Shows it no more.
    pub fn remove_monitor(&self, client: &Client) {
        let mut monitors = self.monitors();
        monitors.retain(|other| other.id != client.id);
        self.monitored.store(monitors.len(), Ordering::Relaxed);
    }

    /// Shows a line to those who look.
    pub fn show_monitors(&self, line: &str) {
        let (limits, now) = (self.limits(), Instant::now());
        for client in &*self.monitors() {
            self.give(client, Push::Line(line.to_owned()), limits, now);
        }
    }

    /// Bytes that requests and replies of all clients hold, and what waits for them.
    pub fn held_bytes(&self) -> u64 {
        self.connected().values().map(|client| client.held_bytes()).sum()
    }

    /// Ends the clients that hold most until the others hold at most that much together; returns how many. Those with CLIENT NO-EVICT stay.
    pub fn end_largest(&self, bytes_max: u64) -> u64 {
        let held = self.held_bytes();
        if held <= bytes_max {
            return 0;
        }
        let mut sized: Vec<(u64, Arc<Client>)> =
            self.all().into_iter().filter(|client| !client.is_ending()).map(|client| (client.held_bytes(), client)).collect();
        sized.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        // Those that are ending already give theirs back.
        let (mut left, mut ended) = (sized.iter().map(|(bytes, _)| bytes).sum::<u64>(), 0);
        for (bytes, client) in sized.iter().filter(|(_, client)| !client.has_flag(ClientFlags::NO_EVICT)) {
            if left <= bytes_max {
                break;
            }
            left -= bytes;
            ended += 1;
            client.end();
            let peer = client.peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(client = client.id, %peer, bytes, "a client was ended: clients hold more than maxmemory-clients together");
        }
        ended
    }

    /// For the keys that a connection watches.
    pub fn watching(self: &Arc<Self>) -> Watching {
        Watching::new(self.clone())
    }

    /// Whether anybody watches a key. One load.
    pub fn any_watched(&self) -> bool {
        self.watches.any()
    }

    /// A key was changed: by whom it is watched, is told. Called under the key's stripe.
    pub fn touch(&self, database: u8, key: &Bytes) {
        self.watches.touch(database, key);
    }

    /// Which events of keys are told. One load.
    pub fn notify(&self) -> Notify {
        Notify::of_bits(self.notify.load(Ordering::Relaxed))
    }

    /// Changes which events are told.
    pub fn set_notify(&self, notify: Notify) {
        self.notify.store(notify.bits(), Ordering::Relaxed);
    }

    /// Changes how much may wait for a client.
    pub fn set_limits(&self, limits: PushLimits) {
        for (place, value) in self.limits.iter().zip([limits.hard_bytes, limits.soft_bytes, limits.soft_seconds]) {
            place.store(value, Ordering::Relaxed);
        }
    }

    fn limits(&self) -> PushLimits {
        let [hard_bytes, soft_bytes, soft_seconds] = [0, 1, 2].map(|at: usize| self.limits[at].load(Ordering::Relaxed));
        PushLimits { hard_bytes, soft_bytes, soft_seconds }
    }

    /// Tells what a turn has left to tell; `applied`: its changes are.
    pub fn deliver(&self, outbox: &mut Outbox, applied: bool) {
        if outbox.is_empty() {
            return;
        }
        let (limits, now) = (self.limits(), Instant::now());
        let mut give = |client: &Arc<Client>, push| self.give(client, push, limits, now);
        for post in outbox.take() {
            match post {
                Post::Event { .. } if !applied => {}
                Post::Event { database, name, key } => {
                    for (channel, payload) in self.notify().messages(database, name, &key) {
                        self.channels.each_receiver(&channel, &payload, &mut give);
                    }
                }
                Post::Message { channel, payload } => self.channels.each_receiver(&channel, &payload, &mut give),
                Post::ShardMessage { channel, payload } => self.channels.each_shard_receiver(&channel, &payload, &mut give),
            }
        }
    }

    /// Tells a message that came from another node; to how many.
    pub fn tell(&self, channel: &[u8], payload: &[u8]) -> u64 {
        if self.channels.receivers(channel) == 0 {
            return 0;
        }
        // Copies: the request it came with holds others besides, and waits for nobody's client.
        let (channel, payload) = (Bytes::copy_from_slice(channel), Bytes::copy_from_slice(payload));
        let (limits, now, mut told) = (self.limits(), Instant::now(), 0);
        self.channels.each_receiver(&channel, &payload, |client, push| {
            told += 1;
            self.give(client, push, limits, now);
        });
        told
    }

    fn give(&self, client: &Arc<Client>, push: Push, limits: PushLimits, now: Instant) {
        let was_ending = client.is_ending();
        if !was_ending && !client.post(push, limits, now) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            let peer = client.peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(
                client = client.id, %peer, limit = limits.hard_bytes,
                "a client was ended: it does not take the messages it is sent (client-output-buffer-limit pubsub)"
            );
        }
    }

    /// Ends the subscriptions to shard channels of slots that are not served here any more, and says so.
    pub fn drop_unserved_shards(&self, served: impl Fn(Slot) -> bool) {
        let (limits, now) = (self.limits(), Instant::now());
        for (channel, subscribers) in self.channels.take_unserved(served) {
            for client in subscribers {
                let left = client.forget_subscription(Subscription::Shard, &channel);
                self.give(&client, Push::ShardDropped { channel: channel.clone(), left }, limits, now);
            }
        }
    }

    fn leave(&self, client: &Client) {
        self.connected().remove(&client.id);
        if client.has_flag(ClientFlags::MONITOR) {
            self.remove_monitor(client);
        }
        for of in [Subscription::Channel, Subscription::Pattern, Subscription::Shard] {
            for name in client.subscribed_to(of) {
                self.channels.unsubscribe(of, &name, client);
            }
        }
    }
}

impl HearsExpired for Clients {
    fn listens(&self) -> bool {
        self.notify().wants(Class::Expired)
    }

    fn expired(&self, home: Home, key: &[u8]) {
        let mut outbox = Outbox::default();
        outbox.event(home.database, "expired", key);
        self.deliver(&mut outbox, true);
    }
}

/// A connection's place among the clients.
pub struct Registered {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Registered {
    /// The client it is.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.clients.leave(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_subscribers_in_order_and_nobody_who_has_left() {
        let clients = Arc::new(Clients::default());
        let [one, other] = [0, 1].map(|_| clients.register(None, None, -1, true));
        let channel = Bytes::from_static(b"news");
        assert!(clients.channels.subscribe(Subscription::Channel, &channel, one.client()));
        assert!(!clients.channels.subscribe(Subscription::Channel, &channel, one.client()));
        one.client().note_subscription(Subscription::Channel, &channel);
        assert!(clients.channels.subscribe(Subscription::Pattern, &Bytes::from_static(b"n*"), other.client()));
        assert_eq!(clients.channels.receivers(b"news"), 2);
        let mut outbox = Outbox::default();
        for text in ["1", "2"] {
            outbox.message(channel.clone(), Bytes::from_static(text.as_bytes()));
        }
        clients.deliver(&mut outbox, true);
        for receiver in [&one, &other] {
            let payloads: Vec<Bytes> = receiver
                .client()
                .take_mail()
                .into_iter()
                .map(|push| match push {
                    Push::Message { payload, .. } | Push::PatternMessage { payload, .. } => payload,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(payloads, ["1", "2"]);
        }
        drop(one);
        assert_eq!((clients.channels.receivers(b"news"), clients.all().len()), (1, 1));
    }

    #[test]
    fn an_event_of_changes_that_were_not_applied_is_not_told() {
        let clients = Arc::new(Clients::default());
        clients.set_notify(Notify::parse("KEA").unwrap_or_default());
        let hearer = clients.register(None, None, -1, true);
        clients.channels.subscribe(Subscription::Pattern, &Bytes::from_static(b"*"), hearer.client());
        for (applied, heard) in [(false, 0), (true, 2)] {
            let mut outbox = Outbox::default();
            outbox.event(0, "del", b"k");
            clients.deliver(&mut outbox, applied);
            assert_eq!(hearer.client().take_mail().len(), heard);
        }
    }

    #[test]
    fn who_does_not_take_messages_is_ended_once() {
        let clients = Arc::new(Clients::default());
        clients.set_limits(PushLimits { hard_bytes: 1000, soft_bytes: 0, soft_seconds: 0 });
        let slow = clients.register(None, None, -1, true);
        let channel = Bytes::from_static(b"c");
        clients.channels.subscribe(Subscription::Channel, &channel, slow.client());
        for _ in 0..50 {
            let mut outbox = Outbox::default();
            outbox.message(channel.clone(), Bytes::from_static(&[b'x'; 100]));
            clients.deliver(&mut outbox, true);
        }
        assert!(slow.client().is_ending());
        assert_eq!((clients.dropped.load(Ordering::Relaxed), slow.client().mail_held().0), (1, 0));
    }
}
