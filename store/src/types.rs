//! Data types on the engine. Knows no socket and no protocol.

mod collection;
mod hashes;
mod keyspace;
mod lists;
mod long_double;
mod prefetch;
mod renaming;
mod sampling;
mod strings;

pub use hashes::Hash;
pub use keyspace::{ExpireCondition, Keyspace, TypeError};
pub use lists::{End, List, offsets_of_range};
pub use prefetch::Prefetch;
pub(crate) use strings::parse_integer;
pub use strings::{Condition, SetOptions, SetOutcome, Ttl};
