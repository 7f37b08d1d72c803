//! Encoding of what a stream stores: numbers and byte strings behind one another.

/// Reads what was written behind one another; everything is `None` when the bytes end too early.
pub(in crate::types) struct Reader<'b>(pub(in crate::types) &'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn u64(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    pub(super) fn id(&mut self) -> Option<super::EntryId> {
        Some(super::EntryId { ms: self.u64()?, sequence: self.u64()? })
    }

    /// A byte string behind its length, which takes seven bits a byte, the lowest first.
    pub(in crate::types) fn bytes(&mut self) -> Option<&'b [u8]> {
        let (mut length, mut shift) = (0u64, 0);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            length |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Writes a byte string behind its length.
pub(in crate::types) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len() as u64;
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// The fields and values of an entry, as they are stored.
#[derive(Clone, Copy)]
pub struct Fields<'b>(pub(super) &'b [u8]);

impl<'b> Fields<'b> {
    /// Calls `each` for fields and values in turn.
    pub fn each(self, mut each: impl FnMut(&'b [u8])) {
        let mut reader = Reader(self.0);
        while let Some(text) = reader.bytes() {
            each(text);
        }
    }

    /// How many fields and values there are together.
    pub fn count(self) -> usize {
        let mut count = 0;
        self.each(|_| count += 1);
        count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_round_trip(texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut stored = Vec::new();
            texts.iter().for_each(|text| put_bytes(&mut stored, text));
            let mut read = Vec::new();
            Fields(&stored).each(|text| read.push(text.to_vec()));
            prop_assert_eq!(Fields(&stored).count(), texts.len());
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn any_bytes_are_read_without_harm(stored in proptest::collection::vec(any::<u8>(), 0..64)) {
            Fields(&stored).each(|text| assert!(text.len() <= stored.len()));
        }
    }
}
