//! Messages of channels on their way to the other nodes, so that PUBLISH reaches the clients of all of them.
//!
//! Each peer has a queue, bounded in bytes, and a task that owns the link to it, made when there is something to send and kept. Whoever
//! publishes puts messages into the queues and goes on: what a peer does not take in time, or what it might have taken when its link broke, is
//! lost and counted, never sent twice. While a peer cannot be reached nothing is kept for it: its clients hear what is published from then on.

mod incoming;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use sluice_topology::{
    NodeEntry, NodeId,
    admin::{AdminClient, AdminError, Reply},
};
use tokio::{sync::Notify, task::AbortHandle};

pub(super) use incoming::Incoming;

use super::PeerAccess;

/// What a batch is sent as; this node's id and the link's number follow, then channels and messages in turn.
const PUBLISH: [&[u8]; 2] = [b"CLUSTERX", b"PUBLISH"];
/// Words of a batch besides its messages.
const BATCH_HEAD: usize = PUBLISH.len() + 2;
/// Most words of a batch: the admin plane takes as many, whatever clients may send.
pub const BATCH_WORDS_MAX: usize = 2048;
/// Messages go together up to so many bytes; a larger one goes alone.
const BATCH_BYTES: u64 = 256 << 10;
/// Batches that are sent and not yet acknowledged: enough to hide the way there and back, few enough that little is in doubt when a link breaks.
const WINDOW: usize = 16;
/// Pauses between attempts to reach a peer. The longest is about how much is lost after it is back.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A peer's losses are told in the log no more often.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// A message, in memory of its own: as part of the request it came with it would keep all of that.
#[derive(Clone, Debug)]
struct Message {
    channel: Bytes,
    payload: Bytes,
}

impl Message {
    fn copied(channel: &[u8], payload: &[u8]) -> Self {
        let mut both = BytesMut::with_capacity(channel.len() + payload.len());
        both.extend_from_slice(channel);
        both.extend_from_slice(payload);
        let channel = both.split_to(channel.len());
        Self { channel: channel.freeze(), payload: both.freeze() }
    }

    /// Bytes it is counted as: its words, and about what holding them takes.
    fn cost(&self) -> u64 {
        (self.channel.len() + self.payload.len() + 2 * size_of::<Self>()) as u64
    }
}

/// What became of messages, over all peers.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
    received: AtomicU64,
    limit: AtomicU64,
}

/// What became of messages between this node and the others since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusTotals {
    /// Acknowledged by a peer, each counted once a peer.
    pub sent: u64,
    /// Given up, counted likewise; some of those that were under way when a link broke may have arrived.
    pub lost: u64,
    /// Come from peers.
    pub received: u64,
}

/// A link that is up, for CLUSTER LINKS.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The peer.
    pub node: NodeId,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Bytes of messages that wait.
    pub waiting: u64,
}

/// How the link of a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none; it is made when there is something to send.
    Idle,
    /// Up, since that time in Unix milliseconds.
    Up(u64),
    /// The peer was not reached, and is tried again.
    Down,
}

#[derive(Debug)]
struct Queue {
    state: State,
    waiting: VecDeque<Message>,
    /// Of those that wait and of the batch that is being written.
    bytes: u64,
    /// Messages of each batch that is not acknowledged.
    in_flight: VecDeque<u64>,
    /// Lost, and not yet told in the log.
    untold: u64,
    told: Option<Instant>,
}

/// A link that is up.
struct Up {
    client: AdminClient,
    /// What the peer calls it.
    number: String,
}

/// Another node.
struct Peer {
    node: NodeEntry,
    /// This node's id, as it is sent.
    me: String,
    queue: Mutex<Queue>,
    arrived: Notify,
    counts: Arc<Counts>,
}

