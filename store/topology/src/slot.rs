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
    /// The one with the lowest number.
    pub const FIRST: Self = Self(0);

    /// The slot of that number, or `None` when it is not below [`SLOT_COUNT`].
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOT_COUNT { Some(Self(number)) } else { None }
    }

    /// The slot a key belongs to: CRC16 of the hash tag, or of the whole key.
    pub fn of_key(key: &[u8]) -> Self {
        Self(crc16(tag(key)) % SLOT_COUNT)
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

/// What is hashed of a key: what is between its first `{` and the first `}` behind that, if that is anything; or all of it.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let behind = &key[open + 1..];
    match behind.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &behind[..length],
        _ => key,
    }
}

/// For each byte, what it does to the sum (CRC16 of XMODEM) when it is so many bytes before the end.
static CRC16: [[u16; 256]; 8] = {
    let (mut tables, mut byte) = ([[0u16; 256]; 8], 0);
    while byte < 256 {
        let (mut sum, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut place = 1;
    while place < 8 {
        byte = 0;
        while byte < 256 {
            let before = tables[place - 1][byte];
            tables[place][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        place += 1;
    }
    tables
};

/// Eight bytes at a time, none of which has to wait for the one before it.
fn crc16(bytes: &[u8]) -> u16 {
    let (words, tail) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0, |sum: u16, word| {
        let mut bytes = *word;
        let [high, low] = sum.to_be_bytes();
        bytes[0] ^= high;
        bytes[1] ^= low;
        CRC16.iter().rev().zip(bytes).fold(0, |sum, (table, byte)| sum ^ table[usize::from(byte)])
    });
    tail.iter().fold(sum, |sum, byte| {
        let [high, _] = sum.to_be_bytes();
        (sum << 8) ^ CRC16[0][usize::from(high ^ byte)]
    })
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

    proptest::proptest! {
        #[test]
        fn slots_are_those_of_the_redis_protocol_crate(
            key in proptest::prop_oneof![
                proptest::collection::vec(proptest::num::u8::ANY, 0..70),
                proptest::strategy::Strategy::prop_map("[a-c{}]{0,12}", String::into_bytes),
            ],
        ) {
            proptest::prop_assert_eq!(Slot::of_key(&key).get(), redis_protocol::redis_keyslot(&key));
        }
    }
}
