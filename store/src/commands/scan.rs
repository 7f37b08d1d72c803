//! Iterating over the keys of this node: SCAN.
//!
//! A cursor is `slot (14 bits) · number (40 bits)`; the number stands for the last key returned of that slot, see [`super::cursors`].

use std::ops::ControlFlow;

use sluice_topology::Slot;

use super::{
    CommandError, LaterReply,
    cursors::{self, CURSOR_BITS, Scanned},
    glob,
    walk::Walk,
};
use crate::{engine::Home, protocol::Request, types::parse_integer};

/// Keys looked at by one call, whatever COUNT says.
const COUNT_MAX: usize = 100_000;

struct Wanted {
    from: Home,
    after: Option<Vec<u8>>,
    pattern: Option<Vec<u8>>,
    kind: Option<Vec<u8>>,
    count: usize,
}

pub(super) fn scan(walk: &Walk<'_>, request: &Request) -> Result<LaterReply, CommandError> {
    let Wanted { from, mut after, pattern, kind, count } = parse(walk.database, request)?;
    let (mut keys, mut seen, mut stopped_at) = (Vec::new(), 0, None);
    walk.each_slot(from.slot, |home| {
        // In another slot it begins at the first key.
        let after = after.take().filter(|_| home == from);
        walk.each_key(home, after.as_deref(), |entry| {
            seen += 1;
            let of_kind = kind.as_ref().is_none_or(|kind| kind == entry.record.kind.name().as_bytes());
            let matching = pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, entry.key));
            if of_kind && matching && !entry.record.is_expired(walk.now_ms) {
                keys.push(entry.key.to_vec());
            }
            if seen < count {
                return ControlFlow::Continue(());
            }
            stopped_at = Some((home, entry.key.to_vec()));
            ControlFlow::Break(())
        })?;
        Ok(if stopped_at.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let cursor = match stopped_at {
        Some((home, key)) => u64::from(home.slot.get()) << CURSOR_BITS | cursors::remember(Scanned::Slot(home), key),
        None => 0,
    };
    Ok(Box::new(move |reply| {
        reply.array(2);
        reply.bulk(cursor.to_string().as_bytes());
        reply.array(keys.len());
        keys.iter().for_each(|key| reply.bulk(key));
    }))
}

fn parse(database: u8, request: &Request) -> Result<Wanted, CommandError> {
    let text = std::str::from_utf8(&request[1]).ok();
    let cursor: u64 = text.and_then(|text| text.parse().ok()).ok_or_else(|| CommandError::new("ERR invalid cursor"))?;
    let slot = u16::try_from(cursor >> CURSOR_BITS).ok().and_then(Slot::new);
    let slot = slot.ok_or_else(|| CommandError::new("ERR invalid cursor"))?;
    let from = Home { database, slot };
    let after = cursors::recall(Scanned::Slot(from), cursor & ((1 << CURSOR_BITS) - 1));
    let mut wanted = Wanted { from, after, pattern: None, kind: None, count: 10 };
    let mut words = request[2..].iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(CommandError::syntax)?;
        match word.to_ascii_lowercase().as_slice() {
            b"match" => wanted.pattern = Some(value.to_vec()),
            b"type" => wanted.kind = Some(value.to_ascii_lowercase()),
            b"count" => match parse_integer(value)? {
                number if number > 0 => wanted.count = usize::try_from(number).unwrap_or(COUNT_MAX).min(COUNT_MAX),
                _ => return Err(CommandError::syntax()),
            },
            _ => return Err(CommandError::syntax()),
        }
    }
    Ok(wanted)
}

/// Runs work that blocks on storage away from the threads that serve connections.
pub(super) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(CommandError::new(format!("ERR a worker failed: {error}"))),
    }
}
