//! Commands that look at all keys of a database: KEYS, RANDOMKEY.

use std::{ops::ControlFlow, sync::Arc};

use sluice_topology::{SLOT_COUNT, Slot};

use super::{CommandError, Later, LaterReply, Session, glob, scan::offload};
use crate::{engine::Home, node::Node, protocol::Request, types::random_below};

/// Keys of a slot among which RANDOMKEY chooses.
const RANDOM_AMONG: usize = 1000;

/// Calls `each` with every slot that holds keys and is served here, from `from` on to the last; until it breaks. Inside the gate slot by
/// slot.
fn each_slot(
    node: &Node,
    database: u8,
    from: Slot,
    mut each: impl FnMut(Home) -> Result<ControlFlow<()>, CommandError>,
) -> Result<(), CommandError> {
    let served = node.cluster.served();
    let mut next = Some(from);
    while let Some(slot) = next {
        let _inside = node.engine.enter();
        let Some(held) = node.engine.next_held_slot(database, slot)? else { return Ok(()) };
        if served.contains(held) && each(Home { database, slot: held })?.is_break() {
            return Ok(());
        }
        next = Slot::new(held.get() + 1);
    }
    Ok(())
}

/// KEYS pattern. Costs a look at every key, away from the threads that serve connections.
pub(super) fn keys(node: &Arc<Node>, session: &Session, request: &Request) -> Result<Later, CommandError> {
    let (node, database, pattern) = (node.clone(), session.database, request[1].clone());
    Ok(Box::pin(async move {
        let found = offload(move || {
            let (now, bytes_max) = (node.engine.now_ms(), node.live.reply_len_max());
            let (mut found, mut bytes): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
            let Some(first) = Slot::new(0) else { return Ok(found) };
            each_slot(&node, database, first, |home| {
                node.engine.scan_slot(home, None, |entry| {
                    if !entry.record.is_expired(now) && glob::matches(&pattern, entry.key) {
                        bytes += entry.key.len() + 16;
                        found.push(entry.key.to_vec());
                    }
                    if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                Ok(if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if bytes > bytes_max {
                return Err(CommandError::new("ERR the reply is too long (client-output-buffer-limit): use SCAN"));
            }
            Ok(found)
        })
        .await?;
        let reply: LaterReply = Box::new(move |reply| {
            reply.array(found.len());
            found.iter().for_each(|key| reply.bulk(key));
        });
        Ok(reply)
    }))
}

/// RANDOMKEY: a key of the first slot with keys behind one chosen at random, chosen at random among its first thousand. Where keys are few,
/// those behind many empty slots come more often.
pub(super) fn randomkey(node: &Arc<Node>, session: &Session, _: &Request) -> Result<Later, CommandError> {
    let (node, database) = (node.clone(), session.database);
    Ok(Box::pin(async move {
        let found = offload(move || {
            let now = node.engine.now_ms();
            let Some(first) = Slot::new(0) else { return Ok(None) };
            let start = Slot::new(random_below(u64::from(SLOT_COUNT)) as u16).unwrap_or(first);
            let mut found = None;
            for from in [start, first] {
                each_slot(&node, database, from, |home| {
                    let mut seen = 0;
                    node.engine.scan_slot(home, None, |entry| {
                        if !entry.record.is_expired(now) {
                            seen += 1;
                            // Each of those seen so far is the one with the same chance.
                            if random_below(seen as u64) == 0 {
                                found = Some(entry.key.to_vec());
                            }
                        }
                        if seen < RANDOM_AMONG { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    })?;
                    Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                })?;
                if found.is_some() {
                    break;
                }
            }
            Ok(found)
        })
        .await?;
        let reply: LaterReply = Box::new(move |reply| reply.bulk_or_null(found.as_deref()));
        Ok(reply)
    }))
}
