//! What consumers do: reading as a group, acknowledging, claiming. All of it changes the group, and is executed with the key claimed.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{
    Consumer, EntryId, Fields, Group, Pending, Stream, StreamChange, damaged,
    groups::{consumer_key, group_key, owned_by, owned_key, pending_key},
};
use crate::{
    engine::Subkeys,
    types::keyspace::{Keyspace, TypeError},
};

/// There is no such stream, or no such group of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoGroup;

/// An entry as a consumer gets it.
pub enum Delivered<'b> {
    /// With its fields.
    Entry(EntryId, Fields<'b>),
    /// It is still pending, and was deleted.
    Gone(EntryId),
}

/// What XCLAIM and XAUTOCLAIM do with an entry.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Only of entries that were not delivered for so long, in milliseconds.
    pub idle_min_ms: u64,
    /// When they count as delivered.
    pub delivered_ms: u64,
    /// How often they count as delivered; `None`: once more, unless `just_id`.
    pub deliveries: Option<u64>,
    /// Also entries that are not pending.
    pub force: bool,
    /// Without a look at what is in them.
    pub just_id: bool,
    /// The last entry that counts as delivered, if it is above what it was.
    pub last: Option<EntryId>,
}

/// What became of an entry that was to be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Claimed,
    /// It was deleted, and is pending no more.
    Gone,
    Left,
}

/// What XAUTOCLAIM found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Where to go on; zero: that was all.
    pub next: EntryId,
    /// Entries that were claimed.
    pub ids: Vec<EntryId>,
    /// Entries that had been deleted, and are pending no more.
    pub gone: Vec<EntryId>,
}

/// A group of a stream that is being changed.
struct GroupChange<'e, 'k, 'n> {
    stream: StreamChange<'e, 'k>,
    name: &'n [u8],
    group: Group,
    was: Group,
    /// Consumers that were looked at, as they are now.
    consumers: BTreeMap<Vec<u8>, Consumer>,
}