impl Peer {
    fn new(node: NodeEntry, me: NodeId, counts: Arc<Counts>) -> Self {
        let queue =
            Queue { state: State::Idle, waiting: VecDeque::new(), bytes: 0, in_flight: VecDeque::new(), untold: 0, told: None };
        Self { node, me: me.to_string(), queue: Mutex::new(queue), arrived: Notify::new(), counts }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Takes messages in. The oldest go when there is no room: what is newer is worth more to who has fallen behind.
    fn put(&self, messages: &[Message]) {
        let mut queue = self.queue();
        if queue.state == State::Down {
            return self.lose(queue, messages.len(), &"it is not reached");
        }
        for message in messages {
            queue.bytes += message.cost();
            queue.waiting.push_back(message.clone());
        }
        let (limit, mut dropped) = (self.counts.limit.load(Ordering::Relaxed), 0);
        while queue.bytes > limit
            && let Some(oldest) = queue.waiting.pop_front()
        {
            queue.bytes -= oldest.cost();
            dropped += 1;
        }
        self.arrived.notify_one();
        self.lose(queue, dropped, &"more wait for it than cluster-link-sendbuf-limit");
    }

    /// Messages are lost: counted at once, and told now and then.
    fn lose(&self, mut queue: MutexGuard<'_, Queue>, count: usize, why: &dyn std::fmt::Display) {
        if count == 0 {
            return;
        }
        self.counts.lost.fetch_add(count as u64, Ordering::Relaxed);
        queue.untold += count as u64;
        let now = Instant::now();
        if queue.told.is_some_and(|told| now - told < SAY_EVERY) {
            return;
        }
        queue.told = Some(now);
        let lost = std::mem::take(&mut queue.untold);
        drop(queue);
        tracing::warn!(node = %self.node.id, host = self.node.host, lost, %why, "messages of channels did not reach the clients of a node");
    }

    /// Waits until there is something to send.
    async fn something(&self) {
        while self.queue().waiting.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// What goes together next; it stays counted until [`Peer::written`].
    fn take(&self) -> Vec<Message> {
        let (mut queue, mut batch, mut bytes) = (self.queue(), Vec::new(), 0);
        while let Some(message) = queue.waiting.pop_front_if(|next| batch.is_empty() || bytes + next.cost() <= BATCH_BYTES) {
            bytes += message.cost();
            batch.push(message);
            if BATCH_HEAD + 2 * (batch.len() + 1) > BATCH_WORDS_MAX {
                break;
            }
        }
        if queue.waiting.is_empty() {
            // A crowd that was there once is not room for ever.
            queue.waiting = VecDeque::new();
        }
        if !batch.is_empty() {
            queue.in_flight.push_back(batch.len() as u64);
        }
        batch
    }

    /// Sends a batch of what waits.
    async fn send(&self, link: &mut Up) -> Result<(), AdminError> {
        let batch = self.take();
        if batch.is_empty() {
            // One that was too large took all others with it.
            return Ok(());
        }
        let words = batch.iter().flat_map(|message| [message.channel.as_ref(), message.payload.as_ref()]);
        let words: Vec<&[u8]> = PUBLISH.into_iter().chain([self.me.as_bytes(), link.number.as_bytes()]).chain(words).collect();
        let sent = link.client.send(&words).await;
        self.queue().bytes -= batch.iter().map(Message::cost).sum::<u64>();
        sent
    }

    /// Reaches the peer, and has it take nothing any more that comes by an older link.
    async fn connect(&self, access: &PeerAccess) -> Result<Up, AdminError> {
        let mut client = access.dial(&self.node).await?;
        match client.call(&[b"CLUSTERX", b"PUBLISHER", self.me.as_bytes()]).await? {
            Reply::Integer(number) => Ok(Up { client, number: number.to_string() }),
            other => Err(AdminError::Nonsense {
                endpoint: self.node.host.clone(),
                command: "CLUSTERX PUBLISHER".into(),
                why: format!("{other:?} is not the number of a link"),
            }),
        }
    }

    /// Keeps the link, as long as the peer is one.
    async fn run(self: Arc<Self>, access: PeerAccess) {
        let mut pause = Duration::ZERO;
        loop {
            if pause.is_zero() {
                self.something().await;
            } else {
                tokio::time::sleep(pause).await;
            }
            let worked = match self.connect(&access).await {
                Ok(link) => self.carry(link).await,
                Err(error) => {
                    let mut queue = self.queue();
                    queue.state = State::Down;
                    queue.bytes = 0;
                    let lost = std::mem::take(&mut queue.waiting).len();
                    self.lose(queue, lost, &error);
                    false
                }
            };
            pause = if worked { Duration::ZERO } else { (2 * pause).clamp(RETRY_FIRST, RETRY_MAX) };
        }
    }

    /// Sends by a link until it breaks; whether anything was acknowledged.
    async fn carry(&self, mut link: Up) -> bool {
        let since_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let (was, lost) = {
            let mut queue = self.queue();
            (std::mem::replace(&mut queue.state, State::Up(since_ms)), std::mem::take(&mut queue.untold))
        };
        if was == State::Down {
            tracing::info!(node = %self.node.id, host = self.node.host, lost, "messages of channels go to a node again");
        }
        let mut worked = false;
        let error = loop {
            let in_flight = self.queue().in_flight.len();
            tokio::select! {
                biased;
                heard = hear(&mut link.client, in_flight > 0) => match heard {
                    Ok(_) => {
                        let acknowledged = self.queue().in_flight.pop_front().unwrap_or(0);
                        self.counts.sent.fetch_add(acknowledged, Ordering::Relaxed);
                        worked = true;
                    }
                    Err(error) => break error,
                },
                () = self.something(), if in_flight < WINDOW => {
                    if let Err(error) = self.send(&mut link).await {
                        break error;
                    }
                }
            }
        };
        tracing::debug!(node = %self.node.id, %error, "the link for messages of channels is gone");
        let mut queue = self.queue();
        queue.state = State::Idle;
        let in_doubt = queue.in_flight.drain(..).sum::<u64>();
        self.lose(queue, in_doubt as usize, &error);
        worked
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next answer; where none is due, the end of the link.
async fn hear(client: &mut AdminClient, due: bool) -> Result<Reply, AdminError> {
    if due { client.receive(&PUBLISH).await } else { Err(client.ended(&PUBLISH).await) }
}

/// A peer and the task that serves it: dropped, both end.
struct Link {
    peer: Arc<Peer>,
    task: AbortHandle,
}

impl Link {
    fn new(node: NodeEntry, me: NodeId, counts: Arc<Counts>, access: PeerAccess) -> Self {
        let peer = Arc::new(Peer::new(node, me, counts));
        let task = tokio::spawn(peer.clone().run(access)).abort_handle();
        Self { peer, task }
    }

    /// Whether it leads to that node, where that is now.
    fn leads_to(&self, node: &NodeEntry) -> bool {
        let own = &self.peer.node;
        (own.id, &own.host, own.admin_port) == (node.id, &node.host, node.admin_port)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        let queue = self.peer.queue();
        let left = queue.waiting.len() + queue.in_flight.iter().sum::<u64>() as usize;
        self.peer.lose(queue, left, &"it has left the topology, or moved");
    }
}

/// See the module's text.
pub struct Bus {
    links: RwLock<Vec<Link>>,
    /// How many there are.
    peers: AtomicUsize,
    counts: Arc<Counts>,
    access: PeerAccess,
    incoming: Incoming,
}

impl Bus {
    pub(super) fn new(access: PeerAccess) -> Self {
        Self {
            links: RwLock::default(),
            peers: AtomicUsize::new(0),
            counts: Arc::default(),
            access,
            incoming: Incoming::default(),
        }
    }

    /// Changes how many bytes of messages may wait for a peer.
    pub fn set_limit(&self, bytes: u64) {
        self.counts.limit.store(bytes, Ordering::Relaxed);
    }

    /// The nodes other than `me`, from now on. Links to those that were there already stay. Called where tasks can be spawned.
    pub(super) fn set_peers<'n>(&self, me: NodeId, nodes: impl Iterator<Item = &'n NodeEntry>) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *links);
        for node in nodes {
            let kept = old.iter().position(|link| link.leads_to(node)).map(|at| old.swap_remove(at));
            links.push(kept.unwrap_or_else(|| Link::new(node.clone(), me, self.counts.clone(), self.access.clone())));
        }
        self.peers.store(links.len(), Ordering::Relaxed);
    }

    /// Whether there is any other node. One load.
    pub fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed) > 0
    }

    /// Sends messages, of channels and payloads, to every other node, in that order. Waits for nobody.
    pub fn publish<'m>(&self, messages: impl Iterator<Item = (&'m Bytes, &'m Bytes)>) {
        if !self.has_peers() {
            return;
        }
        let messages: Vec<Message> = messages.map(|(channel, payload)| Message::copied(channel, payload)).collect();
        if !messages.is_empty() {
            self.links().iter().for_each(|link| link.peer.put(&messages));
        }
    }

    /// The links by which messages come here.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// So many messages came from a peer.
    pub fn count_received(&self, messages: u64) {
        self.counts.received.fetch_add(messages, Ordering::Relaxed);
    }

    /// What became of messages so far.
    pub fn totals(&self) -> BusTotals {
        let [sent, lost, received] =
            [&self.counts.sent, &self.counts.lost, &self.counts.received].map(|count| count.load(Ordering::Relaxed));
        BusTotals { sent, lost, received }
    }

    /// Bytes of messages that wait, and how many may.
    pub fn memory(&self) -> (u64, u64) {
        let links = self.links();
        let limit = self.counts.limit.load(Ordering::Relaxed).saturating_mul(links.len() as u64);
        (links.iter().map(|link| link.peer.queue().bytes).sum(), limit)
    }

    /// Links that are up.
    pub fn up(&self) -> Vec<LinkStatus> {
        let status = |link: &Link| {
            let queue = link.peer.queue();
            match queue.state {
                State::Up(since_ms) => Some(LinkStatus { node: link.peer.node.id, since_ms, waiting: queue.bytes }),
                State::Idle | State::Down => None,
            }
        };
        self.links().iter().filter_map(status).collect()
    }

    fn links(&self) -> std::sync::RwLockReadGuard<'_, Vec<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(limit: u64) -> Peer {
        let node = NodeEntry { id: NodeId::from_bytes([1; 20]), shard: 0, host: "h".into(), port: 1, admin_port: 2 };
        let counts = Arc::new(Counts { limit: AtomicU64::new(limit), ..Counts::default() });
        Peer::new(node, NodeId::from_bytes([2; 20]), counts)
    }

    fn numbered(numbers: std::ops::Range<u32>) -> Vec<Message> {
        numbers.map(|number| Message::copied(b"c", &number.to_be_bytes())).collect()
    }

    fn taken(peer: &Peer) -> Vec<u32> {
        peer.take().iter().map(|message| u32::from_be_bytes(message.payload[..].try_into().unwrap())).collect()
    }

    #[test]
    fn a_full_queue_loses_the_oldest_and_keeps_the_order() {
        let cost = numbered(0..1)[0].cost();
        let peer = peer(3 * cost);
        peer.put(&numbered(0..2));
        peer.put(&numbered(2..5));
        assert_eq!((peer.counts.lost.load(Ordering::Relaxed), peer.queue().bytes), (2, 3 * cost));
        assert_eq!(taken(&peer), [2, 3, 4]);
        // One that is larger than the bound is lost alone.
        peer.queue().bytes = 0;
        peer.put(&[Message::copied(b"c", &vec![0; 4 * cost as usize])]);
        let queue = peer.queue();
        assert_eq!((peer.counts.lost.load(Ordering::Relaxed), queue.bytes, queue.waiting.len()), (3, 0, 0));
    }

    #[test]
    fn batches_are_bounded_in_words_and_bytes() {
        let peer = peer(u64::MAX);
        peer.put(&numbered(0..3000));
        let first = taken(&peer);
        assert_eq!((first.len(), first.last()), (1022, Some(&1021)));
        assert_eq!((taken(&peer).len(), taken(&peer).len(), taken(&peer).len()), (1022, 956, 0));
        let large = |bytes| Message::copied(b"c", &vec![0; bytes]);
        peer.put(&[large(1 << 20), large(100 << 10), large(100 << 10), large(100 << 10)]);
        assert_eq!([peer.take().len(), peer.take().len(), peer.take().len()], [1, 2, 1]);
    }

    #[test]
    fn nothing_is_kept_for_a_peer_that_is_not_reached() {
        let peer = peer(u64::MAX);
        peer.queue().state = State::Down;
        peer.put(&numbered(0..7));
        let queue = peer.queue();
        assert_eq!((peer.counts.lost.load(Ordering::Relaxed), queue.waiting.len(), queue.bytes), (7, 0, 0));
        assert_eq!((queue.untold, queue.told.is_some()), (0, true));
    }
}
