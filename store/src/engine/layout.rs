//! Layout of user keys: `slot (u16 BE) · generation (u32 BE) · key`, in cluster and single-node mode alike.

use sluice_topology::Slot;

/// Length of the prefix before the user's key.
pub(crate) const PREFIX_LEN: usize = 6;

/// First two bytes of the engine's own keys inside the `meta` family: above every slot.
pub(crate) const OWN_PREFIX: [u8; 2] = [0xff, 0xff];

/// A slot's generation: what a drop, a flush or an import changes instead of deleting keys. 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// The first generation of a slot.
    pub const FIRST: Self = Self(1);

    /// The one after it; `None` when the numbers are used up, which refuses to wrap.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// The prefix of every key of that slot and generation.
pub(crate) fn prefix(slot: Slot, generation: Generation) -> [u8; PREFIX_LEN] {
    let (s, g) = (slot.get().to_be_bytes(), generation.0.to_be_bytes());
    [s[0], s[1], g[0], g[1], g[2], g[3]]
}

/// The first key after all of that slot and generation.
pub(crate) fn prefix_end(slot: Slot, generation: Generation) -> [u8; PREFIX_LEN] {
    match generation.next() {
        Some(next) => prefix(slot, next),
        None => behind_slot(slot),
    }
}

/// The first key that a slot may have.
pub(crate) fn slot_start(slot: Slot) -> Vec<u8> {
    slot.get().to_be_bytes().to_vec()
}

/// A key behind all that a slot has, and behind what an index may have in the place of the last of them, which is shorter.
pub(crate) fn behind_slot(slot: Slot) -> [u8; PREFIX_LEN] {
    let s = (slot.get() + 1).to_be_bytes();
    [s[0], s[1], 0, 0, 0, 0]
}

/// A key behind all that a slot has, unless one begins with all these bytes `ff`, and before those of the next.
pub(crate) fn slot_last(slot: Slot) -> Vec<u8> {
    [&slot.get().to_be_bytes()[..], &[0xff; 36]].concat()
}

/// Slot and generation of a prefix; `None` for what is no user's.
pub(crate) fn split_prefix(prefix: [u8; PREFIX_LEN]) -> Option<(Slot, Generation)> {
    let [s0, s1, g @ ..] = prefix;
    Some((Slot::new(u16::from_be_bytes([s0, s1]))?, Generation(u32::from_be_bytes(g))))
}

/// What every subkey of a collection of that version begins with, outside of `meta`.
pub(crate) fn subkey_prefix(slot: Slot, generation: Generation, version: u64) -> [u8; PREFIX_LEN + 8] {
    let mut key = [0; PREFIX_LEN + 8];
    key[..PREFIX_LEN].copy_from_slice(&prefix(slot, generation));
    key[PREFIX_LEN..].copy_from_slice(&version.to_be_bytes());
    key
}

/// The key, in the `data` family, of the record that says that a collection of that version is gone and its subkeys are to be deleted.
/// It sorts behind every subkey.
pub(crate) fn reclaim_key(slot: Slot, generation: Generation, version: u64) -> [u8; PREFIX_LEN + 16] {
    let mut key = [0xff; PREFIX_LEN + 16];
    key[..PREFIX_LEN].copy_from_slice(&prefix(slot, generation));
    key[PREFIX_LEN + 8..].copy_from_slice(&version.to_be_bytes());
    key
}

/// The version that a reclaim record of that generation names; `None` for any other key.
pub(crate) fn split_reclaim_key(key: &[u8], slot: Slot, generation: Generation) -> Option<u64> {
    let rest = key.strip_prefix(&subkey_prefix(slot, generation, u64::MAX))?;
    // Versions end below the one that would make the records themselves subkeys.
    rest.try_into().ok().map(u64::from_be_bytes).filter(|version| *version < u64::MAX)
}

/// Writes the stored form of a user key into `buffer`, replacing what was in it.
pub(crate) fn encode_key(buffer: &mut Vec<u8>, slot: Slot, generation: Generation, key: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&prefix(slot, generation));
    buffer.extend_from_slice(key);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_sorts_inside_its_own_generation(
            slot in 0u16..16384, generation in 1u32.., key in proptest::collection::vec(any::<u8>(), 0..32)
        ) {
            let (slot, generation) = (Slot::new(slot).unwrap(), Generation(generation));
            let mut stored = Vec::new();
            encode_key(&mut stored, slot, generation, &key);
            prop_assert!(stored.as_slice() >= prefix(slot, generation).as_slice());
            prop_assert!(stored.as_slice() < prefix_end(slot, generation).as_slice());
            prop_assert_eq!(split_prefix(prefix(slot, generation)), Some((slot, generation)));
            prop_assert!(prefix_end(slot, generation).as_slice() < OWN_PREFIX.as_slice());
            prop_assert_eq!(&stored[PREFIX_LEN..], key.as_slice());
        }

        #[test]
        fn a_reclaim_record_round_trips_and_sorts_behind_every_subkey(
            slot in 0u16..16384, generation in 1u32.., version in 0..u64::MAX, other in 0..u64::MAX,
            field in proptest::collection::vec(any::<u8>(), 0..32)
        ) {
            let (slot, generation) = (Slot::new(slot).unwrap(), Generation(generation));
            let record = reclaim_key(slot, generation, version);
            prop_assert_eq!(split_reclaim_key(&record, slot, generation), Some(version));
            let subkey = [&subkey_prefix(slot, generation, other)[..], &field].concat();
            prop_assert_eq!(split_reclaim_key(&subkey, slot, generation), None);
            prop_assert!(subkey.as_slice() < record.as_slice());
            prop_assert!(record.as_slice() < prefix_end(slot, generation).as_slice());
            prop_assert!(subkey.as_slice() < subkey_prefix(slot, generation, other + 1).as_slice());
            prop_assert_eq!(split_reclaim_key(&record[..21], slot, generation), None);
            prop_assert_eq!(split_reclaim_key(&record, slot, Generation(generation.0 ^ 1)), None);
            prop_assert_eq!(split_reclaim_key(&reclaim_key(slot, generation, u64::MAX), slot, generation), None);
        }
    }
}
