//! DEBUG: what tests of clients and of Redis ask for and a store on RocksDB can give. Allowed by `enable-debug-command` alone.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

use super::{CommandError, Context, Later, LaterReply, Plane, Session, run::ok_later, scan::offload, subcommands};
use crate::{
    config::DebugAllowed,
    engine::{SweepPace, Writer},
    glob,
    node::Node,
    protocol::{ReplyWriter, Request, Version},
    types::{Keyspace, parse_integer},
};

/// Longest DEBUG SLEEP.
const SLEEP_MAX: Duration = Duration::from_hours(1);
/// Longest DEBUG SLEEP of a script, which holds its thread.
const SLEEP_IN_SCRIPT_MAX: Duration = Duration::from_secs(1);
/// Longest text of DEBUG STRINGMATCH-LEN.
const TEXT_LEN_MAX: usize = 64 << 20;

/// Whether scripts may use DEBUG.
static IN_SCRIPTS: AtomicBool = AtomicBool::new(false);

/// Whether scripts may: DEBUG SET-DISABLE-DENY-SCRIPTS.
pub(super) fn in_scripts() -> bool {
    IN_SCRIPTS.load(Ordering::Relaxed)
}

/// Inside a script: what is done at once.
pub(super) fn at_once(cx: &mut Context<'_, '_>, request: &Request) -> Result<(), CommandError> {
    let mut later = debug(cx.node, cx.session, request)?;
    if request[1].eq_ignore_ascii_case(b"sleep") {
        std::thread::sleep(sleep_time(&request[2]).min(SLEEP_IN_SCRIPT_MAX));
        cx.reply.ok();
        return Ok(());
    }
    match later.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome?(cx.reply),
        Poll::Pending => return Err(CommandError::new("ERR This Redis command is not allowed from script")),
    }
    Ok(())
}

pub(super) fn debug(node: &Arc<Node>, session: &Session, request: &Request) -> Result<Later, CommandError> {
    let local = session.client.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let allowed = match node.settings.enable_debug_command {
        DebugAllowed::Yes => true,
        DebugAllowed::Local => local,
        DebugAllowed::No => session.plane == Plane::Admin,
    };
    if !allowed {
        return Err(CommandError::new(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
             connection, otherwise you need to set this option in the configuration file, and then restart the server.",
        ));
    }
    let (node, words) = (node.clone(), request[2..].to_vec());
    match request[1].to_ascii_lowercase().as_slice() {
        b"sleep" => sleep(&words[0]),
        b"reload" | b"loadaof" => Ok(Box::pin(async move { reload(&node).await })),
        b"object" => Ok(Box::pin(object(node, session.database, words[0].clone()))),
        b"set-disable-deny-scripts" => {
            IN_SCRIPTS.store(parse_integer(&words[0])? != 0, Ordering::Relaxed);
            ready(ok_later())
        }
        b"set-active-expire" => {
            let on = parse_integer(&words[0])? != 0;
            let pace = if on { node.live.current().sweep_pace() } else { SweepPace { keys_per_second: 0, bytes_per_second: 1 } };
            node.sweep.set_pace(pace);
            ready(ok_later())
        }
        #[allow(clippy::panic, reason = "what the user asked for")]
        b"panic" => panic!("DEBUG PANIC"),
        b"log" => {
            tracing::info!(text = %String::from_utf8_lossy(&words[0]), "DEBUG LOG");
            ready(ok_later())
        }
        b"stringmatch-len" => {
            let length = usize::try_from(parse_integer(&words[0])?).unwrap_or(0).min(TEXT_LEN_MAX);
            let pattern = words[1].clone();
            Ok(Box::pin(async move {
                let matched = offload(move || Ok(glob::matches(&pattern, &vec![0; length]))).await?;
                let reply: LaterReply = Box::new(move |reply| reply.integer(i64::from(matched)));
                Ok(reply)
            }))
        }
        b"protocol" => {
            let kind = words[0].to_ascii_lowercase();
            if !PROTOCOL.contains(&kind.as_slice()) {
                let names = "string|integer|double|null|array|set|map|attrib|push|verbatim|true|false|bignum";
                return Err(CommandError::new(format!("ERR Wrong protocol type name. Please use one of the following: {names}")));
            }
            ready(Box::new(move |reply| protocol(reply, &kind)))
        }
        _ => ready(Box::new(|reply| subcommands::help(reply, "debug"))),
    }
}

fn ready(reply: LaterReply) -> Result<Later, CommandError> {
    Ok(Box::pin(std::future::ready(Ok(reply))))
}

/// Sleeps in this connection; the others go on.
fn sleep(word: &Bytes) -> Result<Later, CommandError> {
    let time = sleep_time(word);
    Ok(Box::pin(async move {
        tokio::time::sleep(time).await;
        Ok(ok_later())
    }))
}

fn sleep_time(word: &Bytes) -> Duration {
    let seconds: f64 = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(SLEEP_MAX).min(SLEEP_MAX)
}

/// What OBJECT and DUMP say of a key, in one line. Nothing lies at an address that would mean something, nothing is idle.
async fn object(node: Arc<Node>, database: u8, key: Bytes) -> Result<LaterReply, CommandError> {
    let line = offload(move || {
        let _inside = node.engine.enter();
        let writer = RefCell::new(Writer::new(node.engine.clone()));
        let keys = Keyspace::new(&node.engine, &writer, database, node.engine.now_ms());
        let payload = keys.dump(&key, node.settings.proto_max_bulk_len.0 as usize)?;
        let (Some(encoding), Some(payload)) = (keys.encoding(&key)?, payload) else {
            return Err(CommandError::new("ERR no such key"));
        };
        // Without the type before it and what closes a payload.
        let length = payload.len().saturating_sub(11);
        Ok(format!("Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{length} lru:0 lru_seconds_idle:0"))
    })
    .await?;
    let reply: LaterReply = Box::new(move |reply| reply.simple(&line));
    Ok(reply)
}

/// Everything is written to the disk, and read from there from now on.
async fn reload(node: &Arc<Node>) -> Result<LaterReply, CommandError> {
    node.engine.flush(false)?.receipt().await?;
    let node = node.clone();
    offload(move || {
        node.engine.empty_caches();
        Ok(())
    })
    .await?;
    Ok(ok_later())
}

const PROTOCOL: [&[u8]; 13] = [
    b"string",
    b"integer",
    b"double",
    b"null",
    b"array",
    b"set",
    b"map",
    b"attrib",
    b"push",
    b"verbatim",
    b"true",
    b"false",
    b"bignum",
];

/// A reply of each type of the protocol.
fn protocol(reply: &mut ReplyWriter<'_>, kind: &[u8]) {
    match kind {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double("3.141"),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if reply.version() == Version::Resp3 {
                reply.attribute(1);
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
        }
        b"verbatim" => reply.verbatim("This is a verbatim\nstring"),
        b"bignum" => reply.big_number("1234567999999999999999999999999999999"),
        other => reply.boolean(other == b"true"),
    }
}
