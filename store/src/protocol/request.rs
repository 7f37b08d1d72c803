//! The request reader: iterative, resumable, bounded. Input is hostile before authentication and after.
//!
//! Reads what Redis clients send: arrays of bulk strings, and inline commands. Nothing is parsed twice: the reader remembers where it
//! stopped, so a request that arrives a byte at a time costs no more than one that arrives whole.

use bytes::{Buf as _, Bytes, BytesMut};

/// A request: the command's name and its arguments. Never empty.
pub type Request = Vec<Bytes>;

/// Longest inline command and longest header line, in bytes (`PROTO_INLINE_MAX_SIZE` of Redis).
const LINE_LEN_MAX: usize = 64 << 10;
/// Most arguments before authentication, and longest of them, as in Redis.
const UNAUTHENTICATED_ARGS_MAX: usize = 10;
const UNAUTHENTICATED_BULK_LEN_MAX: usize = 16 << 10;
/// Places reserved for arguments on the word of a header alone.
const ARGS_RESERVED_MAX: usize = 64;

/// Bounds of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most arguments, the command's name included.
    pub args_max: usize,
    /// Longest argument, in bytes.
    pub bulk_len_max: usize,
    /// Longest request in all, in bytes.
    pub request_len_max: usize,
}

impl RequestLimits {
    /// The same, of requests of at most that many bytes.
    #[must_use]
    pub fn at_most(self, bytes: usize) -> Self {
        Self { bulk_len_max: self.bulk_len_max.min(bytes), request_len_max: self.request_len_max.min(bytes), ..self }
    }

    /// What a client may send before it has authenticated.
    #[must_use]
    pub fn unauthenticated(self) -> Self {
        Self {
            args_max: self.args_max.min(UNAUTHENTICATED_ARGS_MAX),
            bulk_len_max: self.bulk_len_max.min(UNAUTHENTICATED_BULK_LEN_MAX),
            request_len_max: self.request_len_max.min(UNAUTHENTICATED_ARGS_MAX * UNAUTHENTICATED_BULK_LEN_MAX),
        }
    }
}

/// Why input is not a request. The connection is closed after it; the texts are Redis' own where Redis has one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// Inline command past the limit, or never ended.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// Quotes of an inline command do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The number of arguments is no number or past the limit.
    #[error("Protocol error: invalid multibulk length")]
    ArgsCount,
    /// It begins a TLS handshake.
    #[error("Protocol error: this port does not speak TLS")]
    Tls,
    /// A line of a header does not end.
    #[error("Protocol error: too big mbulk count string")]
    HeaderTooLong,
    /// An argument is not a bulk string.
    #[error("Protocol error: expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// The length of an argument is no number or past the limit.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// Two bytes after an argument are not CRLF.
    #[error("Protocol error: an argument does not end where its length says")]
    BulkEnd,
    /// All arguments together are past the limit.
    #[error("Protocol error: the request exceeds client-query-buffer-limit")]
    RequestTooLong,
}

