//! What Redis would store a key as: OBJECT ENCODING. Here there is one form a kind; the name is judged by what the key holds.

use std::ops::ControlFlow;

use super::{
    keyspace::{Keyspace, TypeError},
    parse_integer,
};
use crate::engine::{Kind, Span, Subkeys};

/// Members up to which Redis stores a collection packed, and bytes of the longest.
const PACKED_MEMBERS: u64 = 128;
const PACKED_LEN: usize = 64;
/// Members up to which Redis stores a set of numbers packed.
const INTEGERS: u64 = 512;
/// Bytes up to which Redis stores a list in one piece.
const LIST_BYTES: usize = 8192;
/// Bytes of a string that Redis stores with its header.
const EMBEDDED_LEN: usize = 44;

impl Keyspace<'_> {
    /// The name of the encoding that Redis' defaults would give a key; `None` when there is no such key. Goes over a small collection.
    pub fn encoding(&self, key: &[u8]) -> Result<Option<&'static str>, TypeError> {
        let Some(stored) = self.live(key)? else { return Ok(None) };
        let record = stored.record()?;
        let name = match record.kind {
            Kind::String if parse_integer(record.value).is_ok() => "int",
            Kind::String if record.value.len() <= EMBEDDED_LEN => "embstr",
            Kind::String => "raw",
            Kind::Stream => "stream",
            kind => {
                let Some(members) = self.members(key, kind)? else { return Ok(None) };
                let (mut bytes, mut longest, mut integers) = (0, 0, true);
                let most = if kind == Kind::List { u64::MAX } else { INTEGERS };
                if members.size() <= most {
                    members.each(Subkeys::Data, Span::ALL, |member, value| {
                        let counted = if kind == Kind::List { value } else { member };
                        bytes += counted.len() + 11;
                        longest = longest.max(counted.len()).max(if kind == Kind::Hash { value.len() } else { 0 });
                        integers &= parse_integer(member).is_ok();
                        if bytes > LIST_BYTES && kind == Kind::List { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })?;
                }
                let packed = members.size() <= PACKED_MEMBERS && longest <= PACKED_LEN;
                match kind {
                    Kind::List if bytes <= LIST_BYTES => "listpack",
                    Kind::List => "quicklist",
                    Kind::Set if members.size() <= INTEGERS && integers => "intset",
                    Kind::SortedSet if !packed => "skiplist",
                    Kind::Hash if packed && members.earliest_ms().is_some() => "listpackex",
                    _ if packed => "listpack",
                    _ => "hashtable",
                }
            }
        };
        Ok(Some(name))
    }
}
