//! The record of a key in the `meta` family: kind, expiry, and for strings the value itself; of a small collection, its subkeys as well.

use std::fmt;

/// Format of records written by this version.
const FORMAT: u8 = 1;
/// Flag: eight bytes of expiry follow.
const FLAG_EXPIRES: u8 = 1;
/// Flag: the subkeys of the collection are in the record.
const FLAG_PACKED: u8 = 2;
/// Format, kind, flags, expiry.
const HEAD_LEN_MAX: usize = 11;

/// The kind of a key. Kind bytes are append-only: a byte once given is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A string; its value follows in the record.
    String = 1,
    /// A hash; its fields are in the `data` family under its version, which follows with its size.
    Hash = 2,
    /// A list; its elements are in the `data` family.
    List = 3,
    /// A set; its members are in the `data` family.
    Set = 4,
    /// A sorted set; its members are in the `data` family, and by their scores in the `score` family.
    SortedSet = 5,
    /// A stream; its entries are in the `stream` family, its groups in the `data` family.
    Stream = 6,
}

impl Kind {
    /// The name that TYPE answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Stream => "stream",
        }
    }

    /// Whether a small one's subkeys are in its record.
    pub fn packs(self) -> bool {
        matches!(self, Self::Hash | Self::List | Self::Set | Self::SortedSet)
    }

    /// The kind of that byte; `None`: this version does not know it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::String, Self::Hash, Self::List, Self::Set, Self::SortedSet, Self::Stream];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What the record of a kind with subkeys says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Under which its subkeys are stored; no other key of this database ever had it.
    pub version: u64,
    /// How many members there are; 0 only in a stream.
    pub size: u64,
}

impl Collection {
    /// Bytes of its form in a record.
    pub const LEN: usize = 16;
    /// Most bytes of subkeys in a record.
    pub const PACKED_MAX: usize = u16::MAX as usize;

    /// The body of its record.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut body = [0; Self::LEN];
        body[..8].copy_from_slice(&self.version.to_be_bytes());
        body[8..].copy_from_slice(&self.size.to_be_bytes());
        body
    }

    fn decode(body: &[u8]) -> Result<Self, RecordError> {
        let error = || RecordError("its version and size are cut short");
        let (version, rest) = body.split_first_chunk::<8>().ok_or_else(error)?;
        let (size, _) = rest.split_first_chunk::<8>().ok_or_else(error)?;
        Ok(Self { version: u64::from_be_bytes(*version), size: u64::from_be_bytes(*size) })
    }
}

/// A collection whose key is gone, and whose subkeys are still to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// What it was.
    pub kind: Kind,
    /// Under which its subkeys are stored.
    pub version: u64,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a key's record is damaged: {0}")]
