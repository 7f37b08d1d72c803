//! Commands about the connection.

use std::sync::atomic::Ordering;

use super::{CommandError, Context, clients::checked, pubsub, session::Replies, transactions};
use crate::{
    clients::Described,
    protocol::{Request, Version},
    types::parse_integer,
};

type Outcome = Result<(), CommandError>;

pub(super) fn ping(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if request.len() > 2 {
        return Err(CommandError::arity("ping"));
    }
    if cx.session.subscribed && cx.session.version == Version::Resp2 {
        // A client that is subscribed expects nothing but arrays.
        cx.reply.array(2);
        cx.reply.bulk(b"pong");
        cx.reply.bulk(request.get(1).map_or(b"".as_slice(), AsRef::as_ref));
        return Ok(());
    }
    match request.as_slice() {
        [_] => cx.reply.simple("PONG"),
        words => cx.reply.bulk(&words[1]),
    }
    Ok(())
}

pub(super) fn echo(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    cx.reply.bulk(&request[1]);
    Ok(())
}

pub(super) fn auth(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match request.as_slice() {
        [_, _] if cx.session.plane.password(&cx.node.settings).is_empty() => {
            return Err(CommandError::new(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            ));
        }
        [_, password] => authenticate(cx, b"default", password)?,
        [_, user, password] => authenticate(cx, user, password)?,
        _ => return Err(CommandError::syntax()),
    }
    cx.reply.ok();
    Ok(())
}

fn authenticate(cx: &mut Context<'_, '_>, user: &[u8], password: &[u8]) -> Outcome {
    let expected = cx.session.plane.password(&cx.node.settings);
    // Without a password any is right, as in Redis.
    if user == b"default" && (expected.is_empty() || same(expected.as_bytes(), password)) {
        cx.session.authenticated = true;
        return Ok(());
    }
    Err(CommandError::new("WRONGPASS invalid username-password pair or user is disabled."))
}

/// Compares in a time that tells nothing of where two passwords differ, nor of the expected one's length.
pub fn same(expected: &[u8], given: &[u8]) -> bool {
    let difference = given.iter().enumerate().fold(expected.len() ^ given.len(), |difference, (position, byte)| {
        difference | usize::from(expected[position % expected.len()] ^ byte)
    });
    std::hint::black_box(difference) == 0
}

pub(super) fn hello(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let mut version = cx.session.version;
    let mut words = request[1..].iter();
    if let Some(word) = words.next() {
        let number =
            parse_integer(word).map_err(|_| CommandError::new("ERR Protocol version is not an integer or out of range"))?;
        version = match number {
            2 => Version::Resp2,
            3 => Version::Resp3,
            _ => return Err(CommandError::new("NOPROTO unsupported protocol version")),
        };
    }
    let mut name = None;
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"auth" if words.len() >= 2 => {
                let (user, password) = (words.next(), words.next());
                authenticate(cx, user.map_or(&[], AsRef::as_ref), password.map_or(&[], AsRef::as_ref))?;
            }
            b"setname" if words.len() >= 1 => name = words.next().map(|word| checked(word, "Client names")).transpose()?,
            _ => {
                let shown = String::from_utf8_lossy(word);
                return Err(CommandError::new(format!("ERR Syntax error in HELLO option '{shown}'")));
            }
        }
    }
    if !cx.session.authenticated {
        return Err(CommandError::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        cx.session.client.describe(|described| described.name = name);
    }
    cx.session.version = version;
    cx.reply.set_version(version);
    let mode = if cx.node.cluster.enabled() { "cluster" } else { "standalone" };
    cx.reply.map(7);
    let texts = [("server", "redis"), ("version", super::info::REDIS_VERSION), ("mode", mode), ("role", "master")];
    for (key, value) in texts {
        cx.reply.bulk(key.as_bytes());
        cx.reply.bulk(value.as_bytes());
    }
    cx.reply.bulk(b"proto");
    cx.reply.integer(if version == Version::Resp3 { 3 } else { 2 });
    cx.reply.bulk(b"id");
    cx.reply.unsigned(cx.session.id());
    cx.reply.bulk(b"modules");
    cx.reply.array(0);
    Ok(())
}

pub(super) fn quit(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    cx.session.closing = true;
    cx.reply.ok();
    Ok(())
}

pub(super) fn reset(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    let expected = cx.session.plane.password(&cx.node.settings);
    cx.session.authenticated = expected.is_empty();
    cx.session.database = 0;
    transactions::forget(cx.session);
    pubsub::forget_all(cx);
    cx.session.client.describe(|described| *described = Described::default());
    cx.node.clients.remove_monitor(&cx.session.client);
    cx.session.client.flags.store(0, Ordering::Relaxed);
    cx.session.replies = Replies::Sent;
    cx.session.version = Version::Resp2;
    cx.reply.set_version(Version::Resp2);
    cx.reply.simple("RESET");
    Ok(())
}

pub(super) fn readonly(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    if !cx.node.cluster.enabled() {
        return Err(CommandError::new("ERR This instance has cluster support disabled"));
    }
    cx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn passwords_are_compared_whole() {
        assert!(same(b"secret", b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret", b"secretsecret"] {
            assert!(!same(b"secret", wrong));
        }
    }
}
