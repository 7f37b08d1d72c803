//! Which clients CLIENT LIST and CLIENT KILL mean.

use bytes::Bytes;

use super::CommandError;
use crate::{clients::Client, types::parse_integer};

/// Kinds of clients. There are no replicas here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientType {
    Normal,
    PubSub,
    Replica,
    Master,
}

impl ClientType {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        match word.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::PubSub),
            b"slave" | b"replica" => Ok(Self::Replica),
            b"master" => Ok(Self::Master),
            _ => Err(CommandError::new(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(word)))),
        }
    }
}

/// What has to be true of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) ids: Option<Vec<u64>>,
    pub(super) kind: Option<ClientType>,
    pub(super) address: Option<String>,
    pub(super) local: Option<String>,
    /// Not that one.
    pub(super) except: Option<u64>,
    pub(super) age_min_seconds: Option<u64>,
}

impl Filter {
    pub(super) fn matches(&self, client: &Client) -> bool {
        let subscribed = client.subscription_counts().iter().any(|count| *count > 0);
        let kind = if subscribed { ClientType::PubSub } else { ClientType::Normal };
        let same = |wanted: &Option<String>, address: Option<std::net::SocketAddr>| {
            wanted.as_ref().is_none_or(|wanted| address.is_some_and(|address| address.to_string() == *wanted))
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.kind.is_none_or(|wanted| wanted == kind)
            && same(&self.address, client.peer)
            && same(&self.local, client.local)
            && self.except != Some(client.id)
            && self.age_min_seconds.is_none_or(|seconds| client.since.elapsed().as_secs() >= seconds)
    }
}

/// The filter of CLIENT LIST.
pub(super) fn of_list(words: &[Bytes]) -> Result<Filter, CommandError> {
    match words {
        [] => Ok(Filter::default()),
        [option, kind] if option.eq_ignore_ascii_case(b"type") => {
            Ok(Filter { kind: Some(ClientType::parse(kind)?), ..Filter::default() })
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let id = |word: &Bytes| parse_integer(word).ok().and_then(|id| u64::try_from(id).ok());
            let ids: Option<Vec<u64>> = ids.iter().map(id).collect();
            let ids = ids.ok_or_else(|| CommandError::new("ERR Invalid client ID"))?;
            Ok(Filter { ids: Some(ids), ..Filter::default() })
        }
        _ => Err(CommandError::syntax()),
    }
}

/// The filter of CLIENT KILL in its new form; `me` is spared unless it says otherwise.
pub(super) fn of_kill(words: &[Bytes], me: u64) -> Result<Filter, CommandError> {
    let mut filter = Filter { except: Some(me), ..Filter::default() };
    for pair in words.chunks(2) {
        let [option, value] = pair else { return Err(CommandError::syntax()) };
        let text = || String::from_utf8_lossy(value).into_owned();
        match option.to_ascii_lowercase().as_slice() {
            b"id" => {
                let id = parse_integer(value).ok().and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                filter.ids = Some(vec![id.ok_or_else(|| CommandError::new("ERR client-id should be greater than 0"))?]);
            }
            b"type" => filter.kind = Some(ClientType::parse(value)?),
            b"addr" => filter.address = Some(text()),
            b"laddr" => filter.local = Some(text()),
            b"user" if value.as_ref() == b"default" => {}
            b"user" => return Err(CommandError::new(format!("ERR No such user '{}'", text()))),
            b"maxage" => {
                let seconds =
                    parse_integer(value).map_err(|_| CommandError::new("ERR maxage is not an integer or out of range"))?;
                let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                filter.age_min_seconds = Some(seconds.ok_or_else(|| CommandError::new("ERR maxage should be greater than 0"))?);
            }
            b"skipme" => match value.to_ascii_lowercase().as_slice() {
                b"yes" => filter.except = Some(me),
                b"no" => filter.except = None,
                _ => return Err(CommandError::syntax()),
            },
            _ => return Err(CommandError::syntax()),
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Bytes> {
        text.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn filters_are_refused_as_redis_refuses_them() {
        for (text, expected) in [
            ("ID 0", "ERR client-id should be greater than 0"),
            ("ID x", "ERR client-id should be greater than 0"),
            ("TYPE x", "ERR Unknown client type 'x'"),
            ("USER nobody", "ERR No such user 'nobody'"),
            ("SKIPME maybe", "ERR syntax error"),
            ("ID 1 ADDR", "ERR syntax error"),
            ("MAXAGE 0", "ERR maxage should be greater than 0"),
            ("WHAT 1", "ERR syntax error"),
        ] {
            assert_eq!(of_kill(&words(text), 1).unwrap_err().to_string(), expected, "{text}");
        }
        for (text, expected) in
            [("ID", "ERR syntax error"), ("ID 1 x", "ERR Invalid client ID"), ("TYPE x", "ERR Unknown client type 'x'")]
        {
            assert_eq!(of_list(&words(text)).unwrap_err().to_string(), expected, "{text}");
        }
        let filter = of_kill(&words("id 7 skipme no user default"), 3).unwrap();
        assert_eq!((filter.ids, filter.except), (Some(vec![7]), None));
    }
}
