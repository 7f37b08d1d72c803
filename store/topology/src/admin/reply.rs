//! RESP2 replies as the admin client reads them: bounded in size and nesting, for a peer may answer nonsense.

use bytes::{Buf as _, Bytes, BytesMut};

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:number`
    Integer(i64),
    /// `$length`
    Bulk(Bytes),
    /// `*count`
    Array(Vec<Reply>),
    /// `$-1` or `*-1`
    Null,
}

/// Why bytes are not a reply.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReplyError {
    /// Not RESP2.
    #[error("the peer's answer is not RESP2: {0}")]
    Malformed(&'static str),
    /// Past a bound.
    #[error("the peer's answer exceeds a limit: {0}")]
    TooLarge(&'static str),
}

/// Longest reply that is read, in bytes.
pub(crate) const REPLY_LEN_MAX: usize = 64 << 20;
/// Longest line: a type byte, text or number, without its line end.
const LINE_LEN_MAX: usize = 64 << 10;
/// Deepest nesting any admin reply has is two; one more is let through.
const DEPTH_MAX: usize = 3;

/// Takes one reply off the front of `buffer`, or says how many bytes in all are needed at least before it is worth another try.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Result<Reply, usize>, ReplyError> {
    let mut position = 0;
    match parse(buffer, &mut position, 0)? {
        Ok(reply) => {
            buffer.advance(position);
            Ok(Ok(reply))
        }
        Err(needed) if needed > REPLY_LEN_MAX => Err(ReplyError::TooLarge("64 MiB a reply")),
        Err(needed) => Ok(Err(needed)),
    }
}

fn line<'a>(buffer: &'a [u8], position: &mut usize) -> Result<Option<&'a [u8]>, ReplyError> {
    let rest = buffer.get(*position..).unwrap_or_default();
    let window = &rest[..rest.len().min(LINE_LEN_MAX)];
    match window.iter().position(|byte| *byte == b'\r') {
        Some(end) if rest.len() > end + 1 => {
            if rest[end + 1] != b'\n' {
                return Err(ReplyError::Malformed("a line does not end in CRLF"));
            }
            *position += end + 2;
            Ok(Some(&rest[..end]))
        }
        Some(_) => Ok(None),
        None if rest.len() >= LINE_LEN_MAX => Err(ReplyError::TooLarge("64 KiB a line")),
        None => Ok(None),
    }
}

fn parse(buffer: &[u8], position: &mut usize, depth: usize) -> Result<Result<Reply, usize>, ReplyError> {
    if depth > DEPTH_MAX {
        return Err(ReplyError::TooLarge("arrays nested 3 deep"));
    }
    let Some(line) = line(buffer, position)? else { return Ok(Err(buffer.len() + 1)) };
    let (kind, text) = line.split_first().ok_or(ReplyError::Malformed("an empty line"))?;
    let text = std::str::from_utf8(text).map_err(|_| ReplyError::Malformed("a line is not UTF-8"))?;
    let number = || text.parse::<i64>().map_err(|_| ReplyError::Malformed("a number was expected"));
    let reply = match kind {
        b'+' => Reply::Simple(text.to_owned()),
        b'-' => Reply::Error(text.to_owned()),
        b':' => Reply::Integer(number()?),
        b'$' | b'*' if number()? == -1 => Reply::Null,
        b'$' => {
            let length = usize::try_from(number()?).map_err(|_| ReplyError::Malformed("a negative length"))?;
            if length > REPLY_LEN_MAX {
                return Err(ReplyError::TooLarge("64 MiB a reply"));
            }
            let end = *position + length;
            if buffer.len() < end + 2 {
                return Ok(Err(end + 2));
            }
            if &buffer[end..end + 2] != b"\r\n" {
                return Err(ReplyError::Malformed("a bulk string does not end in CRLF"));
            }
            let body = Bytes::copy_from_slice(&buffer[*position..end]);
            *position = end + 2;
            Reply::Bulk(body)
        }
        b'*' => {
            let count = usize::try_from(number()?).map_err(|_| ReplyError::Malformed("a negative length"))?;
            let mut items = Vec::with_capacity(count.min(1024));
            for _ in 0..count {
                match parse(buffer, position, depth + 1)? {
                    Ok(item) => items.push(item),
                    Err(needed) => return Ok(Err(needed)),
                }
            }
            Reply::Array(items)
        }
        _ => return Err(ReplyError::Malformed("an unknown type byte")),
    };
    Ok(Ok(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_replies_byte_by_byte_and_refuses_nonsense() {
        let bytes = b"*3\r\n$5\r\nhello\r\n:-7\r\n*2\r\n+OK\r\n$-1\r\n";
        let mut buffer = BytesMut::new();
        for (position, byte) in bytes.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            let taken = take(&mut buffer).unwrap();
            assert_eq!(taken.is_ok(), position + 1 == bytes.len());
        }
        assert!(buffer.is_empty());
        for bad in [&b"?\r\n"[..], b"$x\r\n", b"$-5\r\n", b"+a\rb", b"$1\r\nabc", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"] {
            assert!(take(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }
}
