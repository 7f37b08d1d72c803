//! Strings as bits: the first bit is the highest of the first byte. Every change costs a copy of the string.

use super::keyspace::{Keyspace, TypeError};

/// What BITOP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitOperation {
    /// Bits that are set in all.
    And,
    /// Bits that are set in any.
    Or,
    /// Bits that are set in an odd number of them.
    Xor,
    /// Bits that are not set in the only one.
    Not,
}

/// The type of a number inside a bit field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldType {
    /// Whether it is signed.
    pub signed: bool,
    /// Its bits: up to 64 when signed, up to 63 when not.
    pub bits: u32,
}

/// What happens to a number that does not fit its field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverflowRule {
    /// It wraps around.
    #[default]
    Wrap,
    /// It stays at the nearest number that fits.
    Saturate,
    /// Nothing is written.
    Fail,
}

/// One step of BITFIELD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldStep {
    /// The number there.
    Get(FieldType, u64),
    /// Another number there; answers the old one.
    Set(FieldType, u64, i64, OverflowRule),
    /// A sum there; answers it.
    Add(FieldType, u64, i64, OverflowRule),
}

impl FieldStep {
    /// Whether it writes.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get(..))
    }
}

/// What SETBIT did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitSet {
    /// Whether the bit was set before.
    pub was: bool,
    /// Whether the string is another one now: one that is not is not written.
    pub changed: bool,
}

impl Keyspace<'_> {
    /// SETBIT: the bit that was there, and whether the string is another one.
    pub fn set_bit(&self, key: &[u8], offset: u64, on: bool) -> Result<BitSet, TypeError> {
        self.update(key, |current| {
            let (byte, mask) = ((offset / 8) as usize, 0x80u8 >> (offset % 8));
            if current.and_then(|value| value.get(byte)).is_some_and(|found| (found & mask != 0) == on) {
                return Ok((None, BitSet { was: on, changed: false }));
            }
            let mut value = current.unwrap_or_default().to_vec();
            if value.len() <= byte {
                value.resize(byte + 1, 0);
            }
            let was = value[byte] & mask != 0;
            if on {
                value[byte] |= mask;
            } else {
                value[byte] &= !mask;
            }
            Ok((Some(value), BitSet { was, changed: true }))
        })
    }

    /// BITOP: the length of what the destination now holds; nothing deletes it. Costs the length of the longest of the keys.
    pub fn bit_operation(&self, operation: BitOperation, destination: &[u8], keys: &[&[u8]]) -> Result<usize, TypeError> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(self.get(key, |value| value.map(<[u8]>::to_vec).unwrap_or_default())?);
        }
        let length = values.iter().map(Vec::len).max().unwrap_or(0);
        if length == 0 {
            self.delete([destination].into_iter())?;
            return Ok(0);
        }
        let mut values = values.into_iter();
        let mut result = values.next().unwrap_or_default();
        result.resize(length, 0);
        if operation == BitOperation::Not {
            result.iter_mut().for_each(|byte| *byte = !*byte);
        }
        for value in values {
            let padded = value.into_iter().chain(std::iter::repeat(0));
            for (byte, other) in result.iter_mut().zip(padded) {
                match operation {
                    BitOperation::And => *byte &= other,
                    BitOperation::Or => *byte |= other,
                    BitOperation::Xor => *byte ^= other,
                    BitOperation::Not => {}
                }
            }
        }
        self.set_many([(destination, result.as_slice())].into_iter())?;
        Ok(length)
    }

    /// BITFIELD with steps that write: what each answers, `None` where it failed to fit; and whether the string is another one now. One that
    /// is not is not written.
    pub fn bit_field(&self, key: &[u8], steps: &[FieldStep]) -> Result<(Vec<Option<i64>>, bool), TypeError> {
        self.update(key, |current| {
            let mut value = current.unwrap_or_default().to_vec();
            let answers = steps.iter().map(|step| apply(&mut value, *step)).collect();
            let changed = current != Some(value.as_slice());
            Ok((changed.then_some(value), (answers, changed)))
        })
    }
}

