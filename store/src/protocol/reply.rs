//! Replies in RESP2 and RESP3. Values are encoded by the redis-protocol crate; only the headers of aggregates are written here, so that
//! a large reply can be streamed element by element.

use std::io::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use redis_protocol::{resp2, resp3};

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// RESP2: what every connection starts with.
    #[default]
    Resp2,
    /// RESP3: after `HELLO 3`.
    Resp3,
}

/// What [`ReplyWriter::counted`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// An array of replies.
    Array,
    /// A map of pairs of replies.
    Map,
    /// A set of replies.
    Set,
}

/// Takes a piece of a reply; false: nobody wants the rest.
pub type Sink<'a> = dyn FnMut(Bytes) -> bool + 'a;

/// Writes replies behind one another into a connection's output.
pub struct ReplyWriter<'a> {
    out: &'a mut BytesMut,
    version: Version,
    len_max: usize,
    overflowed: bool,
    sink: Option<&'a mut Sink<'a>>,
}

impl<'a> ReplyWriter<'a> {
    /// A writer into that buffer, which it lets grow to `len_max` bytes and not beyond.
    pub fn new(out: &'a mut BytesMut, version: Version, len_max: usize) -> Self {
        Self { out, version, len_max, overflowed: false, sink: None }
    }

    /// A writer that gives what it wrote to `sink` whenever it is about to be more than `piece_len` bytes; the rest by
    /// [`ReplyWriter::flush`]. What was written cannot be taken back, and no header can be put before it.
    pub fn in_pieces(out: &'a mut BytesMut, version: Version, piece_len: usize, sink: &'a mut Sink<'a>) -> Self {
        Self { out, version, len_max: piece_len, overflowed: false, sink: Some(sink) }
    }

    /// The length that the buffer may grow to.
    pub fn len_max(&self) -> usize {
        self.len_max
    }

    /// Lets the buffer grow to that length from now on.
    pub fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// At least so many bytes are to follow: whether they fit. It is known at once then that they do not.
    pub fn expect(&mut self, bytes: u64) -> bool {
        let room = self.len_max.saturating_sub(self.out.len()) as u64;
        self.overflowed |= self.sink.is_none() && bytes > room;
        !self.overflowed
    }

    /// Whether something was left out because the buffer was full, or nobody wants the pieces.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The version replies are written in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Replies that follow are in this version.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Length of what was written so far: where a reply under way may be undone to.
    pub fn mark(&self) -> usize {
        self.out.len()
    }

    /// Takes back what was written since that mark.
    pub fn rewind(&mut self, mark: usize) {
        self.out.truncate(mark);
        self.overflowed = false;
    }

    /// `+OK`
    pub fn ok(&mut self) {
        self.simple("OK");
    }

    /// A simple string: short, without line ends.
    pub fn simple(&mut self, text: &str) {
        self.resp2(&resp2::types::BorrowedFrame::SimpleString(text.as_bytes()));
    }

    /// An error. Line ends inside are replaced: they would end the reply.
    pub fn error(&mut self, text: &str) {
        let clean = text.replace(['\r', '\n'], " ");
        self.resp2(&resp2::types::BorrowedFrame::Error(&clean));
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.resp2(&resp2::types::BorrowedFrame::Integer(value));
    }

    /// A count or size.
    pub fn unsigned(&mut self, value: u64) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A bulk string. The only kind of reply that can be large; it is what the limit is checked at.
    pub fn bulk(&mut self, value: &[u8]) {
        if self.overflowed || self.out.len() + value.len() > self.len_max {
            return self.bulk_past_limit(value);
        }
        self.resp2(&resp2::types::BorrowedFrame::BulkString(value));
    }

    #[cold]
    fn bulk_past_limit(&mut self, value: &[u8]) {
        self.flush();
        if self.sink.is_none() {
            self.overflowed = true;
        }
        if self.overflowed {
            return;
        }
        self.header(b'$', value.len());
        for piece in value.chunks(self.len_max.max(1)) {
            self.out.extend_from_slice(piece);
            self.flush();
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Gives what was written to the sink, if there is one.
    pub fn flush(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        if !self.overflowed && !self.out.is_empty() {
            self.overflowed = !sink(self.out.split().freeze());
            self.out.reserve(self.len_max);
        }
    }

    /// A bulk string, or no value.
    pub fn bulk_or_null(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bulk(value),
            None => self.null(),
        }
    }

    /// A text for people: verbatim in RESP3.
    pub fn verbatim(&mut self, text: &str) {
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => self.resp3(&resp3::types::BorrowedFrame::VerbatimString {
                data: text.as_bytes(),
                format: resp3::types::VerbatimStringFormat::Text,
                attributes: None,
            }),
        }
    }

