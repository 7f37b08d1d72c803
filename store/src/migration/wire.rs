//! What travels: a stream of records, cut into frames.
//!
//! **Stream**: records behind one another, each `family (u8) · flags (u8) · slot (u16) · key length (u32) · value length (u32) · key · value`.
//! A frame ends behind a record, or inside the value of one that is larger than a frame: the next one goes on with it.
//!
//! **Frame**: `magic (4) · kind (u8) · packing (u8) · zero (u16) · attempt (u64) · sequence (u64) · records (u32) · unpacked length (u32) ·
//! CRC32 (u32) · payload`, big-endian. The sum is over everything else, so that no byte of a frame can change unseen; the sequence shows what
//! was cut out, repeated or reordered; the attempt what is of another job.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sluice_topology::Slot;

use super::{
    MigrationError,
    buffers::{Buffers, Held},
};
use crate::engine::{RawFamily, RawRecord};

const MAGIC: [u8; 4] = *b"SLM2";
const FRAME_HEAD: usize = 36;
const SUM_AT: usize = 32;
const RECORD_HEAD: usize = 12;
const DELETED: u8 = 1;
/// Largest payload of a frame once it is unpacked.
const PAYLOAD_MAX: usize = 64 << 20;
/// Largest stored key, and value: what clients may store, and what kinds add to it.
const KEY_MAX: usize = 1 << 20;
const VALUE_MAX: usize = (512 << 20) + (1 << 20);

/// Reserved for a value that goes on in the next frame, before it is there.
const RESERVED_MAX: usize = 16 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// Records of the snapshot, in order.
    Snapshot = 1,
    /// Nothing: the snapshot is whole.
    SnapshotEnd = 2,
    /// Records as they are by now.
    Changes = 3,
}

/// How a payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Packing {
    None = 0,
    Lz4 = 1,
}

/// A frame that was received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) attempt: u64,
    pub(super) sequence: u64,
    /// Records that begin in it.
    pub(super) records: u32,
    /// A piece of the stream.
    pub(super) payload: Bytes,
    /// Its CRC32.
    pub(super) sum: u32,
}

/// A piece of the stream, as the source makes it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// A frame's head, still empty, and the payload behind it.
    bytes: Vec<u8>,
    pub(super) records: u32,
    /// Of these, records of keys.
    pub(super) keys: u32,
}

impl Piece {
    /// Bytes it takes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn payload_len(&self) -> usize {
        self.bytes.len().saturating_sub(FRAME_HEAD)
    }

    /// The finished frame. Packed when `pack` says so and it gets smaller.
    pub(super) fn frame(mut self, kind: FrameKind, attempt: u64, sequence: u64, pack: bool) -> Bytes {
        self.bytes.resize(self.bytes.len().max(FRAME_HEAD), 0);
        let length = self.payload_len() as u32;
        let mut packing = Packing::None;
        if pack {
            let packed = lz4_flex::block::compress(&self.bytes[FRAME_HEAD..]);
            if packed.len() < self.payload_len() {
                packing = Packing::Lz4;
                self.bytes.truncate(FRAME_HEAD);
                self.bytes.extend_from_slice(&packed);
            }
        }
        let head = &mut self.bytes[..FRAME_HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4] = kind as u8;
        head[5] = packing as u8;
        head[8..16].copy_from_slice(&attempt.to_be_bytes());
        head[16..24].copy_from_slice(&sequence.to_be_bytes());
        head[24..28].copy_from_slice(&self.records.to_be_bytes());
        head[28..32].copy_from_slice(&length.to_be_bytes());
        let sum = sum_of(&self.bytes);
        self.bytes[SUM_AT..FRAME_HEAD].copy_from_slice(&sum.to_be_bytes());
        self.bytes.into()
    }

    /// How much smaller the beginning of its payload gets when it is packed: packed bytes of a thousand.
    pub(super) fn sample(&self) -> usize {
        const SAMPLE: usize = 64 << 10;
        let payload = self.bytes.get(FRAME_HEAD..).unwrap_or_default();
        let sample = &payload[..payload.len().min(SAMPLE)];
        (lz4_flex::block::compress(sample).len() * 1000).checked_div(sample.len()).unwrap_or(1000)
    }
}

/// The sum of a frame: of everything but the sum itself.
fn sum_of(frame: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&frame[..SUM_AT]);
    sum.update(&frame[FRAME_HEAD..]);
    sum.finalize()
}

/// The sum that a finished frame carries.
pub(super) fn frame_sum(frame: &[u8]) -> u32 {
    frame.get(SUM_AT..FRAME_HEAD).and_then(|sum| sum.try_into().ok()).map_or(0, u32::from_be_bytes)
}

