//! Small records of the `system` family: a format byte, fixed-width big-endian fields, and a CRC32 over all of it. A record that
//! fails its check is damage, never "absent".

use super::EngineError;

/// The only format of sealed records so far.
const FORMAT: u8 = 1;

/// Writes a sealed record.
pub(crate) struct Seal(Vec<u8>);

impl Seal {
    pub(crate) fn new() -> Self {
        Self(vec![FORMAT])
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let sum = crc32fast::hash(&self.0);
        self.0.extend_from_slice(&sum.to_be_bytes());
        self.0
    }
}

/// Reads a sealed record, field by field.
pub(crate) struct Opened<'a> {
    what: &'a str,
    rest: &'a [u8],
}

impl<'a> Opened<'a> {
    /// Checks length, sum and format; `what` names the record in errors.
    pub(crate) fn open(what: &'a str, record: &'a [u8]) -> Result<Self, EngineError> {
        let damaged = |why: &str| EngineError::Damaged(format!("{what} {why}"));
        let (body, sum) = record.split_last_chunk::<4>().ok_or_else(|| damaged("is cut short"))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
            return Err(damaged("fails its checksum"));
        }
        match body.split_first() {
            Some((&FORMAT, rest)) => Ok(Self { what, rest }),
            Some((format, _)) => Err(damaged(&format!("has format {format}, this version reads {FORMAT}"))),
            None => Err(damaged("is empty")),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], EngineError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| EngineError::Damaged(format!("{} lacks a field", self.what)))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EngineError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, EngineError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EngineError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EngineError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), EngineError> {
        if self.rest.is_empty() { Ok(()) } else { Err(EngineError::Damaged(format!("{} is too long", self.what))) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_come_back_in_order(a in any::<u8>(), b in any::<u16>(), c in any::<u32>(), d in any::<u64>(), tail in any::<[u8; 9]>()) {
            let record = Seal::new().u64(d).u8(a).bytes(&tail).u32(c).u16(b).finish();
            prop_assert_eq!(record.len(), 1 + 8 + 1 + 9 + 4 + 2 + 4);
            let mut opened = Opened::open("record", &record).unwrap();
            prop_assert_eq!((opened.u64().unwrap(), opened.u8().unwrap(), opened.array::<9>().unwrap()), (d, a, tail));
            prop_assert_eq!((opened.u32().unwrap(), opened.u16().unwrap()), (c, b));
            prop_assert!(opened.u8().is_err(), "there is none left");
        }

        #[test]
        fn any_bytes_are_a_record_or_damage(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(opened) = Opened::open("record", &bytes) {
                prop_assert_eq!(Seal::new().bytes(opened.rest()).finish(), bytes);
            }
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let record = Seal::new().u8(7).u16(9).u32(1).u64(2).bytes(b"tail").finish();
        let mut opened = Opened::open("record", &record).unwrap();
        assert_eq!((opened.u8().unwrap(), opened.u16().unwrap(), opened.u32().unwrap(), opened.u64().unwrap()), (7, 9, 1, 2));
        assert_eq!(opened.rest(), b"tail");
        for position in 0..record.len() {
            let mut spoiled = record.clone();
            spoiled[position] ^= 0x40;
            assert!(Opened::open("record", &spoiled).is_err());
            assert!(Opened::open("record", &record[..position]).is_err());
        }
    }
}
