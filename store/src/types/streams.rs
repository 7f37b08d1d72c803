//! Streams: each entry is a subkey in the `stream` family under its id, groups and what is pending in them are subkeys in the `data` family.
//! The record says the ids at both ends and what was ever added, so that an entry is added without a look at the others.
//!
//! A stream may be without entries: it stays until it is deleted.

pub(super) mod bytes;
mod delivery;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod groups;
mod head;
mod id;
mod value;

use std::ops::{Bound, ControlFlow};

pub use bytes::Fields;
pub use delivery::{Claim, Claimed, Delivered, NoGroup};
pub use groups::{Consumer, Group, Pending};
pub use head::Head;
pub use id::EntryId;
pub(super) use value::{GroupValue, StreamValue};

use super::{
    collection::{Members, MembersChange},
    keyspace::{Keyspace, TypeError},
};
use crate::engine::{EngineError, Kind, Span, Subkeys};
use bytes::put_bytes;
use groups::{GROUP, behind, consumers_of, group_key, owned_by, pending_of};

/// A stream that is there.
pub struct Stream<'e> {
    members: Members<'e>,
    /// What its record says.
    pub head: Head,
}

/// Which id XADD gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// `*`: of now.
    Auto,
    /// `ms-*`: the next of that millisecond.
    InMillisecond(u64),
    /// That one.
    Exact(EntryId),
}

/// What XADD and XTRIM leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Up to where entries go.
    pub to: TrimTo,
    /// `~`: entries go together that are so many in the order in which they were added; `None`: exactly.
    pub by: Option<u64>,
    /// At most so many go; 0: no limit.
    pub limit: u64,
}

/// Up to where entries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// Until so many are left.
    Length(u64),
    /// Those before that id.
    Id(EntryId),
}

/// Why an entry is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// There is no stream, and none was to be made.
    NoStream,
    /// The id is not above the last one.
    NotAbove,
    /// The last id is the highest there is.
    Exhausted,
}

