//! The request reader against itself, cut into pieces, and against the decoder of the redis-protocol crate.

use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
use sluice_store::protocol::{ProtocolError, Request, RequestLimits, RequestReader};

const LIMITS: RequestLimits = RequestLimits { args_max: 100, bulk_len_max: 1 << 16, request_len_max: 1 << 17 };

/// What a reader makes of bytes: requests, each with the bytes it was read from if it was read from all that had arrived, and the error
/// that ended it.
type Outcome = (Vec<Request>, Option<ProtocolError>);

/// Bytes as a client's input: read in one piece and in several they are the same requests and the same error, and a request that is
/// an array is what the oracle finds in its bytes.
pub fn reader(bytes: &[u8]) {
    let whole = read(std::iter::once(bytes), agree);
    // Sizes of pieces come from the bytes themselves, so that they are found by the fuzzer as well.
    let sizes = bytes.iter().map(|byte| usize::from(byte % 23) + 1).collect::<Vec<_>>();
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for size in sizes {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    assert_eq!(read(pieces.into_iter(), |_, _| {}), whole, "in pieces");
    assert_eq!(read(bytes.chunks(1), |_, _| {}), whole, "byte by byte");
    written_again(&whole.0);
}

fn read<'b>(pieces: impl Iterator<Item = &'b [u8]>, each: impl Fn(&[u8], &Request)) -> Outcome {
    let (mut reader, mut requests) = (RequestReader::new(), Vec::new());
    for piece in pieces {
        reader.buffer.extend_from_slice(piece);
        loop {
            let before = reader.buffer.to_vec();
            match reader.next(LIMITS) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    assert!(!request.is_empty(), "a request has a name");
                    each(&before[..before.len() - reader.buffer.len()], &request);
                    requests.push(request);
                }
                Err(error) => return (requests, Some(error)),
            }
        }
        assert!(reader.needed() <= LIMITS.request_len_max + 2, "it asks for more than a request may have");
    }
    (requests, None)
}

/// What the oracle makes of the bytes of one request. It knows no inline commands, and nothing of what is passed over between requests.
fn agree(slice: &[u8], request: &Request) {
    let mut slice = slice;
    while let Some(end) = slice.iter().position(|byte| *byte == b'\n') {
        let line = slice[..end].trim_ascii();
        let nothing = || std::str::from_utf8(&line[1..]).ok()?.parse::<i64>().ok().filter(|count| *count <= 0);
        if !line.is_empty() && (line[0] != b'*' || nothing().is_none()) {
            break;
        }
        slice = &slice[end + 1..];
    }
    if slice.first() != Some(&b'*') {
        return;
    }
    let words = request.iter().map(|word| OwnedFrame::BulkString(word.to_vec())).collect();
    match decode(slice) {
        Ok(Some((frame, length))) => {
            assert_eq!((frame, length), (OwnedFrame::Array(words), slice.len()), "the oracle reads something else");
        }
        other => panic!("the oracle reads {other:?} in {slice:?}"),
    }
}

/// Requests as clients write them are read as they are.
fn written_again(requests: &[Request]) {
    let mut bytes = Vec::new();
    for request in requests {
        bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
        for word in request {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    let (again, error) = read(std::iter::once(bytes.as_slice()), agree);
    assert_eq!((again.as_slice(), error), (requests, None), "written again");
}
