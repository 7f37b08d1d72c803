//! Ends of serialized values: Redis' version of the form, and a CRC64 over everything before it.

/// The version of what is written here: that of Redis 7.0 and 7.2, which every later one reads.
const VERSION: u16 = 10;
/// The newest version that is read.
const VERSION_MAX: u16 = 12;

/// 32 KiB of table, made when this is compiled.
static CRC64: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_REDIS);

/// Closes a payload.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let crc = CRC64.checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What is in a payload; `None`: it is damaged, or of a newer version.
pub(crate) fn open(payload: &[u8]) -> Option<&[u8]> {
    let (rest, crc) = payload.split_last_chunk::<8>()?;
    let (body, version) = rest.split_last_chunk::<2>()?;
    let crc = u64::from_le_bytes(*crc);
    // As in Redis, a sum of zero is none.
    let whole = crc == 0 || crc == CRC64.checksum(rest);
    (whole && u16::from_le_bytes(*version) <= VERSION_MAX).then_some(body)
}

/// Adds a length in Redis' form.
pub(crate) fn write_length(bytes: &mut Vec<u8>, length: u64) {
    match length {
        0..=63 => bytes.push(length as u8),
        64..=16383 => bytes.extend_from_slice(&[0x40 | (length >> 8) as u8, length as u8]),
        16384..=0xffff_ffff => {
            bytes.push(0x80);
            bytes.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            bytes.push(0x81);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Adds a text in Redis' form.
pub(crate) fn write_text(bytes: &mut Vec<u8>, text: &[u8]) {
    write_length(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// Reads a payload's parts.
pub(crate) struct PayloadReader<'p> {
    rest: &'p [u8],
}

impl<'p> PayloadReader<'p> {
    /// From its beginning.
    pub(crate) fn new(body: &'p [u8]) -> Self {
        Self { rest: body }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'p [u8]> {
        let (part, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(part)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|part| part[0])
    }

    /// A length; its flag: it is the encoding of a text instead.
    fn length_or_encoding(&mut self) -> Option<(u64, bool)> {
        let first = self.byte()?;
        Some(match first >> 6 {
            0 => (u64::from(first & 63), false),
            1 => (u64::from(first & 63) << 8 | u64::from(self.byte()?), false),
            2 if first == 0x80 => (u64::from(u32::from_be_bytes(self.take(4)?.try_into().ok()?)), false),
            2 if first == 0x81 => (u64::from_be_bytes(self.take(8)?.try_into().ok()?), false),
            3 => (u64::from(first & 63), true),
            _ => return None,
        })
    }

    /// A length.
    pub(crate) fn length(&mut self) -> Option<u64> {
        self.length_or_encoding().filter(|(_, encoded)| !encoded).map(|(length, _)| length)
    }

    /// A text: plain, a number, or compressed.
    pub(crate) fn text(&mut self) -> Option<Vec<u8>> {
        let (length, encoded) = self.length_or_encoding()?;
        if !encoded {
            return self.take(usize::try_from(length).ok()?).map(<[u8]>::to_vec);
        }
        Some(match length {
            0 => (self.byte()? as i8).to_string().into_bytes(),
            1 => i16::from_le_bytes(self.take(2)?.try_into().ok()?).to_string().into_bytes(),
            2 => i32::from_le_bytes(self.take(4)?.try_into().ok()?).to_string().into_bytes(),
            3 => {
                let (packed, whole) = (self.length()?, self.length()?);
                let packed = self.take(usize::try_from(packed).ok()?)?;
                decompress(packed, usize::try_from(whole).ok()?)?
            }
            _ => return None,
        })
    }
}

/// LZF: a control byte below 32 is followed by so many bytes and one more; any other says how many bytes to repeat, and from how far back.
fn decompress(mut packed: &[u8], whole: usize) -> Option<Vec<u8>> {
    // The most that a byte can become: what says more is damaged, and costs no memory.
    if whole > packed.len().saturating_mul(264) {
        return None;
    }
    let mut bytes = Vec::with_capacity(whole);
    while let Some((control, rest)) = packed.split_first() {
        let control = usize::from(*control);
        packed = rest;
        if control < 32 {
            let (part, rest) = packed.split_at_checked(control + 1)?;
            bytes.extend_from_slice(part);
            packed = rest;
        } else {
            let mut length = control >> 5;
            if length == 7 {
                let (more, rest) = packed.split_first()?;
                length += usize::from(*more);
                packed = rest;
            }
            let (low, rest) = packed.split_first()?;
            packed = rest;
            let back = (control & 31) << 8 | usize::from(*low);
            let start = bytes.len().checked_sub(back + 1)?;
            for at in start..start + length + 2 {
                bytes.push(*bytes.get(at)?);
            }
        }
        if bytes.len() > whole {
            return None;
        }
    }
    (bytes.len() == whole).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_of_redis_is_read() {
        // DUMP of "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" by Redis 7.0.15.
        let payload = b"\x00\xc3\t\x1e\x01aa\xe0\x11\x00\x01aa\n\x00Es|\xbb+d{\xbb";
        let body = open(payload).unwrap();
        let mut reader = PayloadReader::new(&body[1..]);
        assert_eq!(reader.text().unwrap(), vec![b'a'; 30]);
        assert!(reader.is_empty());
    }

    proptest! {
        #[test]
        fn sealed_payloads_open_and_damaged_ones_do_not(body in prop::collection::vec(any::<u8>(), 0..40), position in any::<prop::sample::Index>(), bit in 0u8..8) {
            let payload = seal(body.clone());
            prop_assert_eq!(open(&payload), Some(body.as_slice()));
            let mut spoiled = payload;
            let position = position.index(spoiled.len());
            spoiled[position] ^= 1 << bit;
            prop_assert_eq!(open(&spoiled), None);
        }

        #[test]
        fn lengths_and_texts_round_trip(length in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Vec::new();
            write_length(&mut bytes, length);
            write_text(&mut bytes, &text);
            let mut reader = PayloadReader::new(&bytes);
            prop_assert_eq!(reader.length(), Some(length));
            prop_assert_eq!(reader.text(), Some(text));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_a_text_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = PayloadReader::new(&bytes).text();
            let _ = open(&bytes);
            if let Some((whole, packed)) = bytes.split_first() {
                let _ = decompress(packed, usize::from(*whole) * 40);
            }
        }
    }
}
