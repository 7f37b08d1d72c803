//! Committing: what commands write is gathered, and applied as one atomic batch.
//!
//! A writer enters the gate, claims the stripes of the keys it is going to change, gathers writes, commits. A thread's commands of one
//! turn share a writer: one batch, one record in the log. What is gathered is seen by reads through the writer and by nobody else.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use rocksdb::WriteOptions;
use sluice_topology::Slot;

use super::{
    Discarded, EngineError, Gathered, Generation, Home, Record, Subkeys, Subspace,
    batch::{Batch, Write},
    contents::{COLLECTIONS, KEYS},
    database::Engine,
    families::Family,
    gate::Place,
    layout::{PREFIX_LEN, prefix, reclaim_key, subkey_prefix},
    merged::Overlays,
    record_cache::NEAR,
    stripes::{Holder, Stripe, Stripes, Tried},
};

/// A batch that was applied. Its acknowledgement may have to wait until it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Everything up to this sequence number has to be durable before the write is.
    pub sequence: u64,
}

/// See the module's text.
pub struct Writer {
    engine: Arc<Engine>,
    place: Option<Place>,
    holder: Holder,
    stripes: Vec<Stripe>,
    batch: Batch,
    overlays: RefCell<Overlays>,
    /// Collections that go with it, and where among what was gathered their reclaim records are.
    discarded: Vec<(usize, Slot, Generation, u64)>,
    /// Keys it changed while somebody waited for them.
    ready: Vec<(Home, Vec<u8>)>,
    expired: u64,
    /// Keys of these, and how much had been gathered before them: while somebody wants to hear of them.
    expired_keys: Vec<(usize, Home, Vec<u8>)>,
    commits: u64,
    subkeys: bool,
    /// Entries of a sorted set's index are among them.
    scores: bool,
    observed: Cell<bool>,
}

impl Drop for Writer {
    /// What was gathered and not committed never was.
    fn drop(&mut self) {
        self.release();
    }
}

impl Writer {
    /// A writer outside the gate, with nothing gathered.
    pub fn new(engine: Arc<Engine>) -> Self {
        let (batch, holder) = (Batch::new(engine.database()), engine.stripes().holder());
        Self {
            engine,
            place: None,
            holder,
            stripes: Vec::new(),
            batch,
            overlays: RefCell::default(),
            discarded: Vec::new(),
            ready: Vec::new(),
            expired: 0,
            expired_keys: Vec::new(),
            commits: 0,
            subkeys: false,
            scores: false,
            observed: Cell::new(false),
        }
    }

    /// The engine it writes to.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Enters the gate, if it is not inside: before ownership and generations are looked at. It stays inside until it commits.
    pub fn enter(&mut self) {
        if self.place.is_none() {
            self.place = Some(self.engine.gate().take_place());
        }
    }

    /// Whether it is inside the gate: whoever let it in has to commit, soon.
    pub fn is_inside(&self) -> bool {
        self.place.is_some()
    }