    /// No value.
    pub fn null(&mut self) {
        match self.version {
            Version::Resp2 => self.resp2(&resp2::types::BorrowedFrame::Null),
            Version::Resp3 => self.resp3(&resp3::types::BorrowedFrame::Null),
        }
    }

    /// No array: what RESP2 tells from no value.
    pub fn null_array(&mut self) {
        match self.version {
            Version::Resp2 => self.out.extend_from_slice(b"*-1\r\n"),
            Version::Resp3 => self.null(),
        }
    }

    /// A floating point number, as its text.
    pub fn double(&mut self, text: &str) {
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => {
                // Writing into a BytesMut does not fail.
                let _ = write!(self.out.writer(), ",{text}\r\n");
            }
        }
    }

    /// Yes or no.
    pub fn boolean(&mut self, value: bool) {
        match self.version {
            Version::Resp2 => self.integer(i64::from(value)),
            Version::Resp3 => self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// A whole number of any size.
    pub fn big_number(&mut self, digits: &str) {
        match self.version {
            Version::Resp2 => self.bulk(digits.as_bytes()),
            Version::Resp3 => {
                self.out.extend_from_slice(b"(");
                self.out.extend_from_slice(digits.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The header of what is said about the reply behind it, RESP3 alone; that many pairs follow.
    pub fn attribute(&mut self, pairs: usize) {
        self.header(b'|', pairs);
    }

    /// The header of an array; that many replies follow.
    pub fn array(&mut self, length: usize) {
        self.header(b'*', length);
    }

    /// The header of a map; that many pairs of replies follow.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', 2 * pairs),
            Version::Resp3 => self.header(b'%', pairs),
        }
    }

    /// The header of something that was not asked for; that many replies follow.
    pub fn push(&mut self, length: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', length),
            Version::Resp3 => self.header(b'>', length),
        }
    }

    /// The header of a set; that many replies follow.
    pub fn set(&mut self, length: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', length),
            Version::Resp3 => self.header(b'~', length),
        }
    }

    /// An aggregate whose elements are written before their number is known: `elements` writes and counts them (a map's: its pairs).
    pub fn counted<E>(&mut self, aggregate: Aggregate, elements: impl FnOnce(&mut Self) -> Result<usize, E>) -> Result<(), E> {
        let mark = self.mark();
        let count = elements(self)?;
        self.insert_header(mark, |reply| reply.aggregate(aggregate, count));
        Ok(())
    }

    /// The header of an aggregate.
    pub fn aggregate(&mut self, aggregate: Aggregate, count: usize) {
        match aggregate {
            Aggregate::Array => self.array(count),
            Aggregate::Map => self.map(count),
            Aggregate::Set => self.set(count),
        }
    }

    /// Writes a header before what was written since that mark.
    pub fn insert_header(&mut self, mark: usize, header: impl FnOnce(&mut Self)) {
        let end = self.mark();
        header(self);
        let length = self.mark() - end;
        self.out[mark..].rotate_right(length);
    }

    fn header(&mut self, kind: u8, length: usize) {
        let mut writer = self.out.writer();
        // Writing into a BytesMut does not fail.
        let _ = write!(writer, "{}{length}\r\n", char::from(kind));
    }

    fn resp2(&mut self, frame: &resp2::types::BorrowedFrame<'_>) {
        if let Err(error) = resp2::encode::extend_encode_borrowed(self.out, frame, false) {
            tracing::error!(%error, "a reply was not encoded");
        }
    }

    fn resp3(&mut self, frame: &resp3::types::BorrowedFrame<'_>) {
        if let Err(error) = resp3::encode::complete::extend_encode_borrowed(self.out, frame, false) {
            tracing::error!(%error, "a reply was not encoded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, write: impl FnOnce(&mut ReplyWriter<'_>)) -> String {
        let mut out = BytesMut::new();
        write(&mut ReplyWriter::new(&mut out, version, 1 << 20));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn both_versions_are_written_as_redis_writes_them() {
        let all = |reply: &mut ReplyWriter<'_>| {
            reply.map(1);
            reply.bulk(b"k");
            reply.null();
            reply.null_array();
            reply.integer(-3);
            reply.error("ERR a\r\nb");
            reply.verbatim("t");
            reply.double("1.5");
        };
        assert_eq!(written(Version::Resp2, all), "*2\r\n$1\r\nk\r\n$-1\r\n*-1\r\n:-3\r\n-ERR a  b\r\n$1\r\nt\r\n$3\r\n1.5\r\n");
        assert_eq!(written(Version::Resp3, all), "%1\r\n$1\r\nk\r\n_\r\n_\r\n:-3\r\n-ERR a  b\r\n=5\r\ntxt:t\r\n,1.5\r\n");
    }

    #[test]
    fn a_count_comes_before_what_was_counted() {
        let counted = |reply: &mut ReplyWriter<'_>| {
            reply.ok();
            let count = |reply: &mut ReplyWriter<'_>| -> Result<usize, ()> {
                (0..12).for_each(|_| reply.bulk(b"x"));
                Ok(6)
            };
            reply.counted(Aggregate::Map, count).unwrap();
            reply.ok();
        };
        let pairs = "$1\r\nx\r\n".repeat(12);
        assert_eq!(written(Version::Resp2, counted), format!("+OK\r\n*12\r\n{pairs}+OK\r\n"));
        assert_eq!(written(Version::Resp3, counted), format!("+OK\r\n%6\r\n{pairs}+OK\r\n"));
    }

    #[test]
    fn a_reply_never_grows_past_its_limit() {
        let mut out = BytesMut::new();
        let mut reply = ReplyWriter::new(&mut out, Version::Resp2, 100);
        (0..50).for_each(|_| reply.bulk(&[b'x'; 30]));
        assert!(reply.overflowed() && reply.mark() < 150);
    }

    #[test]
    fn pieces_are_bounded_whatever_they_are_of_and_together_the_same_reply() {
        let all = |reply: &mut ReplyWriter<'_>| {
            reply.array(42);
            (0..40).for_each(|_| reply.bulk(&[b'x'; 30]));
            reply.bulk(&[b'y'; 1000]);
            reply.double("1.5");
        };
        let (mut out, mut pieces) = (BytesMut::new(), Vec::new());
        let mut sink = |piece: Bytes| {
            pieces.push(piece);
            true
        };
        let mut reply = ReplyWriter::in_pieces(&mut out, Version::Resp3, 100, &mut sink);
        assert!(reply.expect(1 << 30), "whatever its length");
        all(&mut reply);
        reply.flush();
        assert!(!reply.overflowed());
        assert!(pieces.len() > 20 && pieces.iter().all(|piece| !piece.is_empty() && piece.len() < 130));
        assert_eq!(pieces.concat(), written(Version::Resp3, all).into_bytes());
    }

    #[test]
    fn nothing_is_written_once_nobody_wants_it() {
        let (mut out, mut asked) = (BytesMut::new(), 0);
        let mut sink = |_| {
            asked += 1;
            false
        };
        let mut reply = ReplyWriter::in_pieces(&mut out, Version::Resp2, 100, &mut sink);
        (0..50).for_each(|_| reply.bulk(&[b'x'; 30]));
        assert!(reply.overflowed() && reply.mark() < 150);
        assert_eq!(asked, 1);
    }

    #[test]
    fn what_cannot_fit_is_known_before_it_is_written() {
        let mut out = BytesMut::new();
        let mut reply = ReplyWriter::new(&mut out, Version::Resp2, 100);
        reply.ok();
        assert!(reply.expect(95) && !reply.overflowed());
        reply.set_len_max(50);
        assert!(!reply.expect(46) && reply.overflowed());
    }

    #[test]
    fn a_reply_under_way_can_be_taken_back() {
        let text = written(Version::Resp2, |reply| {
            reply.ok();
            let mark = reply.mark();
            reply.array(5);
            reply.rewind(mark);
            reply.error("ERR no");
        });
        assert_eq!(text, "+OK\r\n-ERR no\r\n");
    }
}
