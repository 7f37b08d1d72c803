//! Working off a group of dead generations: whole files first, which needs no space at all; then what is left, by compaction with the
//! filter on, or key by key where there are few.

use std::{sync::atomic::Ordering, time::Instant};

use rocksdb::{BottommostLevelCompaction, CompactOptions, Range as KeyRange, ReadOptions, WriteBatch};

use super::{
    BATCH_PAUSE, Dead, Shared,
    plan::{self, Piece, Range, TableFile},
};
use crate::engine::{
    EngineError,
    families::Family,
    layout::{PREFIX_LEN, prefix, prefix_end},
    system::{self, SystemBatch, SystemKind, dead_key},
};

/// Keys of a group in one family that are deleted one by one; more are compacted away.
const KEYS_FEW: usize = 4096;
/// Keys deleted in one batch.
const BATCH_KEYS: usize = 1000;
/// Times that what is left is compacted before it is deleted key by key: some of it may have been under compaction just then.
const ROUNDS: u32 = 3;

impl Shared {
    /// Gives the space of the generations back, then removes their records. Returns early, with work left, when the thread is to stop.
    pub(super) fn reclaim(&self, group: &[Dead]) -> Result<(), EngineError> {
        let named = || group.iter().map(|dead| (dead.slot, dead.generation));
        self.removable.declare(named());
        let mut ranges: Vec<Range> = named()
            .map(|(slot, generation)| Range {
                start: prefix(slot, generation).to_vec(),
                end: prefix_end(slot, generation).to_vec(),
            })
            .collect();
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        self.delete_files(&ranges)?;
        for family in Family::USER {
            self.reclaim_family(family, &ranges)?;
            if self.stopped() {
                return Ok(());
            }
        }
        // Durable only after the deletions: those by key are in the write-ahead log before it, the others are in the manifest.
        let mut done = SystemBatch::new();
        named().for_each(|(slot, generation)| done.delete(SystemKind::Dead, &dead_key(slot, generation)));
        system::write(&self.database, done)?;
        self.removable.forget(named());
        Ok(())
    }

    /// Deletes the files that hold nothing but one of the ranges.
    fn delete_files(&self, ranges: &[Range]) -> Result<(), EngineError> {
        for family in Family::USER {
            let files = self.files(family)?;
            for range in ranges {
                let last = plan::last_deletable(&range.start);
                let entries = plan::deletable_entries(&range.start, &last, &files);
                if entries == 0 || self.stopped() {
                    continue;
                }
                let handle = self.database.family(family);
                self.database.db().delete_file_in_range_cf(handle, &range.start, &last)?;
                // Files that a compaction has in hand stay, and their keys are counted by its filter.
                let left = plan::deletable_entries(&range.start, &last, &self.files(family)?);
                self.reclaimed_keys.fetch_add(entries.saturating_sub(left), Ordering::Relaxed);
                self.pause(BATCH_PAUSE);
            }
        }
        Ok(())
    }

    /// Files of a family that hold keys of one generation alone: only such can lie inside of one.
    fn files(&self, family: Family) -> Result<Vec<TableFile>, EngineError> {
        let live = self.database.db().live_files()?;
        let of_family = live.into_iter().filter(|file| file.column_family_name == family.name());
        let files = of_family.filter_map(|file| {
            let (first, last) = (file.start_key?, file.end_key?);
            let of_one = first.get(..PREFIX_LEN) == last.get(..PREFIX_LEN);
            of_one.then_some(TableFile { level: file.level, first, last, entries: file.num_entries })
        });
        Ok(files.collect())
    }

    fn reclaim_family(&self, family: Family, ranges: &[Range]) -> Result<(), EngineError> {
        for _ in 0..ROUNDS {
            let (mut held, mut keys) = (Vec::new(), 0);
            for range in ranges {
                let found = self.count(family, range)?;
                if found > 0 {
                    held.push(range);
                    keys += found;
                }
            }
            if keys <= KEYS_FEW {
                break;
            }
            for span in plan::spans(self.pieces(family, &held)) {
                if self.stopped() {
                    return Ok(());
                }
                self.compact(family, &span);
            }
        }
        for range in ranges {
            // From behind the last one: what was deleted is stepped over once, and not again for every batch.
            let mut left = range.clone();
            while let Some(last) = self.delete_some(family, &left)? {
                left.start = last;
                left.start.push(0);
                self.pause(BATCH_PAUSE);
                if self.stopped() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Keys of a range, counted no further than to know that they are not few.
    fn count(&self, family: Family, range: &Range) -> Result<usize, EngineError> {
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(range.end.clone());
        bounds.fill_cache(false);
        let mut iterator = self.database.db().raw_iterator_cf_opt(self.database.family(family), bounds);
        iterator.seek(&range.start);
        let mut keys = 0;
        while iterator.valid() && keys <= KEYS_FEW {
            keys += 1;
            iterator.next();
        }
        iterator.status()?;
        Ok(keys)
    }

    fn pieces(&self, family: Family, held: &[&Range]) -> Vec<Piece> {
        let mut asked = Vec::with_capacity(held.len() * 2);
        for (position, range) in held.iter().enumerate() {
            let before = position.checked_sub(1).map_or(&range.start, |before| &held[before].end);
            asked.push(KeyRange::new(before, &range.start));
            asked.push(KeyRange::new(&range.start, &range.end));
        }
        let sizes = self.database.db().get_approximate_sizes_cf(self.database.family(family), &asked);
        let piece = |(range, sizes): (&&Range, &[u64])| match sizes {
            [gap_bytes, bytes] => Some(Piece { range: (*range).clone(), bytes: *bytes, gap_bytes: *gap_bytes }),
            _ => None,
        };
        held.iter().zip(sizes.chunks(2)).filter_map(piece).collect()
    }

    /// Compacts a span down to the last level, the filter on, beside automatic compactions; then rests as long as it took.
    fn compact(&self, family: Family, span: &Range) {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        let started = Instant::now();
        // Without a result: whoever counts what is left learns whether it worked.
        let handle = self.database.family(family);
        self.database.db().compact_range_cf_opt(handle, Some(&span.start), Some(&span.end), &options);
        self.pause(started.elapsed());
    }

    /// Deletes up to [`BATCH_KEYS`] keys of a range; returns the last of them.
    fn delete_some(&self, family: Family, range: &Range) -> Result<Option<Vec<u8>>, EngineError> {
        let handle = self.database.family(family);
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(range.end.clone());
        bounds.fill_cache(false);
        let (mut batch, mut last) = (WriteBatch::default(), None);
        let mut iterator = self.database.db().raw_iterator_cf_opt(handle, bounds);
        iterator.seek(&range.start);
        while let Some(key) = iterator.key().filter(|_| batch.len() < BATCH_KEYS) {
            batch.delete_cf(handle, key);
            last = Some(key.to_vec());
            iterator.next();
        }
        iterator.status()?;
        let keys = batch.len();
        if keys > 0 {
            // Through the log in every mode: the record that tells of the generation is removed with a sync, and must not be gone
            // while a lost memtable still had the deletions.
            self.database.db().write(batch)?;
            self.reclaimed_keys.fetch_add(keys as u64, Ordering::Relaxed);
        }
        Ok(last)
    }
}