impl<'e> Keyspace<'e> {
    fn group_change<'k, 'n>(&self, key: &'k [u8], name: &'n [u8]) -> Result<Option<GroupChange<'e, 'k, 'n>>, TypeError> {
        let Some(stream) = StreamChange::of_existing(*self, key)? else { return Ok(None) };
        let Some(group) = stream.stream()?.group(name)? else { return Ok(None) };
        Ok(Some(GroupChange { stream, name, group, was: group, consumers: BTreeMap::new() }))
    }

    /// XGROUP SETID: sets what a group has read.
    pub fn stream_set_group(
        &self,
        key: &[u8],
        name: &[u8],
        last: Option<EntryId>,
        read: Option<u64>,
    ) -> Result<Result<(), NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, name)? else { return Ok(Err(NoGroup)) };
        change.group.last = last.unwrap_or(change.stream.head.last);
        change.group.read = read;
        change.finish()?;
        Ok(Ok(()))
    }

    /// XGROUP CREATECONSUMER: whether the consumer is new.
    pub fn stream_create_consumer(&self, key: &[u8], group: &[u8], name: &[u8]) -> Result<Result<bool, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        let new = change.consumer(name)?.is_none();
        if new {
            change.make_consumer(name, self.now_ms());
            change.finish()?;
        }
        Ok(Ok(new))
    }

    /// XGROUP DELCONSUMER: how many entries were pending at it; `None`: there is no such consumer. Two writes for each of them.
    pub fn stream_delete_consumer(
        &self,
        key: &[u8],
        group: &[u8],
        name: &[u8],
    ) -> Result<Result<Option<u64>, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        let Some(consumer) = change.consumer(name)? else { return Ok(Ok(None)) };
        let number = change.group.number;
        for id in change.stream.stream()?.pending_at(&change.group, &consumer, EntryId::MIN, usize::MAX)? {
            change.stream.change.remove(Subkeys::Data, &pending_key(number, id));
        }
        change.stream.remove_all(&owned_by(number, Some(consumer.number)))?;
        change.stream.change.remove(Subkeys::Data, &consumer_key(number, name));
        change.consumers.remove(name);
        change.group.consumers = change.group.consumers.saturating_sub(1);
        change.group.pending = change.group.pending.saturating_sub(consumer.pending);
        change.finish()?;
        Ok(Ok(Some(consumer.pending)))
    }

    /// A consumer comes to a group: it is made if there is none, and was seen now. Whether it is new.
    pub fn stream_see_consumer(&self, key: &[u8], group: &[u8], name: &[u8]) -> Result<Result<bool, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        let new = change.see(name, self.now_ms())?;
        change.finish()?;
        Ok(Ok(new))
    }

    /// XREADGROUP with `>`: delivers up to `count` entries behind the last one that was delivered (0: all), which are pending at the consumer
    /// from then on, unless `no_ack`. A step of a scan and two writes an entry.
    pub fn stream_deliver(
        &self,
        key: &[u8],
        group: &[u8],
        name: &[u8],
        (count, no_ack): (u64, bool),
        mut each: impl FnMut(Delivered<'_>) -> ControlFlow<()>,
    ) -> Result<Result<u64, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        let (stream, mut delivered) = (change.stream.stream()?, 0);
        let Some(from) = change.group.last.next() else { return Ok(Ok(0)) };
        change.see(name, self.now_ms())?;
        let mut outcome = Ok(());
        stream.range(from, EntryId::MAX, false, |id, fields| {
            if count > 0 && delivered >= count {
                return ControlFlow::Break(());
            }
            let head = change.stream.head;
            change.group.read = head.entries_read(change.group.read, change.group.last, id);
            change.group.last = id;
            delivered += 1;
            if !no_ack {
                let pending = Pending { delivered_ms: self.now_ms(), deliveries: 1, consumer: name.to_vec() };
                outcome = change.put_pending(id, &pending);
            }
            if outcome.is_err() { ControlFlow::Break(()) } else { each(Delivered::Entry(id, fields)) }
        })?;
        outcome?;
        if delivered > 0 {
            change.active(name, self.now_ms());
        }
        change.finish()?;
        Ok(Ok(delivered))
    }

    /// XREADGROUP with an id: what is pending at the consumer behind it, up to `count` entries (0: all); each counts as delivered once more.
    /// A step of a scan, two point reads and a write an entry.
    pub fn stream_deliver_again(
        &self,
        key: &[u8],
        group: &[u8],
        name: &[u8],
        (after, count): (EntryId, u64),
        mut each: impl FnMut(Delivered<'_>) -> ControlFlow<()>,
    ) -> Result<Result<u64, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        change.see(name, self.now_ms())?;
        let (stream, group) = (change.stream.stream()?, change.group);
        let (Some(from), Some(consumer)) = (after.next(), change.consumer(name)?) else {
            change.finish()?;
            return Ok(Ok(0));
        };
        let most = if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
        let ids = stream.pending_at(&group, &consumer, from, most)?;
        for id in &ids {
            let mut flow = ControlFlow::Continue(());
            let there = stream.entry(*id, |fields| {
                flow = each(fields.map_or(Delivered::Gone(*id), |fields| Delivered::Entry(*id, fields)));
                fields.is_some()
            })?;
            if there {
                let mut pending = stream.pending_entry(&group, *id)?.ok_or_else(damaged)?;
                pending.delivered_ms = self.now_ms();
                pending.deliveries += 1;
                change.stream.change.put(Subkeys::Data, &pending_key(group.number, *id), &pending.encode());
            }
            if flow.is_break() {
                break;
            }
        }
        if !ids.is_empty() {
            change.active(name, self.now_ms());
        }
        change.finish()?;
        Ok(Ok(ids.len() as u64))
    }

    /// XACK: how many of those entries were pending. Two point reads and three writes an entry.
    pub fn stream_acknowledge(&self, key: &[u8], group: &[u8], ids: &[EntryId]) -> Result<u64, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(0) };
        let mut acknowledged = 0;
        for id in ids {
            if let Some(pending) = change.stream.stream()?.pending_entry(&change.group, *id)? {
                change.remove_pending(*id, &pending)?;
                acknowledged += 1;
            }
        }
        if acknowledged > 0 {
            change.finish()?;
        }
        Ok(acknowledged)
    }

    /// XCLAIM: gives entries to a consumer; `each` hears of those that were. The consumer is made if there is none.
    pub fn stream_claim(
        &self,
        key: &[u8],
        group: &[u8],
        name: &[u8],
        ids: &[EntryId],
        claim: &Claim,
        mut each: impl FnMut(EntryId, Option<Fields<'_>>),
    ) -> Result<Result<u64, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        if let Some(last) = claim.last {
            change.group.last = change.group.last.max(last);
        }
        change.see(name, self.now_ms())?;
        let mut claimed = 0;
        for id in ids {
            let pending = change.stream.stream()?.pending_entry(&change.group, *id)?;
            if change.claim(*id, pending, name, claim, self.now_ms())? == Outcome::Claimed {
                claimed += 1;
                let stream = change.stream.stream()?;
                if claim.just_id {
                    each(*id, None);
                } else {
                    stream.entry(*id, |fields| each(*id, fields))?;
                }
            }
        }
        if claimed > 0 {
            change.active(name, self.now_ms());
        }
        change.finish()?;
        Ok(Ok(claimed))
    }

    /// XAUTOCLAIM: looks at up to ten times `count` pending entries from an id on, and gives up to `count` of them to a consumer.
    pub fn stream_claim_idle(
        &self,
        key: &[u8],
        group: &[u8],
        name: &[u8],
        (from, count): (EntryId, u64),
        claim: &Claim,
    ) -> Result<Result<Claimed, NoGroup>, TypeError> {
        let Some(mut change) = self.group_change(key, group)? else { return Ok(Err(NoGroup)) };
        change.see(name, self.now_ms())?;
        let (stream, group) = (change.stream.stream()?, change.group);
        let (mut claimed, mut looks, mut left) = (Claimed::default(), count.saturating_mul(10), count);
        let mut outcome = Ok(());
        stream.pending(&group, from, |id, pending| {
            if looks == 0 || left == 0 {
                claimed.next = id;
                return ControlFlow::Break(());
            }
            looks -= 1;
            match change.claim(id, Some(pending), name, claim, self.now_ms()) {
                Ok(Outcome::Claimed) => claimed.ids.push(id),
                Ok(Outcome::Gone) => claimed.gone.push(id),
                Ok(Outcome::Left) => return ControlFlow::Continue(()),
                Err(error) => {
                    outcome = Err(error);
                    return ControlFlow::Break(());
                }
            }
            left -= 1;
            ControlFlow::Continue(())
        })?;
        outcome?;
        if !claimed.ids.is_empty() {
            change.active(name, self.now_ms());
        }
        change.finish()?;
        Ok(Ok(claimed))
    }
}