impl<'e> Keyspace<'e> {
    /// The stream of that key; `None` when there is no such key. At most one point read.
    pub fn stream(&self, key: &[u8]) -> Result<Option<Stream<'e>>, TypeError> {
        self.members(key, Kind::Stream)?.map(Stream::of).transpose()
    }

    /// XADD: adds an entry of those fields and values, and trims; the entry's id, and how many went. One point read, two writes, and one write
    /// for each entry that goes.
    pub fn stream_add<'v>(
        &self,
        key: &[u8],
        id: NewId,
        texts: impl Iterator<Item = &'v [u8]>,
        make: bool,
        trim: Option<Trim>,
    ) -> Result<Result<(EntryId, u64), NotAdded>, TypeError> {
        let mut change = StreamChange::begin(*self, key)?;
        if change.is_fresh() && !make {
            return Ok(Err(NotAdded::NoStream));
        }
        let head = change.head;
        if head.last == EntryId::MAX {
            return Ok(Err(NotAdded::Exhausted));
        }
        let new = match id {
            NewId::Auto if self.now_ms() > head.last.ms => Some(EntryId { ms: self.now_ms(), sequence: 0 }),
            NewId::Auto => head.last.next(),
            NewId::InMillisecond(ms) if ms == head.last.ms => {
                head.last.sequence.checked_add(1).map(|sequence| EntryId { ms, sequence })
            }
            NewId::InMillisecond(ms) => Some(EntryId { ms, sequence: 0 }),
            NewId::Exact(id) => Some(id),
        };
        let Some(new) = new.filter(|new| *new > head.last) else { return Ok(Err(NotAdded::NotAbove)) };
        let mut value = Vec::new();
        texts.for_each(|text| put_bytes(&mut value, text));
        change.change.put(Subkeys::Stream, &new.encode(), &value);
        change.head.last = new;
        change.head.added += 1;
        change.head.size += 1;
        if change.head.size == 1 {
            change.head.first = new;
        }
        let gone = trim.map_or(Ok(0), |trim| change.trim(trim))?;
        change.finish();
        Ok(Ok((new, gone)))
    }

    /// XTRIM: how many entries went. One step of a scan and one write for each of them.
    pub fn stream_trim(&self, key: &[u8], trim: Trim) -> Result<u64, TypeError> {
        let Some(mut change) = StreamChange::of_existing(*self, key)? else { return Ok(0) };
        let gone = change.trim(trim)?;
        if gone > 0 {
            change.finish();
        }
        Ok(gone)
    }

    /// XDEL: how many of those entries there were. One point read and one write an entry.
    pub fn stream_delete(&self, key: &[u8], ids: &[EntryId]) -> Result<u64, TypeError> {
        let Some(mut change) = StreamChange::of_existing(*self, key)? else { return Ok(0) };
        let (mut deleted, mut first_gone) = (0, false);
        for id in ids {
            if change.change.has(Subkeys::Stream, &id.encode())? {
                change.change.remove(Subkeys::Stream, &id.encode());
                first_gone |= *id == change.head.first;
                change.head.max_deleted = change.head.max_deleted.max(*id);
                change.head.size = change.head.size.saturating_sub(1);
                deleted += 1;
            }
        }
        if first_gone {
            change.find_first()?;
        }
        if deleted > 0 {
            change.finish();
        }
        Ok(deleted)
    }

    /// XSETID: sets what the record says; the caller has checked it against what it said.
    pub fn stream_set(&self, key: &[u8], set: impl FnOnce(&mut Head)) -> Result<(), TypeError> {
        if let Some(mut change) = StreamChange::of_existing(*self, key)? {
            set(&mut change.head);
            change.finish();
        }
        Ok(())
    }

    /// XGROUP CREATE: makes a group, and with `make` the stream; false when there is such a group, `None` when there is no stream. `last`: the
    /// last entry that counts as delivered; `None`: the last one there is.
    pub fn stream_create_group(
        &self,
        key: &[u8],
        name: &[u8],
        last: Option<EntryId>,
        read: Option<u64>,
        make: bool,
    ) -> Result<Option<bool>, TypeError> {
        let mut change = StreamChange::begin(*self, key)?;
        if change.is_fresh() && !make {
            return Ok(None);
        }
        if change.change.has(Subkeys::Data, &group_key(name))? {
            return Ok(Some(false));
        }
        let number = change.number();
        let last = last.unwrap_or(change.head.last);
        let group = Group { number, last, read, pending: 0, consumers: 0, top: EntryId::MIN };
        change.change.put(Subkeys::Data, &group_key(name), &group.encode());
        change.head.groups += 1;
        change.finish();
        Ok(Some(true))
    }

    /// XGROUP DESTROY: whether there was such a group. One write for each consumer and two for each pending entry.
    pub fn stream_destroy_group(&self, key: &[u8], name: &[u8]) -> Result<bool, TypeError> {
        let Some(mut change) = StreamChange::of_existing(*self, key)? else { return Ok(false) };
        let Some(group) = change.stream()?.group(name)? else { return Ok(false) };
        for prefix in [consumers_of(group.number), pending_of(group.number), owned_by(group.number, None)] {
            change.remove_all(&prefix)?;
        }
        change.change.remove(Subkeys::Data, &group_key(name));
        change.head.groups = change.head.groups.saturating_sub(1);
        change.finish();
        Ok(true)
    }
}

impl<'e> Stream<'e> {
    fn of(members: Members<'e>) -> Result<Self, TypeError> {
        let head = Head::decode(members.size(), members.extra()).ok_or_else(damaged)?;
        Ok(Self { members, head })
    }

