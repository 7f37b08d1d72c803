//! RESTORE: a key from Redis' serialized form, of whatever version up to 7.4 and in whatever of its encodings.

pub(super) mod packed;

use std::collections::{BTreeMap, HashSet};

use super::{
    collection::MembersChange,
    field_expiry::FIELD_EXPIRY_MS_MAX,
    keyspace::{Keyspace, TypeError},
    payload::{PayloadReader, open},
    streams::{EntryId, StreamValue},
    strings::SetOptions,
};
use crate::engine::{Kind, Subkeys};

/// Type bytes of Redis' form (`rdb.h`).
pub(super) mod kinds {
    pub(in crate::types) const STRING: u8 = 0;
    pub(in crate::types) const LIST: u8 = 1;
    pub(in crate::types) const SET: u8 = 2;
    pub(in crate::types) const SORTED_SET_TEXT: u8 = 3;
    pub(in crate::types) const HASH: u8 = 4;
    pub(in crate::types) const SORTED_SET: u8 = 5;
    pub(in crate::types) const LIST_ZIPLIST: u8 = 10;
    pub(in crate::types) const SET_INTEGERS: u8 = 11;
    pub(in crate::types) const SORTED_SET_ZIPLIST: u8 = 12;
    pub(in crate::types) const HASH_ZIPLIST: u8 = 13;
    pub(in crate::types) const LIST_ZIPLISTS: u8 = 14;
    pub(in crate::types) const STREAM_1: u8 = 15;
    pub(in crate::types) const HASH_LISTPACK: u8 = 16;
    pub(in crate::types) const SORTED_SET_LISTPACK: u8 = 17;
    pub(in crate::types) const LIST_LISTPACKS: u8 = 18;
    pub(in crate::types) const STREAM_2: u8 = 19;
    pub(in crate::types) const SET_LISTPACK: u8 = 20;
    pub(in crate::types) const STREAM_3: u8 = 21;
    pub(in crate::types) const HASH_EXPIRING: u8 = 24;
    pub(in crate::types) const HASH_EXPIRING_LISTPACK: u8 = 25;
}

/// A value that was read whole: nothing is changed before.
enum Value {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(Vec<Vec<u8>>),
    SortedSet(Vec<(Vec<u8>, f64)>),
    /// Fields, values, and when they expire.
    Hash(Vec<(Vec<u8>, Vec<u8>, Option<u64>)>),
    Stream(Box<StreamValue>),
}

impl Keyspace<'_> {
    /// Gives a key what a payload says, whatever it held, until `expires_at_ms`; a time that has passed leaves no key. Costs a write an
    /// element; the value is held in memory.
    pub fn restore(&self, key: &[u8], payload: &[u8], expires_at_ms: Option<u64>) -> Result<(), TypeError> {
        let body = open(payload).ok_or(TypeError::WrongPayload)?;
        let mut reader = PayloadReader::new(body);
        let value = read(&mut reader).filter(|_| reader.is_empty()).ok_or(TypeError::DamagedPayload)?;
        self.store(key, value)?;
        if let Some(at_ms) = expires_at_ms {
            self.expire_at(key, i64::try_from(at_ms).unwrap_or(i64::MAX), super::ExpireCondition::default())?;
        }
        Ok(())
    }

    fn store(&self, key: &[u8], value: Value) -> Result<(), TypeError> {
        match value {
            Value::String(text) => self.set(key, &text, SetOptions::default()).map(drop),
            Value::List(elements) => self.list_replace(key, elements.iter().map(Vec::as_slice)).map(drop),
            Value::SortedSet(members) => self.sorted_set_store(key, members).map(drop),
            Value::Set(members) => {
                let mut change = self.replace_collection(key, Kind::Set)?;
                for member in members {
                    add(&mut change, &member, b"")?;
                }
                change.finish();
                Ok(())
            }
            Value::Hash(fields) => {
                let mut change = self.replace_collection(key, Kind::Hash)?;
                for (field, value, expires_at_ms) in fields {
                    if expires_at_ms.is_some_and(|at| at <= self.now_ms()) {
                        continue;
                    }
                    add(&mut change, &field, &value)?;
                    if let Some(at_ms) = expires_at_ms {
                        change.set_expiry(&field, at_ms)?;
                    }
                }
                change.finish();
                Ok(())
            }
            Value::Stream(value) => self.stream_replace(key, &value),
        }
    }
}

