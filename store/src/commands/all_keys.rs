//! Commands that look at all keys of a database: KEYS, RANDOMKEY, DBSIZE.

use std::ops::ControlFlow;

use sluice_topology::{SLOT_COUNT, Slot};

use super::{CommandError, LaterReply, glob, walk::Walk};
use crate::{dice::Dice, protocol::Request};

/// Keys of a slot among which RANDOMKEY chooses.
const RANDOM_AMONG: usize = 1000;

/// KEYS pattern. Costs a look at every key.
pub(super) fn keys(walk: &Walk<'_>, request: &Request) -> Result<LaterReply, CommandError> {
    let (pattern, bytes_max) = (&request[1], walk.node.live.reply_len_max());
    let (mut found, mut bytes): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    let flow = |bytes: usize| if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    walk.each_slot(Slot::FIRST, |home| {
        walk.each_key(home, None, |entry| {
            if !entry.record.is_expired(walk.now_ms) && glob::matches(pattern, entry.key) {
                bytes += entry.key.len() + 16;
                found.push(entry.key.to_vec());
            }
            flow(bytes)
        })?;
        Ok(flow(bytes))
    })?;
    if bytes > bytes_max {
        return Err(CommandError::new("ERR the reply is too long (client-output-buffer-limit): use SCAN"));
    }
    Ok(Box::new(move |reply| {
        reply.array(found.len());
        found.iter().for_each(|key| reply.bulk(key));
    }))
}

/// RANDOMKEY: a key of the first slot with keys behind one chosen at random, chosen at random among its first thousand. Where keys are few,
/// those behind many empty slots come more often.
pub(super) fn randomkey(walk: &Walk<'_>, _: &Request) -> Result<LaterReply, CommandError> {
    let mut dice = Dice::random();
    let start = Slot::new(dice.below(u64::from(SLOT_COUNT)) as u16).unwrap_or(Slot::FIRST);
    let mut found = None;
    for from in [start, Slot::FIRST] {
        walk.each_slot(from, |home| {
            let mut seen = 0;
            walk.each_key(home, None, |entry| {
                if !entry.record.is_expired(walk.now_ms) {
                    seen += 1;
                    // Each of those seen so far is the one with the same chance.
                    if dice.below(seen as u64) == 0 {
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
    Ok(Box::new(move |reply| reply.bulk_or_null(found.as_deref())))
}

/// DBSIZE. Costs a look at every key; what has expired is left out.
pub(super) fn dbsize(walk: &Walk<'_>, _: &Request) -> Result<LaterReply, CommandError> {
    let mut count = 0;
    walk.each_slot(Slot::FIRST, |home| {
        walk.each_key(home, None, |entry| {
            count += u64::from(!entry.record.is_expired(walk.now_ms));
            ControlFlow::Continue(())
        })?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Box::new(move |reply| reply.unsigned(count)))
}
