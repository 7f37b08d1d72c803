//! This node's view of its cluster: who owns which slot, since which switch, and what commands of a slot do right now.
//!
//! Invariant: a slot whose durable row names another owner is never served; the state in memory changes only after the row did, but
//! for states that serve less than the row allows.

mod bus;
mod document;
mod peers;
mod rows;
mod state;
mod view;

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluice_topology::{ClusterId, LeaderEpoch, NodeEntry, NodeId, Slot, SlotRanges, TopologyVersion, merge::SlotRow};
use tokio::sync::watch;

pub use bus::{BATCH_WORDS_MAX, Bus};
pub use document::TopologyError;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rows::fuzzing;
pub use rows::ownership_records;
pub use state::{Route, SlotState};

use crate::{
    engine::{Engine, EngineError, MayWrite},
    tls::Tls,
};
use state::StateTable;

/// How a node talks to its peers' admin planes.
#[derive(Clone)]
pub struct PeerAccess {
    /// The password all nodes of the cluster share; `None`: none.
    pub password: Option<Arc<str>>,
    /// What they are dialled with; `None`: in the clear.
    pub tls: Option<Arc<Tls>>,
    /// For one answer.
    pub timeout: Duration,
}

/// What a node knows of its cluster besides the slots.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The cluster it belongs to; `None` before its first document.
    pub cluster_id: Option<ClusterId>,
    /// Highest leader epoch seen.
    pub leader_epoch: LeaderEpoch,
    /// Version of the last document taken.
    pub version: TopologyVersion,
    /// Nodes of that document.
    pub nodes: Vec<NodeEntry>,
    /// Ids that own nothing any more.
    pub retired: Vec<NodeId>,
}

/// The cluster plane of one node.
pub struct Cluster {
    engine: Arc<Engine>,
    enabled: bool,
    states: StateTable,
    rows: RwLock<Vec<SlotRow>>,
    known: RwLock<Arc<Known>>,
    /// Held while rows or the document change, so that changes come one at a time.
    changing: Mutex<()>,
    confirmed: AtomicBool,
    changes: watch::Sender<u64>,
    peers: PeerAccess,
    bus: Bus,
}

impl Cluster {
    /// Reads what is durable. Slots of this node stay closed until [`Cluster::confirm`] has asked the peers.
    pub fn open(engine: Arc<Engine>, enabled: bool, peers: PeerAccess) -> Result<Self, EngineError> {
        let rows = rows::load(&engine)?;
        let known = document::load(&engine)?;
        let cluster = Self {
            states: StateTable::new(if enabled { SlotState::Elsewhere } else { SlotState::Open }),
            rows: RwLock::new(rows),
            known: RwLock::new(Arc::new(known)),
            changing: Mutex::new(()),
            confirmed: AtomicBool::new(!enabled),
            changes: watch::Sender::new(0),
            engine,
            enabled,
            bus: Bus::new(peers.clone()),
            peers,
        };
        if enabled {
            cluster.set_state(&cluster.owned(), SlotState::Parked);
            cluster.tell_bus();
        }
        Ok(cluster)
    }

    /// Whether this node is part of a cluster at all.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// This node's id.
    pub fn me(&self) -> NodeId {
        self.engine.node_id()
    }

    /// What is known besides the slots.
    pub fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What takes messages of channels to the other nodes.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Whether a document has retired this node's id.
    pub fn retired(&self) -> bool {
        self.known().retired.contains(&self.me())
    }

    /// The durable row of a slot.
    pub fn row(&self, slot: Slot) -> SlotRow {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(slot.index()).copied().unwrap_or_default()
    }

    /// Slots whose durable rows name this node; none once it is retired.
    pub fn owned(&self) -> SlotRanges {
        if self.retired() {
            return SlotRanges::empty();
        }
        let me = Some(self.me());
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Slot::all().filter(|slot| rows[slot.index()].owner == me).collect()
    }

    /// Slots that commands of this node reach: its own in a cluster, every one otherwise.
    pub fn served(&self) -> SlotRanges {
        if self.enabled { self.states.matching(|state| state != SlotState::Elsewhere) } else { SlotRanges::full() }
    }

    /// Whether commands of this node reach a slot.
    pub fn serves(&self, slot: Slot) -> bool {
        !self.enabled || self.states.get(slot) != SlotState::Elsewhere
    }

