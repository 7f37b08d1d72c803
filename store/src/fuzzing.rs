//! What any bytes may do to what reads them from disk, network or the API server: be refused, or be read as a value that, written
//! again, is the same. Built for tests and for the fuzz targets (`fuzz/`) alone.

use sluice_topology::{SlotRanges, TopologyDocument, nodes_text, parse_setnodes};

/// Reads bytes as everything that is stored or sent. Panics where a reader breaks its promise.
pub fn codecs(bytes: &[u8]) {
    crate::engine::fuzzing::codecs(bytes);
    crate::types::fuzzing::codecs(bytes);
    crate::cluster::fuzzing(bytes);
    crate::migration::fuzzing(bytes);
    topology(bytes);
}

fn topology(bytes: &[u8]) {
    if let Ok(document) = TopologyDocument::from_json(bytes) {
        let again = serde_json::to_vec(&document).ok().and_then(|json| TopologyDocument::from_json(&json).ok());
        assert_eq!(again, Some(document), "a topology document");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(slots) = text.parse::<SlotRanges>() {
        assert_eq!(slots.to_string().parse::<SlotRanges>().ok().as_ref(), Some(&slots), "slots");
    }
    if let Ok((nodes, slots)) = parse_setnodes(text, 1)
        && let Some(first) = nodes.first()
    {
        assert_eq!(nodes_text(first.id, &nodes, &slots).lines().count(), nodes.len(), "a line a node");
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    /// What the fuzzer begins with, and what it has found wrong before.
    fn seeds() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/codecs");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[test]
    fn every_seed_is_read_or_refused() {
        let seeds = seeds();
        assert!(seeds.len() > 10, "the seeds are missing");
        seeds.iter().for_each(|seed| super::codecs(seed));
    }

    proptest! {
        #[test]
        fn seeds_with_bytes_changed_are_read_or_refused(
            seed in any::<Index>(), changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4), cut in any::<Index>()
        ) {
            let seeds = seeds();
            let mut bytes = seeds[seed.index(seeds.len())].clone();
            for (position, byte) in changes {
                if !bytes.is_empty() {
                    let position = position.index(bytes.len());
                    bytes[position] = byte;
                }
            }
            super::codecs(&bytes);
            super::codecs(&bytes[..cut.index(bytes.len() + 1)]);
        }
    }
}
