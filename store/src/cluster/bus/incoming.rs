//! Links by which other nodes' messages come: of each node the newest alone counts. What is still in an older one when a newer is opened would
//! be told behind what came after it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use sluice_topology::NodeId;

use super::lock;

/// Nodes whose links are remembered. Past that all are forgotten, and opened anew.
const SOURCES_MAX: usize = 4096;

/// See the module's text.
#[derive(Default)]
pub struct Incoming {
    newest: Mutex<HashMap<NodeId, Arc<Mutex<u64>>>>,
    /// Links opened so far: no two have a number, whatever was forgotten.
    opened: AtomicU64,
}

impl Incoming {
    /// A node begins to send by a new link: nothing that comes by an older one is taken from then on. The link's number.
    pub fn open(&self, source: NodeId) -> u64 {
        let newest = {
            let mut incoming = lock(&self.newest);
            if incoming.len() >= SOURCES_MAX && !incoming.contains_key(&source) {
                incoming.clear();
            }
            incoming.entry(source).or_default().clone()
        };
        // Whoever tells what came by the one before has ended then.
        let mut newest = lock(&newest);
        *newest = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        *newest
    }

    /// Tells what came by a node's link, unless there is a newer one; none is opened meanwhile.
    pub fn tell<R>(&self, source: NodeId, link: u64, tell: impl FnOnce() -> R) -> Option<R> {
        let newest = lock(&self.newest).get(&source)?.clone();
        let newest = lock(&newest);
        (*newest == link).then(tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_by_an_older_link_is_not_told() {
        let incoming = Incoming::default();
        let [one, other] = [1, 2].map(|byte| NodeId::from_bytes([byte; 20]));
        assert_eq!(incoming.tell(one, 1, || ()), None);
        let (first, _) = (incoming.open(one), incoming.open(other));
        assert_eq!(incoming.tell(one, first, || "told"), Some("told"));
        let second = incoming.open(one);
        assert_eq!((incoming.tell(one, first, || ()), incoming.tell(one, second, || ())), (None, Some(())));
        // Those of a crowd that was never seen are forgotten, not kept for ever.
        for number in 0..SOURCES_MAX as u32 {
            let mut id = [3; 20];
            id[..4].copy_from_slice(&number.to_be_bytes());
            incoming.open(NodeId::from_bytes(id));
        }
        assert!(lock(&incoming.newest).len() < SOURCES_MAX && incoming.tell(one, second, || ()).is_none());
    }
}
