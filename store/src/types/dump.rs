//! DUMP: a key in Redis' serialized form, of the plain encodings that Redis reads in every version since 7.0.

use std::ops::ControlFlow;

use super::{
    keyspace::{Keyspace, TypeError},
    payload::{seal, write_length, write_text},
    restore::{kinds, packed::ListpackWriter},
    streams::{EntryId, StreamValue},
};
use crate::engine::{EngineError, Kind, Span, Subkeys};

/// Entries of a stream in one node.
const NODE_ENTRIES: usize = 100;

impl Keyspace<'_> {
    /// The payload of a key; `None` when there is none. Costs a step of a scan an element; the payload is held in memory, and one of more
    /// than `len_max` bytes is refused.
    pub fn dump(&self, key: &[u8], len_max: usize) -> Result<Option<Vec<u8>>, TypeError> {
        let Some(stored) = self.live(key)? else { return Ok(None) };
        let record = stored.record()?;
        let mut bytes = Vec::new();
        let too_long = |bytes: &Vec<u8>| bytes.len() > len_max;
        let flow = |bytes: &Vec<u8>| if too_long(bytes) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        match record.kind {
            Kind::String => {
                bytes.push(kinds::STRING);
                write_text(&mut bytes, record.value);
            }
            Kind::List | Kind::Set => {
                bytes.push(if record.kind == Kind::List { kinds::LIST } else { kinds::SET });
                let members = self.there(key, record.kind)?;
                write_length(&mut bytes, members.size());
                members.each(Subkeys::Data, Span::ALL, |member, value| {
                    write_text(&mut bytes, if record.kind == Kind::List { value } else { member });
                    flow(&bytes)
                })?;
            }
            Kind::SortedSet => {
                bytes.push(kinds::SORTED_SET);
                let Some(set) = self.sorted_set(key)? else { return Ok(None) };
                write_length(&mut bytes, set.size());
                set.each_member(None, |member, score| {
                    write_text(&mut bytes, member);
                    bytes.extend_from_slice(&score.to_le_bytes());
                    flow(&bytes)
                })?;
            }
            Kind::Hash => self.dump_hash(key, &mut bytes, flow)?,
            Kind::Stream => {
                let Some(stream) = self.stream(key)? else { return Ok(None) };
                dump_stream(&stream.value(len_max)?, &mut bytes);
            }
        }
        if too_long(&bytes) {
            return Err(TypeError::TooLong);
        }
        Ok(Some(seal(bytes)))
    }

    fn there(&self, key: &[u8], kind: Kind) -> Result<super::collection::Members<'_>, TypeError> {
        let members = self.members(key, kind)?;
        members.ok_or_else(|| EngineError::Damaged("a key went while it was read".into()).into())
    }

    fn dump_hash(&self, key: &[u8], bytes: &mut Vec<u8>, flow: impl Fn(&Vec<u8>) -> ControlFlow<()>) -> Result<(), TypeError> {
        let Some(hash) = self.hash(key)? else { return Ok(()) };
        let earliest = hash.members().earliest_ms();
        bytes.push(if earliest.is_some() { kinds::HASH_EXPIRING } else { kinds::HASH });
        bytes.extend(earliest.iter().flat_map(|at| at.to_le_bytes()));
        write_length(bytes, hash.size()?);
        let mut failed = None;
        hash.each(None, |field, value| {
            if let Some(earliest) = earliest {
                match hash.members().field_expires_at(field) {
                    Ok(at) => write_length(bytes, at.map_or(0, |at| at.saturating_sub(earliest) + 1)),
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            write_text(bytes, field);
            write_text(bytes, value);
            flow(bytes)
        })?;
        failed.map_or(Ok(()), Err)
    }
}

fn write_id(bytes: &mut Vec<u8>, id: EntryId) {
    write_length(bytes, id.ms);
    write_length(bytes, id.sequence);
}

fn raw_id(id: EntryId) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&id.ms.to_be_bytes());
    raw[8..].copy_from_slice(&id.sequence.to_be_bytes());
    raw
}

fn dump_stream(value: &StreamValue, bytes: &mut Vec<u8>) {
    bytes.push(kinds::STREAM_2);
    write_length(bytes, value.entries.len().div_ceil(NODE_ENTRIES) as u64);
    for node in value.entries.chunks(NODE_ENTRIES) {
        let first = node[0].0;
        write_text(bytes, &raw_id(first));
        let mut packed = ListpackWriter::new();
        // Entries, deleted ones, and no fields that they share.
        [node.len() as i64, 0, 0, 0].into_iter().for_each(|number| packed.number(number));
        for (id, texts) in node {
            packed.number(0);
            packed.number(id.ms.wrapping_sub(first.ms) as i64);
            packed.number(id.sequence.wrapping_sub(first.sequence) as i64);
            packed.number(texts.len() as i64 / 2);
            texts.iter().for_each(|text| packed.text(text));
            // How many elements the entry has, for who reads backwards.
            packed.number(texts.len() as i64 + 4);
        }
        write_text(bytes, &packed.finish());
    }
    write_length(bytes, value.entries.len() as u64);
    write_id(bytes, value.last);
    write_id(bytes, value.entries.first().map_or(EntryId::MIN, |(id, _)| *id));
    write_id(bytes, value.max_deleted);
    write_length(bytes, value.added);
    write_length(bytes, value.groups.len() as u64);
    for group in &value.groups {
        write_text(bytes, &group.name);
        write_id(bytes, group.last);
        write_length(bytes, group.read.unwrap_or(u64::MAX));
        write_length(bytes, group.pending.len() as u64);
        for (id, delivered_ms, deliveries, _) in &group.pending {
            bytes.extend_from_slice(&raw_id(*id));
            bytes.extend_from_slice(&delivered_ms.to_le_bytes());
            write_length(bytes, *deliveries);
        }
        write_length(bytes, group.consumers.len() as u64);
        for (name, seen_ms, _) in &group.consumers {
            write_text(bytes, name);
            bytes.extend_from_slice(&seen_ms.to_le_bytes());
            let owned = || group.pending.iter().filter(|(.., consumer)| consumer == name);
            write_length(bytes, owned().count() as u64);
            owned().for_each(|(id, ..)| bytes.extend_from_slice(&raw_id(*id)));
        }
    }
}