    /// Claims the stripes of keys for this batch, inside the gate. False: somebody else has one, or writers are to stay out; the
    /// caller commits what it has, calls [`Writer::claim`], and looks at ownership anew. `deletes`: nothing but deletions will be
    /// gathered, which are taken even when space is short.
    pub fn try_claim<'k>(&mut self, keys: impl Iterator<Item = (Slot, &'k [u8])>, deletes: bool) -> Result<bool, EngineError> {
        debug_assert!(self.is_inside());
        self.engine.admit_write(deletes)?;
        if self.engine.gate().excludes_writers() {
            return Ok(false);
        }
        for (slot, key) in keys {
            let stripe = Stripes::of(slot, key);
            match self.engine.stripes().try_lock(stripe, self.holder) {
                Tried::Taken => self.stripes.push(stripe),
                Tried::Held => {}
                Tried::Busy => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Claims stripes, waiting for them, outside the gate and with nothing gathered. Blocks the thread as long as the batches of other
    /// writers take, or until `give_up` says so: then some of them are missing, which [`Writer::try_claim`] tells.
    pub fn claim<'k>(&mut self, keys: impl Iterator<Item = (Slot, &'k [u8])>, give_up: &dyn Fn() -> bool) {
        debug_assert!(!self.is_inside() && self.stripes.is_empty());
        let mut wanted: Vec<Stripe> = keys.map(|(slot, key)| Stripes::of(slot, key)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        self.engine.gate().await_inclusion(give_up);
        for stripe in wanted {
            if !self.engine.stripes().lock(stripe, self.holder, give_up) {
                return;
            }
            self.stripes.push(stripe);
        }
    }

    /// Bytes gathered.
    pub fn gathered_bytes(&self) -> usize {
        self.batch.len_bytes()
    }

    /// Records gathered.
    pub fn gathered(&self) -> usize {
        self.batch.len()
    }

    /// Whether one of the records gathered after the first `len` is that key's own, or belongs to the collection of that version in its
    /// slot, which is the one it holds.
    pub fn changed_since(&self, len: usize, home: Home, key: &[u8], version: Option<u64>) -> bool {
        let prefix = self.prefix(home);
        let version = version.map(u64::to_be_bytes);
        self.batch.writes_since(len).any(|write| {
            let Some(rest) = write.key.strip_prefix(&prefix) else { return false };
            if write.family == Family::Meta { rest == key } else { version.is_some_and(|version| rest.starts_with(&version)) }
        })
    }

    /// Forgets what was gathered after the first `len` records: a command that fails half-way changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.batch.truncate(len);
        self.overlays.get_mut().truncate(len);
        self.expired_keys.retain(|(before, ..)| *before < len);
        self.discarded.retain(|(at, ..)| *at < len);
    }

    /// How often it has committed: what was read before a commit may be old after it.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Whether something gathered was read since this was last asked: an answer that rests on it has to wait for the commit.
    pub fn take_observed(&self) -> bool {
        self.observed.take()
    }

    /// What was gathered for a key: its encoded record.
    pub(super) fn pending(&self, home: Home, key: &[u8]) -> Gathered<&[u8]> {
        self.look(Family::Meta, &[&self.prefix(home), key])
    }

    /// Whether the key may hold a collection, so that whoever replaces it has to look: false is certain.
    pub fn may_replace_collection(&self, home: Home) -> bool {
        self.engine.contents().may_hold(home, COLLECTIONS)
    }

    /// What was gathered for a subkey: its value.
    pub fn pending_subkey(&self, space: Subspace, subkey: &[u8]) -> Gathered<&[u8]> {
        self.look(space.family.family(), &[&self.subkey_prefix(space), subkey])
    }

    fn look(&self, family: Family, key: &[&[u8]]) -> Gathered<&[u8]> {
        let found = self.batch.get(family, key);
        if found != Gathered::Nothing {
            self.observe();
        }
        found
    }

    /// Something gathered was read before, if `observed`: undoes [`Writer::take_observed`].
    pub fn observed_again(&self, observed: bool) {
        self.observed.set(observed);
    }

    /// Something gathered was read.
    pub(super) fn observe(&self) {
        self.observed.set(true);
    }

    /// Everything gathered, in order.
    pub(super) fn gathered_writes(&self) -> impl Iterator<Item = Write<'_>> {
        self.batch.writes()
    }

    /// The same, and what was sorted of it.
    pub(super) fn gathered_and_sorted(&self) -> (&Batch, &RefCell<Overlays>) {
        (&self.batch, &self.overlays)
    }

    /// Whether something of a collection was gathered.
    pub fn has_gathered_subkeys(&self) -> bool {
        self.subkeys
    }

    /// A key gets this record. `replaced` is the collection it held before, if the new record does not go on with it.
    pub fn put(&mut self, home: impl Into<Home>, key: &[u8], record: &Record<'_>, replaced: Option<Discarded>) {
        let home = home.into();
        let slot = home.slot;
        debug_assert!(self.holds(slot, key));
        self.engine.contents().mark(home, KEYS);
        if let Some(at_ms) = [record.expires_at_ms, record.members_expire_at_ms()].into_iter().flatten().min() {
            self.engine.expiries().note(slot, at_ms);
        }
        let (head, length) = record.head();
        self.batch.put(Family::Meta, &[&self.prefix(home), key], &[&head[..length], record.value]);
        self.note_ready(home, key);
        self.discard(home, replaced);
    }

    /// A key is gone, with the collection it held.
    pub fn delete(&mut self, home: impl Into<Home>, key: &[u8], replaced: Option<Discarded>) {
        let home = home.into();
        debug_assert!(self.holds(home.slot, key));
        self.batch.delete(Family::Meta, &[&self.prefix(home), key]);
        self.note_ready(home, key);
        self.discard(home, replaced);
    }

    fn note_ready(&mut self, home: Home, key: &[u8]) {
        if self.engine.awaited().may_hold(home, key) && self.ready.last().is_none_or(|last| last.0 != home || last.1 != key) {
            self.ready.push((home, key.to_vec()));
        }
    }

    /// Whether it changed a key that somebody waits for.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Keys that it changed, whatever they hold now, and that somebody waits for: each once, in the order in which they were changed first.
    pub fn take_ready(&mut self) -> Vec<(Home, Vec<u8>)> {
        let (mut ready, mut seen) = (std::mem::take(&mut self.ready), std::collections::HashSet::new());
        ready.retain(|key| seen.insert(key.clone()));
        ready
    }

    /// Counts a key that is about to be written over or deleted after it had expired.
    pub fn note_expired(&mut self, home: Home, key: &[u8]) {
        self.expired += 1;
        if self.engine.expiries().hearer().is_some_and(|hearer| hearer.listens()) {
            self.expired_keys.push((self.batch.len(), home, key.to_vec()));
        }
    }

    /// A subkey of a collection gets this value. The collection's own record is the caller's to write.
    pub fn put_subkey(&mut self, space: Subspace, subkey: &[u8], value: &[u8]) {
        // Before the batch is applied: a plain SET that comes after it has to look for what it replaces.
        self.engine.contents().mark(space.home, COLLECTIONS);
        self.subkeys = true;
        self.scores |= space.family == Subkeys::Score;
        self.batch.put(space.family.family(), &[&self.subkey_prefix(space), subkey], &[value]);
    }

    /// A subkey of a collection is gone.
    pub fn delete_subkey(&mut self, space: Subspace, subkey: &[u8]) {
        self.subkeys = true;
        self.scores |= space.family == Subkeys::Score;
        self.batch.delete(space.family.family(), &[&self.subkey_prefix(space), subkey]);
    }

    /// Applies what was gathered as one batch, publishes it to the change feed, gives the stripes back and leaves the gate: also when
    /// it fails, and then nothing was applied. `None`: nothing had been gathered.
    pub fn commit(&mut self) -> Result<Option<Written>, EngineError> {
        let outcome = self.apply();
        self.release();
        outcome
    }

    /// Whether the record cache holds what is read of that family. Of the others next to nothing is read one by one.
    pub(super) fn is_cached(family: Family) -> bool {
        matches!(family, Family::Meta | Family::Data)
    }

    fn apply(&mut self) -> Result<Option<Written>, EngineError> {
        if self.batch.len() == 0 {
            return Ok(None);
        }
        self.batch.settle();
        let mut options = WriteOptions::default();
        options.disable_wal(!self.engine.options().wal);
        let database = self.engine.database();
        let ranks = self.engine.ranks();
        let committing = self.scores.then(|| ranks.begin(&self.batch));
        let applied = database.write(self.batch.for_rocksdb(), &options);
        if let Some(committing) = committing {
            ranks.end(committing, &self.batch, applied.is_ok());
        }
        applied?;
        let sequence = database.db().latest_sequence_number();
        let (records, mut cached) =
            (self.engine.records(), self.batch.last_writes().filter(|write| Self::is_cached(write.family)));
        while cached.clone().next().is_some() {
            records.approach(cached.clone().take(NEAR).map(|write| write.hash));
            cached.by_ref().take(NEAR).for_each(|write| records.written(write.hash, write.key, write.value));
        }
        // Under the stripes: changes of one key are published in the order in which they were applied.
        self.engine.feed().publish(&self.batch);
        self.engine.note_commit(self.batch.len());
        self.engine.expiries().count_removed(self.expired);
        if let Some(hearer) = self.engine.expiries().hearer() {
            self.expired_keys.iter().for_each(|(_, home, key)| hearer.expired(*home, key));
        }
        for (_, slot, generation, version) in self.discarded.drain(..) {
            self.engine.reclaimer().discarded(slot, generation, version);
        }
        Ok(Some(Written { sequence }))
    }

    fn release(&mut self) {
        self.batch.clear();
        self.overlays.get_mut().truncate(0);
        self.subkeys = false;
        self.scores = false;
        self.discarded.clear();
        self.expired = 0;
        self.expired_keys.clear();
        self.commits += 1;
        self.engine.stripes().unlock(&self.stripes);
        self.stripes.clear();
        if let Some(place) = self.place.take() {
            self.engine.gate().leave(&place);
        }
    }

    /// In the batch in which a collection goes: where what it leaves behind is to be found.
    fn discard(&mut self, home: Home, replaced: Option<Discarded>) {
        let Some(Discarded { kind, version }) = replaced else { return };
        let live = self.engine.live(home);
        self.batch.put(Family::Data, &[&reclaim_key(home.slot, live, version)], &[&[kind as u8]]);
        self.discarded.push((self.batch.len() - 1, home.slot, live, version));
    }

    fn prefix(&self, home: Home) -> [u8; PREFIX_LEN] {
        prefix(home.slot, self.engine.live(home))
    }

    fn subkey_prefix(&self, space: Subspace) -> [u8; PREFIX_LEN + 8] {
        subkey_prefix(space.home.slot, self.engine.live(space.home), space.version)
    }

    fn holds(&self, slot: Slot, key: &[u8]) -> bool {
        self.is_inside() && self.engine.stripes().holds(Stripes::of(slot, key), self.holder)
    }
}
