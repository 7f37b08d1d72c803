//! Durable ownership: a row a slot, `owner (20 bytes) · epoch (u64)`. A slot without a row was never assigned.

use sluice_topology::{NodeId, Slot, SlotEpoch, merge::SlotRow};

use crate::engine::{Engine, EngineError, Opened, Seal, SystemBatch, SystemKind};

/// Reads every row.
pub(super) fn load(engine: &Engine) -> Result<Vec<SlotRow>, EngineError> {
    let mut rows = vec![SlotRow::default(); Slot::all().len()];
    for (key, bytes) in engine.system_records(SystemKind::Ownership)? {
        let slot = <[u8; 2]>::try_from(key.as_slice()).ok().and_then(|number| Slot::new(u16::from_be_bytes(number)));
        let slot = slot.ok_or_else(|| EngineError::Damaged("an ownership record belongs to no slot".into()))?;
        let (owner, epoch) = decode(slot, &bytes)?;
        rows[slot.index()] = SlotRow { owner: Some(owner), epoch };
    }
    Ok(rows)
}

/// Adds the writes that give those slots their owner and epoch.
pub fn ownership_records(batch: &mut SystemBatch, rows: &[(Slot, SlotRow)]) {
    for (slot, row) in rows {
        if let Some(owner) = row.owner {
            batch.put(SystemKind::Ownership, &slot.get().to_be_bytes(), encode(owner, row.epoch));
        }
    }
}

fn encode(owner: NodeId, epoch: SlotEpoch) -> Vec<u8> {
    Seal::new().bytes(owner.as_bytes()).u64(epoch.0).finish()
}

fn decode(slot: Slot, bytes: &[u8]) -> Result<(NodeId, SlotEpoch), EngineError> {
    let name = format!("the ownership record of slot {slot}");
    let mut record = Opened::open(&name, bytes)?;
    let row = (NodeId::from_bytes(record.array()?), SlotEpoch(record.u64()?));
    record.end()?;
    Ok(row)
}

/// See [`crate::fuzzing::codecs`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzzing(bytes: &[u8]) {
    for bytes in [bytes, &Seal::new().bytes(bytes).finish()] {
        if let Ok((owner, epoch)) = decode(Slot::of_key(b"any"), bytes) {
            assert_eq!(encode(owner, epoch), bytes, "an ownership record");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ownership_round_trips_and_notices_damage(
            owner in any::<[u8; 20]>(), epoch in any::<u64>(), position in 0usize..33, bit in 0u8..8
        ) {
            let (slot, owner, epoch) = (Slot::new(7).unwrap(), NodeId::from_bytes(owner), SlotEpoch(epoch));
            let mut bytes = encode(owner, epoch);
            prop_assert_eq!(decode(slot, &bytes).unwrap(), (owner, epoch));
            bytes[position] ^= 1 << bit;
            prop_assert!(decode(slot, &bytes).is_err());
        }
    }
}
