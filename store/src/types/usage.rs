//! How many bytes a key takes in storage.

use std::ops::ControlFlow;

use super::keyspace::{Keyspace, TypeError};
use crate::engine::{Kind, Span, Subkeys};

/// Slot, generation and version before each subkey.
const SUBKEY_PREFIX_LEN: u64 = 14;

impl Keyspace<'_> {
    /// Bytes that a key takes, its name and its subkeys included, before compression; `None` when there is no such key. Of a collection, at
    /// most so many elements are looked at, and the others are taken to be like them.
    pub fn usage(&self, key: &[u8], samples: u64) -> Result<Option<u64>, TypeError> {
        let Some(stored) = self.live(key)? else { return Ok(None) };
        let record = stored.record()?;
        let head = (record.head().1 + record.value.len() + key.len() + 6) as u64;
        if record.kind == Kind::String || record.packed {
            return Ok(Some(head));
        }
        let Some(members) = self.members(key, record.kind)? else { return Ok(None) };
        let mut total = head;
        for family in [Subkeys::Data, Subkeys::Score, Subkeys::Stream] {
            let (mut looked_at, mut bytes) = (0u64, 0u64);
            members.each(family, Span::ALL, |subkey, value| {
                looked_at += 1;
                bytes += SUBKEY_PREFIX_LEN + (subkey.len() + value.len()) as u64;
                if looked_at < samples { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            // As many as there are elements, where there are more than were looked at.
            total += if looked_at < samples { bytes } else { bytes / looked_at.max(1) * members.size().max(looked_at) };
        }
        Ok(Some(total))
    }
}
