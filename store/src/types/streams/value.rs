//! A stream as one value, with its groups: what DUMP writes and RESTORE reads.

use std::ops::ControlFlow;

use super::{
    EntryId, Fields, Head, Stream, StreamChange,
    bytes::put_bytes,
    groups::{Consumer, Group, Pending, consumer_key, group_key, owned_key, pending_key},
};
use crate::{
    engine::{Kind, Subkeys},
    types::keyspace::{Keyspace, TypeError},
};

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamValue {
    /// Entries in the order of their ids; fields and values in turn.
    pub entries: Vec<(EntryId, Vec<Vec<u8>>)>,
    /// The highest id ever given.
    pub last: EntryId,
    /// The highest id that was deleted.
    pub max_deleted: EntryId,
    /// How many entries were ever added.
    pub added: u64,
    /// Its groups.
    pub groups: Vec<GroupValue>,
}

/// A consumer group as one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupValue {
    /// Its name.
    pub name: Vec<u8>,
    /// The last entry that was delivered.
    pub last: EntryId,
    /// How many entries it has read; `None`: unknown.
    pub read: Option<u64>,
    /// Name, when it was last seen, and last active, of each consumer.
    pub consumers: Vec<(Vec<u8>, u64, Option<u64>)>,
    /// Id, when it was delivered last, how often, and to whom, of each pending entry.
    pub pending: Vec<(EntryId, u64, u64, Vec<u8>)>,
}

impl Stream<'_> {
    /// All of it; more than `len_max` bytes of entries are refused.
    pub fn value(&self, len_max: usize) -> Result<StreamValue, TypeError> {
        let Head { last, max_deleted, added, .. } = self.head;
        let mut value = StreamValue { last, max_deleted, added, ..StreamValue::default() };
        let mut bytes = 0;
        self.range(EntryId::MIN, EntryId::MAX, false, |id, fields: Fields<'_>| {
            let mut texts = Vec::new();
            fields.each(|text| texts.push(text.to_vec()));
            bytes += texts.iter().map(Vec::len).sum::<usize>();
            value.entries.push((id, texts));
            if bytes > len_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if bytes > len_max {
            return Err(TypeError::TooLong);
        }
        for (name, group) in self.groups()? {
            let mut copy = GroupValue { name, last: group.last, read: group.read, ..GroupValue::default() };
            for (name, consumer) in self.consumers(&group)? {
                copy.consumers.push((name, consumer.seen_ms, consumer.active_ms));
            }
            self.pending(&group, EntryId::MIN, |id, pending| {
                copy.pending.push((id, pending.delivered_ms, pending.deliveries, pending.consumer));
                ControlFlow::Continue(())
            })?;
            value.groups.push(copy);
        }
        Ok(value)
    }
}

impl StreamValue {
    /// What its record says.
    pub fn head(&self) -> Head {
        Head {
            size: self.entries.len() as u64,
            last: self.last,
            first: self.entries.first().map_or(EntryId::MIN, |(id, _)| *id),
            max_deleted: self.max_deleted,
            added: self.added,
            groups: self.groups.len() as u64,
            next_number: 0,
        }
    }
}

impl Keyspace<'_> {
    /// Gives a key this stream, whatever it held. A write an entry, and three a pending one.
    pub fn stream_replace(&self, key: &[u8], value: &StreamValue) -> Result<(), TypeError> {
        let change = self.replace_collection(key, Kind::Stream)?;
        let mut change = StreamChange { change, head: value.head() };
        for (id, texts) in &value.entries {
            let mut stored = Vec::new();
            texts.iter().for_each(|text| put_bytes(&mut stored, text));
            change.change.put(Subkeys::Stream, &id.encode(), &stored);
        }
        for group in &value.groups {
            let number = change.number();
            for (name, seen_ms, active_ms) in &group.consumers {
                let owned = group.pending.iter().filter(|(.., consumer)| consumer == name);
                let consumer = Consumer {
                    number: change.number(),
                    seen_ms: *seen_ms,
                    active_ms: *active_ms,
                    pending: owned.clone().count() as u64,
                };
                change.change.put(Subkeys::Data, &consumer_key(number, name), &consumer.encode());
                for (id, delivered_ms, deliveries, _) in owned {
                    let pending = Pending { delivered_ms: *delivered_ms, deliveries: *deliveries, consumer: name.clone() };
                    change.change.put(Subkeys::Data, &pending_key(number, *id), &pending.encode());
                    change.change.put(Subkeys::Data, &owned_key(number, consumer.number, *id), &[]);
                }
            }
            let stored = Group {
                number,
                last: group.last,
                read: group.read,
                pending: group.pending.len() as u64,
                consumers: group.consumers.len() as u64,
                top: group.pending.iter().map(|(id, ..)| *id).max().unwrap_or(EntryId::MIN),
            };
            change.change.put(Subkeys::Data, &group_key(&group.name), &stored.encode());
        }
        change.finish();
        Ok(())
    }
}
