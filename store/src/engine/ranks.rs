//! Ranks: how many entries of a sorted set's index lie before a place, without going over all of them.
//!
//! For sorted sets whose ranks are asked for, a table in memory says how many entries are in each block of a few hundred. It is made by going
//! over the index once, kept exact by every commit, and forgotten when others are asked for more; a restart forgets all. Sorted
//! sets that nobody asks for their ranks cost a commit two atomic additions, and no byte anywhere.
//!
//! **What makes it exact.** Every entry that is put was not there, and every entry that is deleted was: a put is one more, a deletion one
//! less. A commit says that it begins before it looks for tables, and that it has ended once its entries are counted. A reader takes a table's
//! figures, opens its iterator, and then looks whether a commit has begun since: if none has, both are of one moment. A table is only made
//! while no commit is under way that may have missed it; what is committed while the index is gone over is noted, and counted at the end.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use rocksdb::ReadOptions;

use super::{
    EngineError, Span, Subspace, Writer,
    batch::{Batch, Write},
    database::Engine,
    families::Family,
    layout::PREFIX_LEN,
};

mod blocks;

use blocks::Blocks;

/// Tables kept.
const TABLES_MAX: usize = 256;
/// Bytes of all tables.
const BYTES_MAX: usize = 32 << 20;
/// Entries that are noted while a table is made; more, and it is not.
const NOTED_MAX: usize = 1 << 16;
/// How often a reader tries again because somebody committed meanwhile.
const TRIES: usize = 8;

/// What every key of a collection begins with.
type Prefix = [u8; PREFIX_LEN + 8];

/// All tables.
#[derive(Default)]
pub(crate) struct Ranks {
    /// Commits of index entries that have begun, and that have ended.
    begun: AtomicU64,
    ended: AtomicU64,
    kept: AtomicUsize,
    tables: Mutex<HashMap<Prefix, Arc<Table>>>,
    clock: AtomicU64,
}

struct Table {
    /// Commits that change it; raised once more when it is given up.
    begun: AtomicU64,
    ended: AtomicU64,
    used: AtomicU64,
    bytes: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    blocks: Option<Blocks>,
    /// While the blocks are being made: what was committed since.
    noted: Vec<(Vec<u8>, bool)>,
    lost: bool,
}

/// Where an entry of a certain rank is to be looked for.
#[derive(Debug)]
pub struct Spot {
    /// Entries from here on.
    pub from: Vec<u8>,
    /// And before here; `None`: to the end.
    pub to: Option<Vec<u8>>,
    /// How many come before them.
    pub before: u64,
    /// How many they are.
    pub count: u64,
    /// How many there are altogether.
    pub total: u64,
    moment: Moment,
}

/// A moment between two commits, of one table.
#[derive(Clone)]
struct Moment(Arc<Table>, u64);

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "moment {}", self.1)
    }
}

impl Spot {
    /// Whether nothing was committed since: asked once the entries are being read.
    pub fn is_current(&self) -> bool {
        self.moment.is_now()
    }
}

impl Moment {
    fn is_now(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst) == self.1
    }
}

/// A commit under way, and the tables it changes.
pub(crate) struct Committing(Vec<(Prefix, Arc<Table>)>);

impl Ranks {
    /// Before a batch is applied that holds entries of an index.
    pub(crate) fn begin(&self, batch: &Batch) -> Committing {
        let entries = batch.writes().filter(|write| write.family == Family::Score);
        self.begun.fetch_add(1, Ordering::SeqCst);
        let mut tables: Vec<(Prefix, Arc<Table>)> = Vec::new();
        if self.kept.load(Ordering::SeqCst) > 0 {
            let all = lock(&self.tables);
            for prefix in entries.filter_map(|write| write.key.first_chunk().copied()) {
                if tables.iter().all(|(known, _)| *known != prefix)
                    && let Some(table) = all.get(&prefix)
                {
                    table.begun.fetch_add(1, Ordering::SeqCst);
                    tables.push((prefix, table.clone()));
                }
            }
        }
        Committing(tables)
    }

