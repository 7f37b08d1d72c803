//! Commands about the server: FLUSHDB, COMMAND, CONFIG, TIME.

use std::sync::Arc;

use super::{CommandError, Context, Later, Session, listing, run::ok_later, scan::offload};
use crate::{engine::system_ms, node::Node, protocol::Request};

type Outcome = Result<(), CommandError>;

pub(super) fn flushdb(node: &Arc<Node>, session: &Session, request: &Request) -> Result<Later, CommandError> {
    flush(node, vec![session.database], request)
}

pub(super) fn flushall(node: &Arc<Node>, _: &Session, request: &Request) -> Result<Later, CommandError> {
    flush(node, node.engine.databases(), request)
}

fn flush(node: &Arc<Node>, databases: Vec<u8>, request: &Request) -> Result<Later, CommandError> {
    match request.len() {
        1 => {}
        2 if request[1].eq_ignore_ascii_case(b"async") || request[1].eq_ignore_ascii_case(b"sync") => {}
        _ => return Err(CommandError::syntax()),
    }
    let node = node.clone();
    Ok(Box::pin(async move {
        let mut changes = node.cluster.changes();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(node.live.park_timeout_ms());
        loop {
            changes.borrow_and_update();
            let (for_worker, flushed) = (node.clone(), databases.clone());
            let flushed = offload(move || {
                let (engine, cluster) = (&for_worker.engine, &for_worker.cluster);
                // A slot that is being switched is another node's in a moment, with what it holds now.
                let served = cluster.served();
                Ok(engine.flush_slots(&flushed, served.iter(), || !cluster.any_parked())?)
            })
            .await?;
            if flushed {
                databases.iter().for_each(|database| node.blocked.retry(*database));
                return Ok(ok_later());
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(CommandError::new("TRYAGAIN slots are being moved; nothing was flushed"));
            }
        }
    }))
}

pub(super) fn command(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    listing::command(cx.reply, request)
}

/// What a node is to those that ask a Sentinel or a proxy: a master, without replicas.
pub(super) fn role(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    cx.reply.array(3);
    cx.reply.bulk(b"master");
    cx.reply.integer(0);
    cx.reply.array(0);
    Ok(())
}

pub(super) fn time(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    let now = system_ms();
    cx.reply.array(2);
    cx.reply.bulk((now / 1000).to_string().as_bytes());
    cx.reply.bulk((now % 1000 * 1000).to_string().as_bytes());
    Ok(())
}

/// SHUTDOWN: as a signal does, without a reply. Everything is flushed whatever it says: nothing here is kept in memory alone that the log
/// does not have, but with `wal no`.
pub(super) fn shutdown(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (mut save, mut abort) = (None, false);
    for word in &request[1..] {
        match word.to_ascii_lowercase().as_slice() {
            b"save" if save.is_none() => save = Some(true),
            b"nosave" if save.is_none() => save = Some(false),
            b"now" | b"force" => {}
            b"abort" if request.len() == 2 => abort = true,
            _ => return Err(CommandError::syntax()),
        }
    }
    if abort {
        // One that was asked for begins at once, and is not called off.
        return Err(CommandError::new("ERR No shutdown in progress."));
    }
    if let Some(script) = cx.node.clients.pause.slow_script().filter(|_| save != Some(false)) {
        return Err(CommandError::new(script.busy().text()));
    }
    cx.node.ask_for_end();
    cx.session.closing = true;
    Ok(())
}
