//! WATCH: who wants to know whether a key has changed. A command that changes keys looks here once it has, at the price of one load
//! while nobody watches; the watched keys are held by whoever changes them, so a change is either seen here or was there before.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::engine::Generation;

/// A key as it was when it was watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its database.
    pub database: u8,
    /// The key.
    pub key: Bytes,
    /// Whether it was there.
    pub present: bool,
    /// The live generation of its slot: another one was flushed, swapped in, or moved here.
    pub generation: Generation,
}

#[derive(Default)]
pub(super) struct Watches {
    active: AtomicUsize,
    by_key: Mutex<HashMap<(u8, Bytes), Vec<Arc<AtomicBool>>>>,
}

impl Watches {
    fn by_key(&self) -> MutexGuard<'_, HashMap<(u8, Bytes), Vec<Arc<AtomicBool>>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn any(&self) -> bool {
        self.active.load(Ordering::SeqCst) > 0
    }

    pub(super) fn touch(&self, database: u8, key: &Bytes) {
        if let Some(watchers) = self.by_key().get(&(database, key.clone())) {
            watchers.iter().for_each(|dirty| dirty.store(true, Ordering::SeqCst));
        }
    }

    fn add(&self, watched: &Watched, dirty: &Arc<AtomicBool>) {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.by_key().entry((watched.database, watched.key.clone())).or_default().push(dirty.clone());
    }

    fn remove(&self, watched: &Watched, dirty: &Arc<AtomicBool>) {
        let mut by_key = self.by_key();
        let name = (watched.database, watched.key.clone());
        if let Some(watchers) = by_key.get_mut(&name) {
            watchers.retain(|other| !Arc::ptr_eq(other, dirty));
            if watchers.is_empty() {
                by_key.remove(&name);
            }
        }
        self.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The keys a connection watches; none any more when this is dropped.
pub struct Watching {
    watches: Arc<super::Clients>,
    dirty: Arc<AtomicBool>,
    keys: Vec<Watched>,
}

impl Watching {
    pub(super) fn new(watches: Arc<super::Clients>) -> Self {
        Self { watches, dirty: Arc::default(), keys: Vec::new() }
    }

    /// Whether that key is watched already.
    pub fn has(&self, database: u8, key: &[u8]) -> bool {
        self.keys.iter().any(|watched| watched.database == database && watched.key == key)
    }

    /// Watches one more. Its stripe is held by the caller.
    pub fn add(&mut self, watched: Watched) {
        // A copy: a slice would keep a whole request alive.
        let watched = Watched { key: Bytes::copy_from_slice(&watched.key), ..watched };
        self.watches.watches.add(&watched, &self.dirty);
        self.keys.push(watched);
    }

    /// Whether a command has changed one of them.
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// The keys, as they were.
    pub fn keys(&self) -> &[Watched] {
        &self.keys
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.keys.iter().for_each(|watched| self.watches.watches.remove(watched, &self.dirty));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Clients;

    #[test]
    fn a_change_is_told_to_those_who_watch_that_key_of_that_database() {
        let clients = Arc::new(Clients::default());
        let watched = |database, key: &'static str| Watched {
            database,
            key: Bytes::from_static(key.as_bytes()),
            present: true,
            generation: Generation(1),
        };
        let [mut one, mut other] = [0, 1].map(|_| clients.watching());
        one.add(watched(0, "a"));
        one.add(watched(0, "b"));
        other.add(watched(1, "a"));
        assert!(clients.any_watched());
        clients.touch(0, &Bytes::from_static(b"c"));
        assert!(!one.is_dirty() && !other.is_dirty());
        clients.touch(0, &Bytes::from_static(b"a"));
        assert!(one.is_dirty() && !other.is_dirty());
        drop((one, other));
        assert!(!clients.any_watched() && clients.watches.by_key().is_empty());
    }
}
