//! Records read ahead: those of a run of commands, by one call into RocksDB.

use std::cell::Cell;

use crate::engine::{Engine, EngineError, Home, Stored, Writer};

/// Records of keys in the order in which a run of commands will ask for them. What a writer has gathered since is newer, and asked
/// first; a commit makes all of it old.
pub struct Prefetch<'e> {
    keys: Vec<(Home, bytes::Bytes, bool)>,
    found: Vec<Result<Option<Stored<'e>>, EngineError>>,
    next: Cell<usize>,
    commits: u64,
}

/// How far ahead of its place in the order a key is looked for: commands that did not run leave theirs behind.
const LOOK_AHEAD: usize = 8;

impl<'e> Prefetch<'e> {
    /// Reads those keys; the flag of each says whether it is one of several of its command, whose records are to be of one moment.
    /// Keys that will be changed have been claimed by the writer.
    pub fn read(engine: &'e Engine, writer: &Writer, keys: Vec<(Home, bytes::Bytes, bool)>) -> Self {
        let found = engine.get_many(keys.iter().map(|(home, key, together)| (*home, key.as_ref(), *together)));
        Self { keys, found, next: Cell::new(0), commits: writer.commits() }
    }

    /// The record of a key; `None` when it was not read ahead, or is old, or could not be read: who asks reads it then, and hears why.
    pub(super) fn get(&self, writer: &Writer, home: Home, key: &[u8]) -> Option<&Option<Stored<'e>>> {
        if writer.commits() != self.commits {
            return None;
        }
        let next = self.next.get();
        let at = (next..self.keys.len().min(next + LOOK_AHEAD)).find(|at| self.keys[*at].1 == key && self.keys[*at].0 == home)?;
        self.next.set(at + 1);
        self.found[at].as_ref().ok()
    }
}