    /// After it was applied, or was not.
    pub(crate) fn end(&self, committing: Committing, batch: &Batch, applied: bool) {
        for (prefix, table) in committing.0 {
            let mut state = lock(&table.state);
            if applied {
                entries_of(batch.writes(), &prefix).for_each(|(key, put)| state.count(key, put));
            }
            table.ended.fetch_add(1, Ordering::SeqCst);
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes of all tables.
    fn bytes(&self) -> usize {
        lock(&self.tables).values().map(|table| table.bytes.load(Ordering::Relaxed)).sum()
    }

    fn table(&self, prefix: &Prefix) -> Option<Arc<Table>> {
        if self.kept.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let table = lock(&self.tables).get(prefix).cloned()?;
        table.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(table)
    }

    /// A table without blocks, of which every commit from now on knows; `None` when one may be under way that does not.
    fn register(&self, prefix: &Prefix) -> Option<Arc<Table>> {
        let table = Arc::new(Table {
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            used: AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed)),
            bytes: AtomicUsize::new(0),
            state: Mutex::default(),
        });
        {
            let mut tables = lock(&self.tables);
            if tables.contains_key(prefix) {
                return None;
            }
            tables.insert(*prefix, table.clone());
            self.kept.store(tables.len(), Ordering::SeqCst);
        }
        // This one first: as many had ended as have begun until later.
        let ended = self.ended.load(Ordering::SeqCst);
        if ended == self.begun.load(Ordering::SeqCst) {
            return Some(table);
        }
        self.forget(prefix);
        None
    }

    fn forget(&self, prefix: &Prefix) {
        let mut tables = lock(&self.tables);
        if let Some(table) = tables.remove(prefix) {
            // Who still has it sees a commit that never ends.
            table.begun.fetch_add(1 << 48, Ordering::SeqCst);
        }
        self.kept.store(tables.len(), Ordering::SeqCst);
    }

    /// Gives up those that were not asked for longest, while there are too many.
    fn shrink(&self) {
        loop {
            let oldest = {
                let tables = lock(&self.tables);
                let bytes: usize = tables.values().map(|table| table.bytes.load(Ordering::Relaxed)).sum();
                if tables.len() <= TABLES_MAX && bytes <= BYTES_MAX {
                    return;
                }
                tables.iter().min_by_key(|(_, table)| table.used.load(Ordering::Relaxed)).map(|(prefix, _)| *prefix)
            };
            let Some(oldest) = oldest else { return };
            self.forget(&oldest);
        }
    }
}

/// Keys of one index among writes, and whether each was put.
fn entries_of<'w>(writes: impl Iterator<Item = Write<'w>>, prefix: &Prefix) -> impl Iterator<Item = (&'w [u8], bool)> {
    let of_index = move |write: Write<'w>| write.key.strip_prefix(prefix).map(|key| (key, write.value.is_some()));
    writes.filter(|write| write.family == Family::Score).filter_map(of_index)
}

impl State {
    fn count(&mut self, key: &[u8], put: bool) {
        match &mut self.blocks {
            Some(blocks) => blocks.count(key, put),
            None if self.noted.len() < NOTED_MAX => self.noted.push((key.to_vec(), put)),
            None => self.lost = true,
        }
    }
}

impl Table {
    /// The figures of a moment at which nobody commits; `None`: somebody does, or there are none yet.
    fn look<R>(self: &Arc<Self>, with: impl FnOnce(&Blocks) -> R) -> Option<(R, Moment)> {
        let state = lock(&self.state);
        let ended = self.ended.load(Ordering::SeqCst);
        let moment = Moment(self.clone(), ended);
        let blocks = state.blocks.as_ref().filter(|_| moment.is_now())?;
        Some((with(blocks), moment))
    }
}

impl Engine {
    /// Bytes of the tables of ranks, and how many they may be.
    pub fn rank_tables(&self) -> (u64, u64) {
        (self.ranks().bytes() as u64, BYTES_MAX as u64)
    }
}

impl Writer {
    /// What was gathered of an index: keys, and whether each was put.
    fn gathered_entries(&self, prefix: Prefix) -> Vec<(&[u8], bool)> {
        if !self.has_gathered_subkeys() {
            return Vec::new();
        }
        let entries: Vec<_> = entries_of(self.gathered_writes(), &prefix).collect();
        if !entries.is_empty() {
            self.observe();
        }
        entries
    }
}

