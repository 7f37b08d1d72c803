//! What a batch from outside may hold: puts and deletions of single user keys where it was allowed to write, and nothing else.
//!
//! Read from the bytes themselves (RocksDB's `write_batch.cc`; the form of its write-ahead log, which never changes): the wrapper's own
//! iteration ends silently at a record it has no callback for, and a range deletion is such a record. One would be fatal here: it slows
//! every read down, and with a row cache on RocksDB refuses it, or, ingested, answers wrongly.

use super::{EngineError, families::Family, layout::PREFIX_LEN};

/// Sequence number (8 bytes) and count of records (4), little-endian.
const HEADER_LEN: usize = 12;

/// Checks a whole batch before any of it is applied. `family` finds a family by RocksDB's number of it; `allowed` says whether a
/// prefix may be written to.
pub(crate) fn check(
    batch: &[u8],
    family: impl Fn(u32) -> Option<Family>,
    allowed: impl Fn([u8; PREFIX_LEN]) -> bool,
) -> Result<(), EngineError> {
    let (header, mut rest) = batch.split_first_chunk::<HEADER_LEN>().ok_or_else(|| refused(0, "the batch is cut short"))?;
    let [.., c0, c1, c2, c3] = *header;
    let count = u32::from_le_bytes([c0, c1, c2, c3]);
    let mut records = 0;
    let mut last_allowed = None;
    while let Some((tag, body)) = rest.split_first() {
        records += 1;
        let error = |why: &str| refused(records, why);
        let puts = match tag {
            0x4 => false,
            0x5 => true,
            tag => return Err(error(&format!("it is {}", name(*tag)))),
        };
        let mut body = body;
        let number = varint(&mut body).ok_or_else(|| error("its family is cut short"))?;
        let key = bytes(&mut body).ok_or_else(|| error("its key is cut short"))?;
        if puts {
            bytes(&mut body).ok_or_else(|| error("its value is cut short"))?;
        }
        rest = body;
        let of_users = family(number).is_some_and(|family| Family::USER.contains(&family));
        if !of_users {
            return Err(error(&format!("it writes to family {number}, which holds no user's keys")));
        }
        let prefix = *key.first_chunk::<PREFIX_LEN>().ok_or_else(|| error("its key has no slot and generation"))?;
        if last_allowed != Some(prefix) {
            if !allowed(prefix) {
                return Err(error("its slot and generation are not staged (any more)"));
            }
            last_allowed = Some(prefix);
        }
    }
    if records != count {
        return Err(refused(records, &format!("the batch says that it has {count} records")));
    }
    Ok(())
}

fn refused(record: u32, why: &str) -> EngineError {
    EngineError::RawBatch(format!("record {record}: {why}"))
}

/// What RocksDB calls its records (`dbformat.h`), for those a batch of ours never has.
fn name(tag: u8) -> &'static str {
    match tag {
        0x0 | 0x1 => "a write to the default family",
        0x2 | 0x6 => "a merge",
        0x3 => "log data",
        0x7 | 0x8 => "a single deletion",
        0x9..=0xc | 0x12 | 0x13 | 0x15 => "a step of a transaction",
        0xe | 0xf => "a range deletion (DeleteRange), which this store never takes: delete key by key, or drop the slot",
        0x10 | 0x11 => "a reference to a blob",
        0x14 => "a deletion with a timestamp",
        0x16 | 0x17 => "a wide-column entity",
        _ => "of a kind unknown to this version",
    }
}

fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        let part = u32::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(rest)? as usize;
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteBatch};

    use super::*;

    /// Numbers as RocksDB gives them to the families in the order of [`Family::ALL`], behind the default one.
    fn family(number: u32) -> Option<Family> {
        Family::ALL.get(number.checked_sub(1)? as usize).copied()
    }

    fn verdict(batch: &[u8]) -> Result<(), String> {
        check(batch, family, |prefix| prefix == *b"staged").map_err(|error| error.to_string())
    }

    /// Batches as RocksDB itself makes them.
    fn with_database(test: impl FnOnce(&DB)) {
        let root = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let families = std::iter::once("default").chain(Family::ALL.map(Family::name));
        let families = families.map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
        test(&DB::open_cf_descriptors(&options, root.path(), families).unwrap());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the batch is made to be refused")]
    fn only_puts_and_deletions_of_staged_user_keys_are_taken() {
        with_database(|db| {
            let [meta, data, system] = ["meta", "data", "system"].map(|name| db.cf_handle(name).unwrap());
            let refusals: [(&str, &dyn Fn(&mut WriteBatch)); 8] = [
                ("record 3: it is a range deletion (DeleteRange)", &|batch| batch.delete_range_cf(meta, b"staged1", b"staged2")),
                ("record 3: it is a range deletion (DeleteRange)", &|batch| batch.delete_range(b"staged1", b"staged2")),
                ("record 3: it is a merge", &|batch| batch.merge_cf(meta, b"staged1", b"x")),
                ("record 3: it is a write to the default family", &|batch| batch.put(b"staged1", b"x")),
                ("record 3: it writes to family 5", &|batch| batch.put_cf(system, b"staged1", b"x")),
                ("record 3: its key has no slot", &|batch| batch.put_cf(data, b"stage", b"x")),
                ("record 3: its slot and generation are not staged", &|batch| batch.delete_cf(data, b"living1")),
                ("record 3: its slot and generation are not staged", &|batch| batch.put_cf(meta, b"\xff\xffflush-round", b"x")),
            ];
            for (expected, spoil) in refusals {
                let mut batch = WriteBatch::default();
                batch.put_cf(meta, b"staged1", vec![7; 300]);
                batch.delete_cf(data, b"staged2");
                assert_eq!(verdict(batch.data()), Ok(()));
                spoil(&mut batch);
                // Behind the one that is refused: the whole batch is, not its tail.
                batch.put_cf(meta, b"staged3", b"");
                let error = verdict(batch.data()).unwrap_err();
                assert!(error.contains(expected), "{error}");
            }
        });
    }

    #[test]
    fn a_batch_cut_anywhere_or_with_a_wrong_count_is_refused() {
        with_database(|db| {
            let meta = db.cf_handle("meta").unwrap();
            let mut batch = WriteBatch::default();
            batch.put_cf(meta, b"staged1", b"value");
            batch.delete_cf(meta, b"staged2");
            let whole = batch.data().to_vec();
            assert_eq!(verdict(&whole), Ok(()));
            for length in 0..whole.len() {
                assert!(verdict(&whole[..length]).is_err(), "cut after {length} bytes");
            }
            for count in [0, 1, 3] {
                let mut wrong = whole.clone();
                wrong[8] = count;
                assert!(verdict(&wrong).is_err());
            }
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = verdict(&bytes);
            let mut longer = vec![0; HEADER_LEN];
            longer[8] = 1;
            longer.extend_from_slice(&bytes);
            let _ = verdict(&longer);
        }
    }
}
