//! Data types on the engine. Knows no socket and no protocol.

mod keyspace;
mod long_double;
mod prefetch;
mod strings;

pub use keyspace::{ExpireCondition, Keyspace, TypeError};
pub use prefetch::Prefetch;
pub(crate) use strings::parse_integer;
pub use strings::{Condition, SetOptions, SetOutcome, Ttl};
