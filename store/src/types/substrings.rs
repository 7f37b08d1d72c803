//! Parts of strings, and changes of strings that rest on what they hold.

use std::borrow::Cow;

use super::{
    keyspace::{Change, Keyspace, TypeError},
    strings::{Ttl, string},
};

/// What GETEX does to the expiry of the key it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    Keep,
    /// The key lives for ever.
    Persist,
    /// It expires then, Unix milliseconds.
    At(u64),
}

/// Outcome of CAS and CAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// There is no such key.
    Missing,
    /// It holds something else.
    Different,
    /// It was as expected, and is changed.
    Changed,
}

impl Keyspace<'_> {
    /// Gives a string another value made from the one it has (`None`: there is none); what it makes of it may be nothing. The expiry
    /// stays. One point read.
    pub(super) fn update<R>(
        &self,
        key: &[u8],
        make: impl FnOnce(Option<&[u8]>) -> Result<(Option<Vec<u8>>, R), TypeError>,
    ) -> Result<R, TypeError> {
        self.change(key, |record| {
            let current = record.as_ref().map(string).transpose()?;
            let (value, result) = make(current)?;
            let expires_at_ms = record.and_then(|record| record.expires_at_ms);
            Ok((value.map_or(Change::Keep, |value| Change::String(Cow::Owned(value), expires_at_ms)), result))
        })
    }

    /// Another value; the expiry stays.
    pub fn set_keeping_expiry(&self, key: &[u8], value: &[u8]) -> Result<(), TypeError> {
        self.update(key, |_| Ok((Some(value.to_vec()), ())))
    }

    /// SETRANGE: writes into a string, behind zeros where it is too short; the new length. Nothing to write makes no key. Costs a copy of
    /// the string.
    pub fn set_range(&self, key: &[u8], offset: usize, part: &[u8], len_max: usize) -> Result<usize, TypeError> {
        self.update(key, |current| {
            if part.is_empty() {
                return Ok((None, current.map_or(0, <[u8]>::len)));
            }
            let end = offset.saturating_add(part.len());
            if end > len_max {
                return Err(TypeError::TooLong);
            }
            let mut value = current.unwrap_or_default().to_vec();
            if value.len() < end {
                value.resize(end, 0);
            }
            value[offset..end].copy_from_slice(part);
            let length = value.len();
            Ok((Some(value), length))
        })
    }

    /// MSETNX: all pairs, or none when any of the keys is there. One point read a key.
    pub fn set_many_if_missing<'k>(&self, pairs: impl Iterator<Item = (&'k [u8], &'k [u8])> + Clone) -> Result<bool, TypeError> {
        if self.count_existing(pairs.clone().map(|(key, _)| key))? > 0 {
            return Ok(false);
        }
        self.set_many(pairs)?;
        Ok(true)
    }

    /// GETEX: the value, and another expiry; a time that has passed deletes the key.
    pub fn get_and_touch(&self, key: &[u8], touch: Touch) -> Result<Option<Vec<u8>>, TypeError> {
        self.change(key, |record| {
            let Some(record) = record else { return Ok((Change::Keep, None)) };
            let value = string(&record)?.to_vec();
            let change = match touch {
                Touch::Keep => Change::Keep,
                Touch::Persist if record.expires_at_ms.is_none() => Change::Keep,
                Touch::Persist => Change::Expiry(None),
                Touch::At(at) if at <= self.now_ms() => Change::Delete,
                Touch::At(at) => Change::Expiry(Some(at)),
            };
            Ok((change, Some(value)))
        })
    }

    /// CAS: another value, if the string holds this one.
    pub fn compare_and_set(&self, key: &[u8], expected: &[u8], value: &[u8], ttl: Ttl) -> Result<Compared, TypeError> {
        self.change(key, |record| {
            let Some(record) = record else { return Ok((Change::Keep, Compared::Missing)) };
            if string(&record)? != expected {
                return Ok((Change::Keep, Compared::Different));
            }
            let change = match ttl {
                Ttl::None => Change::String(Cow::Borrowed(value), None),
                Ttl::Keep => Change::String(Cow::Borrowed(value), record.expires_at_ms),
                Ttl::At(at) if at <= self.now_ms() => Change::Delete,
                Ttl::At(at) => Change::String(Cow::Borrowed(value), Some(at)),
            };
            Ok((change, Compared::Changed))
        })
    }

    /// CAD: deletes the string, if it holds this value.
    pub fn compare_and_delete(&self, key: &[u8], expected: &[u8]) -> Result<Compared, TypeError> {
        self.change(key, |record| match record {
            None => Ok((Change::Keep, Compared::Missing)),
            Some(record) if string(&record)? == expected => Ok((Change::Delete, Compared::Changed)),
            Some(_) => Ok((Change::Keep, Compared::Different)),
        })
    }
}

/// The bytes from `start` to `end`, both in it, negative ones counted from the end; as Redis cuts them.
pub fn range(length: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    let length = length as i64;
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_end = |at: i64| if at < 0 { (length + at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end || length == 0 { 0..0 } else { start as usize..end as usize + 1 }
}

/// A run that two texts have in common: where it begins in each, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Position in the first.
    pub first: usize,
    /// Position in the second.
    pub second: usize,
    /// Its length.
    pub length: usize,
}

/// The longest common subsequence of two texts, and the runs it consists of, the last one first. Costs the product of their lengths in
/// time, and four times as many bytes; `None`: more than `bytes_max`.
pub fn longest_common(first: &[u8], second: &[u8], bytes_max: usize) -> Option<(Vec<u8>, Vec<Match>)> {
    let width = second.len() + 1;
    let cells = (first.len() + 1).checked_mul(width).filter(|cells| cells.saturating_mul(4) <= bytes_max)?;
    let mut lengths = vec![0u32; cells];
    for (row, a) in first.iter().enumerate() {
        for (column, b) in second.iter().enumerate() {
            lengths[(row + 1) * width + column + 1] = if a == b {
                lengths[row * width + column] + 1
            } else {
                lengths[row * width + column + 1].max(lengths[(row + 1) * width + column])
            };
        }
    }
    let (mut row, mut column) = (first.len(), second.len());
    let (mut text, mut matches, mut open): (Vec<u8>, Vec<Match>, bool) = (Vec::new(), Vec::new(), false);
    while row > 0 && column > 0 {
        if first[row - 1] == second[column - 1] {
            text.push(first[row - 1]);
            (row, column) = (row - 1, column - 1);
            match matches.last_mut().filter(|_| open) {
                Some(run) => *run = Match { first: row, second: column, length: run.length + 1 },
                None => matches.push(Match { first: row, second: column, length: 1 }),
            }
            open = true;
        } else {
            open = false;
            if lengths[(row - 1) * width + column] > lengths[row * width + column - 1] {
                row -= 1;
            } else {
                column -= 1;
            }
        }
    }
    text.reverse();
    Some((text, matches))
}