    /// Whether the peers were asked, and this node's slots opened.
    pub fn confirmed(&self) -> bool {
        self.confirmed.load(Ordering::SeqCst)
    }

    /// Whether clients may be sent here: its place in the cluster is known and its peers were asked.
    pub fn ready(&self) -> bool {
        !self.enabled || (self.confirmed() && self.known().cluster_id.is_some())
    }

    /// What a command does whose keys are in that slot. Asked inside the engine's gate, and before every try.
    pub fn route(&self, slot: Slot, writes: bool) -> Route {
        if !self.enabled {
            return Route::Serve;
        }
        match self.states.get(slot) {
            SlotState::Open => Route::Serve,
            SlotState::WritesParked if !writes => Route::Serve,
            SlotState::WritesParked | SlotState::Parked => Route::Wait,
            SlotState::Elsewhere => self.redirect(slot),
        }
    }

    /// Whether background work may write to a slot. Asked inside the engine's gate.
    pub fn may_write(&self, slot: Slot) -> MayWrite {
        if !self.enabled {
            return MayWrite::Now;
        }
        match self.states.get(slot) {
            SlotState::Open if self.states.moving(slot) => MayWrite::Later,
            SlotState::Open => MayWrite::Now,
            SlotState::WritesParked | SlotState::Parked => MayWrite::Later,
            SlotState::Elsewhere => MayWrite::No,
        }
    }

    /// Whether a command that writes everywhere has to wait for a switch to end.
    pub fn any_parked(&self) -> bool {
        self.enabled && self.states.any_parked()
    }

    fn redirect(&self, slot: Slot) -> Route {
        let (owner, known) = self.owner_among(slot);
        // Its row came after the look at its state, which is about to follow: this is no refusal, the slot has just arrived.
        if owner == Some(self.me()) && !known.retired.contains(&self.me()) {
            return Route::Wait;
        }
        match owner.and_then(|owner| known.nodes.iter().find(|node| node.id == owner)) {
            Some(node) => Route::Moved(format!("MOVED {slot} {}:{}", node.host, node.port)),
            None => Route::Unserved,
        }
    }

    /// The owner of a slot, and what was known of the nodes when it was that.
    fn owner_among(&self, slot: Slot) -> (Option<NodeId>, Arc<Known>) {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        (rows[slot.index()].owner, self.known())
    }

    /// A receiver that is told of every change of a slot's state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Holds commands of those slots back, where this node still owns them; on return none that saw the old state is under way. Blocks
    /// the thread.
    pub fn park(&self, slots: &SlotRanges, reads_too: bool) {
        self.set_owned(slots, if reads_too { SlotState::Parked } else { SlotState::WritesParked });
        self.engine.drain();
    }

    /// Holds writers of those slots back for a moment, those that are under way not waited for.
    pub fn hold_writes(&self, slots: &SlotRanges) {
        self.set_owned(slots, SlotState::WritesParked);
    }

    /// Keeps the background's writes out of slots that are being copied, or lets them in again.
    pub fn set_moving(&self, slots: &SlotRanges, moving: bool) {
        slots.iter().for_each(|slot| self.states.set_moving(slot, moving));
    }

    /// Lets commands of those slots go on, where this node still owns them.
    pub fn unpark(&self, slots: &SlotRanges) {
        self.set_owned(slots, SlotState::Open);
    }

    /// Not while rows change: a slot that was taken away in between would be served on.
    fn set_owned(&self, slots: &SlotRanges, state: SlotState) {
        let _rows_stay = self.changing();
        self.set_state(&self.owned().intersection(slots), state);
    }

    fn set_state(&self, slots: &SlotRanges, state: SlotState) {
        for slot in slots.iter() {
            self.states.set(slot, state);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over rows, and with a document what it says of the nodes, as one: nobody sees an owner without its address.
    fn write_rows(&self, changes: &[(Slot, SlotRow)], known: Option<Known>) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (slot, row) in changes {
            rows[slot.index()] = *row;
        }
        if let Some(known) = known {
            *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
            self.tell_bus();
        }
    }

    /// Messages go to every other node of the document; a node that is retired sends none.
    fn tell_bus(&self) {
        let (known, me, retired) = (self.known(), self.me(), self.retired());
        self.bus.set_peers(me, known.nodes.iter().filter(|node| node.id != me && !retired));
    }
}