/// Reads requests out of a buffer that the connection fills.
pub struct RequestReader {
    /// Bytes received and not yet taken.
    pub buffer: BytesMut,
    /// Start of what is not parsed yet.
    position: usize,
    /// End of what was searched for a line end already.
    searched: usize,
    /// Arguments still to come; `None`: between requests.
    missing: Option<usize>,
    /// Length of the argument whose body comes next.
    bulk: Option<usize>,
    /// Where the arguments parsed so far stand.
    args: Vec<(usize, usize)>,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestReader {
    /// A reader with nothing in it.
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), position: 0, searched: 0, missing: None, bulk: None, args: Vec::new() }
    }

    /// Takes the next request, or `None` when more bytes are needed.
    pub fn next(&mut self, limits: RequestLimits) -> Result<Option<Request>, ProtocolError> {
        loop {
            if self.missing.is_none() {
                match self.buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(count) = self.header(ProtocolError::ArgsCount)? else { return Ok(None) };
                        if count <= 0 {
                            self.reset();
                            continue;
                        }
                        let count = usize::try_from(count).map_err(|_| ProtocolError::ArgsCount)?;
                        if count > limits.args_max {
                            return Err(ProtocolError::ArgsCount);
                        }
                        self.args.reserve(count.min(ARGS_RESERVED_MAX));
                        self.missing = Some(count);
                    }
                    // Without an end of a line, who begins a handshake would wait for an answer for ever.
                    Some(0x16) if self.buffer.get(1) == Some(&3) => return Err(ProtocolError::Tls),
                    Some(_) => match self.inline()? {
                        None => return Ok(None),
                        Some(words) if words.is_empty() => continue,
                        Some(words) if words.len() > limits.args_max => return Err(ProtocolError::ArgsCount),
                        Some(words) => return Ok(Some(words)),
                    },
                }
            }
            return self.arguments(limits);
        }
    }

    fn arguments(&mut self, limits: RequestLimits) -> Result<Option<Request>, ProtocolError> {
        while let Some(missing) = self.missing.filter(|missing| *missing > 0) {
            let length = match self.bulk {
                Some(length) => length,
                None => {
                    match self.buffer.get(self.position) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(other) => {
                            return Err(ProtocolError::ExpectedBulk(char::from(*other).escape_default().next().unwrap_or('?')));
                        }
                    }
                    let Some(length) = self.header(ProtocolError::BulkLength)? else { return Ok(None) };
                    let length = usize::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
                    if length > limits.bulk_len_max {
                        return Err(ProtocolError::BulkLength);
                    }
                    if self.position.saturating_add(length) > limits.request_len_max {
                        return Err(ProtocolError::RequestTooLong);
                    }
                    self.bulk = Some(length);
                    length
                }
            };
            let end = self.position + length;
            match self.buffer.get(end..end + 2) {
                None => return Ok(None),
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::BulkEnd),
            }
            self.args.push((self.position, end));
            self.position = end + 2;
            self.searched = self.position;
            self.bulk = None;
            self.missing = Some(missing - 1);
        }
        let whole = self.buffer.split_to(self.position).freeze();
        let request = self.args.iter().map(|(start, end)| whole.slice(*start..*end)).collect();
        self.position = 0;
        self.reset();
        Ok(Some(request))
    }

    /// Bytes that the body of the argument under way still needs: what to reserve before reading on.
    pub fn needed(&self) -> usize {
        self.bulk.map_or(0, |length| (self.position + length + 2).saturating_sub(self.buffer.len()))
    }

    /// Forgets the request under way; what follows it in the buffer stays.
    fn reset(&mut self) {
        self.buffer.advance(self.position);
        self.position = 0;
        self.searched = 0;
        self.missing = None;
        self.bulk = None;
        self.args.clear();
    }

    /// The number in a `*N` or `$N` line at the position, which moves behind it; `None` when the line is not all there.
    fn header(&mut self, error: ProtocolError) -> Result<Option<i64>, ProtocolError> {
        let from = self.searched.max(self.position);
        let found = self.buffer[from..].iter().position(|byte| *byte == b'\r').map(|at| from + at);
        let end = match found {
            Some(end) if end - self.position <= LINE_LEN_MAX => end,
            None if self.buffer.len() - self.position <= LINE_LEN_MAX => {
                self.searched = self.buffer.len();
                return Ok(None);
            }
            _ => return Err(ProtocolError::HeaderTooLong),
        };
        match self.buffer.get(end + 1) {
            None => {
                self.searched = end;
                return Ok(None);
            }
            Some(b'\n') => {}
            Some(_) => return Err(error),
        }
        let number = number(&self.buffer[self.position + 1..end]).ok_or(error)?;
        self.position = end + 2;
        self.searched = self.position;
        Ok(Some(number))
    }

    fn inline(&mut self) -> Result<Option<Request>, ProtocolError> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        let end = match found {
            Some(end) if end <= LINE_LEN_MAX => end,
            None if self.buffer.len() <= LINE_LEN_MAX => {
                self.searched = self.buffer.len();
                return Ok(None);
            }
            _ => return Err(ProtocolError::InlineTooLong),
        };
        let line = self.buffer.split_to(end + 1);
        self.searched = 0;
        let line = &line[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        split_inline(line).map(Some).ok_or(ProtocolError::UnbalancedQuotes)
    }
}

/// A decimal number as headers carry it: an optional minus, digits, nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = digits.strip_prefix(b"-").map_or((false, digits), |rest| (true, rest));
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let value = digits.iter().try_fold(0i64, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))?;
    Some(if negative { -value } else { value })
}

/// Splits an inline command at blanks, with Redis' quotes and escapes; `None` when quotes are unbalanced.
fn split_inline(line: &[u8]) -> Option<Request> {
    let mut words = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(first) = rest.peek().copied() else { return Some(words) };
        let mut word = BytesMut::new();
        match first {
            b'"' | b'\'' => {
                rest.next();
                quoted(first, &mut rest, &mut word)?;
                if rest.peek().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                    return None;
                }
            }
            _ => {
                while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
                    if byte == b'"' || byte == b'\'' {
                        quoted(byte, &mut rest, &mut word)?;
                        if rest.peek().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                            return None;
                        }
                        break;
                    }
                    word.extend_from_slice(&[byte]);
                }
            }
        }
        words.push(word.freeze());
    }
}