fn add(change: &mut MembersChange<'_, '_>, member: &[u8], value: &[u8]) -> Result<(), TypeError> {
    let new = !change.has(Subkeys::Data, member)?;
    change.put(Subkeys::Data, member, value);
    change.grow(u64::from(new));
    Ok(())
}

fn read(reader: &mut PayloadReader<'_>) -> Option<Value> {
    let kind = reader.byte()?;
    Some(match kind {
        kinds::STRING => Value::String(reader.text()?),
        kinds::LIST => Value::List(texts(reader)?),
        kinds::LIST_ZIPLIST => list(packed::ziplist(&reader.text()?)?)?,
        kinds::LIST_ZIPLISTS => {
            let mut elements = Vec::new();
            for _ in 0..reader.length()? {
                elements.extend(packed::ziplist(&reader.text()?)?);
            }
            list(elements)?
        }
        kinds::LIST_LISTPACKS => {
            let mut elements = Vec::new();
            for _ in 0..reader.length()? {
                match reader.length()? {
                    // One element too large for a listpack.
                    1 => elements.push(reader.text()?),
                    2 => elements.extend(packed::listpack(&reader.text()?)?),
                    _ => return None,
                }
            }
            list(elements)?
        }
        kinds::SET => set(texts(reader)?)?,
        kinds::SET_INTEGERS => set(packed::integers(&reader.text()?)?)?,
        kinds::SET_LISTPACK => set(packed::listpack(&reader.text()?)?)?,
        kinds::SORTED_SET | kinds::SORTED_SET_TEXT => {
            let mut members = Vec::new();
            for _ in 0..reader.length()? {
                let member = reader.text()?;
                let score = if kind == kinds::SORTED_SET {
                    f64::from_le_bytes(reader.take(8)?.try_into().ok()?)
                } else {
                    score_text(reader)?
                };
                members.push((member, score));
            }
            sorted_set(members)?
        }
        kinds::SORTED_SET_ZIPLIST => scored(packed::ziplist(&reader.text()?)?)?,
        kinds::SORTED_SET_LISTPACK => scored(packed::listpack(&reader.text()?)?)?,
        kinds::HASH => {
            let mut fields = Vec::new();
            for _ in 0..reader.length()? {
                fields.push((reader.text()?, reader.text()?, None));
            }
            hash(fields)?
        }
        kinds::HASH_ZIPLIST => fields(packed::ziplist(&reader.text()?)?)?,
        kinds::HASH_LISTPACK => fields(packed::listpack(&reader.text()?)?)?,
        kinds::HASH_EXPIRING => {
            let earliest = u64::from_le_bytes(reader.take(8)?.try_into().ok()?);
            let mut all = Vec::new();
            for _ in 0..reader.length()? {
                // 0: never; else one more than the distance from the earliest.
                let ttl = reader.length()?;
                let expires = ttl.checked_sub(1).map(|later| earliest.saturating_add(later));
                all.push((reader.text()?, reader.text()?, expires));
            }
            hash(all)?
        }
        kinds::HASH_EXPIRING_LISTPACK => {
            reader.take(8)?;
            let elements = packed::listpack(&reader.text()?)?;
            let (triples, rest) = elements.as_chunks::<3>();
            let expiry = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
            let triple =
                |[field, value, at]: &[Vec<u8>; 3]| Some((field.clone(), value.clone(), Some(expiry(at)?).filter(|at| *at > 0)));
            if !rest.is_empty() {
                return None;
            }
            hash(triples.iter().map(triple).collect::<Option<_>>()?)?
        }
        kinds::STREAM_1 | kinds::STREAM_2 | kinds::STREAM_3 => Value::Stream(Box::new(stream(reader, kind)?)),
        _ => return None,
    })
}

