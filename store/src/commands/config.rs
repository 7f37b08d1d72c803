//! CONFIG: GET, SET, RESETSTAT, REWRITE.

use std::sync::Arc;

use bytes::Bytes;

use super::{CommandError, Later, LaterReply, glob, run::ok_later, scan::offload, subcommands};
use crate::{
    config::{ALIASES, SetError, Settings, plan_memory, spec, specs, unquote},
    node::Node,
    protocol::Request,
    traces::traces,
};

impl From<SetError> for CommandError {
    fn from(error: SetError) -> Self {
        Self::new(format!("ERR {error}"))
    }
}

pub(super) fn config(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    let words: Vec<Bytes> = request[2..].to_vec();
    let node = node.clone();
    match (request[1].to_ascii_lowercase().as_slice(), words.as_slice()) {
        (b"get", [_, ..]) => Ok(Box::pin(async move { Ok(get(&node, &words)) })),
        (b"set", [_, _, ..]) => {
            let pairs = pairs(&words)?;
            Ok(Box::pin(async move {
                set(&node, pairs).await?;
                Ok(ok_later())
            }))
        }
        (b"resetstat", []) => {
            node.stats.reset();
            super::table().for_each(|spec| spec.calls.reset());
            Ok(Box::pin(async move { Ok(ok_later()) }))
        }
        (b"rewrite", []) => Ok(Box::pin(async move {
            offload(move || node.live.rewrite().map_err(|why| CommandError::new(format!("ERR {why}")))).await?;
            Ok(ok_later())
        })),
        _ => Ok(Box::pin(std::future::ready(Ok(Box::new(|reply: &mut crate::protocol::ReplyWriter<'_>| {
            subcommands::help(reply, "config");
        }) as LaterReply)))),
    }
}

/// Changes settings, all or none.
pub(super) async fn set(node: &Arc<Node>, pairs: Vec<(String, String)>) -> Result<(), CommandError> {
    // Files may be written and caches emptied: not by a thread that serves connections.
    let node = node.clone();
    offload(move || Ok(node.live.set(&pairs, |next| apply(&node, next))?)).await
}

fn get(node: &Node, patterns: &[Bytes]) -> LaterReply {
    let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let current = node.live.current();
    let older = ALIASES.iter().filter_map(|(alias, _)| Some((*alias, spec(alias)?)));
    let chosen: Vec<(&'static str, String)> = specs()
        .iter()
        .map(|spec| (spec.name, spec))
        .chain(older)
        .filter(|(name, spec)| !spec.secret && patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes())))
        .map(|(name, spec)| (name, unquote(&(spec.get)(&current))))
        .collect();
    Box::new(move |reply| {
        reply.map(chosen.len());
        for (name, value) in &chosen {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    })
}

fn pairs(words: &[Bytes]) -> Result<Vec<(String, String)>, CommandError> {
    if !words.len().is_multiple_of(2) {
        return Err(SetError::Pairs.into());
    }
    let text = |word: &Bytes| String::from_utf8_lossy(word).into_owned();
    Ok(words.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
}

/// Puts into force what is not read from the settings each time.
fn apply(node: &Node, next: &Settings) -> Result<(), String> {
    node.engine.set_sync_policy(next.sync);
    node.memory.set_limits(next.memory_limits());
    node.clients.set_notify(next.notify);
    node.clients.slow.set(
        next.slowlog_log_slower_than,
        next.slowlog_max_len,
        next.latency_monitor_threshold,
        next.latency_tracking,
    );
    node.clients.set_limits(next.client_output_buffer_limit.pubsub);
    node.cluster.bus().set_limit(next.link_sendbuf_limit.0);
    node.sweep.set_pace(next.sweep_pace());
    node.engine.set_disk_free_min(next.disk_free_min.0);
    node.engine.set_packed_bytes_max(next.packed_max.0 as usize);
    node.engine.set_checkpoints_kept(next.checkpoints_kept as usize);
    node.migrations.set_pace(next.migrate_rate.0, next.migrate_units_at_once as usize);
    node.migrations.set_memory(plan_memory(next).migrations);
    if let Some(traces) = traces() {
        traces.commands().set_per_million(next.otlp_sample);
    }
    Ok(())
}
