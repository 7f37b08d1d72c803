//! Any bytes as what the types store, and as each part of a serialized value.

use super::{
    HyperLogLog,
    payload::{PayloadReader, open, seal, write_length, write_text},
    restore::packed::{ListpackWriter, integers, listpack, ziplist},
};

/// See [`crate::fuzzing::codecs`].
pub(crate) fn codecs(bytes: &[u8]) {
    super::sorted_sets::fuzzing::codecs(bytes);
    super::streams::fuzzing::codecs(bytes);
    super::packed::codecs(bytes);
    parts(bytes);
    packed(bytes);
    if let Some(body) = open(bytes)
        && bytes[bytes.len() - 10..bytes.len() - 8] == seal(Vec::new())[..2]
    {
        assert_eq!(&seal(body.to_vec())[..bytes.len() - 8], &bytes[..bytes.len() - 8], "a payload");
    }
    if let Ok(sketch) = HyperLogLog::decode(bytes) {
        for sparse_max in [0, 3000, usize::MAX] {
            let again = sketch.encode(sparse_max);
            let same = HyperLogLog::decode(&again).is_ok_and(|again| again.encode(0) == sketch.encode(0));
            assert!(same, "the registers of a HyperLogLog");
        }
    }
}

fn parts(bytes: &[u8]) {
    let mut reader = PayloadReader::new(bytes);
    if let Some(length) = reader.length() {
        let mut again = Vec::new();
        write_length(&mut again, length);
        assert_eq!(PayloadReader::new(&again).length(), Some(length), "a length");
    }
    if let Some(text) = PayloadReader::new(bytes).text() {
        assert!(text.len() <= bytes.len().saturating_mul(300), "{} bytes became {}", bytes.len(), text.len());
        let mut again = Vec::new();
        write_text(&mut again, &text);
        assert_eq!(PayloadReader::new(&again).text(), Some(text), "a text");
    }
}

fn packed(bytes: &[u8]) {
    // As they are, and with a length and an end that are right, without which little of them is read.
    let mut sized = bytes.to_vec();
    if sized.len() > 6 {
        let length = sized.len() as u32;
        sized[..4].copy_from_slice(&length.to_le_bytes());
        sized.iter_mut().last().into_iter().for_each(|last| *last = 0xff);
    }
    for bytes in [bytes, &sized] {
        for elements in [listpack(bytes), ziplist(bytes), integers(bytes)].into_iter().flatten() {
            let mut writer = ListpackWriter::new();
            elements.iter().for_each(|element| writer.text(element));
            assert_eq!(listpack(&writer.finish()), Some(elements), "packed elements");
        }
    }
}
