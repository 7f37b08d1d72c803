//! Any bytes as what streams store.

use super::{
    EntryId, Fields, Head,
    bytes::put_bytes,
    groups::{Consumer, Group, Pending},
};

/// See [`crate::fuzzing::codecs`].
pub(in crate::types) fn codecs(bytes: &[u8]) {
    if let Some(id) = EntryId::decode(bytes) {
        assert_eq!(id.encode(), bytes, "an entry's id");
    }
    if let Some(id) = EntryId::parse(bytes, 7) {
        assert_eq!(EntryId::parse(id.to_string().as_bytes(), 0), Some(id), "the text of an id");
    }
    if let Some(head) = Head::decode(3, bytes) {
        assert!(bytes.starts_with(&head.encode()), "a stream's record");
        for id in [EntryId::MIN, head.first, head.last, head.max_deleted, EntryId::MAX] {
            for read in [None, Some(head.added), Some(u64::MAX)] {
                let _ = (head.entries_up_to(id), head.lag(read, id), head.entries_read(read, id, head.last));
            }
        }
    }
    if let Some(group) = Group::decode(bytes) {
        assert!(bytes.starts_with(&group.encode()), "a group");
    }
    if let Some(consumer) = Consumer::decode(bytes) {
        assert!(bytes.starts_with(&consumer.encode()), "a consumer");
    }
    if let Some(pending) = Pending::decode(bytes) {
        assert_eq!(pending.encode(), bytes, "a pending entry");
    }
    let (mut texts, mut again) = (Vec::new(), Vec::new());
    Fields(bytes).each(|text| texts.push(text));
    texts.iter().for_each(|text| put_bytes(&mut again, text));
    let mut read = Vec::new();
    Fields(&again).each(|text| read.push(text.to_vec()));
    assert_eq!(read, texts, "fields of an entry");
}
