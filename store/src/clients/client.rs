//! A connection as others see it: what it is, and how it is reached.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Instant,
};

use bytes::Bytes;
use futures::task::AtomicWaker;

use super::{
    PushLimits, Subscription,
    mailbox::{Mailbox, Push},
};

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// CLIENT SETNAME.
    pub name: Bytes,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Bytes,
    /// CLIENT SETINFO LIB-VER.
    pub lib_version: Bytes,
}

/// A number that its owner writes and others read now and then.
#[derive(Debug, Default)]
pub struct Shown(AtomicU64);

impl Shown {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// States of a client, as letters of CLIENT LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFlags(pub u32);

impl ClientFlags {
    /// `x`: in MULTI.
    pub const MULTI: u32 = 1;
    /// `O`: MONITOR.
    pub const MONITOR: u32 = 1 << 1;
    /// `e`: CLIENT NO-EVICT.
    pub const NO_EVICT: u32 = 1 << 2;
    /// `T`: CLIENT NO-TOUCH.
    pub const NO_TOUCH: u32 = 1 << 3;
    /// `r`: READONLY.
    pub const READONLY: u32 = 1 << 4;
    /// `d`: a watched key has changed.
    pub const DIRTY: u32 = 1 << 5;
}

/// How CLIENT UNBLOCK ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
}

const BLOCKED: u8 = 1;
const UNBLOCK_TIMEOUT: u8 = 2;
const UNBLOCK_ERROR: u8 = 3;

/// See the module's text.
pub struct Client {
    /// Its number, never used again by this process.
    pub id: u64,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// Where it came to.
    pub local: Option<SocketAddr>,
    /// Its descriptor.
    pub descriptor: i32,
    /// When it connected.
    pub since: Instant,
    /// When it did something last: milliseconds of the engine's clock.
    pub active_ms: Shown,
    /// Its database.
    pub database: Shown,
    /// Its protocol: 2 or 3.
    pub protocol: Shown,
    /// [`ClientFlags`].
    pub flags: AtomicU32,
    last_command: AtomicUsize,
    /// Commands queued by MULTI, and one; 0: not in MULTI.
    pub queued: Shown,
    /// Keys it watches.
    pub watched: Shown,
    /// Bytes received and not yet executed, room for more, and bytes of replies; of requests that wait to be executed or for their end, and
    /// of what MULTI has queued.
    pub buffers: [Shown; 5],
    described: Mutex<Described>,
    /// Channels, patterns and shard channels it is subscribed to.
    subscribed: Mutex<[BTreeSet<Bytes>; 3]>,
    mailbox: Mutex<Mailbox>,
    has_mail: AtomicBool,
    ending: AtomicBool,
    held: AtomicBool,
    blocked: AtomicU8,
    waker: AtomicWaker,
}

impl Client {
    pub(super) fn new(id: u64, peer: Option<SocketAddr>, local: Option<SocketAddr>, descriptor: i32) -> Self {
        Self {
            id,
            peer,
            local,
            descriptor,
            since: Instant::now(),
            active_ms: Shown::default(),
            database: Shown::default(),
            protocol: Shown(AtomicU64::new(2)),
            flags: AtomicU32::new(0),
            last_command: AtomicUsize::new(0),
            subscribed: Mutex::default(),
            queued: Shown::default(),
            watched: Shown::default(),
            buffers: Default::default(),
            described: Mutex::default(),
            mailbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            held: AtomicBool::new(false),
            blocked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        }
    }

    /// What it says of itself.
    pub fn described(&self) -> Described {
        lock(&self.described).clone()
    }

    /// Changes what it says of itself.
    pub fn describe(&self, change: impl FnOnce(&mut Described)) {
        change(&mut lock(&self.described));
    }

    /// Address of the name of its last command, in the table of commands.
    pub fn last_command(&self) -> usize {
        self.last_command.load(Ordering::Relaxed)
    }

    /// Notes its last command.
    pub fn note_command(&self, name: &'static str) {
        self.last_command.store(name.as_ptr() as usize, Ordering::Relaxed);
    }

    /// Sets or takes a flag.
    pub fn set_flag(&self, flag: u32, on: bool) {
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Ordering::Relaxed);
    }

    /// Whether a flag is set.
    pub fn has_flag(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// What it is subscribed to.
    pub fn subscribed_to(&self, of: Subscription) -> Vec<Bytes> {
        lock(&self.subscribed)[of as usize].iter().cloned().collect()
    }

    /// How many channels, patterns and shard channels it is subscribed to.
    pub fn subscription_counts(&self) -> [u64; 3] {
        let subscribed = lock(&self.subscribed);
        [0, 1, 2].map(|of: usize| subscribed[of].len() as u64)
    }

    /// Notes a subscription.
    pub fn note_subscription(&self, of: Subscription, name: &Bytes) {
        lock(&self.subscribed)[of as usize].insert(Bytes::copy_from_slice(name));
    }

    /// Forgets a subscription; returns how many of that kind are left.
    pub fn forget_subscription(&self, of: Subscription, name: &[u8]) -> u64 {
        let mut subscribed = lock(&self.subscribed);
        subscribed[of as usize].remove(name);
        subscribed[of as usize].len() as u64
    }

    /// Sends it something; false when it was ended because it does not take what it is sent.
    pub(super) fn post(&self, push: Push, limits: PushLimits, now: Instant) -> bool {
        let within = lock(&self.mailbox).put(push, limits, now);
        self.has_mail.store(true, Ordering::SeqCst);
        if within {
            self.waker.wake();
            return true;
        }
        // Told once, by whoever ends it.
        let first = !self.ending.swap(true, Ordering::SeqCst);
        self.waker.wake();
        if first {
            lock(&self.mailbox).take();
        }
        !first
    }

    /// Whether something waits for it. One load.
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::SeqCst)
    }

    /// Takes what waits for it.
    pub fn take_mail(&self) -> std::collections::VecDeque<Push> {
        let mut mailbox = lock(&self.mailbox);
        self.has_mail.store(false, Ordering::SeqCst);
        mailbox.take()
    }

    /// How much waits for it, and its bytes.
    pub fn mail_held(&self) -> (usize, u64) {
        lock(&self.mailbox).held()
    }

    /// Bytes of its requests and replies, and of what waits for it.
    pub fn held_bytes(&self) -> u64 {
        self.buffers.iter().map(Shown::get).sum::<u64>() + self.mail_held().1
    }

    /// Ends the connection, whatever it is at.
    pub fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whether it is to end.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Whether it is in the middle of something that has to come to its end first.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// It is in the middle of something that has to come to its end before the connection does, or no more.
    pub fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// Its task is woken by that from now on.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// It waits inside a blocking command, or no more.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(if blocked { BLOCKED } else { 0 }, Ordering::SeqCst);
    }

    /// Whether it waits inside a blocking command.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::SeqCst) != 0
    }

    /// CLIENT UNBLOCK: ends the wait of a blocking command; false when it is in none.
    pub fn unblock(&self, how: Unblock) -> bool {
        let to = if how == Unblock::Timeout { UNBLOCK_TIMEOUT } else { UNBLOCK_ERROR };
        let done = self.blocked.compare_exchange(BLOCKED, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.waker.wake();
        done
    }

    /// What CLIENT UNBLOCK said since [`Client::set_blocked`]. Whoever waits asks at every poll: the connection's task is woken.
    pub fn unblocked(&self) -> Option<Unblock> {
        match self.blocked.load(Ordering::SeqCst) {
            UNBLOCK_TIMEOUT => Some(Unblock::Timeout),
            UNBLOCK_ERROR => Some(Unblock::Error),
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