impl Frame {
    /// Reads a frame, all of whose bytes are accounted for.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, MigrationError> {
        let wrong = |why: &str| MigrationError::Wire(why.to_owned());
        let head: &[u8; FRAME_HEAD] = bytes.first_chunk().ok_or_else(|| wrong("a frame is cut short"))?;
        if head[..4] != MAGIC {
            return Err(wrong("a frame does not begin as one"));
        }
        if sum_of(bytes) != frame_sum(bytes) {
            return Err(wrong("a frame fails its checksum"));
        }
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(number(at)) << 32 | u64::from(number(at + 4));
        let kind = match head[4] {
            1 => FrameKind::Snapshot,
            2 => FrameKind::SnapshotEnd,
            3 => FrameKind::Changes,
            other => return Err(MigrationError::Wire(format!("a frame is of the unknown kind {other}"))),
        };
        if head[6..8] != [0; 2] {
            return Err(wrong("a frame says what this node does not know"));
        }
        let length = number(28) as usize;
        if length > PAYLOAD_MAX {
            return Err(MigrationError::Wire(format!("a frame of {length} bytes: the limit is {PAYLOAD_MAX}")));
        }
        let payload = match head[5] {
            packing if packing == Packing::None as u8 => bytes.slice(FRAME_HEAD..),
            packing if packing == Packing::Lz4 as u8 => lz4_flex::block::decompress(&bytes[FRAME_HEAD..], length)
                .map_err(|error| MigrationError::Wire(format!("a frame cannot be unpacked: {error}")))?
                .into(),
            other => return Err(MigrationError::Wire(format!("a frame is packed in the unknown way {other}"))),
        };
        if payload.len() != length {
            return Err(MigrationError::Wire(format!("a frame says that it holds {length} bytes and holds {}", payload.len())));
        }
        Ok(Self { kind, attempt: long(8), sequence: long(16), records: number(24), payload, sum: frame_sum(bytes) })
    }
}

/// Cuts the stream into pieces.
pub(super) struct Cutter<F> {
    piece: Piece,
    each: F,
}

impl<E, F: FnMut(Piece) -> Result<(), E>> Cutter<F> {
    /// `each` gets every piece as it is full.
    pub(super) fn new(each: F) -> Self {
        Self { piece: Piece::default(), each }
    }

    /// Adds a record; a piece is full at `most` bytes.
    pub(super) fn push(&mut self, record: &RawRecord<'_>, most: usize) -> Result<(), E> {
        let value = record.value.unwrap_or_default();
        let length = RECORD_HEAD + record.key.len() + value.len();
        if self.piece.payload_len() > 0 && self.piece.payload_len() + length > most {
            self.cut()?;
        }
        let piece = &mut self.piece;
        if piece.bytes.is_empty() {
            piece.bytes.reserve(FRAME_HEAD + most.max(RECORD_HEAD + record.key.len()));
            piece.bytes.resize(FRAME_HEAD, 0);
        }
        piece.records += 1;
        piece.keys += u32::from(record.family.to_byte() == 0 && record.value.is_some());
        let (slot, key_len, value_len) =
            (record.slot.get().to_be_bytes(), (record.key.len() as u32).to_be_bytes(), (value.len() as u32).to_be_bytes());
        let mut head = [0; RECORD_HEAD];
        head[0] = record.family.to_byte();
        head[1] = if record.value.is_some() { 0 } else { DELETED };
        head[2..4].copy_from_slice(&slot);
        head[4..8].copy_from_slice(&key_len);
        head[8..].copy_from_slice(&value_len);
        piece.bytes.extend_from_slice(&head);
        piece.bytes.extend_from_slice(record.key);
        let mut rest = value;
        while self.piece.payload_len() + rest.len() > most {
            let (here, behind) = rest.split_at(most.saturating_sub(self.piece.payload_len()).min(rest.len()));
            self.piece.bytes.extend_from_slice(here);
            rest = behind;
            self.cut()?;
            self.piece.bytes.resize(FRAME_HEAD, 0);
        }
        self.piece.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Hands the last piece over, if it holds anything.
    pub(super) fn finish(mut self) -> Result<(), E> {
        if self.piece.payload_len() > 0 { self.cut() } else { Ok(()) }
    }

    fn cut(&mut self) -> Result<(), E> {
        (self.each)(std::mem::take(&mut self.piece))
    }
}

/// Puts the stream together again.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// A record whose value goes on in the next piece: its head and key, and what there is of its value.
    open: Option<(Head, BytesMut)>,
    held: Held,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    family: RawFamily,
    slot: Slot,
    deleted: bool,
    key_len: usize,
    value_len: usize,
}

impl Head {
    fn record<'a>(&self, key: &'a [u8], value: &'a [u8]) -> RawRecord<'a> {
        RawRecord { family: self.family, slot: self.slot, key, value: (!self.deleted).then_some(value) }
    }
}

