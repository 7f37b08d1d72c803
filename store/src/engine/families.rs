//! The column families and their RocksDB options.

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, Options};

use std::sync::Arc;

use super::{
    database::EngineOptions,
    filter::{Factory, Removable},
};

/// A column family. The order is the order in which handles are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// One record a key; a string's value inline.
    Meta,
    /// Subkeys: fields of hashes, members of sets, elements of lists.
    Data,
    /// Sorted-set index.
    Score,
    /// Stream entries.
    Stream,
    /// Identity, slot table, ownership, migration journal.
    System,
}

impl Family {
    pub(crate) const ALL: [Self; 5] = [Self::Meta, Self::Data, Self::Score, Self::Stream, Self::System];
    /// The families that hold users' keys.
    pub(crate) const USER: [Self; 4] = [Self::Meta, Self::Data, Self::Score, Self::Stream];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Data => "data",
            Self::Score => "score",
            Self::Stream => "stream",
            Self::System => "system",
        }
    }
}

/// A file is compacted for its deletions when so many of so many neighbouring entries are, or half of all.
const DELETIONS_WINDOW: usize = 16 << 10;
const DELETIONS_DENSE: usize = 12 << 10;

/// Descriptors of every family, the `default` one that RocksDB insists on included; it stays empty.
pub(crate) fn descriptors(options: &EngineOptions, cache: &Cache, removable: &Arc<Removable>) -> Vec<ColumnFamilyDescriptor> {
    // Never written; but the largest memtable of any family is what RocksDB wants free before it resumes on a disk that was full.
    let mut unused = Options::default();
    unused.set_write_buffer_size(1 << 20);
    let mut all = vec![ColumnFamilyDescriptor::new("default", unused)];
    all.extend(Family::ALL.map(|family| {
        let mut of_family = family_options(family, options, cache);
        if family != Family::System {
            of_family.set_compaction_filter_factory(Factory { family, removable: removable.clone() });
        }
        ColumnFamilyDescriptor::new(family.name(), of_family)
    }));
    all
}

/// Options of a table file that is built apart and ingested into that family. Compressed as the upper levels are: what the last one has on
/// top would take the processor longer than everything else, and the next compaction that the file is part of does it.
pub(crate) fn of_incoming(family: Family, options: &EngineOptions, cache: &Cache) -> Options {
    let mut incoming = family_options(family, options, cache);
    incoming.set_bottommost_compression_type(options.tuning.compression_types().0);
    incoming
}

fn family_options(family: Family, options: &EngineOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    options.tuning.of_blocks(&mut blocks);
    blocks.set_format_version(6);
    blocks.set_bloom_filter(10.0, false);
    let mut family_options = Options::default();
    family_options.set_block_based_table_factory(&blocks);
    options.tuning.of_family(&mut family_options);
    family_options.set_level_compaction_dynamic_level_bytes(true);
    if !matches!(family, Family::Meta | Family::System) {
        // Files full of deletions, as collections that are gone leave them, are compacted though no level is full.
        family_options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_DENSE, 0.5);
    }
    let small = family == Family::System;
    family_options.set_write_buffer_size(if small { 8 << 20 } else { options.write_buffer_bytes });
    family_options
}
