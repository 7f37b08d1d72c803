//! BGSAVE, SAVE, LASTSAVE: checkpoints. BGREWRITEAOF: a flush. COMPACT and FLUSHBLOCKCACHE, as Kvrocks has them.

use std::sync::Arc;

use super::{CommandError, Context, Later, LaterReply, run::ok_later, scan::offload};
use crate::{engine::SaveError, node::Node, protocol::Request};

impl From<SaveError> for CommandError {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Running => Self::new(format!("ERR {error}")),
            SaveError::Failed(error) => error.into(),
        }
    }
}

pub(super) fn bgsave(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    match request.len() {
        1 => {}
        2 if request[1].eq_ignore_ascii_case(b"schedule") => {}
        _ => return Err(CommandError::syntax()),
    }
    let node = node.clone();
    Ok(Box::pin(async move {
        // The right is taken by the worker; it says at once whether it has it.
        let (begun, answer) = tokio::sync::oneshot::channel::<Result<(), CommandError>>();
        tokio::task::spawn_blocking(move || match node.engine.begin_save() {
            Ok(save) => {
                let _ = begun.send(Ok(()));
                // The outcome is logged, and in INFO.
                let _ = save.make();
            }
            Err(error) => drop(begun.send(Err(error.into()))),
        });
        answer.await.map_err(|_| CommandError::new("ERR the worker of the checkpoint failed"))??;
        let reply: LaterReply = Box::new(|reply| reply.simple("Background saving started"));
        Ok(reply)
    }))
}

/// BGREWRITEAOF: what it is called for, that what is in memory gets to the disk; here by a flush round in the background.
pub(super) fn bgrewriteaof(node: &Arc<Node>, _: &Request) -> Result<Later, CommandError> {
    node.engine.flush(false)?;
    let reply: LaterReply = Box::new(|reply| reply.simple("Background append only file rewriting started"));
    Ok(Box::pin(std::future::ready(Ok(reply))))
}

pub(super) fn save(node: &Arc<Node>, _: &Request) -> Result<Later, CommandError> {
    let node = node.clone();
    Ok(Box::pin(async move {
        offload(move || Ok(node.engine.begin_save()?.make()?)).await?;
        Ok(ok_later())
    }))
}

pub(super) fn lastsave(cx: &mut Context<'_, '_>, _: &Request) -> Result<(), CommandError> {
    cx.reply.unsigned(cx.node.engine.saves().last_ms / 1000);
    Ok(())
}

pub(super) fn compact(node: &Arc<Node>, _: &Request) -> Result<Later, CommandError> {
    let node = node.clone();
    Ok(Box::pin(async move {
        let (begun, answer) = tokio::sync::oneshot::channel::<Result<(), CommandError>>();
        tokio::task::spawn_blocking(move || match node.engine.begin_compaction() {
            Ok(Some(compaction)) => {
                let _ = begun.send(Ok(()));
                compaction.run();
            }
            Ok(None) => drop(begun.send(Err(CommandError::new("ERR a compaction of the whole database is running already")))),
            Err(error) => drop(begun.send(Err(error.into()))),
        });
        answer.await.map_err(|_| CommandError::new("ERR the worker of the compaction failed"))??;
        Ok(ok_later())
    }))
}

pub(super) fn flushblockcache(node: &Arc<Node>, _: &Request) -> Result<Later, CommandError> {
    let node = node.clone();
    Ok(Box::pin(async move {
        offload(move || {
            node.engine.empty_caches();
            Ok(())
        })
        .await?;
        Ok(ok_later())
    }))
}