impl Joiner {
    /// One whose open record is in the account.
    pub(super) fn counted(buffers: &Arc<Buffers>) -> Self {
        Self { open: None, held: buffers.hold(0) }
    }

    /// Takes the next piece and calls `each` for every record that ends in it; a record of a slot that is not `carried` is refused.
    /// Returns how many begin in it.
    pub(super) fn push<'a>(
        &'a mut self,
        piece: &'a [u8],
        carried: impl Fn(Slot) -> bool,
        mut each: impl FnMut(RawRecord<'_>) -> Result<(), MigrationError>,
    ) -> Result<u32, MigrationError> {
        let wrong = |why: &str| MigrationError::Wire(why.to_owned());
        let (mut rest, mut begun) = (piece, 0);
        if let Some((head, mut bytes)) = self.open.take() {
            let missing = head.key_len + head.value_len - bytes.len();
            let (here, behind) = rest.split_at(missing.min(rest.len()));
            bytes.extend_from_slice(here);
            rest = behind;
            if here.len() < missing {
                self.held.set(bytes.len());
                self.open = Some((head, bytes));
                return Ok(begun);
            }
            let (key, value) = bytes.split_at(head.key_len);
            each(head.record(key, value))?;
            self.held.set(0);
        }
        while !rest.is_empty() {
            let (head, behind) = rest.split_first_chunk::<RECORD_HEAD>().ok_or_else(|| wrong("a record is cut short"))?;
            let head = decode_head(head, &carried)?;
            let (key, behind) = behind.split_at_checked(head.key_len).ok_or_else(|| wrong("a key is cut short"))?;
            begun += 1;
            match behind.split_at_checked(head.value_len) {
                Some((value, behind)) => {
                    each(head.record(key, value))?;
                    rest = behind;
                }
                None => {
                    let mut bytes = BytesMut::with_capacity((head.key_len + head.value_len).min(RESERVED_MAX));
                    bytes.extend_from_slice(key);
                    bytes.extend_from_slice(behind);
                    self.held.set(bytes.len());
                    self.open = Some((head, bytes));
                    rest = &[];
                }
            }
        }
        Ok(begun)
    }

    /// Whether no record is left open: a stream may end here.
    pub(super) fn at_a_boundary(&self) -> bool {
        self.open.is_none()
    }
}

fn decode_head(head: &[u8; RECORD_HEAD], carried: impl Fn(Slot) -> bool) -> Result<Head, MigrationError> {
    let wrong = |why: &str| MigrationError::Wire(why.to_owned());
    let [family, flags, s0, s1, k0, k1, k2, k3, v0, v1, v2, v3] = *head;
    let family = RawFamily::from_byte(family).ok_or_else(|| wrong("a record is of an unknown family"))?;
    let slot = Slot::new(u16::from_be_bytes([s0, s1])).ok_or_else(|| wrong("a record has no valid slot"))?;
    if flags & !DELETED != 0 {
        return Err(wrong("a record is neither a value nor a deletion of one key"));
    }
    if !carried(slot) {
        return Err(MigrationError::Wire(format!("a record of slot {slot}, which is not of the unit")));
    }
    let key_len = u32::from_be_bytes([k0, k1, k2, k3]) as usize;
    let value_len = u32::from_be_bytes([v0, v1, v2, v3]) as usize;
    let deleted = flags & DELETED != 0;
    if key_len > KEY_MAX || value_len > VALUE_MAX || (deleted && value_len > 0) {
        return Err(MigrationError::Wire(format!("a record with a key of {key_len} and a value of {value_len} bytes")));
    }
    Ok(Head { family, slot, deleted, key_len, value_len })
}

/// See [`crate::fuzzing::codecs`].
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzzing(bytes: &[u8]) {
    frame(bytes);
    if bytes.len() >= FRAME_HEAD {
        // A sum is not to be guessed: what is behind it is looked at by itself.
        let mut summed = bytes.to_vec();
        summed[..4].copy_from_slice(&MAGIC);
        let sum = sum_of(&summed);
        summed[SUM_AT..FRAME_HEAD].copy_from_slice(&sum.to_be_bytes());
        frame(&summed);
    }
    stream(bytes);
}

/// A frame that is read is written again as it came, unless it came packed: packers differ.
#[cfg(any(test, feature = "fuzzing"))]
fn frame(bytes: &[u8]) {
    let Ok(read) = Frame::decode(&Bytes::copy_from_slice(bytes)) else { return };
    let head: Vec<u8> = vec![0; FRAME_HEAD];
    let piece = || Piece { bytes: [&head[..], &read.payload[..]].concat(), records: read.records, keys: 0 };
    let plain = piece().frame(read.kind, read.attempt, read.sequence, false);
    assert!(bytes[5] != Packing::None as u8 || plain == bytes, "a frame");
    let packed = Frame::decode(&piece().frame(read.kind, read.attempt, read.sequence, true));
    assert_eq!(packed.ok().map(|frame| frame.payload), Some(read.payload.clone()), "a packed frame");
    stream(&read.payload);
}

