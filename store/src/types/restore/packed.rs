//! The compact forms in which Redis serializes small collections: listpacks, ziplists, sets of integers. Every read is checked: a
//! payload is somebody's input.

/// Texts and numbers of a listpack, in order, numbers as their digits.
pub(in crate::types) fn listpack(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let body = bytes.get(6..)?;
    if usize::try_from(u32::from_le_bytes(*bytes.first_chunk::<4>()?)).ok()? != bytes.len() {
        return None;
    }
    let (mut elements, mut rest) = (Vec::new(), body);
    loop {
        let first = *rest.first()?;
        let (element, length) = match first {
            0xff => return (rest.len() == 1).then_some(elements),
            0..=0x7f => (number(i64::from(first)), 1),
            0x80..=0xbf => text(rest, 1, usize::from(first & 0x3f))?,
            0xc0..=0xdf => {
                let unsigned = i64::from(first & 0x1f) << 8 | i64::from(*rest.get(1)?);
                (number(if unsigned >= 1 << 12 { unsigned - (1 << 13) } else { unsigned }), 2)
            }
            0xe0..=0xef => text(rest, 2, usize::from(first & 0x0f) << 8 | usize::from(*rest.get(1)?))?,
            0xf0 => text(rest, 5, u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?) as usize)?,
            0xf1..=0xf4 => {
                let width = [2, 3, 4, 8][usize::from(first - 0xf1)];
                (number(signed(rest.get(1..=width)?)), width + 1)
            }
            _ => return None,
        };
        elements.push(element);
        // Its length once more, for who reads backwards: seven bits a byte.
        let back = match length {
            0..=0x7f => 1,
            0x80..=0x3fff => 2,
            0x4000..=0x1f_ffff => 3,
            0x20_0000..=0x0fff_ffff => 4,
            _ => 5,
        };
        rest = rest.get(length.checked_add(back)?..)?;
    }
}

/// The same of a ziplist.
pub(in crate::types) fn ziplist(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = bytes.get(10..)?;
    if usize::try_from(u32::from_le_bytes(*bytes.first_chunk::<4>()?)).ok()? != bytes.len() {
        return None;
    }
    let mut elements = Vec::new();
    loop {
        // The length of the element before.
        match *rest.first()? {
            0xff => return (rest.len() == 1).then_some(elements),
            0xfe => rest = rest.get(5..)?,
            _ => rest = rest.get(1..)?,
        }
        let first = *rest.first()?;
        let (element, length) = match first {
            0..=0x3f => text(rest, 1, usize::from(first))?,
            0x40..=0x7f => text(rest, 2, usize::from(first & 0x3f) << 8 | usize::from(*rest.get(1)?))?,
            0x80 => text(rest, 5, u32::from_be_bytes(rest.get(1..5)?.try_into().ok()?) as usize)?,
            0xc0 => (number(signed(rest.get(1..3)?)), 3),
            0xd0 => (number(signed(rest.get(1..5)?)), 5),
            0xe0 => (number(signed(rest.get(1..9)?)), 9),
            0xf0 => (number(signed(rest.get(1..4)?)), 4),
            0xfe => (number(signed(rest.get(1..2)?)), 2),
            0xf1..=0xfd => (number(i64::from(first & 0x0f) - 1), 1),
            _ => return None,
        };
        elements.push(element);
        rest = rest.get(length..)?;
    }
}

/// The members of a set of integers.
pub(in crate::types) fn integers(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let width = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    let count = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    let body = bytes.get(8..)?;
    if ![2, 4, 8].contains(&width) || body.len() != count.checked_mul(width)? {
        return None;
    }
    Some(body.chunks_exact(width).map(|bytes| number(signed(bytes))).collect())
}

fn text(rest: &[u8], head: usize, length: usize) -> Option<(Vec<u8>, usize)> {
    let end = head.checked_add(length)?;
    Some((rest.get(head..end)?.to_vec(), end))
}

fn number(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A little-endian number of up to eight bytes.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(whole)
}

/// Writes a listpack.
pub(in crate::types) struct ListpackWriter {
    bytes: Vec<u8>,
    count: u64,
}

impl ListpackWriter {
    pub(in crate::types) fn new() -> Self {
        Self { bytes: vec![0; 6], count: 0 }
    }

    fn back(&mut self, from: usize) {
        let length = self.bytes.len() - from;
        let mut groups = vec![(length & 0x7f) as u8];
        let mut rest = length >> 7;
        while rest > 0 {
            groups.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        // The highest bits first; all but these have the flag of "more before".
        let last = groups.len() - 1;
        for (position, group) in groups.iter().rev().enumerate() {
            self.bytes.push(if position == 0 { group & 0x7f } else { group | 0x80 });
            debug_assert!(position <= last);
        }
        self.count += 1;
    }

    pub(in crate::types) fn number(&mut self, number: i64) {
        let from = self.bytes.len();
        match number {
            0..=127 => self.bytes.push(number as u8),
            _ => {
                self.bytes.push(0xf4);
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.back(from);
    }

    pub(in crate::types) fn text(&mut self, text: &[u8]) {
        let from = self.bytes.len();
        match text.len() {
            length @ 0..=63 => self.bytes.push(0x80 | length as u8),
            length @ 64..=4095 => self.bytes.extend_from_slice(&[0xe0 | (length >> 8) as u8, length as u8]),
            length => {
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&(length as u32).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
        self.back(from);
    }

    pub(in crate::types) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0xff);
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn listpacks_round_trip(elements in prop::collection::vec(prop_oneof![
            any::<i64>().prop_map(Ok), (0i64..300).prop_map(Ok), prop::collection::vec(any::<u8>(), 0..5000).prop_map(Err)
        ], 0..12)) {
            let mut writer = ListpackWriter::new();
            for element in &elements {
                match element {
                    Ok(number) => writer.number(*number),
                    Err(text) => writer.text(text),
                }
            }
            let expected: Vec<Vec<u8>> = elements.into_iter().map(|element| element.map_or_else(|text| text, number)).collect();
            prop_assert_eq!(listpack(&writer.finish()), Some(expected));
        }

        #[test]
        fn any_bytes_are_elements_or_damage(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (listpack(&bytes), ziplist(&bytes), integers(&bytes));
            // With a length that is right, which lets more of it be read.
            let mut sized = bytes;
            if sized.len() > 12 {
                let length = sized.len() as u32;
                sized[..4].copy_from_slice(&length.to_le_bytes());
                if let Some(last) = sized.last_mut() {
                    *last = 0xff;
                }
                let _ = (listpack(&sized), ziplist(&sized));
            }
        }
    }
}