impl Engine {
    /// How many entries an index has in a span, what the writer has gathered included. `None` when there is no table: with `make`, one is made
    /// if that is possible now, which costs a step an entry. Nothing is below `floor`: marks of what was deleted there are not passed. With one it costs a step for each entry of a block.
    pub fn count_ranked(
        &self,
        writer: &Writer,
        space: Subspace,
        span: Span<'_>,
        floor: &[u8],
        make: bool,
    ) -> Result<Option<u64>, EngineError> {
        let (prefix, end) = self.subkey_range(space);
        let Some((from, to)) = span.stored(&prefix, &end) else { return Ok(Some(0)) };
        let gathered = writer.gathered_entries(prefix);
        // What the writer has taken away is still stored.
        let floor = if gathered.is_empty() { floor } else { &[] };
        let Some(table) = self.rank_table(&prefix, floor, make)? else { return Ok(None) };
        let (from, to) = (&from[prefix.len()..], (to != end).then(|| &to[prefix.len()..]));
        for _ in 0..TRIES {
            let ends = table.look(|blocks| {
                let low = blocks.of(from);
                let high = to.map(|to| blocks.of(to));
                let oversized = [Some(low), high].into_iter().flatten().find_map(|block| blocks.oversized(block));
                let of = |block: usize| (blocks.starts[block].clone(), blocks.before(block));
                (of(low), high.map(of), blocks.before(blocks.counts.len()), oversized)
            });
            let Some(((low, high, total, oversized), moment)) = ends else { break };
            if let Some((from, to)) = oversized {
                self.take_apart(&prefix, &from, to.as_deref(), floor, &moment)?;
                continue;
            }
            let Some(below) = self.count_stored(&prefix, floor.max(&low.0), from, &moment)? else { continue };
            let up_to = match (&high, to) {
                (Some(high), Some(to)) => match self.count_stored(&prefix, floor.max(&high.0), to, &moment)? {
                    Some(count) => high.1 + count,
                    None => continue,
                },
                _ => total,
            };
            let mut count = (up_to.saturating_sub(low.1 + below)).cast_signed();
            for (key, put) in &gathered {
                if *key >= from && to.is_none_or(|to| *key < to) {
                    count += if *put { 1 } else { -1 };
                }
            }
            return Ok(Some(u64::try_from(count).unwrap_or(0)));
        }
        Ok(None)
    }

    /// Where the entry of that rank is, from the beginning, what the writer has gathered included; `None` as for
    /// [`Engine::count_ranked`], and when there is no such entry.
    pub fn spot_ranked(
        &self,
        writer: &Writer,
        space: Subspace,
        rank: u64,
        floor: &[u8],
        make: bool,
    ) -> Result<Option<Spot>, EngineError> {
        let (prefix, _) = self.subkey_range(space);
        let gathered = writer.gathered_entries(prefix);
        let floor = if gathered.is_empty() { floor } else { &[] };
        let Some(table) = self.rank_table(&prefix, floor, make)? else { return Ok(None) };
        for _ in 0..TRIES {
            let looked = table.look(|blocks| {
                let mut counts: Vec<i64> = blocks.counts.iter().map(|count| i64::from(*count)).collect();
                gathered.iter().for_each(|(key, put)| counts[blocks.of(key)] += if *put { 1 } else { -1 });
                let total: i64 = counts.iter().sum();
                let mut before = 0;
                let block = counts.iter().position(|count| {
                    before += count;
                    before > rank.cast_signed()
                })?;
                let (from, to) = (blocks.starts[block].clone(), blocks.starts.get(block + 1).cloned());
                Some((from, to, before - counts[block], counts[block], total, blocks.oversized(block).is_some()))
            });
            let Some((Some((from, to, before, count, total, oversized)), moment)) = looked else { break };
            if oversized {
                self.take_apart(&prefix, &from, to.as_deref(), floor, &moment)?;
                continue;
            }
            let [before, count, total] = [before, count, total].map(i64::unsigned_abs);
            return Ok(Some(Spot { from, to, before, count, total, moment }));
        }
        Ok(None)
    }

