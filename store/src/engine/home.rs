//! Where keys and subkeys live.

use std::{ops::Bound, sync::OnceLock};

use sluice_topology::Slot;

use super::families::Family;

/// Where a key lives: its database and its slot. A database is nothing but its own set of generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// Number of the database; 0 is the only one in cluster mode.
    pub database: u8,
    /// The key's slot.
    pub slot: Slot,
}

impl From<Slot> for Home {
    /// The slot in database 0.
    fn from(slot: Slot) -> Self {
        Self { database: 0, slot }
    }
}

/// Most databases there may be.
pub const DATABASES_MAX: usize = 256;

/// A cell for every slot of every database that is in use.
pub(super) struct PerHome<T>(Box<[OnceLock<Box<[T]>>]>);

impl<T> PerHome<T> {
    /// None for any database.
    pub(super) fn new() -> Self {
        Self((0..DATABASES_MAX).map(|_| OnceLock::new()).collect())
    }

    /// Makes the cells of a database, unless they are there.
    pub(super) fn open(&self, database: u8, cell: impl Fn(Slot) -> T) -> &[T] {
        self.0[usize::from(database)].get_or_init(|| Slot::all().map(cell).collect())
    }

    /// The cell of a place; `None`: its database is not in use.
    pub(super) fn get(&self, home: Home) -> Option<&T> {
        Some(&self.0[usize::from(home.database)].get()?[home.slot.index()])
    }

    /// The databases that are in use.
    pub(super) fn open_databases(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|database| self.0[usize::from(*database)].get().is_some())
    }
}

/// Which of the families of subkeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subkeys {
    /// What a collection consists of.
    Data,
    /// What orders it.
    Score,
    /// Entries of streams.
    Stream,
}

impl Subkeys {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Data, Self::Score, Self::Stream];

    pub(super) fn family(self) -> Family {
        match self {
            Self::Data => Family::Data,
            Self::Score => Family::Score,
            Self::Stream => Family::Stream,
        }
    }
}

/// The subkeys of a collection in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subspace {
    /// Where the collection's key lives.
    pub home: Home,
    /// The collection's version.
    pub version: u64,
    /// The family.
    pub family: Subkeys,
}

impl Subspace {
    /// What a collection of that version consists of.
    pub fn data(home: impl Into<Home>, version: u64) -> Self {
        Self { home: home.into(), version, family: Subkeys::Data }
    }
}

/// From which subkey to which, and in which direction.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The lower end.
    pub from: Bound<&'a [u8]>,
    /// The upper end.
    pub to: Bound<&'a [u8]>,
    /// From the upper end to the lower one.
    pub reverse: bool,
}

impl<'a> Span<'a> {
    /// Everything, in order.
    pub const ALL: Self = Self { from: Bound::Unbounded, to: Bound::Unbounded, reverse: false };

    /// What comes behind that subkey, in order; everything when there is none.
    pub fn after(subkey: Option<&'a [u8]>) -> Self {
        Self { from: subkey.map_or(Bound::Unbounded, Bound::Excluded), ..Self::ALL }
    }

    /// The same, backwards.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { reverse: !self.reverse, ..self }
    }

    /// Its ends as stored keys, the lower one in it and the upper one not; `None`: nothing is between them.
    pub(super) fn stored(&self, prefix: &[u8], end: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        // The next possible key: the same with a zero byte behind it.
        let edge = |subkey: &[u8], next: bool| [prefix, subkey, if next { &[0][..] } else { &[] }].concat();
        let from = match self.from {
            Bound::Unbounded => prefix.to_vec(),
            Bound::Included(subkey) => edge(subkey, false),
            Bound::Excluded(subkey) => edge(subkey, true),
        };
        let to = match self.to {
            Bound::Unbounded => end.to_vec(),
            Bound::Included(subkey) => edge(subkey, true),
            Bound::Excluded(subkey) => edge(subkey, false),
        };
        (from < to).then_some((from, to))
    }
}
