//! CLIENT: this connection, and the others.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;

use super::{
    CommandError, Context,
    client_filter::{self, Filter},
    session::Replies,
    subcommands, table,
};
use crate::{
    clients::{Client, ClientFlags, Paused, Subscription, Unblock},
    protocol::Request,
    types::parse_integer,
};

type Outcome = Result<(), CommandError>;

pub(super) fn client(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let words = &request[2..];
    match request[1].to_ascii_lowercase().as_slice() {
        b"id" => cx.reply.unsigned(cx.session.id()),
        b"getname" => match cx.session.client.described().name {
            name if name.is_empty() => cx.reply.null(),
            name => cx.reply.bulk(&name),
        },
        b"setname" => {
            let name = checked(&words[0], "Client names")?;
            cx.session.client.describe(|described| described.name = name);
            cx.reply.ok();
        }
        b"setinfo" => set_info(cx, words)?,
        b"info" => {
            let line = line(&cx.session.client, cx.now_ms, Some("client|info"));
            cx.reply.verbatim(&line);
        }
        b"list" => list(cx, words)?,
        b"kill" => kill(cx, words)?,
        b"no-evict" => on_off(cx, &words[0], ClientFlags::NO_EVICT)?,
        b"no-touch" => on_off(cx, &words[0], ClientFlags::NO_TOUCH)?,
        b"pause" => pause(cx, words)?,
        b"unpause" => {
            cx.node.clients.pause.end();
            cx.reply.ok();
        }
        b"reply" => reply(cx, &words[0])?,
        b"unblock" => unblock(cx, words)?,
        b"getredir" => cx.reply.integer(-1),
        b"tracking" if words.len() == 1 && words[0].eq_ignore_ascii_case(b"off") => cx.reply.ok(),
        b"tracking" if words[0].eq_ignore_ascii_case(b"on") => {
            return Err(CommandError::new("ERR client-side caching (CLIENT TRACKING) is not served by this server"));
        }
        b"tracking" => return Err(CommandError::syntax()),
        b"trackinginfo" => tracking_info(cx),
        b"caching" => {
            let text =
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";
            return Err(CommandError::new(text));
        }
        _ => subcommands::help(cx.reply, "client"),
    }
    Ok(())
}

fn set_info(cx: &mut Context<'_, '_>, words: &[Bytes]) -> Outcome {
    let is_name = words[0].eq_ignore_ascii_case(b"lib-name");
    if !is_name && !words[0].eq_ignore_ascii_case(b"lib-ver") {
        let shown = String::from_utf8_lossy(&words[0]);
        return Err(CommandError::new(format!("ERR Unrecognized option '{shown}'")));
    }
    let value = checked(&words[1], if is_name { "lib-name" } else { "lib-ver" })?;
    cx.session.client.describe(|described| *(if is_name { &mut described.lib_name } else { &mut described.lib_version }) = value);
    cx.reply.ok();
    Ok(())
}

fn tracking_info(cx: &mut Context<'_, '_>) {
    cx.reply.map(3);
    cx.reply.bulk(b"flags");
    cx.reply.set(1);
    cx.reply.bulk(b"off");
    cx.reply.bulk(b"redirect");
    cx.reply.integer(-1);
    cx.reply.bulk(b"prefixes");
    cx.reply.array(0);
}

fn on_off(cx: &mut Context<'_, '_>, word: &[u8], flag: u32) -> Outcome {
    let on = match word.to_ascii_lowercase().as_slice() {
        b"on" => true,
        b"off" => false,
        _ => return Err(CommandError::syntax()),
    };
    cx.session.client.set_flag(flag, on);
    cx.reply.ok();
    Ok(())
}

fn reply(cx: &mut Context<'_, '_>, word: &[u8]) -> Outcome {
    match word.to_ascii_lowercase().as_slice() {
        b"on" => cx.session.replies = Replies::Sent,
        b"off" => cx.session.replies = Replies::None,
        b"skip" if cx.session.replies == Replies::None => {}
        b"skip" => cx.session.replies = Replies::SkipTwo,
        _ => return Err(CommandError::syntax()),
    }
    cx.reply.ok();
    Ok(())
}

