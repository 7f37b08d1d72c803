//! Who a database is: its node id and instance id, made together with its slot table in one durable write.

use std::{collections::BTreeMap, fs::File, io::Read as _};

use sluice_topology::{InstanceId, NodeId, Slot};

use super::{
    EngineError, Home,
    families::Family,
    raw::Database,
    sealed::{Opened, Seal},
    slot_table::{Rows, SlotRow},
    system::{self, SystemBatch, SystemKind, slot_row_key, split_slot_row_key},
    versions,
};

/// Ids of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) instance: InstanceId,
}

impl Identity {
    pub(super) fn encode(&self) -> Vec<u8> {
        Seal::new().bytes(self.node.as_bytes()).bytes(self.instance.as_bytes()).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        let mut record = Opened::open("the identity record", bytes)?;
        let identity = Self { node: NodeId::from_bytes(record.array()?), instance: InstanceId::from_bytes(record.array()?) };
        record.end()?;
        Ok(identity)
    }

    /// The record that gives the database another node id.
    pub(crate) fn record(&self) -> SystemBatch {
        let mut batch = SystemBatch::new();
        batch.put(SystemKind::Identity, b"", self.encode());
        batch
    }
}

/// Reads identity and slot table; makes them when the database is new. The flag says whether it was.
pub(crate) fn load_or_create(database: &Database) -> Result<(Identity, Rows, bool), EngineError> {
    match system::read_one(database, SystemKind::Identity, b"")? {
        Some(bytes) => Ok((Identity::decode(&bytes)?, load_rows(database)?, false)),
        None => {
            for family in Family::ALL {
                let mut iterator = database.db().raw_iterator_cf(database.family(family));
                iterator.seek_to_first();
                iterator.status()?;
                if iterator.valid() {
                    return Err(EngineError::Damaged("it holds data and no identity record".into()));
                }
            }
            let (identity, rows) = create(database)?;
            Ok((identity, rows, true))
        }
    }
}

/// Rows come by database and slot. Database 0 is always there; of every other there are all rows or none.
fn load_rows(database: &Database) -> Result<Rows, EngineError> {
    let stored = system::read_all(database, SystemKind::SlotRow)?;
    let mut databases: BTreeMap<u8, Vec<SlotRow>> = BTreeMap::from([(0, Vec::new())]);
    for (key, bytes) in stored {
        let no_slot = || EngineError::Damaged("the slot table has a row that belongs to no slot".into());
        let Home { database, slot } = split_slot_row_key(&key).ok_or_else(no_slot)?;
        let rows = databases.entry(database).or_default();
        if rows.len() != slot.index() {
            return Err(lacking(database, rows.len()));
        }
        rows.push(SlotRow::decode(slot, &bytes)?);
    }
    match databases.iter().find(|(_, rows)| rows.len() < Slot::all().len()) {
        None => Ok(Rows::new(databases)),
        Some((database, rows)) => Err(lacking(*database, rows.len())),
    }
}

fn lacking(database: u8, slot: usize) -> EngineError {
    EngineError::Damaged(format!("the slot table lacks the row of slot {slot} in database {database}"))
}

fn create(database: &Database) -> Result<(Identity, Rows), EngineError> {
    let mut random = [0; NodeId::LEN + InstanceId::LEN];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(EngineError::directory("/dev/urandom"))?;
    let (mut node, mut instance) = ([0; NodeId::LEN], [0; InstanceId::LEN]);
    node.copy_from_slice(&random[..NodeId::LEN]);
    instance.copy_from_slice(&random[NodeId::LEN..]);
    let identity = Identity { node: NodeId::from_bytes(node), instance: InstanceId::from_bytes(instance) };
    let mut batch = identity.record();
    batch.append(versions::record(1));
    let rows: Vec<SlotRow> = Slot::all().map(|_| SlotRow::first()).collect();
    for (slot, row) in Slot::all().zip(&rows) {
        batch.put(SystemKind::SlotRow, &slot_row_key(slot.into()), row.encode());
    }
    system::write(database, batch)?;
    Ok((identity, Rows::new(BTreeMap::from([(0, rows)]))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn identities_round_trip_and_notice_damage(
            node in any::<[u8; 20]>(), instance in any::<[u8; 16]>(), position in 0usize..41, bit in 0u8..8
        ) {
            let identity = Identity { node: NodeId::from_bytes(node), instance: InstanceId::from_bytes(instance) };
            let mut bytes = identity.encode();
            prop_assert_eq!(Identity::decode(&bytes).unwrap(), identity);
            bytes[position] ^= 1 << bit;
            prop_assert!(Identity::decode(&bytes).is_err());
        }
    }
}
