//! A batch on the wire: records behind one another, each `family (u8) · slot (u16) · key length (u32) · value length (u32) · key · value`.
//! Its CRC32 and its place in the sequence travel beside it.

use sluice_topology::Slot;

use super::MigrationError;
use crate::engine::{RawFamily, RawRecord};

const HEAD_LEN: usize = 11;

/// Bytes of a record on the wire.
pub(super) fn encoded_len(record: &RawRecord<'_>) -> usize {
    HEAD_LEN + record.key.len() + record.value.len()
}

/// Appends a record.
pub(super) fn encode(batch: &mut Vec<u8>, record: &RawRecord<'_>) {
    batch.push(record.family.to_byte());
    batch.extend_from_slice(&record.slot.get().to_be_bytes());
    batch.extend_from_slice(&(record.key.len() as u32).to_be_bytes());
    batch.extend_from_slice(&(record.value.len() as u32).to_be_bytes());
    batch.extend_from_slice(record.key);
    batch.extend_from_slice(record.value);
}

/// Reads every record of a batch; the whole batch is refused when one of them is not what it has to be.
pub(super) fn decode(mut rest: &[u8], carried: impl Fn(Slot) -> bool) -> Result<Vec<RawRecord<'_>>, MigrationError> {
    let wrong = |why: &str| MigrationError::Wire(why.to_owned());
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (head, body) = rest.split_first_chunk::<HEAD_LEN>().ok_or_else(|| wrong("a batch is cut short"))?;
        let [family, s0, s1, k0, k1, k2, k3, v0, v1, v2, v3] = *head;
        let family = RawFamily::from_byte(family).ok_or_else(|| wrong("a record is of an unknown family"))?;
        let slot = Slot::new(u16::from_be_bytes([s0, s1])).ok_or_else(|| wrong("a record has no valid slot"))?;
        if !carried(slot) {
            return Err(MigrationError::Wire(format!("a record of slot {slot}, which is not of the unit")));
        }
        let key_len = u32::from_be_bytes([k0, k1, k2, k3]) as usize;
        let value_len = u32::from_be_bytes([v0, v1, v2, v3]) as usize;
        let (key, body) = body.split_at_checked(key_len).ok_or_else(|| wrong("a key is cut short"))?;
        let (value, body) = body.split_at_checked(value_len).ok_or_else(|| wrong("a value is cut short"))?;
        records.push(RawRecord { family, slot, key, value });
        rest = body;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_round_trip_and_refuse_what_is_foreign_or_cut(
            records in proptest::collection::vec(
                (0usize..4, 0u16..8, proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..20)), 1..10)
        ) {
            let mut batch = Vec::new();
            for (family, slot, key, value) in &records {
                let record = RawRecord { family: RawFamily::ALL[*family], slot: Slot::new(*slot).unwrap(), key, value };
                let before = batch.len();
                encode(&mut batch, &record);
                prop_assert_eq!(batch.len() - before, encoded_len(&record));
            }
            let read = decode(&batch, |_| true).unwrap();
            prop_assert_eq!(read.len(), records.len());
            for (read, (family, slot, key, value)) in read.iter().zip(&records) {
                prop_assert_eq!(read.family, RawFamily::ALL[*family]);
                prop_assert_eq!((read.slot.get(), read.key, read.value), (*slot, key.as_slice(), value.as_slice()));
            }
            prop_assert!(decode(&batch[..batch.len() - 1], |_| true).is_err());
            let foreign = records[0].1;
            prop_assert!(decode(&batch, |slot| slot.get() != foreign).is_err());
        }
    }
}