fn texts(reader: &mut PayloadReader<'_>) -> Option<Vec<Vec<u8>>> {
    // The number is somebody's word: it reserves nothing.
    let mut texts = Vec::new();
    for _ in 0..reader.length()? {
        texts.push(reader.text()?);
    }
    (!texts.is_empty()).then_some(texts)
}

/// Whether each is there once: a payload that names one twice is of no server.
fn distinct<'v>(names: impl Iterator<Item = &'v Vec<u8>>) -> bool {
    let mut seen = HashSet::new();
    names.into_iter().all(|name| seen.insert(name))
}

fn list(elements: Vec<Vec<u8>>) -> Option<Value> {
    (!elements.is_empty()).then_some(Value::List(elements))
}

fn set(members: Vec<Vec<u8>>) -> Option<Value> {
    (!members.is_empty() && distinct(members.iter())).then_some(Value::Set(members))
}

fn score_text(reader: &mut PayloadReader<'_>) -> Option<f64> {
    match reader.byte()? {
        253 => None,
        254 => Some(f64::INFINITY),
        255 => Some(f64::NEG_INFINITY),
        length => super::parse_double(reader.take(usize::from(length))?),
    }
}

fn sorted_set(members: Vec<(Vec<u8>, f64)>) -> Option<Value> {
    let sound = !members.is_empty()
        && members.iter().all(|(_, score)| !score.is_nan())
        && distinct(members.iter().map(|(member, _)| member));
    sound.then_some(Value::SortedSet(members))
}

fn scored(elements: Vec<Vec<u8>>) -> Option<Value> {
    let (pairs, rest) = elements.as_chunks::<2>();
    let members = pairs.iter().map(|[member, score]| Some((member.clone(), super::parse_double(score)?)));
    sorted_set(members.collect::<Option<_>>()?).filter(|_| rest.is_empty())
}

fn hash(fields: Vec<(Vec<u8>, Vec<u8>, Option<u64>)>) -> Option<Value> {
    let sound = !fields.is_empty()
        && fields.iter().all(|(.., at_ms)| at_ms.is_none_or(|at| at <= FIELD_EXPIRY_MS_MAX))
        && distinct(fields.iter().map(|(field, ..)| field));
    sound.then_some(Value::Hash(fields))
}

fn fields(elements: Vec<Vec<u8>>) -> Option<Value> {
    let (pairs, rest) = elements.as_chunks::<2>();
    hash(pairs.iter().map(|[field, value]| (field.clone(), value.clone(), None)).collect()).filter(|_| rest.is_empty())
}

fn id(reader: &mut PayloadReader<'_>) -> Option<EntryId> {
    Some(EntryId { ms: reader.length()?, sequence: reader.length()? })
}

fn raw_id(bytes: &[u8]) -> Option<EntryId> {
    let (ms, sequence) = bytes.split_first_chunk::<8>()?;
    Some(EntryId { ms: u64::from_be_bytes(*ms), sequence: u64::from_be_bytes(sequence.try_into().ok()?) })
}

fn time(reader: &mut PayloadReader<'_>) -> Option<u64> {
    Some(u64::from_le_bytes(reader.take(8)?.try_into().ok()?))
}

