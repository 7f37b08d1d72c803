//! FLUSHMEMTABLE: proof of durability on request. Off every lock: reads and writes go on meanwhile.

use std::{sync::Arc, time::Duration};

use sluice_topology::admin::FlushReceipt;

use super::{CommandError, Later, LaterReply, run::ok_later};
use crate::{node::Node, protocol::Request, types::parse_integer};

#[derive(Default)]
struct Options {
    wait: bool,
    only_if_idle: bool,
    limit: Option<Duration>,
    receipt: bool,
}

pub(super) fn flushmemtable(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    let options = parse(request, node.live.flush_wait())?;
    let node = node.clone();
    Ok(Box::pin(async move {
        let place = node.engine.flush(options.only_if_idle)?;
        let round = place.round;
        if !options.wait {
            return Ok(ok_later());
        }
        let receipt = match options.limit {
            None => place.receipt().await?,
            Some(limit) => match tokio::time::timeout(limit, place.receipt()).await {
                Ok(outcome) => outcome?,
                Err(_) => {
                    let text =
                        format!("TIMEOUT flush round {round} did not complete within {} ms; it goes on", limit.as_millis());
                    return Err(CommandError::new(text));
                }
            },
        };
        let reply: LaterReply = Box::new(move |reply| if options.receipt { map(reply, &receipt) } else { reply.ok() });
        Ok(reply)
    }))
}

fn parse(request: &Request, waits_by_default: bool) -> Result<Options, CommandError> {
    let mut options = Options { wait: waits_by_default, ..Options::default() };
    let mut asynchronous = false;
    let mut words = request[1..].iter();
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"async" => asynchronous = true,
            b"nowait" => options.only_if_idle = true,
            b"receipt" => options.receipt = true,
            b"timeout" => {
                let number = parse_integer(words.next().ok_or_else(CommandError::syntax)?)?;
                let limit_ms = u64::try_from(number).ok().filter(|ms| *ms > 0);
                let limit_ms = limit_ms.ok_or_else(|| CommandError::new("ERR timeout has to be at least 1 millisecond"))?;
                options.limit = Some(Duration::from_millis(limit_ms));
            }
            _ => return Err(CommandError::syntax()),
        }
    }
    if asynchronous && (options.receipt || options.limit.is_some()) {
        return Err(CommandError::new("ERR ASYNC does not wait, so it takes neither RECEIPT nor TIMEOUT"));
    }
    // Who asks for a receipt or a time-out waits, whatever the default is.
    options.wait = !asynchronous && (options.wait || options.receipt || options.limit.is_some());
    Ok(options)
}

fn map(reply: &mut crate::protocol::ReplyWriter<'_>, receipt: &FlushReceipt) {
    reply.map(7);
    reply.bulk(b"instance");
    reply.bulk(receipt.instance.to_string().as_bytes());
    let numbers = [
        ("round", receipt.round),
        ("sequence", receipt.sequence),
        ("durable_at_ms", receipt.durable_at_ms),
        ("bytes", receipt.bytes),
        ("duration_ms", receipt.duration_ms),
        ("waiters", receipt.waiters),
    ];
    for (name, value) in numbers {
        reply.bulk(name.as_bytes());
        reply.unsigned(value);
    }
}
