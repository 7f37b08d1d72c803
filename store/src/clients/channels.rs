//! Channels, patterns and shard channels, and who is subscribed to them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use sluice_topology::Slot;

use super::{client::Client, mailbox::Push};
use crate::glob;

/// What is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// A channel, by name.
    Channel,
    /// Every channel whose name matches.
    Pattern,
    /// A shard channel: it belongs to the slot of its name.
    Shard,
}

type Subscribers = BTreeMap<u64, Arc<Client>>;

/// See the module's text.
#[derive(Default)]
pub struct Channels {
    by_name: [RwLock<HashMap<Bytes, Subscribers>>; 3],
}

impl Channels {
    fn read(&self, of: Subscription) -> RwLockReadGuard<'_, HashMap<Bytes, Subscribers>> {
        self.by_name[of as usize].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, of: Subscription) -> RwLockWriteGuard<'_, HashMap<Bytes, Subscribers>> {
        self.by_name[of as usize].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes a client; false when it was already.
    pub fn subscribe(&self, of: Subscription, name: &Bytes, client: &Arc<Client>) -> bool {
        let mut by_name = self.write(of);
        // A copy: a slice would keep a whole request alive.
        let key = if by_name.contains_key(name) { name.clone() } else { Bytes::copy_from_slice(name) };
        by_name.entry(key).or_default().insert(client.id, client.clone()).is_none()
    }

    /// Ends a subscription; false when there was none. No message of it is sent to the client any more.
    pub fn unsubscribe(&self, of: Subscription, name: &[u8], client: &Client) -> bool {
        let mut by_name = self.write(of);
        let Some(subscribers) = by_name.get_mut(name) else { return false };
        let was = subscribers.remove(&client.id).is_some();
        if subscribers.is_empty() {
            by_name.remove(name);
        }
        was
    }

    /// How many clients hear a message of that channel.
    pub fn receivers(&self, channel: &[u8]) -> usize {
        let direct = self.read(Subscription::Channel).get(channel).map_or(0, BTreeMap::len);
        let patterns = self.read(Subscription::Pattern);
        direct + patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel)).map(|(_, all)| all.len()).sum::<usize>()
    }

    /// How many clients are subscribed to a channel by its name, or to a shard channel.
    pub fn subscribers(&self, of: Subscription, name: &[u8]) -> usize {
        self.read(of).get(name).map_or(0, BTreeMap::len)
    }

    /// Channels or shard channels that somebody is subscribed to.
    pub fn names(&self, of: Subscription, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let matching = |name: &&Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        self.read(of).keys().filter(matching).cloned().collect()
    }

    /// How many different names there are.
    pub fn count(&self, of: Subscription) -> usize {
        self.read(of).len()
    }

    /// Gives a message to everybody who hears it.
    pub(super) fn each_receiver(&self, channel: &Bytes, payload: &Bytes, mut give: impl FnMut(&Arc<Client>, Push)) {
        if let Some(subscribers) = self.read(Subscription::Channel).get(channel) {
            let push = Push::Message { channel: channel.clone(), payload: payload.clone() };
            subscribers.values().for_each(|client| give(client, push.clone()));
        }
        for (pattern, subscribers) in &*self.read(Subscription::Pattern) {
            if glob::matches(pattern, channel) {
                let push = Push::PatternMessage { pattern: pattern.clone(), channel: channel.clone(), payload: payload.clone() };
                subscribers.values().for_each(|client| give(client, push.clone()));
            }
        }
    }

    /// Gives a message of a shard channel to everybody who hears it.
    pub(super) fn each_shard_receiver(&self, channel: &Bytes, payload: &Bytes, mut give: impl FnMut(&Arc<Client>, Push)) {
        if let Some(subscribers) = self.read(Subscription::Shard).get(channel) {
            let push = Push::ShardMessage { channel: channel.clone(), payload: payload.clone() };
            subscribers.values().for_each(|client| give(client, push.clone()));
        }
    }

    /// Takes away the shard channels of slots that are not served here any more; says whose they were.
    pub(super) fn take_unserved(&self, served: impl Fn(Slot) -> bool) -> Vec<(Bytes, Vec<Arc<Client>>)> {
        if self.read(Subscription::Shard).is_empty() {
            return Vec::new();
        }
        let mut by_name = self.write(Subscription::Shard);
        let gone: HashSet<Bytes> = by_name.keys().filter(|name| !served(Slot::of_key(name))).cloned().collect();
        gone.into_iter()
            .map(|name| {
                let subscribers = by_name.remove(&name).unwrap_or_default();
                (name, subscribers.into_values().collect())
            })
            .collect()
    }
}
