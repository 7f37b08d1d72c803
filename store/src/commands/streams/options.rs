//! What XADD, XTRIM and the commands of ranges are told.

use bytes::Bytes;

use crate::{
    commands::CommandError,
    types::{EntryId, NewId, Trim, TrimTo, parse_integer},
};

/// Most entries that `~` without LIMIT lets go at once, in multiples of those that go together.
const LIMIT: u64 = 100;
/// The same as a number of entries, however many go together.
const LIMIT_MAX: u64 = 1_000_000;

pub(super) fn invalid_id() -> CommandError {
    CommandError::new("ERR Invalid stream ID specified as stream command argument")
}

/// What XADD is told.
pub(super) struct Adding {
    pub(super) id: NewId,
    /// Whether a stream is made if there is none.
    pub(super) make: bool,
    pub(super) trim: Option<Trim>,
    /// Where the fields begin.
    pub(super) texts: usize,
}

impl Adding {
    /// `together`: entries that `~` lets go together.
    pub(super) fn parse(request: &[Bytes], together: u64) -> Result<Self, CommandError> {
        let (mut trims, mut make, mut at) = (Trims::default(), true, 2);
        let id = loop {
            let word = request.get(at).ok_or_else(|| CommandError::arity("xadd"))?;
            if let Some(taken) = trims.take(&request[at..])? {
                at += taken;
                continue;
            }
            at += 1;
            match &word[..] {
                b"*" => break NewId::Auto,
                word if word.eq_ignore_ascii_case(b"nomkstream") => make = false,
                word => break new_id(word)?,
            }
        };
        let trim = trims.finish(together)?;
        let texts = request.len().saturating_sub(at);
        if texts < 2 || texts % 2 == 1 {
            return Err(CommandError::arity("xadd"));
        }
        if id == NewId::Exact(EntryId::MIN) {
            return Err(CommandError::new("ERR The ID specified in XADD must be greater than 0-0"));
        }
        Ok(Self { id, make, trim, texts: at })
    }
}

fn new_id(word: &[u8]) -> Result<NewId, CommandError> {
    match word.strip_suffix(b"-*") {
        Some(ms) if !ms.contains(&b'-') => EntryId::parse(ms, 0).map(|id| NewId::InMillisecond(id.ms)),
        _ => EntryId::parse(word, 0).map(NewId::Exact),
    }
    .ok_or_else(invalid_id)
}

/// What XTRIM is told. `together`: entries that `~` lets go together.
pub(super) fn trimming(request: &[Bytes], together: u64) -> Result<Trim, CommandError> {
    let (mut trims, mut at) = (Trims::default(), 2);
    while at < request.len() {
        at += trims.take(&request[at..])?.ok_or_else(CommandError::syntax)?;
    }
    trims.finish(together)?.ok_or_else(|| CommandError::new("ERR syntax error, XTRIM must be called with a trimming strategy"))
}

/// MAXLEN, MINID and LIMIT.
#[derive(Default)]
struct Trims {
    to: Option<TrimTo>,
    about: bool,
    limit: Option<u64>,
}

impl Trims {
    /// Takes one of them off the front; how many words it has, `None`: it is something else.
    fn take(&mut self, words: &[Bytes]) -> Result<Option<usize>, CommandError> {
        let [name, rest @ ..] = words else { return Ok(None) };
        let name = name.to_ascii_lowercase();
        match (name.as_slice(), rest) {
            (b"limit", [number, ..]) => {
                let number = u64::try_from(parse_integer(number)?);
                self.limit = Some(number.map_err(|_| CommandError::new("ERR The LIMIT argument must be >= 0."))?);
                Ok(Some(2))
            }
            (b"maxlen" | b"minid", [first, ..]) => {
                if self.to.is_some() {
                    let text = "ERR syntax error, MAXLEN and MINID options at the same time are not compatible";
                    return Err(CommandError::new(text));
                }
                let marked = rest.len() > 1 && (first == "~" || first == "=");
                self.about = marked && first == "~";
                let value = &rest[usize::from(marked)];
                self.to = Some(if name == b"maxlen" {
                    let length = u64::try_from(parse_integer(value)?);
                    TrimTo::Length(length.map_err(|_| CommandError::new("ERR The MAXLEN argument must be >= 0."))?)
                } else {
                    TrimTo::Id(EntryId::parse(value, 0).ok_or_else(invalid_id)?)
                });
                Ok(Some(2 + usize::from(marked)))
            }
            _ => Ok(None),
        }
    }

