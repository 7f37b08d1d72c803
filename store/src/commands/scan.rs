//! Iterating over the keys of this node: SCAN, DBSIZE.
//!
//! A cursor is `slot (14 bits) · number (40 bits)`; the number stands for the last key returned of that slot, see [`super::cursors`].

use std::{ops::ControlFlow, sync::Arc};

use sluice_topology::{Slot, SlotRanges};

use super::{
    CommandError, Later, LaterReply, Session,
    cursors::{self, CURSOR_BITS, Scanned},
    glob,
};
use crate::{
    engine::{Engine, Home},
    node::Node,
    protocol::Request,
    types::parse_integer,
};

/// Keys looked at by one call, whatever COUNT says.
const COUNT_MAX: usize = 100_000;

struct Wanted {
    from: Home,
    after: Option<Vec<u8>>,
    pattern: Option<Vec<u8>>,
    kind: Option<Vec<u8>>,
    count: usize,
}

/// A page of keys, and the cursor of the next one.
struct Page {
    cursor: u64,
    keys: Vec<Vec<u8>>,
}

pub(super) fn scan(node: &Arc<Node>, session: &Session, request: &Request) -> Result<Later, CommandError> {
    let wanted = parse(session.database, request)?;
    let node = node.clone();
    Ok(Box::pin(async move {
        let page = offload(move || page(&node.engine, &node.cluster.served(), wanted)).await?;
        let reply: LaterReply = Box::new(move |reply| {
            reply.array(2);
            reply.bulk(page.cursor.to_string().as_bytes());
            reply.array(page.keys.len());
            page.keys.iter().for_each(|key| reply.bulk(key));
        });
        Ok(reply)
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

fn page(engine: &Engine, served: &SlotRanges, wanted: Wanted) -> Result<Page, CommandError> {
    let (now, mut keys, mut seen) = (engine.now_ms(), Vec::new(), 0);
    let (mut home, mut after) = (wanted.from, wanted.after);
    loop {
        let mut stopped_at = None;
        // Inside the gate slot by slot: a generation that is dropped meanwhile is not deleted under the scan.
        let _inside = engine.enter();
        if served.contains(home.slot) {
            engine.scan_slot(home, after.as_deref(), |entry| {
                seen += 1;
                let of_kind = wanted.kind.as_ref().is_none_or(|kind| kind == entry.record.kind.name().as_bytes());
                let matching = wanted.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, entry.key));
                if of_kind && matching && !entry.record.is_expired(now) {
                    keys.push(entry.key.to_vec());
                }
                if seen < wanted.count {
                    return ControlFlow::Continue(());
                }
                stopped_at = Some(entry.key.to_vec());
                ControlFlow::Break(())
            })?;
        }
        if let Some(key) = stopped_at {
            let number = cursors::remember(Scanned::Slot(home), key);
            return Ok(Page { cursor: (u64::from(home.slot.get()) << CURSOR_BITS) | number, keys });
        }
        after = None;
        let next = match Slot::new(home.slot.get() + 1) {
            Some(next) => engine.next_held_slot(home.database, next)?,
            None => None,
        };
        let Some(next) = next else { return Ok(Page { cursor: 0, keys }) };
        home.slot = next;
    }
}

pub(super) fn dbsize(node: &Arc<Node>, session: &Session, _: &Request) -> Result<Later, CommandError> {
    let (node, database) = (node.clone(), session.database);
    Ok(Box::pin(async move {
        let count = offload(move || {
            let (served, now, mut count) = (node.cluster.served(), node.engine.now_ms(), 0);
            let mut next = Slot::new(0);
            while let Some(slot) = next {
                let _inside = node.engine.enter();
                let Some(held) = node.engine.next_held_slot(database, slot)? else { break };
                if served.contains(held) {
                    count += node.engine.slot_usage(Home { database, slot: held }, now)?.keys;
                }
                next = Slot::new(held.get() + 1);
            }
            Ok(count)
        })
        .await?;
        let reply: LaterReply = Box::new(move |reply| reply.unsigned(count));
        Ok(reply)
    }))
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
