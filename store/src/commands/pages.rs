//! Pages of a collection: HSCAN, SSCAN, ZSCAN.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    CommandError,
    cursors::{self, Scanned},
    glob,
};
use crate::{
    protocol::ReplyWriter,
    types::{TypeError, parse_integer},
};

/// Members looked at for one page, whatever COUNT says.
const COUNT_MAX: usize = 100_000;
/// Bytes of one page, after which it ends however few members it has.
const BYTES_MAX: usize = 1 << 20;

/// What a page is asked for besides its cursor.
pub(super) struct Options {
    pattern: Option<Vec<u8>>,
    count: usize,
    values: bool,
}

/// Calls its second argument for members and their values from behind its first one.
type Each<'f> = &'f mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// The number of a cursor.
pub(super) fn cursor(word: &[u8]) -> Result<u64, CommandError> {
    let text = std::str::from_utf8(word).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| CommandError::new("ERR invalid cursor"))
}

/// The page of a key that is not there, which, as in Redis, has no wrong options.
pub(super) fn nothing(reply: &mut ReplyWriter<'_>) {
    write(reply, 0, &[]);
}

/// MATCH, COUNT and, of hashes alone, NOVALUES.
pub(super) fn options(words: &[Bytes], of_hash: bool) -> Result<Options, CommandError> {
    let mut options = Options { pattern: None, count: 10, values: true };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let name = word.to_ascii_lowercase();
        if name == b"novalues" {
            if !of_hash {
                return Err(CommandError::new("ERR NOVALUES option can only be used in HSCAN"));
            }
            options.values = false;
            continue;
        }
        let value = words.next().ok_or_else(CommandError::syntax)?;
        match name.as_slice() {
            b"match" => options.pattern = Some(value.to_vec()),
            b"count" => match parse_integer(value)? {
                number if number > 0 => options.count = usize::try_from(number).unwrap_or(COUNT_MAX).min(COUNT_MAX),
                _ => return Err(CommandError::syntax()),
            },
            _ => return Err(CommandError::syntax()),
        }
    }
    Ok(options)
}

/// Answers with a page of the collection of that version, and the cursor of the next one. `each` goes over its members from behind one of
/// them; `text` is what is answered for a value, if anything.
pub(super) fn answer(
    reply: &mut ReplyWriter<'_>,
    version: u64,
    cursor: u64,
    options: &Options,
    each: impl FnOnce(Option<&[u8]>, Each<'_>) -> Result<(), TypeError>,
    text: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), CommandError> {
    let scanned = Scanned::Collection(version);
    let after = (cursor > 0).then(|| cursors::recall(scanned, cursor)).flatten();
    let (mut found, mut seen, mut bytes, mut last) = (Vec::new(), 0, 0, None);
    each(after.as_deref(), &mut |member, value| {
        if seen >= options.count || bytes >= BYTES_MAX {
            // There is a next one: the page before it ends with a cursor.
            return ControlFlow::Break(());
        }
        seen += 1;
        if options.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, member)) {
            bytes += member.len();
            found.push(member.to_vec());
            if let Some(value) = text(value).filter(|_| options.values) {
                bytes += value.len();
                found.push(value);
            }
        }
        last = Some(member.to_vec());
        ControlFlow::Continue(())
    })?;
    let ended = seen < options.count && bytes < BYTES_MAX;
    write(reply, last.filter(|_| !ended).map_or(0, |last| cursors::remember(scanned, last)), &found);
    Ok(())
}

fn write(reply: &mut ReplyWriter<'_>, cursor: u64, found: &[Vec<u8>]) {
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
    reply.array(found.len());
    found.iter().for_each(|text| reply.bulk(text));
}