    fn finish(self, together: u64) -> Result<Option<Trim>, CommandError> {
        let Some(to) = self.to else {
            if self.limit.is_some_and(|limit| limit > 0) {
                let text = "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy";
                return Err(CommandError::new(text));
            }
            return Ok(None);
        };
        if self.about {
            let limit = (LIMIT * together).min(LIMIT_MAX);
            return Ok(Some(Trim { to, by: Some(together), limit: self.limit.unwrap_or(limit) }));
        }
        if self.limit.is_some() {
            return Err(CommandError::new("ERR syntax error, LIMIT cannot be used without the special ~ option"));
        }
        Ok(Some(Trim { to, by: None, limit: 0 }))
    }
}

/// The ids that an interval begins and ends with: `-`, `+`, ids, and ids with `(` before them, which are not in it.
pub(super) fn interval(from: &[u8], to: &[u8]) -> Result<(EntryId, EntryId), CommandError> {
    let (from, without_from) = end_of_interval(from, 0)?;
    let from = if without_from { from.next() } else { Some(from) };
    let from = from.ok_or_else(|| CommandError::new("ERR invalid start ID for the interval"))?;
    let (to, without_to) = end_of_interval(to, u64::MAX)?;
    let to = if without_to { to.previous() } else { Some(to) };
    Ok((from, to.ok_or_else(|| CommandError::new("ERR invalid end ID for the interval"))?))
}

/// The id an interval begins with.
pub(super) fn start_of_interval(from: &[u8]) -> Result<EntryId, CommandError> {
    interval(from, b"+").map(|(from, _)| from)
}

fn end_of_interval(word: &[u8], missing: u64) -> Result<(EntryId, bool), CommandError> {
    let id = match word {
        b"-" => Some((EntryId::MIN, false)),
        b"+" => Some((EntryId::MAX, false)),
        [b'(', rest @ ..] if !rest.is_empty() => EntryId::parse(rest, missing).map(|id| (id, true)),
        word => EntryId::parse(word, missing).map(|id| (id, false)),
    };
    id.ok_or_else(invalid_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn trims_are_read_as_redis_reads_them() {
        let of = |text: &str| trimming(&words(&format!("XTRIM k {text}")), 10).map_err(|error| error.to_string());
        assert_eq!(of("MAXLEN 5"), Ok(Trim { to: TrimTo::Length(5), by: None, limit: 0 }));
        assert_eq!(of("maxlen = 5"), Ok(Trim { to: TrimTo::Length(5), by: None, limit: 0 }));
        assert_eq!(of("MAXLEN ~ 5"), Ok(Trim { to: TrimTo::Length(5), by: Some(10), limit: 1000 }));
        assert_eq!(of("LIMIT 0 MAXLEN ~ 5"), Ok(Trim { to: TrimTo::Length(5), by: Some(10), limit: 0 }));
        assert_eq!(of("MINID 5-1"), Ok(Trim { to: TrimTo::Id(EntryId { ms: 5, sequence: 1 }), by: None, limit: 0 }));
        for wrong in [
            "MAXLEN",
            "MAXLEN ~",
            "MAXLEN x",
            "MAXLEN -1",
            "MAXLEN 1 MINID 2",
            "MAXLEN 1 LIMIT 2",
            "LIMIT 2",
            "5",
            "MAXLEN ~ 5 LIMIT -1",
            "MINID +",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_of_new_entries_are_read_as_redis_reads_them() {
        let of = |text: &str| Adding::parse(&words(&format!("XADD k {text} f v")), 10).map(|adding| adding.id).ok();
        assert_eq!(of("*"), Some(NewId::Auto));
        assert_eq!(of("5-*"), Some(NewId::InMillisecond(5)));
        assert_eq!(of("NOMKSTREAM MAXLEN = 3 5"), Some(NewId::Exact(EntryId { ms: 5, sequence: 0 })));
        for wrong in ["0-0", "0", "-", "+", "-*", "x-*", "5-1-*", "5-**", "MAXLEN 3"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