fn pause(cx: &mut Context<'_, '_>, words: &[Bytes]) -> Outcome {
    let what = match words {
        [_] => Paused::All,
        [_, mode] if mode.eq_ignore_ascii_case(b"all") => Paused::All,
        [_, mode] if mode.eq_ignore_ascii_case(b"write") => Paused::Writes,
        [_, _] => return Err(CommandError::new("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(CommandError::syntax()),
    };
    let time = parse_integer(&words[0]).map_err(|_| CommandError::new("ERR timeout is not an integer or out of range"))?;
    let time = u64::try_from(time).map_err(|_| CommandError::new("ERR timeout is negative"))?;
    // Longer than anybody waits; and no sum of times overflows.
    cx.node.clients.pause.begin(what, Duration::from_millis(time.min(1 << 40)));
    cx.reply.ok();
    Ok(())
}

fn unblock(cx: &mut Context<'_, '_>, words: &[Bytes]) -> Outcome {
    let how = match words {
        [_] => Unblock::Timeout,
        [_, how] if how.eq_ignore_ascii_case(b"timeout") => Unblock::Timeout,
        [_, how] if how.eq_ignore_ascii_case(b"error") => Unblock::Error,
        _ => return Err(CommandError::new("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = u64::try_from(parse_integer(&words[0])?).unwrap_or(0);
    let done = cx.node.clients.find(id).is_some_and(|client| client.unblock(how));
    cx.reply.integer(i64::from(done));
    Ok(())
}

fn list(cx: &mut Context<'_, '_>, words: &[Bytes]) -> Outcome {
    let filter = client_filter::of_list(words)?;
    let mut text = String::new();
    for client in cx.node.clients.all() {
        if filter.matches(&client) {
            let command = (client.id == cx.session.id()).then_some("client|list");
            text.push_str(&line(&client, cx.now_ms, command));
        }
    }
    cx.reply.verbatim(&text);
    Ok(())
}

fn kill(cx: &mut Context<'_, '_>, words: &[Bytes]) -> Outcome {
    if let [address] = words {
        let address = String::from_utf8_lossy(address);
        let filter = Filter { address: Some(address.into_owned()), ..Filter::default() };
        return match end_matching(cx, &filter) {
            0 => Err(CommandError::new("ERR No such client")),
            _ => {
                cx.reply.ok();
                Ok(())
            }
        };
    }
    let filter = client_filter::of_kill(words, cx.session.id())?;
    let count = end_matching(cx, &filter);
    cx.reply.unsigned(count);
    Ok(())
}

fn end_matching(cx: &mut Context<'_, '_>, filter: &Filter) -> u64 {
    let mut count = 0;
    for client in cx.node.clients.all().into_iter().filter(|client| filter.matches(client)) {
        count += 1;
        if client.id == cx.session.id() {
            // It still gets its reply.
            cx.session.closing = true;
        } else {
            client.end();
        }
    }
    count
}

/// A line of CLIENT LIST.
pub(super) fn line(client: &Client, now_ms: u64, command: Option<&str>) -> String {
    let address = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let (described, subscriptions) = (client.described(), client.subscription_counts());
    let last = client.last_command();
    let command = command.or_else(|| table::table().find(|spec| spec.name.as_ptr() as usize == last).map(|spec| spec.name));
    let idle = now_ms.saturating_sub(client.active_ms.get()) / 1000;
    let [unread, room, replies, waiting, queued] = [0, 1, 2, 3, 4].map(|at: usize| client.buffers[at].get());
    let (held, held_bytes) = client.mail_held();
    let mut line = format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={idle} flags={} db={} sub={} psub={} ssub={} multi={} watch={}",
        client.id,
        address(client.peer),
        address(client.local),
        client.descriptor,
        String::from_utf8_lossy(&described.name),
        client.since.elapsed().as_secs(),
        flags(client),
        client.database.get(),
        subscriptions[Subscription::Channel as usize],
        subscriptions[Subscription::Pattern as usize],
        subscriptions[Subscription::Shard as usize],
        client.queued.get() as i64 - 1,
        client.watched.get(),
    );
    let _ = writeln!(
        line,
        " qbuf={unread} qbuf-free={room} argv-mem={waiting} multi-mem={queued} rbs={replies} rbp={replies} obl=0 oll={held} omem={held_bytes} \
         tot-mem={} events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
        unread + room + replies + waiting + queued + held_bytes + size_of::<Client>() as u64,
        command.unwrap_or("NULL"),
        client.protocol.get(),
        String::from_utf8_lossy(&described.lib_name),
        String::from_utf8_lossy(&described.lib_version),
    );
    line
}

fn flags(client: &Client) -> String {
    let subscribed = client.subscription_counts().iter().any(|count| *count > 0);
    let letters = [
        ('O', client.has_flag(ClientFlags::MONITOR)),
        ('P', subscribed),
        ('x', client.queued.get() > 0),
        ('b', client.is_blocked()),
        ('d', client.has_flag(ClientFlags::DIRTY)),
        ('A', client.is_ending()),
        ('r', client.has_flag(ClientFlags::READONLY)),
        ('e', client.has_flag(ClientFlags::NO_EVICT)),
        ('T', client.has_flag(ClientFlags::NO_TOUCH)),
    ];
    let set: String = letters.into_iter().filter(|(_, set)| *set).map(|(letter, _)| letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

/// A name without anything that would break CLIENT LIST.
pub(super) fn checked(text: &Bytes, what: &str) -> Result<Bytes, CommandError> {
    if text.len() <= 256 && text.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        // A copy: a slice would keep the whole request alive.
        return Ok(Bytes::copy_from_slice(text));
    }
    Err(CommandError::new(format!("ERR {what} cannot contain spaces, newlines or special characters.")))
}
