//! One folder a kind.

pub mod cluster;
pub mod run;
pub mod slot_migration;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
