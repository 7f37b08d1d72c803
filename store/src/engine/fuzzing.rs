//! Any bytes as each record of the engine's.

use sluice_topology::Slot;

use super::{
    Generation, Record,
    expiries::Expiries,
    families::Family,
    flush::decode_marker,
    identity::Identity,
    layout::{prefix, reclaim_key, split_prefix, split_reclaim_key},
    raw_batch,
    sealed::Seal,
    slot_table::SlotRow,
    system::{dead_key, slot_row_key, split_dead_key, split_slot_row_key},
    versions,
};

/// See [`crate::fuzzing::codecs`].
pub(crate) fn codecs(bytes: &[u8]) {
    record(bytes);
    keys(bytes);
    // A sum is not to be guessed: what is below it is looked at by itself.
    sealed(bytes);
    sealed(&Seal::new().bytes(bytes).finish());
    let family = |number: u32| Family::ALL.get(number.checked_sub(1)? as usize).copied();
    let _ = raw_batch::check(bytes, family, |prefix| split_prefix(prefix).is_some());
}

fn record(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(again, bytes, "a key's record");
    let _ = (record.members_expire_at_ms(), record.discarded());
    if let Ok(Some(collection)) = record.collection()
        && let Ok((packed, extra)) = record.body()
    {
        assert_eq!(Record::collection_value(collection, packed, extra), record.value, "a collection's record");
    }
}

fn keys(bytes: &[u8]) {
    if let Some(home) = split_slot_row_key(bytes) {
        assert_eq!(slot_row_key(home), bytes, "the key of a slot's row");
    }
    if let Ok((slot, generation)) = split_dead_key(bytes) {
        assert_eq!(dead_key(slot, generation), bytes, "the key of a dead generation");
    }
    let Some((slot, generation)) = bytes.first_chunk().and_then(|first| split_prefix(*first)) else { return };
    assert!(bytes.starts_with(&prefix(slot, generation)), "a prefix");
    if let Some(version) = split_reclaim_key(bytes, slot, generation) {
        assert_eq!(reclaim_key(slot, generation, version), bytes, "the key of a reclaim record");
    }
}

fn sealed(bytes: &[u8]) {
    if let Ok(row) = SlotRow::decode(Slot::of_key(b"any"), bytes) {
        assert!(row.live <= row.highest && row.live > Generation(0));
        assert_eq!(row.encode(), bytes, "a slot's row");
    }
    if let Ok(identity) = Identity::decode(bytes) {
        assert_eq!(identity.encode(), bytes, "an identity");
        if let Ok(marker) = decode_marker(bytes, identity.instance) {
            assert_eq!(marker.encode(identity.instance), bytes, "a flush marker");
        }
    }
    if let Ok(expiries) = Expiries::decode(bytes) {
        let again = expiries.encode();
        assert_eq!(Expiries::decode(&again).ok().map(|again| again.encode()), Some(again), "expiries");
    }
    if let Ok(end) = versions::decode(bytes) {
        assert_eq!(versions::encode(end), bytes, "key versions");
    }
}
