//! Data types on the engine. Knows no socket and no protocol.

mod allowance;
mod bits;
mod collection;
mod double;
mod dump;
mod encoding;
mod field_expiry;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod geo;
mod hashes;
mod hyperloglog;
mod keyspace;
mod lists;
mod long_double;
mod packed;
mod payload;
mod prefetch;
mod random;
mod renaming;
mod restore;
mod sampling;
mod sets;
mod sorted_sets;
mod streams;
mod strings;
mod substrings;
mod usage;

pub use allowance::Allowance;
pub use bits::{BitOperation, BitSet, FieldStep, FieldType, OverflowRule, count_bits, find_bit, read_field};
pub use double::{double_text, human_text, parse_double, parse_exact_double};
pub use field_expiry::{FIELD_EXPIRY_ASKED_MS_MAX, FieldExpiry, FieldPersist};
pub use hashes::Hash;
pub use hyperloglog::{HllEncoding, HyperLogLog};
pub use keyspace::{ExpireCondition, Keyspace, TypeError};
pub use lists::{End, List, offsets_of_range};
pub(crate) use payload::{PayloadReader, open as open_payload, seal as seal_payload, write_text};
pub use prefetch::Prefetch;
pub use sets::{Removed, Set, SetMoved, SetOperation};
pub use sorted_sets::{
    AddOptions, Added, Aggregate, Combination, Extreme, LexBound, LexRange, Popped, ScoreRange, Selection, SortedSet,
};
pub use streams::{
    Claim, Claimed, Consumer, Delivered, EntryId, Fields, Group, Head, NewId, NoGroup, NotAdded, Pending, Stream, Trim, TrimTo,
};
pub use strings::{Condition, SetOptions, SetOutcome, Ttl};
pub(crate) use strings::{parse_float, parse_integer};
pub use substrings::{Compared, Match, Touch, longest_common, range};