    fn rank_table(&self, prefix: &Prefix, floor: &[u8], make: bool) -> Result<Option<Arc<Table>>, EngineError> {
        match self.ranks().table(prefix) {
            Some(table) => Ok(Some(table)),
            None if make => self.make_rank_table(prefix, floor),
            None => Ok(None),
        }
    }

    fn make_rank_table(&self, prefix: &Prefix, floor: &[u8]) -> Result<Option<Arc<Table>>, EngineError> {
        let Some(table) = self.ranks().register(prefix) else { return Ok(None) };
        let moment = {
            let mut state = lock(&table.state);
            state.noted.clear();
            Moment(table.clone(), table.ended.load(Ordering::SeqCst))
        };
        let made = self.blocks_between(prefix, floor, None, &moment);
        let mut state = lock(&table.state);
        match made {
            Ok(Some(mut blocks)) if !state.lost && !blocks.counts.is_empty() => {
                state.noted.drain(..).for_each(|(key, put)| blocks.count(&key, put));
                table.bytes.store(blocks.bytes(), Ordering::Relaxed);
                state.blocks = Some(blocks);
                drop(state);
                self.ranks().shrink();
                Ok(Some(table))
            }
            made => {
                drop(state);
                self.ranks().forget(prefix);
                made.map(|_| None)
            }
        }
    }

    /// Makes blocks of the usual size of one that has become too large, unless somebody commits meanwhile.
    fn take_apart(
        &self,
        prefix: &Prefix,
        from: &[u8],
        to: Option<&[u8]>,
        floor: &[u8],
        moment: &Moment,
    ) -> Result<(), EngineError> {
        let Some(others) = self.blocks_between(prefix, floor.max(from), to, moment)? else { return Ok(()) };
        let table = &moment.0;
        let mut state = lock(&table.state);
        if moment.is_now()
            && let Some(blocks) = &mut state.blocks
        {
            let block = blocks.of(from);
            blocks.replace(block, others);
            table.bytes.store(blocks.bytes(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The entries from one key to another, as of that moment, in blocks; `None`: it has passed.
    fn blocks_between(
        &self,
        prefix: &Prefix,
        from: &[u8],
        to: Option<&[u8]>,
        moment: &Moment,
    ) -> Result<Option<Blocks>, EngineError> {
        let (mut blocks, mut last) = (Blocks::default(), Vec::new());
        let read = self.each_stored(prefix, from, to, moment, |key| {
            blocks.push(key, &last);
            last.clear();
            last.extend_from_slice(key);
            ControlFlow::Continue(())
        })?;
        Ok(read.then_some(blocks))
    }

    fn count_stored(&self, prefix: &Prefix, from: &[u8], to: &[u8], moment: &Moment) -> Result<Option<u64>, EngineError> {
        let mut count = 0;
        let read = self.each_stored(prefix, from, Some(to), moment, |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(read.then_some(count))
    }

    /// Calls `each` for the entries that are stored from one key to another, as of that moment; false: it has passed.
    fn each_stored(
        &self,
        prefix: &Prefix,
        from: &[u8],
        to: Option<&[u8]>,
        moment: &Moment,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<bool, EngineError> {
        let mut options = ReadOptions::default();
        let mut end = prefix.to_vec();
        match to {
            Some(to) => end.extend_from_slice(to),
            // Versions end below the highest number: the last byte that is not the highest can be raised.
            None => {
                while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
                if let Some(byte) = end.last_mut() {
                    *byte += 1;
                }
            }
        }
        options.set_iterate_upper_bound(end);
        let mut iterator = self.database().db().raw_iterator_cf_opt(self.database().family(Family::Score), options);
        // What it reads is as of its making: if nobody has begun a commit until here, as of that moment.
        if !moment.is_now() {
            return Ok(false);
        }
        iterator.seek([&prefix[..], from].concat());
        while let Some(key) = iterator.key() {
            if each(&key[prefix.len()..]).is_break() {
                break;
            }
            iterator.next();
        }
        iterator.status()?;
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
