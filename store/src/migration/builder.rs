//! What a target makes of a snapshot: pieces of the stream come in, files go into the database.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sluice_topology::Slot;
use tokio::sync::mpsc;

use super::{
    GivesWay, MigrationError,
    buffers::{Buffers, Held},
    stages::Stages,
    wire::Joiner,
};
use crate::engine::{Engine, Generation, Ingested, RawRecord};

/// A snapshot that is smaller goes through the log and the memtable: a handful of tiny files would cost more, now and at every read.
const SMALL: usize = 1 << 20;
/// Pieces that wait for the builder.
pub(super) const PIECES_AHEAD: usize = 2;

/// What the builder is given.
pub(super) enum Part {
    /// A piece, and how many records begin in it.
    Piece(Bytes, u32, Held),
    /// The snapshot is whole.
    End,
}

/// Builds until the snapshot is whole; then all of it is in the database. Without an end nothing more is ingested.
pub(super) fn build(
    engine: &Arc<Engine>,
    staged: &BTreeMap<Slot, Generation>,
    file_bytes: u64,
    stages: &Stages,
    buffers: &Arc<Buffers>,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<Ingested, MigrationError> {
    let (mut first, mut bytes) = (Vec::new(), 0);
    while bytes < SMALL {
        match stages.builder.of(|| parts.blocking_recv()) {
            Some(Part::Piece(piece, records, held)) => {
                bytes += piece.len();
                first.push((piece, records, held));
            }
            Some(Part::End) => {
                let mut joiner = Joiner::counted(buffers);
                engine.put_staged(|put| {
                    first.iter().try_for_each(|(piece, records, _)| join(&mut joiner, piece, *records, staged, put))
                })?;
                return whole(&joiner).map(|()| Ingested::default());
            }
            None => return Err(MigrationError::Cancelled),
        }
    }
    engine.ingest_staged(file_bytes, |put| {
        let (mut joiner, mut way) = (Joiner::counted(buffers), GivesWay::new());
        let put: &mut dyn FnMut(Generation, RawRecord<'_>) -> Result<(), MigrationError> = &mut |generation, record| {
            put(generation, record)?;
            way.after(&record);
            Ok(())
        };
        for (piece, records, _held) in std::mem::take(&mut first) {
            join(&mut joiner, &piece, records, staged, put)?;
        }
        loop {
            match stages.builder.of(|| parts.blocking_recv()) {
                Some(Part::Piece(piece, records, _held)) => join(&mut joiner, &piece, records, staged, put)?,
                Some(Part::End) => return whole(&joiner),
                None => return Err(MigrationError::Cancelled),
            }
        }
    })
}

/// Hands the records that end in a piece over, each with the generation it is staged in.
pub(super) fn join(
    joiner: &mut Joiner,
    piece: &[u8],
    records: u32,
    staged: &BTreeMap<Slot, Generation>,
    put: &mut dyn FnMut(Generation, RawRecord<'_>) -> Result<(), MigrationError>,
) -> Result<(), MigrationError> {
    // A slot's records come together.
    let last = Cell::new(None);
    let of = |slot: Slot| {
        last.get().filter(|(last, _)| *last == slot).or_else(|| {
            last.set(staged.get(&slot).map(|generation| (slot, *generation)));
            last.get()
        })
    };
    let begun = joiner.push(
        piece,
        |slot| of(slot).is_some(),
        |record| match of(record.slot) {
            Some((_, generation)) => put(generation, record),
            None => Ok(()),
        },
    )?;
    if begun == records {
        return Ok(());
    }
    Err(MigrationError::Wire(format!("a batch says that it holds {records} records and holds {begun}")))
}

fn whole(joiner: &Joiner) -> Result<(), MigrationError> {
    if joiner.at_a_boundary() { Ok(()) } else { Err(MigrationError::Wire("the snapshot ends in the middle of a record".into())) }
}
