//! `HyperLogLog`: how many distinct things there are, estimated with a standard error of 0.81 %, in strings of Redis' own form.
//!
//! A header of 16 bytes (`HYLL`, encoding, three zeros, a cached estimate that is never valid here), then 16384 registers: dense, of 6 bits
//! each, or sparse, as runs: `00llllll` zeros (1 to 64), `01llllll llllllll` zeros (1 to 16384), `1vvvvvll` of one value (1 to 32; 1 to 4).

use super::keyspace::{Keyspace, TypeError};

const REGISTERS: usize = 1 << 14;
const HEADER: usize = 16;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_LEN: usize = HEADER + REGISTERS * 6 / 8;
/// Bits of a hash behind those that choose the register.
const RANK_BITS: u32 = 50;
/// Highest bit of the cached estimate: it is not valid.
const STALE: u8 = 0x80;
/// Largest value of a sparse run.
const SPARSE_MAX: u8 = 32;

/// Registers, each the largest rank of the things that fell to it.
pub struct HyperLogLog {
    registers: Vec<u8>,
    dense: bool,
}

/// How a string stores its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HllEncoding {
    /// As runs.
    Sparse,
    /// Six bits each.
    Dense,
}

impl Default for HyperLogLog {
    fn default() -> Self {
        Self { registers: vec![0; REGISTERS], dense: false }
    }
}

impl HyperLogLog {
    /// Reads a string of that form.
    pub fn decode(bytes: &[u8]) -> Result<Self, TypeError> {
        let wrong = || TypeError::NotHyperLogLog;
        let (header, body) = bytes.split_at_checked(HEADER).ok_or_else(wrong)?;
        if !header.starts_with(b"HYLL") {
            return Err(wrong());
        }
        let mut registers = vec![0; REGISTERS];
        match header[4] {
            DENSE if bytes.len() == DENSE_LEN => {
                for (at, register) in registers.iter_mut().enumerate() {
                    let bit = at * 6;
                    let low = u16::from(body[bit / 8]);
                    let high = body.get(bit / 8 + 1).map_or(0, |byte| u16::from(*byte));
                    *register = ((low | high << 8) >> (bit % 8) & 63) as u8;
                }
                Ok(Self { registers, dense: true })
            }
            SPARSE => {
                let (mut at, mut bytes) = (0, body.iter());
                while let Some(first) = bytes.next() {
                    let (value, length) = match first >> 6 {
                        0 => (0, usize::from(first & 63) + 1),
                        1 => {
                            let second = bytes.next().ok_or(TypeError::DamagedHyperLogLog)?;
                            (0, (usize::from(first & 63) << 8 | usize::from(*second)) + 1)
                        }
                        _ => ((first >> 2 & 31) + 1, usize::from(first & 3) + 1),
                    };
                    let run = registers.get_mut(at..at + length).ok_or(TypeError::DamagedHyperLogLog)?;
                    run.fill(value);
                    at += length;
                }
                if at == REGISTERS { Ok(Self { registers, dense: false }) } else { Err(TypeError::DamagedHyperLogLog) }
            }
            _ => Err(wrong()),
        }
    }

    /// Its string; sparse unless it was dense, a value is too large for that, or it would have more than `sparse_max` bytes.
    pub fn encode(&self, sparse_max: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(b"HYLL");
        bytes[HEADER - 1] = STALE;
        if !self.dense && self.registers.iter().all(|value| *value <= SPARSE_MAX) {
            bytes[4] = SPARSE;
            for run in self.registers.chunk_by(|one, other| one == other) {
                match run[0] {
                    0 if run.len() <= 64 => bytes.push(run.len() as u8 - 1),
                    0 => bytes.extend_from_slice(&[0x40 | ((run.len() - 1) >> 8) as u8, (run.len() - 1) as u8]),
                    value => run.chunks(4).for_each(|part| bytes.push(0x80 | (value - 1) << 2 | (part.len() as u8 - 1))),
                }
            }
            if bytes.len() - HEADER <= sparse_max {
                return bytes;
            }
            bytes.truncate(HEADER);
        }
        bytes[4] = DENSE;
        bytes.resize(DENSE_LEN, 0);
        let body = &mut bytes[HEADER..];
        for (at, value) in self.registers.iter().enumerate() {
            let bit = at * 6;
            let shifted = u16::from(*value) << (bit % 8);
            body[bit / 8] |= shifted as u8;
            if let Some(next) = body.get_mut(bit / 8 + 1) {
                *next |= (shifted >> 8) as u8;
            }
        }
        bytes
    }

    /// How it is stored.
    pub fn encoding(&self) -> HllEncoding {
        if self.dense { HllEncoding::Dense } else { HllEncoding::Sparse }
    }

    /// It is to be stored as six bits a register from now on.
    pub fn make_dense(&mut self) {
        self.dense = true;
    }

    /// The registers.
    pub fn registers(&self) -> &[u8] {
        &self.registers
    }

