//! Collections: the key's record says under which version the subkeys are stored, how many members there are, and what else the kind
//! needs to know; the members are subkeys.
//!
//! Every change writes the subkeys and the record in one batch, so that the record is true of them after whatever crash.
//!
//! A collection begins *packed*: its subkeys are in its record (`packed.rs`). The change that makes it larger than
//! [`crate::engine::Engine::packed_bytes_max`] unpacks it: its subkeys are stored by themselves from then on, under the version it has had
//! from its beginning, until it is gone. Nobody above this room sees a difference.

use std::ops::ControlFlow;

use super::{
    keyspace::{Keyspace, TypeError},
    packed::Packed,
};
use crate::engine::{Collection, Discarded, EngineError, Gathered, Home, Kind, Record, Span, Spot, Stored, Subkeys, Subspace};

/// Subkeys read by one call into RocksDB; fewer than [`TOGETHER_MIN`] are read one by one.
const TOGETHER: usize = 1024;
pub(super) const TOGETHER_MIN: usize = 4;

/// A collection that is there.
#[derive(Clone)]
pub(super) struct Members<'e> {
    keys: Keyspace<'e>,
    home: Home,
    collection: Collection,
    /// Its subkeys, if they are in its record.
    packed: Option<Packed>,
    extra: Vec<u8>,
    expires_at_ms: Option<u64>,
}

impl<'e> Keyspace<'e> {
    /// The collection of that key and kind; `None` when there is no such key. At most one point read.
    pub(super) fn members(&self, key: &[u8], kind: Kind) -> Result<Option<Members<'e>>, TypeError> {
        let Some(stored) = self.live(key)? else { return Ok(None) };
        Members::of(*self, key, &stored.record()?, kind).map(Some)
    }

    /// A fresh collection of that kind in the place of whatever the key holds; the key is claimed. Without members when it is
    /// finished, the key is gone. One point read.
    pub(super) fn replace_collection<'k>(&self, key: &'k [u8], kind: Kind) -> Result<MembersChange<'e, 'k>, TypeError> {
        let stored = self.stored(self.home(key), key)?;
        let record = stored.as_ref().map(Stored::record).transpose()?;
        MembersChange::fresh(*self, key, kind, record.as_ref())
    }
}

impl<'e> Members<'e> {
    fn of(keys: Keyspace<'e>, key: &[u8], record: &Record<'_>, kind: Kind) -> Result<Self, TypeError> {
        if record.kind != kind {
            return Err(TypeError::WrongType);
        }
        let collection = record.collection().map_err(damaged)?;
        let collection = collection.ok_or_else(|| EngineError::Damaged("a record does not say where its subkeys are".into()))?;
        let (packed, extra) = record.body().map_err(damaged)?;
        let packed = match packed {
            Some(bytes) => Some(Packed::read(kind, bytes).ok_or_else(damaged_subkeys)?),
            None => None,
        };
        let expires_at_ms = record.expires_at_ms;
        Ok(Self { keys, home: keys.home(key), collection, packed, extra: extra.to_vec(), expires_at_ms })
    }

    /// How many members there are.
    pub(super) fn size(&self) -> u64 {
        self.collection.size
    }

    /// What its subkeys are stored under: another collection of the same name has another one.
    pub(super) fn version(&self) -> u64 {
        self.collection.version
    }

    /// What its record says besides.
    pub(super) fn extra(&self) -> &[u8] {
        &self.extra
    }

