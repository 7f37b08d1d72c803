//! WAIT and WAITAOF: how safe what a client has written is by now.

use std::{sync::Arc, time::Duration};

use super::{CommandError, Context, Later, LaterReply, blocking::milliseconds};
use crate::{node::Node, protocol::Request, types::parse_integer};

/// There are no replicas, so nothing is waited for.
pub(super) fn wait(cx: &mut Context<'_, '_>, request: &Request) -> Result<(), CommandError> {
    parse_integer(&request[1])?;
    milliseconds(&request[2])?;
    cx.reply.integer(0);
    Ok(())
}

/// The log of writes is what Redis calls its append-only file. Everything that was written before is in the same sync, whoever wrote it.
pub(super) fn waitaof(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    let local = parse_integer(&request[1])?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::new("ERR value is out of range, value must between 0 and 1"));
    }
    if parse_integer(&request[2]).map_or(true, |replicas| replicas < 0) {
        return Err(CommandError::new("ERR value is out of range, must be positive"));
    }
    let limit = Duration::from_millis(milliseconds(&request[3])?);
    let has_log = node.engine.options().wal;
    if local > 0 && !has_log {
        return Err(CommandError::new(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled. FLUSHMEMTABLE waits without a log",
        ));
    }
    let node = node.clone();
    Ok(Box::pin(async move {
        // Behind the commit of what this client wrote before.
        let sequence = node.engine.latest_sequence();
        let durable = match (local, limit.is_zero()) {
            (0, _) => has_log && node.engine.is_durable(sequence),
            (_, true) => node.engine.durable(sequence).await.map(|()| true)?,
            (_, false) => match tokio::time::timeout(limit, node.engine.durable(sequence)).await {
                Ok(outcome) => outcome.map(|()| true)?,
                Err(_) => false,
            },
        };
        let reply: LaterReply = Box::new(move |reply| {
            reply.array(2);
            reply.integer(i64::from(durable));
            reply.integer(0);
        });
        Ok(reply)
    }))
}