pub struct RecordError(&'static str);

/// A key's record, borrowed from where it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the key holds.
    pub kind: Kind,
    /// When it expires, Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// A [`Collection`] whose subkeys are in the record: none is stored by itself.
    pub packed: bool,
    /// A string's value; of other kinds, a [`Collection`], its subkeys behind their length if they are packed, and what else the kind says.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// A string's record.
    pub fn string(value: &'a [u8], expires_at_ms: Option<u64>) -> Self {
        Self { kind: Kind::String, expires_at_ms, packed: false, value }
    }

    /// Where its subkeys are; `None` for a string.
    pub fn collection(&self) -> Result<Option<Collection>, RecordError> {
        match self.kind {
            Kind::String => Ok(None),
            _ => Collection::decode(self.value).map(Some),
        }
    }

    /// The subkeys that are in the record, and what else it says besides version and size.
    pub fn body(&self) -> Result<(Option<&'a [u8]>, &'a [u8]), RecordError> {
        let rest = self.value.get(Collection::LEN..).unwrap_or_default();
        if !self.packed {
            return Ok((None, rest));
        }
        let error = || RecordError("the subkeys in it are cut short");
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(error)?;
        let (packed, extra) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(error)?;
        Ok((Some(packed), extra))
    }

    /// The value of a collection's record; `packed` are the subkeys that are to be in it, at most [`Collection::PACKED_MAX`] bytes.
    pub fn collection_value(collection: Collection, packed: Option<&[u8]>, extra: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(Collection::LEN + 2 + packed.map_or(0, <[u8]>::len) + extra.len());
        value.extend_from_slice(&collection.encode());
        if let Some(packed) = packed {
            value.extend_from_slice(&(packed.len() as u16).to_be_bytes());
            value.extend_from_slice(packed);
        }
        value.extend_from_slice(extra);
        value
    }

    /// Before this no field of a hash expires; `None`: none does.
    pub fn members_expire_at_ms(&self) -> Option<u64> {
        let earliest = self.body().ok()?.1.try_into().ok().filter(|_| self.kind == Kind::Hash);
        earliest.map(u64::from_be_bytes)
    }

    /// What is left to reclaim when the record goes; `None` for a string, and where all of it is in the record.
    pub fn discarded(&self) -> Result<Option<Discarded>, RecordError> {
        Ok(self.collection()?.filter(|_| !self.packed).map(|Collection { version, .. }| Discarded { kind: self.kind, version }))
    }

    /// Whether it has expired at that time.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Its bytes before the value, and how many of them there are.
    pub(crate) fn head(&self) -> ([u8; HEAD_LEN_MAX], usize) {
        let mut head = [0; HEAD_LEN_MAX];
        head[..3].copy_from_slice(&[FORMAT, self.kind as u8, if self.packed { FLAG_PACKED } else { 0 }]);
        match self.expires_at_ms {
            Some(at) => {
                head[2] |= FLAG_EXPIRES;
                head[3..].copy_from_slice(&at.to_be_bytes());
                (head, HEAD_LEN_MAX)
            }
            None => (head, 3),
        }
    }

    /// Writes it into `buffer`, replacing what was in it.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let (head, length) = self.head();
        buffer.clear();
        buffer.reserve(length + self.value.len());
        buffer.extend_from_slice(&head[..length]);
        buffer.extend_from_slice(self.value);
    }

    /// Reads a record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let ([format, kind, flags], rest) = bytes.split_first_chunk::<3>().ok_or(RecordError("it is cut short"))?;
        if *format != FORMAT {
            return Err(RecordError("its format is unknown to this version"));
        }
        let kind = Kind::from_byte(*kind).ok_or(RecordError("its kind is unknown to this version"))?;
        let packed = flags & FLAG_PACKED > 0;
        if flags & !(FLAG_EXPIRES | FLAG_PACKED) > 0 || packed && !kind.packs() {
            return Err(RecordError("its flags are unknown to this version"));
        }
        let (expires_at_ms, value) = if flags & FLAG_EXPIRES > 0 {
            let (at, rest) = rest.split_first_chunk::<8>().ok_or(RecordError("its expiry is cut short"))?;
            (Some(u64::from_be_bytes(*at)), rest)
        } else {
            (None, rest)
        };
        Ok(Self { kind, expires_at_ms, packed, value })
    }
}

impl fmt::Debug for Record<'_> {
    /// Without the value, which belongs to the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes, expires {:?}", self.kind, self.value.len(), self.expires_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_format_1_stay_as_they_are() {
        let mut bytes = Vec::new();
        Record::string(b"abc", None).encode(&mut bytes);
        assert_eq!(bytes, [1, 1, 0, b'a', b'b', b'c']);
        Record::string(b"x", Some(0x0102_0304)).encode(&mut bytes);
        assert_eq!(bytes, [1, 1, 1, 0, 0, 0, 0, 1, 2, 3, 4, b'x']);
        let fields = Collection { version: 0x0102, size: 3 };
        let of_fields = |packed, value| Record { kind: Kind::Hash, expires_at_ms: None, packed, value };
        let value = Record::collection_value(fields, None, b"e");
        of_fields(false, &value).encode(&mut bytes);
        assert_eq!(bytes, [1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, b'e']);
        assert_eq!(Record::decode(&bytes).unwrap().collection().unwrap(), Some(fields));
        assert_eq!(Record::decode(&bytes).unwrap().body(), Ok((None, &b"e"[..])));
        assert!(Record::decode(&bytes).unwrap().discarded().unwrap().is_some());
        let value = Record::collection_value(fields, Some(b"p"), b"e");
        of_fields(true, &value).encode(&mut bytes);
        assert_eq!(bytes, [1, 2, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, b'p', b'e']);
        let record = Record::decode(&bytes).unwrap();
        assert_eq!((record.collection(), record.body()), (Ok(Some(fields)), Ok((Some(&b"p"[..]), &b"e"[..]))));
        assert_eq!(record.discarded(), Ok(None), "nothing is left behind");
        bytes[1] = Kind::String as u8;
        assert!(Record::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn records_round_trip(value in proptest::collection::vec(any::<u8>(), 0..64), expiry in any::<Option<u64>>()) {
            let mut bytes = Vec::new();
            let record = Record::string(&value, expiry);
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(record) = Record::decode(&bytes) {
                let mut again = Vec::new();
                record.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