impl GroupChange<'_, '_, '_> {
    /// A consumer as it is so far.
    fn consumer(&mut self, name: &[u8]) -> Result<Option<Consumer>, TypeError> {
        if let Some(consumer) = self.consumers.get(name) {
            return Ok(Some(*consumer));
        }
        let found = self.stream.stream()?.consumer(&self.group, name)?;
        if let Some(consumer) = found {
            self.consumers.insert(name.to_vec(), consumer);
        }
        Ok(found)
    }

    fn make_consumer(&mut self, name: &[u8], now_ms: u64) {
        let consumer = Consumer { number: self.stream.number(), seen_ms: now_ms, active_ms: None, pending: 0 };
        self.consumers.insert(name.to_vec(), consumer);
        self.group.consumers += 1;
    }

    /// The consumer was seen now, and is made if there is none. Whether it is new.
    fn see(&mut self, name: &[u8], now_ms: u64) -> Result<bool, TypeError> {
        let new = self.consumer(name)?.is_none();
        if new {
            self.make_consumer(name, now_ms);
        }
        self.change_consumer(name, |consumer| consumer.seen_ms = now_ms);
        Ok(new)
    }

    fn active(&mut self, name: &[u8], now_ms: u64) {
        self.change_consumer(name, |consumer| consumer.active_ms = Some(now_ms));
    }

    fn change_consumer(&mut self, name: &[u8], change: impl FnOnce(&mut Consumer)) {
        if let Some(consumer) = self.consumers.get_mut(name) {
            change(consumer);
        }
    }

    /// An entry is pending at the consumer that `pending` names, whoever it was pending at.
    fn put_pending(&mut self, id: EntryId, pending: &Pending) -> Result<(), TypeError> {
        // Above the highest that ever was there is nothing to look for.
        if id <= self.group.top
            && let Some(before) = self.stream.stream()?.pending_entry(&self.group, id)?
        {
            self.remove_pending(id, &before)?;
        }
        let consumer = self.consumer(&pending.consumer)?.ok_or_else(damaged)?;
        let number = self.group.number;
        self.stream.change.put(Subkeys::Data, &pending_key(number, id), &pending.encode());
        self.stream.change.put(Subkeys::Data, &owned_key(number, consumer.number, id), &[]);
        self.change_consumer(&pending.consumer, |consumer| consumer.pending += 1);
        self.group.pending += 1;
        self.group.top = self.group.top.max(id);
        Ok(())
    }

    /// An entry is pending no more.
    fn remove_pending(&mut self, id: EntryId, pending: &Pending) -> Result<(), TypeError> {
        let number = self.group.number;
        self.stream.change.remove(Subkeys::Data, &pending_key(number, id));
        if let Some(consumer) = self.consumer(&pending.consumer)? {
            self.stream.change.remove(Subkeys::Data, &owned_key(number, consumer.number, id));
            self.change_consumer(&pending.consumer, |consumer| consumer.pending = consumer.pending.saturating_sub(1));
        }
        self.group.pending = self.group.pending.saturating_sub(1);
        Ok(())
    }

    fn claim(
        &mut self,
        id: EntryId,
        pending: Option<Pending>,
        name: &[u8],
        claim: &Claim,
        now_ms: u64,
    ) -> Result<Outcome, TypeError> {
        let there = self.stream.change.has(Subkeys::Stream, &id.encode())?;
        match &pending {
            Some(pending) if !there => {
                self.remove_pending(id, pending)?;
                return Ok(Outcome::Gone);
            }
            None if !there || !claim.force => return Ok(Outcome::Left),
            Some(pending) if now_ms.saturating_sub(pending.delivered_ms) < claim.idle_min_ms => return Ok(Outcome::Left),
            _ => {}
        }
        let before = pending.as_ref().map_or(0, |pending| pending.deliveries);
        let deliveries = claim.deliveries.unwrap_or(if claim.just_id { before } else { before + 1 });
        if let Some(pending) = &pending {
            self.remove_pending(id, pending)?;
        }
        let pending = Pending { delivered_ms: claim.delivered_ms, deliveries, consumer: name.to_vec() };
        self.put_pending(id, &pending)?;
        Ok(Outcome::Claimed)
    }

    /// Gathers the group, its consumers, and the record, as far as they have changed.
    fn finish(mut self) -> Result<(), TypeError> {
        let number = self.group.number;
        for (name, consumer) in &self.consumers {
            self.stream.change.put(Subkeys::Data, &consumer_key(number, name), &consumer.encode());
        }
        if self.group != self.was {
            self.stream.change.put(Subkeys::Data, &group_key(self.name), &self.group.encode());
        }
        self.stream.finish();
        Ok(())
    }
}

impl Stream<'_> {
    /// Whether a group has entries to read that were not delivered to any of its consumers. One seek at most.
    pub fn has_new_for(&self, group: &Group) -> Result<bool, TypeError> {
        if self.head.size == 0 || self.head.last <= group.last {
            return Ok(false);
        }
        Ok(self.last_entry()?.is_some_and(|last| last > group.last))
    }
}