/// Bits that are set from `start` to `end`, both in it.
pub fn count_bits(value: &[u8], start: u64, end: u64) -> u64 {
    let (first, last) = ((start / 8) as usize, (end / 8) as usize);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    let before = u64::from((value[first] & !(0xffu8 >> (start % 8))).count_ones());
    let behind = u64::from((value[last] & !(0xffu16 << (7 - end % 8)) as u8).count_ones());
    ones(&value[first..=last]) - before - behind
}

/// The first bit that is `on` from `start` to `end`, both in it.
pub fn find_bit(value: &[u8], on: bool, start: u64, end: u64) -> Option<u64> {
    let none = if on { 0 } else { 0xff };
    let mut at = start;
    while at <= end {
        let byte = value[(at / 8) as usize];
        if at.is_multiple_of(8) && byte == none {
            at += 8;
            continue;
        }
        if (byte & (0x80 >> (at % 8)) != 0) == on {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The number of that type at a bit; what is behind the string is zero.
pub fn read_field(value: &[u8], kind: FieldType, offset: u64) -> i64 {
    let mut number = 0u64;
    for at in offset..offset + u64::from(kind.bits) {
        let byte = value.get((at / 8) as usize).copied().unwrap_or(0);
        number = number << 1 | u64::from(byte >> (7 - at % 8) & 1);
    }
    let unused = 64 - kind.bits;
    if kind.signed { (number << unused) as i64 >> unused } else { number as i64 }
}

fn write_field(value: &mut Vec<u8>, kind: FieldType, offset: u64, number: i64) {
    let end = offset + u64::from(kind.bits);
    let needed = end.div_ceil(8) as usize;
    if value.len() < needed {
        value.resize(needed, 0);
    }
    for (position, at) in (offset..end).enumerate() {
        let bit = number as u64 >> (kind.bits as usize - 1 - position) & 1;
        let mask = 0x80u8 >> (at % 8);
        let byte = &mut value[(at / 8) as usize];
        *byte = if bit == 1 { *byte | mask } else { *byte & !mask };
    }
}

fn apply(value: &mut Vec<u8>, step: FieldStep) -> Option<i64> {
    let (kind, offset, wanted, rule, answers_old) = match step {
        FieldStep::Get(kind, offset) => return Some(read_field(value, kind, offset)),
        // An unsigned field is set to the bits of the number, which may be above what is signed.
        FieldStep::Set(kind, offset, number, rule) if kind.signed => (kind, offset, i128::from(number), rule, true),
        FieldStep::Set(kind, offset, number, rule) => (kind, offset, i128::from(number as u64), rule, true),
        FieldStep::Add(kind, offset, by, rule) => {
            (kind, offset, i128::from(read_field(value, kind, offset)) + i128::from(by), rule, false)
        }
    };
    let old = read_field(value, kind, offset);
    let Some(fitting) = fit(kind, wanted, rule) else {
        // As in Redis the string grows even so.
        write_field(value, kind, offset, old);
        return None;
    };
    write_field(value, kind, offset, fitting);
    Some(if answers_old { old } else { fitting })
}

fn fit(kind: FieldType, number: i128, rule: OverflowRule) -> Option<i64> {
    let (least, most) =
        if kind.signed { (-(1i128 << (kind.bits - 1)), (1i128 << (kind.bits - 1)) - 1) } else { (0, (1i128 << kind.bits) - 1) };
    if (least..=most).contains(&number) {
        return Some(number as i64);
    }
    match rule {
        OverflowRule::Fail => None,
        OverflowRule::Saturate => Some(if number < least { least } else { most } as i64),
        OverflowRule::Wrap => {
            let span = 1i128 << kind.bits;
            let wrapped = (number - least).rem_euclid(span) + least;
            Some(wrapped as i64)
        }
    }
}
