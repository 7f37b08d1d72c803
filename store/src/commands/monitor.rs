//! MONITOR, and how a command is shown to people: in MONITOR and in the slow log, without its secrets.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{CommandError, Context, table::CommandSpec};
use crate::{clients::ClientFlags, config, engine::system_ms, protocol::Request};

pub(super) fn monitor(cx: &mut Context<'_, '_>, _: &Request) -> Result<(), CommandError> {
    cx.session.client.set_flag(ClientFlags::MONITOR, true);
    cx.node.clients.add_monitor(&cx.session.client);
    cx.reply.ok();
    Ok(())
}

/// The words of a request, secrets replaced.
pub(super) fn redacted(spec: &CommandSpec, request: &Request) -> Vec<Bytes> {
    let mut words = request.clone();
    let hide = |words: &mut Vec<Bytes>, at: usize| {
        if let Some(word) = words.get_mut(at) {
            *word = Bytes::from_static(b"(redacted)");
        }
    };
    match spec.name {
        "auth" => (1..request.len()).for_each(|at| hide(&mut words, at)),
        "hello" => {
            if let Some(at) = request.iter().position(|word| word.eq_ignore_ascii_case(b"auth")) {
                (at + 1..=at + 2).for_each(|at| hide(&mut words, at));
            }
        }
        "config" if request[1].eq_ignore_ascii_case(b"set") => {
            for at in (2..request.len()).step_by(2) {
                let secret =
                    config::specs().iter().any(|spec| spec.secret && request[at].eq_ignore_ascii_case(spec.name.as_bytes()));
                if secret {
                    hide(&mut words, at + 1);
                }
            }
        }
        _ => {}
    }
    words
}

/// Shows a command to those who look.
pub(super) fn show(cx: &Context<'_, '_>, spec: &CommandSpec, request: &Request) {
    let now = system_ms();
    let peer = cx.session.client.peer.map(|peer| peer.to_string()).unwrap_or_default();
    let mut line = format!("{}.{:06} [{} {peer}]", now / 1000, now % 1000 * 1000, cx.session.database);
    for word in redacted(spec, request) {
        line.push_str(" \"");
        for byte in word {
            match byte {
                b'"' | b'\\' => line.extend(['\\', char::from(byte)]),
                b'\n' => line.push_str("\\n"),
                b'\r' => line.push_str("\\r"),
                b'\t' => line.push_str("\\t"),
                7 => line.push_str("\\a"),
                8 => line.push_str("\\b"),
                b' '..=b'~' => line.push(char::from(byte)),
                other => {
                    let _ = write!(line, "\\x{other:02x}");
                }
            }
        }
        line.push('"');
    }
    cx.node.clients.show_monitors(&line);
}