/// Reads up to the closing quote.
fn quoted(quote: u8, rest: &mut impl Iterator<Item = u8>, word: &mut BytesMut) -> Option<()> {
    loop {
        let byte = rest.next()?;
        let literal = match byte {
            b if b == quote => return Some(()),
            b'\\' if quote == b'\'' => match rest.next()? {
                b'\'' => b'\'',
                other => {
                    word.extend_from_slice(b"\\");
                    other
                }
            },
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'a' => 7,
                b'x' => {
                    let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                    (digit()? * 16 + digit()?) as u8
                }
                other => other,
            },
            other => other,
        };
        word.extend_from_slice(&[literal]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RequestLimits = RequestLimits { args_max: 1000, bulk_len_max: 1 << 20, request_len_max: 2 << 20 };

    fn read(input: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut reader = RequestReader::new();
        reader.buffer.extend_from_slice(input);
        let mut all = Vec::new();
        while let Some(request) = reader.next(LIMITS)? {
            all.push(request.iter().map(|word| word.to_vec()).collect());
        }
        Ok(all)
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn reads_arrays_and_inline_commands() {
        assert_eq!(read(b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPING\r\n").unwrap(), [words(&["ECHO", "hi"]), words(&["PING"])]);
        assert_eq!(read(b"\r\n*0\r\n*-1\r\n\r\nGET  'a b'\n").unwrap(), [words(&["GET", "a b"])]);
        assert_eq!(read(br#"SET "\x41\n" 'it\'s'"#).unwrap(), Vec::<Vec<Vec<u8>>>::new(), "no line end yet");
        assert_eq!(read(b"SET \"\\x41\\n\" 'it\\'s'\r\n").unwrap(), [words(&["SET", "A\n", "it's"])]);
    }

    #[test]
    fn refuses_garbage_by_name() {
        let deep = "*1\r\n".repeat(10_000);
        let long_inline = vec![b'a'; 10 << 20];
        let cases: [(&[u8], ProtocolError); 10] = [
            (deep.as_bytes(), ProtocolError::ExpectedBulk('*')),
            (&long_inline, ProtocolError::InlineTooLong),
            (b"*1\r\n$-1\r\n", ProtocolError::BulkLength),
            (b"*x\r\n", ProtocolError::ArgsCount),
            (b"*1001\r\n", ProtocolError::ArgsCount),
            (b"*99999999999999999999999\r\n", ProtocolError::ArgsCount),
            (b"*1\r\n$2000000\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$1\r\nabc", ProtocolError::BulkEnd),
            (b"GET \"a\r\n", ProtocolError::UnbalancedQuotes),
            (b"*1\rx", ProtocolError::ArgsCount),
        ];
        for (input, error) in cases {
            assert_eq!(read(input), Err(error));
        }
        let mut many = b"*3\r\n".to_vec();
        for _ in 0..3 {
            many.extend_from_slice(b"$1000000\r\n");
            many.resize(many.len() + 1_000_000, b'x');
            many.extend_from_slice(b"\r\n");
        }
        assert_eq!(read(&many), Err(ProtocolError::RequestTooLong));
    }

    #[test]
    fn before_authentication_little_is_read() {
        let mut reader = RequestReader::new();
        reader.buffer.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16385\r\n");
        assert_eq!(reader.next(LIMITS.unauthenticated()), Err(ProtocolError::BulkLength));
        let mut reader = RequestReader::new();
        reader.buffer.extend_from_slice(b"*11\r\n");
        assert_eq!(reader.next(LIMITS.unauthenticated()), Err(ProtocolError::ArgsCount));
    }

    proptest! {
        #[test]
        fn requests_are_read_whole_however_they_arrive(
            requests in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6), 1..5),
            cuts in proptest::collection::vec(1usize..30, 1..40),
        ) {
            let mut bytes = Vec::new();
            for request in &requests {
                bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
                for word in request {
                    bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                    bytes.extend_from_slice(word);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            let (mut reader, mut found, mut rest) = (RequestReader::new(), Vec::new(), bytes.as_slice());
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                reader.buffer.extend_from_slice(now);
                rest = later;
                while let Some(request) = reader.next(LIMITS).unwrap() {
                    found.push(request.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(found, requests);
        }

        #[test]
        fn requests_agree_with_the_redis_protocol_crate(
            request in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6)
        ) {
            use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
            let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
            for word in &request {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
            let (frame, _) = decode(&bytes).unwrap().unwrap();
            let ours = read(&bytes).unwrap().remove(0);
            prop_assert_eq!(frame, OwnedFrame::Array(ours.into_iter().map(OwnedFrame::BulkString).collect()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
