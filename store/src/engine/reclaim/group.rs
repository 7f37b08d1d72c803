//! Working off a group of dead generations: whole files first, which needs no space at all; then what is left, by compaction with the
//! filter on, or key by key where there are few.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Instant};

use rocksdb::{BottommostLevelCompaction, CompactOptions, Range as KeyRange, ReadOptions, WriteBatch};
use sluice_topology::Slot;

use super::{
    BATCH_PAUSE, Dead, Shared,
    plan::{self, Piece, Range, TableFile},
};
use crate::engine::{
    EngineError, Generation, Home,
    contents::marks_of,
    families::Family,
    layout::{prefix, prefix_end, slot_last, slot_start},
    system::{self, SystemBatch, SystemKind, dead_key},
};

/// Keys of a group in one family that are deleted one by one; more are compacted away.
const KEYS_FEW: usize = 4096;
/// Bytes of their values, likewise.
const BYTES_FEW: usize = 4 << 20;
/// Keys deleted in one batch.
const BATCH_KEYS: usize = 1000;
/// Times that what is left is compacted before it is deleted key by key: some of it may have been under compaction just then.
const ROUNDS: u32 = 3;

impl Shared {
    /// Gives the space of the generations back, then removes their records. Returns early, with work left, when the thread is to stop.
    pub(super) fn reclaim(&self, group: &[Dead]) -> Result<(), EngineError> {
        let named = || group.iter().map(|dead| (dead.slot, dead.generation));
        self.removable.declare(named());
        for family in Family::USER {
            let held = group.iter().filter(|dead| dead.marks & marks_of(family) == marks_of(family));
            let mut ranges: Vec<Range> = held.map(range_of).collect();
            ranges.sort_by(|a, b| a.start.cmp(&b.start));
            self.delete_files(family, &ranges)?;
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

    /// Deletes the files that hold nothing but dead generations of neighbouring slots, in which nothing lives and nothing is staged:
    /// what a node that gave many slots away has most of.
    pub(super) fn delete_runs(&self, dead: &[Dead]) -> Result<(), EngineError> {
        let given: BTreeSet<(Slot, Generation)> = dead.iter().map(|dead| (dead.slot, dead.generation)).collect();
        let slots: BTreeSet<Slot> = dead.iter().map(|dead| dead.slot).collect();
        // Whoever still reads these reads them on.
        let others =
            self.lock().dead.iter().filter(|dead| !given.contains(&(dead.slot, dead.generation))).map(|dead| dead.slot).collect();
        let runs = plan::runs(&slots, |slot| self.holds_nothing(slot, &others));
        for family in Family::USER {
            let files = self.files(family)?;
            for run in &runs {
                let range = Range { start: slot_start(*run.start()), end: slot_last(*run.end()) };
                let entries = plan::deletable_entries(&range.start, &range.end, &files);
                if entries == 0 || self.stopped() {
                    continue;
                }
                // Nobody writes there, and nobody begins to, while it is looked at again and done: neither into what lives nor by staging.
                let excluded = self.gate.exclude_writers();
                let rows = self.table.rows();
                let all = || Slot::all().skip(run.start().index()).take_while(|slot| slot <= run.end());
                let still = all().all(|slot| !rows.is_staged(slot) && self.holds_nothing(slot, &others));
                if still {
                    self.delete_between(family, &range)?;
                }
                drop((rows, excluded));
                if still {
                    self.count_deleted(family, &range, entries)?;
                    self.pause(BATCH_PAUSE);
                }
            }
        }
        Ok(())
    }

    fn holds_nothing(&self, slot: Slot, others: &BTreeSet<Slot>) -> bool {
        let empty = |home| self.contents.live(home) == 0 && self.contents.staged(home) == 0;
        !others.contains(&slot) && self.table.databases().all(|database| empty(Home { database, slot }))
    }

    /// Deletes the files that hold nothing but one of the ranges.
    fn delete_files(&self, family: Family, ranges: &[Range]) -> Result<(), EngineError> {
        let files = self.files(family)?;
        for range in ranges {
            let inside = Range { start: range.start.clone(), end: plan::last_deletable(&range.start) };
            let entries = plan::deletable_entries(&inside.start, &inside.end, &files);
            if entries > 0 && !self.stopped() {
                self.delete_between(family, &inside)?;
                self.count_deleted(family, &inside, entries)?;
                self.pause(BATCH_PAUSE);
            }
        }
        Ok(())
    }

    /// Deletes the files that lie in a range, its end included.
    fn delete_between(&self, family: Family, range: &Range) -> Result<(), EngineError> {
        Ok(self.database.db().delete_file_in_range_cf(self.database.family(family), &range.start, &range.end)?)
    }

    /// Counts what that has deleted of so many entries. Files that a compaction has in hand stay, and their keys are counted by its filter.
    fn count_deleted(&self, family: Family, range: &Range, entries: u64) -> Result<(), EngineError> {
        let left = plan::deletable_entries(&range.start, &range.end, &self.files(family)?);
        self.reclaimed_keys.fetch_add(entries.saturating_sub(left), Ordering::Relaxed);
        Ok(())
    }

    fn files(&self, family: Family) -> Result<Vec<TableFile>, EngineError> {
        let live = self.database.db().live_files()?;
        let of_family = live.into_iter().filter(|file| file.column_family_name == family.name());
        let files = of_family.filter_map(|file| {
            Some(TableFile { level: file.level, first: file.start_key?, last: file.end_key?, entries: file.num_entries })
        });
        Ok(files.collect())
    }

    fn reclaim_family(&self, family: Family, ranges: &[Range]) -> Result<(), EngineError> {
        for _ in 0..ROUNDS {
            let (held, few) = self.held(family, ranges)?;
            if few {
                break;
            }
            for span in plan::spans(self.pieces(family, &held)) {
                if self.stopped() {
                    return Ok(());
                }
                self.compact(family, &span);
            }
        }
        for range in self.held(family, ranges)?.0 {
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

    /// The ranges in which there is any key, and whether those are few: past that, the rest is taken to have some.
    fn held<'r>(&self, family: Family, ranges: &'r [Range]) -> Result<(Vec<&'r Range>, bool), EngineError> {
        let Some(last) = ranges.last() else { return Ok((Vec::new(), true)) };
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(last.end.clone());
        bounds.fill_cache(false);
        let mut iterator = self.database.db().raw_iterator_cf_opt(self.database.family(family), bounds);
        let (mut held, mut keys, mut bytes) = (Vec::new(), 0, 0);
        for (position, range) in ranges.iter().enumerate() {
            // It may stand behind all of this range already.
            if iterator.key().is_none_or(|key| key < &range.start[..]) {
                iterator.seek(&range.start);
            }
            let before = keys;
            while let Some((_, value)) = iterator.item().filter(|(key, _)| *key < &range.end[..]) {
                (keys, bytes) = (keys + 1, bytes + value.len());
                if keys > KEYS_FEW || bytes > BYTES_FEW {
                    held.extend(&ranges[position..]);
                    return Ok((held, false));
                }
                iterator.next();
            }
            if keys > before {
                held.push(range);
            }
            if !iterator.valid() {
                // Nothing is behind it.
                iterator.status()?;
                break;
            }
        }
        Ok((held, true))
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
        held.iter().zip(sizes.chunks(2)).filter_map(piece).filter(|piece| piece.bytes > 0).collect()
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

fn range_of(dead: &Dead) -> Range {
    let (slot, generation) = (dead.slot, dead.generation);
    Range { start: prefix(slot, generation).to_vec(), end: prefix_end(slot, generation).to_vec() }
}
