//! Cursors of SCAN and its kin: numbers that stand for the place where a page ended.
//!
//! A number that is not known any more (a restart, or too many scans at once) means the beginning: things may then come twice, none is
//! left out. Numbers begin anywhere at each start, and each is good only where it was given out, so that one from before a restart, or of
//! another scan, is not taken for a place it never was.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::{LazyLock, Mutex, PoisonError},
};

/// Cursors that are remembered.
const CURSORS_MAX: usize = 4096;
/// Bits of a cursor's number.
pub(super) const CURSOR_BITS: u32 = 40;

static CURSORS: LazyLock<Mutex<Cursors>> = LazyLock::new(|| Mutex::new(Cursors::starting_at(RandomState::new().hash_one(0u8))));

/// What is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The keys of a slot of a database.
    Slot(crate::engine::Home),
    /// The subkeys of the collection of that version.
    Collection(u64),
}

struct Cursors {
    next: u64,
    known: VecDeque<(u64, Scanned, Vec<u8>)>,
}

impl Cursors {
    fn starting_at(number: u64) -> Self {
        Self { next: (number & ((1 << CURSOR_BITS) - 1)).max(1), known: VecDeque::new() }
    }

    fn remember(&mut self, scanned: Scanned, last: Vec<u8>) -> u64 {
        let number = self.next;
        self.next = ((number + 1) & ((1 << CURSOR_BITS) - 1)).max(1);
        if self.known.len() >= CURSORS_MAX {
            self.known.pop_front();
        }
        self.known.push_back((number, scanned, last));
        number
    }

    fn recall(&self, scanned: Scanned, number: u64) -> Option<Vec<u8>> {
        let found = self.known.iter().rev().find(|(known, of, _)| *known == number && *of == scanned);
        found.map(|(.., last)| last.clone())
    }
}

/// A number, never 0, for the place behind `last`.
pub(super) fn remember(scanned: Scanned, last: Vec<u8>) -> u64 {
    CURSORS.lock().unwrap_or_else(PoisonError::into_inner).remember(scanned, last)
}

/// The place that a number stands for; `None`: the beginning.
pub(super) fn recall(scanned: Scanned, number: u64) -> Option<Vec<u8>> {
    CURSORS.lock().unwrap_or_else(PoisonError::into_inner).recall(scanned, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_good_where_it_was_given_out_and_until_it_is_forgotten() {
        let mut cursors = Cursors::starting_at(u64::MAX);
        let (here, there) = (Scanned::Collection(7), Scanned::Collection(8));
        let last = cursors.remember(here, b"a".to_vec());
        let first = cursors.remember(here, b"b".to_vec());
        assert_eq!((last, first), ((1 << CURSOR_BITS) - 1, 1), "0 is the beginning of every scan");
        assert_eq!(cursors.recall(here, first).as_deref(), Some(&b"b"[..]));
        assert_eq!(cursors.recall(there, first), None);
        for _ in 0..CURSORS_MAX {
            cursors.remember(there, Vec::new());
        }
        assert_eq!(cursors.recall(here, last), None);
    }
}