/// A stream that is read is written again as it came, whatever the places at which it was cut.
#[cfg(any(test, feature = "fuzzing"))]
fn stream(bytes: &[u8]) {
    let read = |cut: usize| {
        let (first, second) = bytes.split_at(cut);
        let (mut joiner, mut written) = (Joiner::default(), Vec::new());
        let mut cutter = Cutter::new(|piece: Piece| {
            written.extend_from_slice(&piece.bytes[FRAME_HEAD..]);
            Ok::<_, MigrationError>(())
        });
        for piece in [first, second] {
            joiner.push(piece, |_| true, |record| cutter.push(&record, bytes.len())).ok()?;
        }
        cutter.finish().ok()?;
        joiner.at_a_boundary().then_some(written)
    };
    let whole = read(bytes.len());
    assert!(whole.as_deref().is_none_or(|written| written == bytes), "a stream");
    // Cut where a record's head or key is, it is refused; anywhere else it is the same.
    let parts = read(bytes.len() / 2);
    assert!(whole.is_none() || parts.is_none() || parts == whole, "a stream in two pieces");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (usize, u16, Vec<u8>, Option<Vec<u8>>);

    fn records() -> impl Strategy<Value = Vec<Owned>> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        prop::collection::vec((0usize..4, 0u16..8, bytes(20), prop::option::weighted(0.8, bytes(120))), 1..20)
    }

    fn frames(records: &[Owned], most: usize, pack: bool) -> Vec<Bytes> {
        let mut frames = Vec::new();
        let mut cutter = Cutter::new(|piece: Piece| {
            frames.push(piece.frame(FrameKind::Snapshot, 7, frames.len() as u64, pack));
            Ok::<_, MigrationError>(())
        });
        for (family, slot, key, value) in records {
            let (family, slot) = (RawFamily::ALL[*family], Slot::new(*slot).unwrap());
            cutter.push(&RawRecord { family, slot, key, value: value.as_deref() }, most).unwrap();
        }
        cutter.finish().unwrap();
        frames
    }

    fn join(frames: &[Bytes]) -> Result<Vec<Owned>, MigrationError> {
        let (mut joiner, mut joined) = (Joiner::default(), Vec::new());
        for bytes in frames {
            let frame = Frame::decode(bytes)?;
            let begun = joiner.push(
                &frame.payload,
                |_| true,
                |record| {
                    let family = usize::from(record.family.to_byte());
                    joined.push((family, record.slot.get(), record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
                    Ok(())
                },
            )?;
            assert_eq!(begun, frame.records);
        }
        assert!(joiner.at_a_boundary());
        Ok(joined)
    }

    proptest! {
        #[test]
        fn a_stream_is_whole_again_however_it_was_cut(records in records(), most in 1usize..200, pack: bool) {
            prop_assert_eq!(join(&frames(&records, most, pack)).unwrap(), records);
        }

        #[test]
        fn any_byte_changed_and_any_cut_is_noticed(records in records(), at: prop::sample::Index, bit in 0u8..8) {
            let whole = frames(&records, 1000, false).remove(0);
            let mut spoiled = whole.to_vec();
            spoiled[at.index(whole.len())] ^= 1 << bit;
            prop_assert!(Frame::decode(&spoiled.into()).is_err());
            prop_assert!(Frame::decode(&whole.slice(..at.index(whole.len()))).is_err());
        }

        #[test]
        fn arbitrary_streams_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Joiner::default().push(&bytes, |slot| slot.get() < 8, |_| Ok(()));
            let _ = Frame::decode(&bytes.into());
        }
    }

    #[test]
    fn what_is_not_of_the_unit_or_no_single_key_is_refused() {
        let frame = frames(&[(0, 3, b"key".to_vec(), Some(b"value".to_vec()))], 1000, false).remove(0);
        let payload = Frame::decode(&frame).unwrap().payload;
        let foreign = Joiner::default().push(&payload, |slot| slot.get() != 3, |_| Ok(())).unwrap_err();
        assert!(foreign.to_string().contains("slot 3, which is not of the unit"), "{foreign}");
        let mut ranged = payload.to_vec();
        ranged[1] = 2;
        let refused = Joiner::default().push(&ranged, |_| true, |_| Ok(())).unwrap_err();
        assert!(refused.to_string().contains("neither a value nor a deletion of one key"), "{refused}");
    }
}
