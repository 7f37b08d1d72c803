//! Going over the keys of a database: what SCAN, KEYS, RANDOMKEY and DBSIZE have in common.
//!
//! A client's command is executed by a future, away from the threads that serve connections. Inside a script it is executed at once,
//! with what the script's turn has changed so far, and ends when the script has to.

use std::{ops::ControlFlow, sync::Arc};

use sluice_topology::Slot;

use super::{CommandError, Context, Later, LaterReply, scan::offload};
use crate::{
    engine::{Home, Overlay, StoredKey},
    node::Node,
    protocol::Request,
};

/// Keys between two looks whether it is to go on.
const KEYS_BETWEEN_LOOKS: u32 = 256;

/// A command that goes over keys.
pub(super) type Walker = fn(&Walk<'_>, &Request) -> Result<LaterReply, CommandError>;

/// The keys that it goes over.
pub struct Walk<'a> {
    pub(super) node: &'a Node,
    pub(super) database: u8,
    /// The time, Unix milliseconds.
    pub(super) now_ms: u64,
    /// What a writer has gathered, in the place of what is stored.
    gathered: &'a Overlay,
    goes_on: &'a dyn Fn() -> bool,
}

/// By a future.
pub(super) fn later(node: &Arc<Node>, database: u8, request: &Request, walker: Walker) -> Later {
    let (node, request) = (node.clone(), request.clone());
    Box::pin(offload(move || {
        let now_ms = node.engine.now_ms();
        walker(&Walk { node: &node, database, now_ms, gathered: &Overlay::default(), goes_on: &|| true }, &request)
    }))
}

/// At once, as long as `goes_on` says so.
pub(super) fn at_once(
    cx: &mut Context<'_, '_>,
    request: &Request,
    walker: Walker,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), CommandError> {
    let gathered = cx.writer.borrow().gathered_keys();
    let walk = Walk { node: cx.node, database: cx.session.database, now_ms: cx.now_ms, gathered: &gathered, goes_on };
    walker(&walk, request)?(cx.reply);
    Ok(())
}

impl Walk<'_> {
    /// Calls `each` with every slot that holds keys and is served here, from `from` on to the last; until it breaks. Inside the gate slot by
    /// slot: a generation that is dropped meanwhile is not given back under it.
    pub(super) fn each_slot(
        &self,
        from: Slot,
        mut each: impl FnMut(Home) -> Result<ControlFlow<()>, CommandError>,
    ) -> Result<(), CommandError> {
        let (served, engine, mut next) = (self.node.cluster.served(), &self.node.engine, Some(from));
        while let Some(slot) = next {
            let _inside = engine.enter();
            let Some(held) = engine.next_slot_seen(self.database, slot, self.gathered)? else { break };
            if served.contains(held) && each(Home { database: self.database, slot: held })?.is_break() {
                break;
            }
            next = Slot::new(held.get() + 1);
        }
        Ok(())
    }

    /// Calls `each` for the keys of a slot, expired or not, in order, from the first one after `after`; until it breaks. Inside
    /// [`Walk::each_slot`].
    pub(super) fn each_key(
        &self,
        home: Home,
        after: Option<&[u8]>,
        mut each: impl FnMut(StoredKey<'_>) -> ControlFlow<()>,
    ) -> Result<(), CommandError> {
        let (mut seen, mut goes_on) = (0u32, true);
        self.node.engine.scan_slot_seen(home, after, self.gathered, |entry| {
            if seen.is_multiple_of(KEYS_BETWEEN_LOOKS) && !(self.goes_on)() {
                goes_on = false;
                return ControlFlow::Break(());
            }
            seen = seen.wrapping_add(1);
            each(entry)
        })?;
        if goes_on { Ok(()) } else { Err(CommandError::new("ERR the script was ended")) }
    }
}
