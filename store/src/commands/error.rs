//! Why a command is answered with an error.

use crate::{
    cluster::TopologyError,
    engine::{EngineError, FlushError},
    migration::{MigrateError, MigrationError},
    types::TypeError,
};

/// An error reply, its code first. Texts are Redis' own where Redis has one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct CommandError(String);

impl CommandError {
    /// An error of that text, which begins with its code.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Options that do not fit together.
    pub fn syntax() -> Self {
        Self::new("ERR syntax error")
    }

    /// Too few or too many arguments.
    pub fn arity(command: &str) -> Self {
        Self(format!("ERR wrong number of arguments for '{}' command", command.to_ascii_lowercase()))
    }

    /// A subcommand nobody knows, or with the wrong number of arguments.
    pub fn subcommand(command: &str, given: &[u8]) -> Self {
        let given: String = String::from_utf8_lossy(given).chars().take(64).collect();
        Self(format!("ERR unknown subcommand or wrong number of arguments for '{given}'. Try {command} HELP."))
    }
}

impl From<TypeError> for CommandError {
    fn from(error: TypeError) -> Self {
        Self(error.to_string())
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        Self(error.reply())
    }
}

impl From<TopologyError> for CommandError {
    fn from(error: TopologyError) -> Self {
        match error {
            TopologyError::Storage(error) => error.into(),
            stale @ (TopologyError::StaleLeader { .. } | TopologyError::StaleVersion { .. }) => Self(format!("STALE {stale}")),
            other => Self(format!("ERR {other}")),
        }
    }
}

impl From<MigrateError> for CommandError {
    fn from(error: MigrateError) -> Self {
        Self(format!("ERR {error}"))
    }
}

impl From<MigrationError> for CommandError {
    fn from(error: MigrationError) -> Self {
        match error {
            MigrationError::Topology(error) => error.into(),
            MigrationError::Storage(error) => error.into(),
            // Its text begins with a code of its own, by which the source tells it from what may be tried again.
            refused @ MigrationError::Refused(_) => Self(refused.to_string()),
            other => Self(format!("ERR {other}")),
        }
    }
}

impl From<FlushError> for CommandError {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::Running(_) => Self(format!("BUSY {error}; without NOWAIT the call waits for the next one")),
            other => Self(format!("ERR {other}")),
        }
    }
}