    /// Calls `each` for the entries between two ids, both included, in order or backwards; until it breaks. One seek, and a step an entry.
    pub fn range(
        &self,
        from: EntryId,
        to: EntryId,
        reverse: bool,
        mut each: impl FnMut(EntryId, Fields<'_>) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        // Nothing is before the first entry but what was deleted.
        let from = from.max(self.head.first);
        if self.head.size == 0 || from > to {
            return Ok(());
        }
        let (from, to) = (from.encode(), to.encode());
        let span = Span { from: Bound::Included(&from), to: Bound::Included(&to), reverse };
        let mut damage = false;
        self.members.each(Subkeys::Stream, span, |id, value| match EntryId::decode(id) {
            Some(id) => each(id, Fields(value)),
            None => {
                damage = true;
                ControlFlow::Break(())
            }
        })?;
        if damage { Err(damaged()) } else { Ok(()) }
    }

    /// Calls `with` with an entry's fields; `None` when there is no such entry. One point read.
    pub fn entry<R>(&self, id: EntryId, with: impl FnOnce(Option<Fields<'_>>) -> R) -> Result<R, TypeError> {
        self.members.get(Subkeys::Stream, &id.encode(), |value| with(value.map(Fields)))
    }

    /// The last entry's id; `None`: there is no entry. One point read, and a seek where the last one that was added is gone.
    pub fn last_entry(&self) -> Result<Option<EntryId>, TypeError> {
        if self.head.size == 0 {
            return Ok(None);
        }
        if self.entry(self.head.last, |fields| fields.is_some())? {
            return Ok(Some(self.head.last));
        }
        let mut found = None;
        self.range(EntryId::MIN, EntryId::MAX, true, |id, _| {
            found = Some(id);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// A group; `None`: there is no such group. One point read.
    pub fn group(&self, name: &[u8]) -> Result<Option<Group>, TypeError> {
        let stored = self.members.get(Subkeys::Data, &group_key(name), |value| value.map(Group::decode))?;
        stored.map(|group| group.ok_or_else(damaged)).transpose()
    }

    /// Every group and its name, in the order of the names.
    pub fn groups(&self) -> Result<Vec<(Vec<u8>, Group)>, TypeError> {
        self.named(&[GROUP], Group::decode)
    }

    /// A consumer of a group; `None`: there is no such consumer. One point read.
    pub fn consumer(&self, group: &Group, name: &[u8]) -> Result<Option<Consumer>, TypeError> {
        let key = groups::consumer_key(group.number, name);
        let stored = self.members.get(Subkeys::Data, &key, |value| value.map(Consumer::decode))?;
        stored.map(|consumer| consumer.ok_or_else(damaged)).transpose()
    }

    /// Every consumer of a group and its name, in the order of the names.
    pub fn consumers(&self, group: &Group) -> Result<Vec<(Vec<u8>, Consumer)>, TypeError> {
        self.named(&consumers_of(group.number), Consumer::decode)
    }

    fn named<T>(&self, prefix: &[u8], decode: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<(Vec<u8>, T)>, TypeError> {
        let (mut all, mut damage) = (Vec::new(), false);
        self.under(prefix, prefix, |key, value| {
            match decode(value) {
                Some(one) => all.push((key.to_vec(), one)),
                None => damage = true,
            }
            ControlFlow::Continue(())
        })?;
        if damage { Err(damaged()) } else { Ok(all) }
    }

    /// Calls `each` for the keys that begin so, without that beginning, from `from` on.
    fn under(&self, prefix: &[u8], from: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), TypeError> {
        let end = behind(prefix);
        let span = Span { from: Bound::Included(from), to: Bound::Excluded(&end), reverse: false };
        self.members.each(Subkeys::Data, span, |key, value| each(&key[prefix.len()..], value))
    }

    /// A pending entry of a group. One point read.
    pub fn pending_entry(&self, group: &Group, id: EntryId) -> Result<Option<Pending>, TypeError> {
        let key = groups::pending_key(group.number, id);
        let stored = self.members.get(Subkeys::Data, &key, |value| value.map(Pending::decode))?;
        stored.map(|pending| pending.ok_or_else(damaged)).transpose()
    }

    /// Calls `each` for the pending entries of a group from an id on, until it breaks. A step an entry.
    pub fn pending(
        &self,
        group: &Group,
        from: EntryId,
        mut each: impl FnMut(EntryId, Pending) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        // Not over all that was acknowledged and is still to be compacted away.
        if group.pending == 0 {
            return Ok(());
        }
        let mut damage = false;
        self.under(&pending_of(group.number), &groups::pending_key(group.number, from), |id, value| {
            match (EntryId::decode(id), Pending::decode(value)) {
                (Some(id), Some(pending)) => each(id, pending),
                _ => {
                    damage = true;
                    ControlFlow::Break(())
                }
            }
        })?;
        if damage { Err(damaged()) } else { Ok(()) }
    }

    /// The id of the last pending entry of a group. One seek.
    pub fn last_pending(&self, group: &Group) -> Result<Option<EntryId>, TypeError> {
        if group.pending == 0 {
            return Ok(None);
        }
        let (prefix, mut found) = (pending_of(group.number), None);
        let end = behind(&prefix);
        let span = Span { from: Bound::Included(&prefix), to: Bound::Excluded(&end), reverse: true };
        self.members.each(Subkeys::Data, span, |key, _| {
            found = EntryId::decode(&key[prefix.len()..]);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Ids of the entries that are pending at a consumer, from an id on, at most `count` of them.
    pub fn pending_at(&self, group: &Group, consumer: &Consumer, from: EntryId, count: usize) -> Result<Vec<EntryId>, TypeError> {
        if consumer.pending == 0 {
            return Ok(Vec::new());
        }
        let (prefix, mut ids) = (owned_by(group.number, Some(consumer.number)), Vec::new());
        self.under(&prefix, &groups::owned_key(group.number, consumer.number, from), |id, _| {
            if ids.len() >= count {
                return ControlFlow::Break(());
            }
            ids.extend(EntryId::decode(id));
            ControlFlow::Continue(())
        })?;
        Ok(ids)
    }
}

/// A stream that is being changed: its key is claimed.
struct StreamChange<'e, 'k> {
    change: MembersChange<'e, 'k>,
    head: Head,
}

impl<'e, 'k> StreamChange<'e, 'k> {
    /// The stream of that key, or a new one. One point read.
    fn begin(keys: Keyspace<'e>, key: &'k [u8]) -> Result<Self, TypeError> {
        let change = MembersChange::begin(keys, key, Kind::Stream)?;
        let head = if change.is_fresh() { Head::default() } else { Stream::of(change.members().clone())?.head };
        Ok(Self { change, head })
    }

    /// The same; `None` when there is no stream.
    fn of_existing(keys: Keyspace<'e>, key: &'k [u8]) -> Result<Option<Self>, TypeError> {
        Ok(Some(Self::begin(keys, key)?).filter(|change| !change.is_fresh()))
    }

    fn is_fresh(&self) -> bool {
        self.change.is_fresh()
    }

    /// The stream as it is so far.
    fn stream(&self) -> Result<Stream<'e>, TypeError> {
        Ok(Stream { members: self.change.members().clone(), head: self.head })
    }

    /// A number for a group or a consumer.
    fn number(&mut self) -> u64 {
        let number = self.head.next_number;
        self.head.next_number += 1;
        number
    }

    /// Deletes every subkey beside the entries that begins so.
    fn remove_all(&mut self, prefix: &[u8]) -> Result<(), TypeError> {
        let stream = self.stream()?;
        stream.under(prefix, prefix, |rest, _| {
            self.change.remove(Subkeys::Data, &[prefix, rest].concat());
            ControlFlow::Continue(())
        })
    }

    /// Deletes entries from the first on; how many.
    fn trim(&mut self, trim: Trim) -> Result<u64, TypeError> {
        let most = match trim.to {
            TrimTo::Length(length) => self.head.size.saturating_sub(length),
            TrimTo::Id(_) => self.head.size,
        };
        let limit = if trim.limit == 0 { u64::MAX } else { trim.limit };
        // Entries go together that were added together; where nothing is to stay, those that are not so many yet as well.
        let (size, before) = (self.head.size, self.head.added.saturating_sub(self.head.size));
        let whole = |count: u64| match trim.by {
            Some(by) if count < size || count > limit => {
                let most = count.min(limit);
                most.saturating_sub((before + most) % by.max(1))
            }
            _ => count,
        };
        let most = whole(most);
        if most == 0 {
            return Ok(0);
        }
        let (stream, mut ids, mut next) = (self.stream()?, Vec::new(), None);
        stream.range(EntryId::MIN, EntryId::MAX, false, |id, _| {
            let ends = ids.len() as u64 >= most || matches!(trim.to, TrimTo::Id(to) if id >= to);
            if ends {
                next = Some(id);
                return ControlFlow::Break(());
            }
            ids.push(id);
            ControlFlow::Continue(())
        })?;
        let gone = whole(ids.len() as u64);
        let next = ids.get(gone as usize).copied().or(next);
        ids.iter().take(gone as usize).for_each(|id| self.change.remove(Subkeys::Stream, &id.encode()));
        self.head.size = self.head.size.saturating_sub(gone);
        self.head.first = if self.head.size == 0 { EntryId::MIN } else { next.unwrap_or(self.head.first) };
        Ok(gone)
    }

    /// The first entry was deleted: which one is it now?
    fn find_first(&mut self) -> Result<(), TypeError> {
        let mut first = EntryId::MIN;
        if self.head.size > 0 {
            self.stream()?.range(EntryId::MIN, EntryId::MAX, false, |id, _| {
                first = id;
                ControlFlow::Break(())
            })?;
        }
        self.head.first = first;
        Ok(())
    }

    /// Gathers the record, with or without entries.
    fn finish(mut self) {
        let (was, now) = (self.change.members().size(), self.head.size);
        if now > was {
            self.change.grow(now - was);
        } else {
            self.change.shrink(was - now);
        }
        self.change.set_extra(self.head.encode());
        self.change.finish_keeping_empty();
    }
}

fn damaged() -> TypeError {
    EngineError::Damaged("what is stored of a stream is not what streams store".into()).into()
}
