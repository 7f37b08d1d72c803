//! Any bytes as what sorted sets store.

use super::{
    edges::Edges,
    score::{decode, encode, index_key, split_entry},
};

/// See [`crate::fuzzing::codecs`].
pub(in crate::types) fn codecs(bytes: &[u8]) {
    let edges = Edges::decode(bytes);
    assert_eq!(Edges::decode(&edges.encode()), edges, "the edges of a sorted set");
    if let Ok(score) = decode(bytes)
        && !score.is_nan()
        && score != 0.0
    {
        assert_eq!(encode(score), bytes, "a score");
    }
    if let Ok((score, member)) = split_entry(bytes)
        && !score.is_nan()
        && score != 0.0
    {
        assert_eq!(index_key(score, member), bytes, "an entry of the index");
    }
}
