//! Data types on the engine. Knows no socket and no protocol.

mod keyspace;
mod strings;

pub use keyspace::{ExpireCondition, Keyspace, TypeError};
pub use strings::{Condition, SetOptions, SetOutcome, Ttl};
pub(crate) use strings::{parse_float, parse_integer};
