//! Commands about the server: FLUSHDB, COMMAND, CONFIG, TIME.

use std::sync::Arc;

use super::{CommandError, Context, Later, listing, run::ok_later, scan::offload};
use crate::{config::specs, engine::SyncPolicy, engine::system_ms, node::Node, protocol::Request};

type Outcome = Result<(), CommandError>;

pub(super) fn flushdb(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    match request.len() {
        1 => {}
        2 if request[1].eq_ignore_ascii_case(b"async") || request[1].eq_ignore_ascii_case(b"sync") => {}
        _ => return Err(CommandError::syntax()),
    }
    let node = node.clone();
    Ok(Box::pin(async move {
        let mut changes = node.cluster.changes();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(node.settings.park_timeout_ms);
        loop {
            changes.borrow_and_update();
            let for_worker = node.clone();
            let flushed = offload(move || {
                let cluster = &for_worker.cluster;
                // A slot that is being switched is another node's in a moment, with what it holds now.
                Ok(for_worker.engine.flush_slots(cluster.served().iter(), || !cluster.any_parked())?)
            })
            .await?;
            if flushed {
                return Ok(ok_later());
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(CommandError::new("TRYAGAIN slots are being moved; nothing was flushed"));
            }
        }
    }))
}

pub(super) fn command(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match request.get(1).map(|word| word.to_ascii_lowercase()).as_deref() {
        None => listing::all(cx.reply),
        Some(b"count") if request.len() == 2 => cx.reply.unsigned(super::table().len() as u64),
        Some(b"list") if request.len() == 2 => listing::names(cx.reply),
        Some(b"info") => listing::some(cx.reply, &request[2..]),
        Some(b"docs") => listing::docs(cx.reply, &request[2..]),
        Some(b"getkeys") if request.len() > 2 => return listing::keys(cx.reply, &request[2..]),
        Some(_) => return Err(CommandError::subcommand("COMMAND", &request[1])),
    }
    Ok(())
}

pub(super) fn config(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match (request[1].to_ascii_lowercase().as_slice(), &request[2..]) {
        (b"get", patterns) if !patterns.is_empty() => {
            let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
            let chosen: Vec<_> = specs()
                .iter()
                .filter(|spec| !spec.secret && patterns.iter().any(|pattern| super::glob::matches(pattern, spec.name.as_bytes())))
                .collect();
            cx.reply.map(chosen.len());
            for spec in chosen {
                cx.reply.bulk(spec.name.as_bytes());
                // The one setting that changes while the node runs is read where it lives.
                match spec.name {
                    "sync" => cx.reply.bulk(cx.node.engine.sync_policy().name().as_bytes()),
                    _ => cx.reply.bulk((spec.get)(&cx.node.settings).as_bytes()),
                }
            }
            Ok(())
        }
        (b"set", [name, value]) if name.eq_ignore_ascii_case(b"sync") => {
            let policy = [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::No]
                .into_iter()
                .find(|policy| value.eq_ignore_ascii_case(policy.name().as_bytes()))
                .ok_or_else(|| CommandError::new("ERR CONFIG SET failed - sync has to be always, everysec or no"))?;
            cx.node.engine.set_sync_policy(policy);
            cx.reply.ok();
            Ok(())
        }
        (b"set", [name, _]) => {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let known = specs().iter().any(|spec| spec.name == name);
            let why =
                if known { "it is read at the start: change the configuration and restart" } else { "there is no such setting" };
            let name: String = name.chars().take(64).collect();
            Err(CommandError::new(format!("ERR CONFIG SET failed - {name}: {why}")))
        }
        _ => Err(CommandError::subcommand("CONFIG", &request[1])),
    }
}

pub(super) fn time(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    let now = system_ms();
    cx.reply.array(2);
    cx.reply.bulk((now / 1000).to_string().as_bytes());
    cx.reply.bulk((now % 1000 * 1000).to_string().as_bytes());
    Ok(())
}