    /// Adds a thing; whether that changed anything.
    pub fn add(&mut self, thing: &[u8]) -> bool {
        let hash = murmur(thing, 0xadc8_3b19);
        let register = &mut self.registers[hash as usize & (REGISTERS - 1)];
        let rank = ((hash >> 14 | 1 << RANK_BITS).trailing_zeros() + 1) as u8;
        let larger = rank > *register;
        *register = rank.max(*register);
        larger
    }

    /// What both have counted.
    pub fn merge(&mut self, other: &Self) {
        self.dense |= other.dense;
        self.registers.iter_mut().zip(&other.registers).for_each(|(register, other)| *register = (*register).max(*other));
    }

    /// Whether estimates are as good as they should be, up to a hundred thousand things, and both encodings mean the same registers.
    pub fn self_test() -> Result<(), String> {
        let mut counted = Self::default();
        for number in 1..=100_000u64 {
            counted.add(&number.to_le_bytes());
            if ![10, 100, 1000, 10_000, 100_000].contains(&number) {
                continue;
            }
            // Four times the standard error, and one for the rounding of small numbers.
            let (estimate, error) = (counted.count(), number as f64 * 0.0081 * 4.0 + 1.0);
            if estimate.abs_diff(number) as f64 > error {
                return Err(format!("{number} things are estimated at {estimate}"));
            }
            for sparse_max in [0, usize::MAX] {
                let again = Self::decode(&counted.encode(sparse_max)).map_err(|error| error.to_string())?;
                if again.registers != counted.registers {
                    return Err(format!("the registers of {number} things do not come back from {:?}", again.encoding()));
                }
            }
        }
        Ok(())
    }

    /// The estimate (Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", the improved raw estimator).
    pub fn count(&self) -> u64 {
        let mut histogram = [0u32; 64];
        self.registers.iter().for_each(|value| histogram[usize::from(*value & 63)] += 1);
        let all = REGISTERS as f64;
        let last = RANK_BITS as usize + 1;
        let mut z = all * tau((all - f64::from(histogram[last])) / all);
        for count in histogram[1..last].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += all * sigma(f64::from(histogram[0]) / all);
        (0.5 / std::f64::consts::LN_2 * all * all / z).round_ties_even() as u64
    }
}

#[allow(clippy::float_cmp, reason = "the series ends when a term no longer changes it")]
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

#[allow(clippy::float_cmp, reason = "the series ends when a term no longer changes it")]
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// `MurmurHash64A` (public domain): the hash that Redis counts by, so that its strings go on to be counted here.
fn murmur(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 47;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(M);
    hash ^ hash >> 47
}

impl Keyspace<'_> {
    /// PFADD: whether the estimate may have changed, or the key is new.
    pub fn hll_add<'t>(&self, key: &[u8], things: impl Iterator<Item = &'t [u8]>, sparse_max: usize) -> Result<bool, TypeError> {
        self.update(key, |current| {
            let mut counted = current.map_or_else(|| Ok(HyperLogLog::default()), HyperLogLog::decode)?;
            let mut changed = current.is_none();
            for thing in things {
                changed |= counted.add(thing);
            }
            Ok((changed.then(|| counted.encode(sparse_max)), changed))
        })
    }

    /// What a key has counted; nothing when there is none.
    pub fn hll(&self, key: &[u8]) -> Result<Option<HyperLogLog>, TypeError> {
        self.get(key, |value| value.map(HyperLogLog::decode).transpose())?
    }

    /// PFMERGE: the destination counts what any of the keys, and itself, have counted.
    pub fn hll_merge<'k>(
        &self,
        destination: &[u8],
        keys: impl Iterator<Item = &'k [u8]>,
        sparse_max: usize,
    ) -> Result<(), TypeError> {
        let mut merged = self.hll(destination)?.unwrap_or_default();
        for key in keys {
            if let Some(other) = self.hll(key)? {
                merged.merge(&other);
            }
        }
        self.update(destination, |_| Ok((Some(merged.encode(sparse_max)), ())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn estimates_are_as_good_as_the_form_allows() {
        assert_eq!(HyperLogLog::self_test(), Ok(()));
    }

    proptest! {
        #[test]
        fn both_encodings_round_trip(registers in prop::collection::vec((0u8..52, 1usize..400), 1..80), sparse_max in 0usize..4000) {
            let mut all: Vec<u8> = registers.iter().flat_map(|(value, length)| vec![*value; *length]).collect();
            all.resize(REGISTERS, 0);
            let counted = HyperLogLog { registers: all.clone(), dense: false };
            let bytes = counted.encode(sparse_max);
            prop_assert!(bytes.len() == DENSE_LEN || bytes.len() <= HEADER + sparse_max);
            prop_assert_eq!(HyperLogLog::decode(&bytes).unwrap().registers, all);
        }

        #[test]
        fn any_bytes_are_registers_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let whole = [&b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0"[..], &bytes].concat();
            for bytes in [bytes, whole] {
                if let Ok(counted) = HyperLogLog::decode(&bytes) {
                    prop_assert_eq!(counted.registers.len(), REGISTERS);
                }
            }
        }
    }
}
