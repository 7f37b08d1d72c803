//! How the space of dead ranges comes back: decided here, over plain values.

use std::{collections::BTreeSet, ops::RangeInclusive};

use sluice_topology::Slot;

/// Most bytes one compaction is asked for: between two of them the thread pauses, and can be told to stop.
pub(super) const SPAN_BYTES_MAX: u64 = 256 << 20;
/// Live bytes that are rewritten along, rather than starting another compaction behind them.
const GAP_BYTES: u64 = 1 << 20;

/// A table file, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableFile {
    pub(super) level: i32,
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
    pub(super) entries: u64,
}

/// Keys from `start`, inclusive, to `end`, exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

/// A dead range that is to be compacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range,
    /// Its bytes on disk, about.
    pub(super) bytes: u64,
    /// Bytes between the piece before it and this one, about.
    pub(super) gap_bytes: u64,
}

/// The last key up to which files of a generation are deleted. RocksDB takes an end as inclusive, and where a range ends is the first
/// key of the next generation: the end must lie before it. Files with keys behind this one, which begin with all these bytes `ff`, stay.
pub(super) fn last_deletable(generation: &[u8]) -> Vec<u8> {
    [generation, &[0xff; 32]].concat()
}

/// Entries of the files that lie wholly between those keys and may be deleted as they are; 0: there is none. Files of level 0 overlap
/// each other: RocksDB never deletes those.
pub(super) fn deletable_entries(first: &[u8], last: &[u8], files: &[TableFile]) -> u64 {
    let inside = |file: &&TableFile| file.level > 0 && file.first.as_slice() >= first && file.last.as_slice() <= last;
    files.iter().filter(inside).map(|file| file.entries.max(1)).sum()
}

/// Runs of neighbouring slots that hold nothing, each with one at least of those given.
pub(super) fn runs(given: &BTreeSet<Slot>, holds_nothing: impl Fn(Slot) -> bool) -> Vec<RangeInclusive<Slot>> {
    let (mut runs, mut run): (Vec<RangeInclusive<Slot>>, Option<RangeInclusive<Slot>>) = (Vec::new(), None);
    for slot in Slot::all() {
        if holds_nothing(slot) {
            run = Some(*run.as_ref().map_or(&slot, RangeInclusive::start)..=slot);
        } else {
            runs.extend(run.take());
        }
    }
    runs.extend(run);
    runs.retain(|run| given.range(run.clone()).next().is_some());
    runs
}

/// Joins pieces, given in key order, to the ranges that are compacted one after another: as few as possible, none much larger than
/// [`SPAN_BYTES_MAX`], none for the sake of more living than dead bytes.
pub(super) fn spans(pieces: impl IntoIterator<Item = Piece>) -> Vec<Range> {
    let mut spans: Vec<(Range, u64)> = Vec::new();
    for piece in pieces {
        match spans.last_mut() {
            Some((span, bytes))
                if piece.gap_bytes <= (*bytes).min(piece.bytes).max(GAP_BYTES)
                    && *bytes + piece.gap_bytes + piece.bytes <= SPAN_BYTES_MAX =>
            {
                span.end = piece.range.end;
                *bytes += piece.gap_bytes + piece.bytes;
            }
            _ => spans.push((piece.range, piece.bytes)),
        }
    }
    spans.into_iter().map(|(span, _)| span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u8, end: u8) -> Range {
        Range { start: vec![start], end: vec![end] }
    }

    #[test]
    fn only_files_wholly_inside_and_below_level_0_are_deleted() {
        let file =
            |level, first: &[u8], last: &[u8]| TableFile { level, first: first.to_vec(), last: last.to_vec(), entries: 10 };
        let dead = [0, 5, 0, 0, 0, 1];
        let last = last_deletable(&dead);
        let key = |generation: u8, tail: &[u8]| [&[0, 5, 0, 0, 0, generation], tail].concat();
        let cases = [
            (file(1, &key(1, b""), &key(1, &[255, 255])), 10),
            (file(6, &key(1, b"a"), &key(1, b"b")), 10),
            (file(0, &key(1, b"a"), &key(1, b"b")), 0),
            (file(6, &key(0, &[255; 40]), &key(1, b"b")), 0),
            (file(6, &key(1, b"a"), &key(1, &[255; 33])), 0),
            (file(6, &key(1, b"a"), &key(2, b"")), 0),
            (file(6, &key(2, b""), &key(2, b"a")), 0),
        ];
        for (file, expected) in cases {
            assert_eq!(deletable_entries(&dead, &last, std::slice::from_ref(&file)), expected, "{file:?}");
        }
        let all = [file(3, &key(1, b"a"), &key(1, b"b")), file(6, &key(1, b"c"), &key(1, b"d")), file(6, b"a", b"z")];
        assert_eq!(deletable_entries(&dead, &last, &all), 20);
        assert!(last < key(2, b""), "the first key of the next generation is no part of it");
    }

    #[test]
    fn runs_end_where_anything_is() {
        let slot = |number: u16| Slot::new(number).unwrap();
        let given = [3, 4, 9, 16383].map(slot).into();
        let held = [0, 5, 6, 100].map(slot);
        let found = runs(&given, |slot| !held.contains(&slot));
        assert_eq!(found, [slot(1)..=slot(4), slot(7)..=slot(99), slot(101)..=slot(16383)]);
        assert_eq!(runs(&[5].map(slot).into(), |slot| !held.contains(&slot)), []);
    }

    #[test]
    fn neighbours_are_compacted_together_and_strangers_are_not() {
        let piece = |start, end, bytes, gap_bytes| Piece { range: range(start, end), bytes, gap_bytes };
        let cases = [
            (vec![], vec![]),
            // Small gaps are worth less than another compaction; large ones only between larger pieces.
            (vec![piece(1, 2, 10, 0), piece(3, 4, 10, MIB), piece(5, 6, 10, 2 * MIB)], vec![range(1, 4), range(5, 6)]),
            (vec![piece(1, 2, 9 * MIB, 0), piece(3, 4, 8 * MIB, 8 * MIB)], vec![range(1, 4)]),
            (vec![piece(1, 2, 9 * MIB, 0), piece(3, 4, 7 * MIB, 8 * MIB)], vec![range(1, 2), range(3, 4)]),
            // Bounded, but for a piece that is larger by itself.
            (
                vec![piece(1, 2, 200 * MIB, 0), piece(3, 4, 200 * MIB, 0), piece(5, 6, 900 * MIB, 0)],
                vec![range(1, 2), range(3, 4), range(5, 6)],
            ),
        ];
        for (pieces, expected) in cases {
            assert_eq!(spans(pieces.clone()), expected, "{pieces:?}");
        }
    }
}
