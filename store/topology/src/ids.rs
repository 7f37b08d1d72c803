//! Identifiers and counters of a cluster, each a type of its own so that they cannot be mixed up.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a {what}: it has to be {digits} lower-case hexadecimal digits")]
pub struct IdError {
    what: &'static str,
    text: String,
    digits: usize,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes; the text form has twice as many digits.
            pub const LEN: usize = $bytes;

            /// The id of those bytes, as stored on disk.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Its bytes, as stored on disk.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { what: $what, text: text.chars().take(64).collect(), digits: 2 * $bytes };
                let digits = text.as_bytes();
                if digits.len() != 2 * $bytes {
                    return Err(error());
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = 16 * hex(pair[0]).ok_or_else(error)? + hex(pair[1]).ok_or_else(error)?;
                }
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

hex_id!(
    /// A node's id: 40 hexadecimal digits as in Redis Cluster, created on the volume at its first start.
    NodeId, "node id", 20
);
hex_id!(
    /// A database's id: made when its directory is created, copied by nothing. With a flush round it is a proof of durability.
    InstanceId, "database instance id", 16
);
hex_id!(
    /// A cluster's id: made once, at bootstrap.
    ClusterId, "cluster id", 16
);

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after it; `None` at the end of the range.
            pub fn next(self) -> Option<Self> {
                self.0.checked_add(1).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

counter!(
    /// How often a slot has changed its owner. 0: never assigned; the first assignment is 1; each switch adds one.
    SlotEpoch
);
counter!(
    /// Version of the topology document; counts on under one leader and belongs to the operator alone.
    TopologyVersion
);
counter!(
    /// Fencing epoch of the operator's leader; nodes refuse a document or a command of a lower one.
    LeaderEpoch
);
counter!(
    /// Number of a migration job, given by its source node and never used again there.
    JobId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_what_is_not_one() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(text.parse::<NodeId>().unwrap().to_string(), text);
        for bad in ["", "0123", "0123456789ABCDEF0123456789abcdef01234567", "zz23456789abcdef0123456789abcdef01234567"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