    /// The keys it is one of.
    pub(super) fn keyspace(&self) -> Keyspace<'e> {
        self.keys
    }

    fn space(&self, family: Subkeys) -> Subspace {
        Subspace { home: self.home, version: self.collection.version, family }
    }

    fn pending<R>(&self, family: Subkeys, subkey: &[u8], with: impl FnOnce(Gathered<&[u8]>) -> R) -> R {
        with(self.keys.writer().borrow().pending_subkey(self.space(family), subkey))
    }

    /// Calls `with` with the value of a subkey, `None` when there is none. At most one point read, no copy.
    pub(super) fn get<R>(&self, family: Subkeys, subkey: &[u8], with: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TypeError> {
        if let Some(packed) = &self.packed {
            return Ok(with(packed.get(family, subkey)));
        }
        {
            let writer = self.keys.writer().borrow();
            match writer.pending_subkey(self.space(family), subkey) {
                Gathered::Put(value) => return Ok(with(Some(value))),
                Gathered::Deleted => return Ok(with(None)),
                Gathered::Nothing => {}
            }
        }
        let found = match self.keys.view() {
            Some(view) => view.get_subkey(self.space(family), subkey)?,
            None => self.keys.engine().get_subkey(self.space(family), subkey)?,
        };
        Ok(with(found.as_deref()))
    }

    /// Calls `each` with the values of several subkeys, in the order of `subkeys`; until it breaks.
    pub(super) fn get_many(
        &self,
        family: Subkeys,
        subkeys: &[&[u8]],
        mut each: impl FnMut(Option<&[u8]>) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        if subkeys.len() < TOGETHER_MIN || self.packed.is_some() {
            for subkey in subkeys {
                if self.get(family, subkey, &mut each)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let space = self.space(family);
        for subkeys in subkeys.chunks(TOGETHER) {
            let flow = match self.keys.view() {
                Some(view) => self.each_found(family, subkeys, view.get_subkeys(space, subkeys), &mut each),
                None => {
                    let found = self.keys.engine().get_subkeys(space, subkeys.iter().copied());
                    self.each_found(family, subkeys, found, &mut each)
                }
            };
            if flow?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` with the values that were found, those that the writer has gathered since in their place; until it breaks.
    fn each_found<V: std::ops::Deref<Target = [u8]>>(
        &self,
        family: Subkeys,
        subkeys: &[&[u8]],
        found: Vec<Result<Option<V>, EngineError>>,
        mut each: impl FnMut(Option<&[u8]>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TypeError> {
        for (subkey, found) in subkeys.iter().zip(found) {
            let flow = match self.pending(family, subkey, |gathered| gathered.map(<[u8]>::to_vec)) {
                Gathered::Put(value) => each(Some(&value)),
                Gathered::Deleted => each(None),
                Gathered::Nothing => each(found?.as_deref()),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `each` for the subkeys of a span and their values, what the writer has gathered included; until it breaks. All as of one
    /// moment. One seek, then a step a subkey.
    pub(super) fn each(
        &self,
        family: Subkeys,
        span: Span<'_>,
        each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        if let Some(packed) = &self.packed {
            packed.each(family, span, each);
            return Ok(());
        }
        let overlay = self.keys.writer().borrow().overlay(self.space(family), &span);
        match self.keys.view() {
            Some(view) => view.scan_subkeys(self.space(family), span, &overlay, each)?,
            None => self.keys.engine().scan_subkeys(self.space(family), span, &overlay, each)?,
        }
        Ok(())
    }
}

impl Members<'_> {
    /// How many entries of the index are in a span, none of them below `floor`, by the table of ranks; see `engine/ranks.rs`.
    pub(super) fn count_ranked(&self, span: Span<'_>, floor: &[u8], make: bool) -> Result<Option<u64>, TypeError> {
        // The tables are of now, and of what is stored.
        if self.keys.view().is_some() || self.packed.is_some() {
            return Ok(None);
        }
        let space = self.space(Subkeys::Score);
        Ok(self.keys.engine().count_ranked(&self.keys.writer().borrow(), space, span, floor, make)?)
    }

    /// Where the entry of a rank is in the index, in which nothing is below `floor`, by the table of ranks; see `engine/ranks.rs`.
    pub(super) fn spot_ranked(&self, rank: u64, floor: &[u8], make: bool) -> Result<Option<Spot>, TypeError> {
        if self.keys.view().is_some() || self.packed.is_some() {
            return Ok(None);
        }
        let space = self.space(Subkeys::Score);
        Ok(self.keys.engine().spot_ranked(&self.keys.writer().borrow(), space, rank, floor, make)?)
    }
}

/// A collection that is being changed: its key is claimed.
pub(super) struct MembersChange<'e, 'k> {
    members: Members<'e>,
    kind: Kind,
    key: &'k [u8],
    /// What its record says so far.
    recorded: Option<(u64, Vec<u8>)>,
    /// What is in its record besides has changed.
    repacked: bool,
    /// Something has expired under its name.
    expired: bool,
    /// The collection that was there before, if it is another one.
    replaced: Option<Discarded>,
}

impl<'e, 'k> MembersChange<'e, 'k> {
    /// The collection of that key, or a new one. One point read.
    pub(super) fn begin(keys: Keyspace<'e>, key: &'k [u8], kind: Kind) -> Result<Self, TypeError> {
        let stored = keys.stored(keys.home(key), key)?;
        let record = stored.as_ref().map(Stored::record).transpose()?;
        match record.filter(|record| !record.is_expired(keys.now_ms())) {
            Some(record) => {
                let members = Members::of(keys, key, &record, kind)?;
                let recorded = Some((members.size(), members.extra.clone()));
                Ok(Self { members, kind, key, recorded, repacked: false, expired: false, replaced: None })
            }
            None => Self::fresh(keys, key, kind, record.as_ref()),
        }
    }

    fn fresh(keys: Keyspace<'e>, key: &'k [u8], kind: Kind, record: Option<&Record<'_>>) -> Result<Self, TypeError> {
        let replaced = record.map(|record| record.discarded().map_err(damaged)).transpose()?.flatten();
        let collection = Collection { version: keys.engine().next_version()?, size: 0 };
        let packed = fresh_packed(keys, kind);
        let members = Members { keys, home: keys.home(key), collection, packed, extra: Vec::new(), expires_at_ms: None };
        let expired = record.is_some_and(|record| record.is_expired(keys.now_ms()));
        // Even without a member it replaces what is there, so that its record is not what it was.
        let recorded = if record.is_some() && !expired { Some((u64::MAX, Vec::new())) } else { None };
        Ok(Self { members, kind, key, recorded, repacked: false, expired, replaced })
    }

    /// Whether there was none: nothing is stored under its version but what is gathered.
    pub(super) fn is_fresh(&self) -> bool {
        self.recorded.as_ref().is_none_or(|(size, _)| *size == u64::MAX)
    }

    /// The collection as it is so far.
    pub(super) fn members(&self) -> &Members<'e> {
        &self.members
    }

    /// Whether a subkey is there, as far as the writer has gathered it; `None`: what is stored counts.
    pub(super) fn pending(&self, family: Subkeys, subkey: &[u8]) -> Option<bool> {
        if let Some(packed) = &self.members.packed {
            return Some(packed.get(family, subkey).is_some());
        }
        self.members.pending(family, subkey, |gathered| match gathered {
            Gathered::Put(_) => Some(true),
            Gathered::Deleted => Some(false),
            Gathered::Nothing => self.is_fresh().then_some(false),
        })
    }

    /// A copy of a subkey's value. No read in a fresh collection.
    pub(super) fn get(&self, family: Subkeys, subkey: &[u8]) -> Result<Option<Vec<u8>>, TypeError> {
        if self.pending(family, subkey) == Some(false) {
            return Ok(None);
        }
        self.members.get(family, subkey, |value| value.map(<[u8]>::to_vec))
    }

    /// Whether a subkey is there. No read in a fresh collection.
    pub(super) fn has(&self, family: Subkeys, subkey: &[u8]) -> Result<bool, TypeError> {
        match self.pending(family, subkey) {
            Some(there) => Ok(there),
            None => self.members.get(family, subkey, |value| value.is_some()),
        }
    }

    /// A subkey gets this value. The size is the caller's to change.
    pub(super) fn put(&mut self, family: Subkeys, subkey: &[u8], value: &[u8]) {
        if let Some(packed) = &mut self.members.packed {
            self.repacked = true;
            let most = self.members.keys.engine().packed_bytes_max();
            // What is there is changed first, as an index follows from the members as they are; what is new and too large is not copied.
            if subkey.len() + value.len() <= most || packed.get(family, subkey).is_some() {
                packed.put(family, subkey, value);
                if packed.bytes().len() > most {
                    self.unpack();
                }
                return;
            }
            self.unpack();
        }
        let space = self.members.space(family);
        self.members.keys.writer().borrow_mut().put_subkey(space, subkey, value);
    }

    /// A subkey is gone. The size is the caller's to change.
    pub(super) fn remove(&mut self, family: Subkeys, subkey: &[u8]) {
        if let Some(packed) = &mut self.members.packed {
            packed.remove(family, subkey);
            self.repacked = true;
            return;
        }
        let space = self.members.space(family);
        self.members.keys.writer().borrow_mut().delete_subkey(space, subkey);
    }

    /// Its subkeys are stored by themselves from now on.
    fn unpack(&mut self) {
        let Some(packed) = self.members.packed.take() else { return };
        let mut writer = self.members.keys.writer().borrow_mut();
        packed.each_of_all(|family, subkey, value| writer.put_subkey(self.members.space(family), subkey, value));
    }

    /// What is left to reclaim of it when it goes.
    fn left_behind(&self) -> Option<Discarded> {
        self.members.packed.is_none().then(|| Discarded { kind: self.kind, version: self.members.version() })
    }

    /// There are more members by that many.
    pub(super) fn grow(&mut self, by: u64) {
        self.members.collection.size += by;
    }

    /// There are fewer members by that many.
    pub(super) fn shrink(&mut self, by: u64) {
        self.members.collection.size = self.members.collection.size.saturating_sub(by);
    }

    /// What its record says besides.
    pub(super) fn set_extra(&mut self, extra: Vec<u8>) {
        self.members.extra = extra;
    }

    /// Goes on, without members, under another version: what is stored so far is left to be reclaimed, and returned to be copied from.
    /// Costs as much as there are members to copy, however many there were.
    pub(super) fn renew(&mut self) -> Result<Members<'e>, TypeError> {
        debug_assert!(!self.is_fresh());
        let version = self.members.keys.engine().next_version()?;
        let old = self.members.clone();
        self.replaced = self.left_behind();
        self.members.packed = fresh_packed(old.keys, self.kind);
        self.members.collection = Collection { version, size: 0 };
        self.repacked = true;
        Ok(old)
    }

    /// The key is gone, and what is stored is left to be reclaimed: however many members there are, one write.
    pub(super) fn discard(self) {
        let replaced = if self.is_fresh() { self.replaced } else { self.left_behind() };
        self.members.keys.writer().borrow_mut().delete(self.members.home, self.key, replaced);
    }

    /// Gathers the record, if it has changed. Without members the key is gone; nothing is then left to reclaim of this collection if
    /// each of its subkeys was removed, which is the caller's to have done.
    pub(super) fn finish(self) {
        self.gather(false);
    }

    /// The same of a kind that may be empty.
    pub(super) fn finish_keeping_empty(self) {
        self.gather(true);
    }

    fn gather(self, keep_empty: bool) {
        let Members { keys, home, collection, packed, extra, expires_at_ms } = self.members;
        let unchanged = match &self.recorded {
            Some((size, recorded)) => *size == collection.size && *recorded == extra && !self.repacked,
            None => collection.size == 0 && !keep_empty,
        };
        if unchanged {
            return;
        }
        let mut writer = keys.writer().borrow_mut();
        if self.expired {
            writer.note_expired(home, self.key);
        }
        if collection.size == 0 && !keep_empty {
            writer.delete(home, self.key, self.replaced);
        } else {
            let value = Record::collection_value(collection, packed.as_ref().map(Packed::bytes), &extra);
            let record = Record { kind: self.kind, expires_at_ms, packed: packed.is_some(), value: &value };
            writer.put(home, self.key, &record, self.replaced);
        }
    }
}

/// What a new collection of that kind begins with.
fn fresh_packed(keys: Keyspace<'_>, kind: Kind) -> Option<Packed> {
    (kind.packs() && keys.engine().packed_bytes_max() > 0).then(|| Packed::empty(kind))
}

fn damaged_subkeys() -> TypeError {
    EngineError::Damaged("the subkeys in a key's record are damaged".into()).into()
}

fn damaged(error: crate::engine::RecordError) -> TypeError {
    EngineError::Damaged(error.to_string()).into()
}
