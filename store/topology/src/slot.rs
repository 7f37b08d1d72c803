//! Hash slots, as Redis Cluster defines them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of hash slots of a cluster (Redis Cluster specification).
pub const SLOT_COUNT: u16 = 16384;

/// A hash slot, 0 to 16383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// The slot of that number, or `None` when it is not below [`SLOT_COUNT`].
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOT_COUNT { Some(Self(number)) } else { None }
    }

    /// The slot a key belongs to: CRC16 of the hash tag, or of the whole key.
    pub fn of_key(key: &[u8]) -> Self {
        Self(redis_protocol::redis_keyslot(key) % SLOT_COUNT)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Its number, to index a table of [`SLOT_COUNT`] entries.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every slot, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOT_COUNT).map(Self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

impl TryFrom<u16> for Slot {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("slot {number} is out of range: slots are 0 to {}", SLOT_COUNT - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_the_redis_cluster_specification() {
        // Values printed by `CLUSTER KEYSLOT` of redis-server 7.
        assert_eq!(Slot::of_key(b"foo").get(), 12182);
        assert_eq!(Slot::of_key(b"123456789").get(), 12739);
        assert_eq!(Slot::of_key(b"{user1000}.following"), Slot::of_key(b"{user1000}.followers"));
        assert_ne!(Slot::of_key(b"foo{}{bar}"), Slot::of_key(b"bar"));
        assert_eq!(Slot::of_key(b"foo{{bar}}zap"), Slot::of_key(b"{bar"));
        assert_eq!(Slot::of_key(b"").get(), 0);
    }
}