fn stream(reader: &mut PayloadReader<'_>, kind: u8) -> Option<StreamValue> {
    let mut value = StreamValue::default();
    for _ in 0..reader.length()? {
        let first = raw_id(&reader.text()?)?;
        node(first, &packed::listpack(&reader.text()?)?, &mut value.entries)?;
    }
    let count = reader.length()?;
    value.last = id(reader)?;
    if kind == kinds::STREAM_1 {
        value.added = i64::try_from(count).ok().map(|_| count)?;
    } else {
        id(reader)?;
        value.max_deleted = id(reader)?;
        value.added = counter(reader)?;
    }
    let ordered = value.entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let below = value.entries.last().is_none_or(|(id, _)| *id <= value.last);
    if count != value.entries.len() as u64 || !ordered || !below {
        return None;
    }
    for _ in 0..reader.length()? {
        let mut group = super::streams::GroupValue { name: reader.text()?, last: id(reader)?, ..Default::default() };
        if kind == kinds::STREAM_1 {
            group.read = value.head().entries_up_to(group.last);
        } else {
            // What is negative there is not known.
            group.read = Some(reader.length()?).filter(|read| i64::try_from(*read).is_ok());
        }
        let mut pending = BTreeMap::new();
        for _ in 0..reader.length()? {
            let id = raw_id(reader.take(16)?)?;
            if pending.insert(id, (time(reader)?, counter(reader)?)).is_some() {
                return None;
            }
        }
        for _ in 0..reader.length()? {
            let (name, seen_ms) = (reader.text()?, time(reader)?);
            let active_ms =
                if kind == kinds::STREAM_3 { Some(time(reader)?).filter(|at| *at != u64::MAX) } else { Some(seen_ms) };
            for _ in 0..reader.length()? {
                let id = raw_id(reader.take(16)?)?;
                let (delivered_ms, deliveries) = pending.remove(&id)?;
                group.pending.push((id, delivered_ms, deliveries, name.clone()));
            }
            group.consumers.push((name, seen_ms, active_ms));
        }
        if !distinct(group.consumers.iter().map(|(name, ..)| name)) {
            return None;
        }
        // What is pending is pending at somebody.
        if !pending.is_empty() {
            return None;
        }
        value.groups.push(group);
    }
    distinct(value.groups.iter().map(|group| &group.name)).then_some(value)
}

/// A number that goes on being counted: signed, in Redis.
fn counter(reader: &mut PayloadReader<'_>) -> Option<u64> {
    reader.length().filter(|count| i64::try_from(*count).is_ok())
}

/// The entries of a listpack: ids are differences to that of the node, fields may be those of its first entry.
fn node(first: EntryId, elements: &[Vec<u8>], entries: &mut Vec<(EntryId, Vec<Vec<u8>>)>) -> Option<()> {
    const DELETED: i64 = 1;
    const SAME_FIELDS: i64 = 2;
    let mut elements = elements.iter();
    let number = |elements: &mut std::slice::Iter<'_, Vec<u8>>| -> Option<i64> {
        std::str::from_utf8(elements.next()?).ok()?.parse().ok()
    };
    let (count, deleted, fields) = (number(&mut elements)?, number(&mut elements)?, number(&mut elements)?);
    let fields: Vec<Vec<u8>> = elements.by_ref().take(usize::try_from(fields).ok()?).cloned().collect();
    number(&mut elements)?;
    for _ in 0..count.checked_add(deleted)? {
        let (flags, ms, sequence) = (number(&mut elements)?, number(&mut elements)?, number(&mut elements)?);
        let id = EntryId { ms: first.ms.wrapping_add(ms as u64), sequence: first.sequence.wrapping_add(sequence as u64) };
        let mut texts = Vec::new();
        if flags & SAME_FIELDS != 0 {
            for field in &fields {
                texts.extend([field.clone(), elements.next()?.clone()]);
            }
        } else {
            let count = usize::try_from(number(&mut elements)?).ok()?;
            for _ in 0..count.checked_mul(2)? {
                texts.push(elements.next()?.clone());
            }
        }
        number(&mut elements)?;
        if flags & DELETED == 0 {
            entries.push((id, texts));
        }
    }
    elements.next().is_none().then_some(())
}
