//! Commands about the connection.

use bytes::Bytes;

use super::{CommandError, Context};
use crate::{
    protocol::{Request, Version},
    types::parse_integer,
};

type Outcome = Result<(), CommandError>;

pub(super) fn ping(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match request.as_slice() {
        [_] => cx.reply.simple("PONG"),
        [_, text] => cx.reply.bulk(text),
        _ => return Err(CommandError::arity("ping")),
    }
    Ok(())
}

pub(super) fn echo(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    cx.reply.bulk(&request[1]);
    Ok(())
}

pub(super) fn auth(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match request.as_slice() {
        [_, password] => authenticate(cx, b"default", password)?,
        [_, user, password] => authenticate(cx, user, password)?,
        _ => return Err(CommandError::syntax()),
    }
    cx.reply.ok();
    Ok(())
}

fn authenticate(cx: &mut Context<'_, '_>, user: &[u8], password: &[u8]) -> Outcome {
    let expected = cx.session.plane.password(&cx.node.settings);
    if expected.is_empty() {
        return Err(CommandError::new(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        ));
    }
    if user == b"default" && same(expected.as_bytes(), password) {
        cx.session.authenticated = true;
        return Ok(());
    }
    Err(CommandError::new("WRONGPASS invalid username-password pair or user is disabled."))
}

/// Compares in a time that tells nothing of where two passwords differ, nor of the expected one's length.
fn same(expected: &[u8], given: &[u8]) -> bool {
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
            b"auth" => match (words.next(), words.next()) {
                (Some(user), Some(password)) => authenticate(cx, user, password)?,
                _ => return Err(CommandError::syntax()),
            },
            b"setname" => name = Some(checked_name(words.next().ok_or_else(CommandError::syntax)?)?),
            _ => return Err(CommandError::syntax()),
        }
    }
    if !cx.session.authenticated {
        return Err(CommandError::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        cx.session.name = name;
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
    cx.reply.unsigned(cx.session.id);
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
    cx.session.name = Bytes::new();
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

pub(super) fn client(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    match (request[1].to_ascii_lowercase().as_slice(), &request[2..]) {
        (b"id", []) => cx.reply.unsigned(cx.session.id),
        (b"getname", []) if cx.session.name.is_empty() => cx.reply.null(),
        (b"getname", []) => cx.reply.bulk(&cx.session.name),
        (b"setname", [name]) => {
            cx.session.name = checked_name(name)?;
            cx.reply.ok();
        }
        (b"setinfo", [attribute, value]) => {
            let value = checked(value, "CLIENT SETINFO values cannot contain spaces, newlines or special characters.")?;
            match attribute.to_ascii_lowercase().as_slice() {
                b"lib-name" => cx.session.lib_name = value,
                b"lib-ver" => cx.session.lib_version = value,
                _ => {
                    let shown = String::from_utf8_lossy(attribute);
                    return Err(CommandError::new(format!("ERR Unrecognized option '{shown}'")));
                }
            }
            cx.reply.ok();
        }
        (b"info", []) => {
            let (session, text) = (&cx.session, String::from_utf8_lossy);
            let resp = if session.version == Version::Resp3 { 3 } else { 2 };
            let line = format!(
                "id={} name={} db=0 resp={resp} lib-name={} lib-ver={}\n",
                session.id,
                text(&session.name),
                text(&session.lib_name),
                text(&session.lib_version)
            );
            cx.reply.verbatim(&line);
        }
        (_, _) => return Err(CommandError::subcommand("CLIENT", &request[1])),
    }
    Ok(())
}

fn checked_name(name: &Bytes) -> Result<Bytes, CommandError> {
    checked(name, "Client names cannot contain spaces, newlines or special characters.")
}

fn checked(text: &Bytes, error: &str) -> Result<Bytes, CommandError> {
    if text.len() <= 256 && text.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        // A copy: a slice would keep the whole request alive.
        return Ok(Bytes::copy_from_slice(text));
    }
    Err(CommandError::new(format!("ERR {error}")))
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
