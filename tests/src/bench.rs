//! The bench harness: redis-server, builds of the store and other RESP servers in turn, on the same cores, by the same client.
//! Figures are printed and kept, never asserted: what a run can fail for is that something did not run.

mod client;
mod figures;
mod flushing;
mod migrating;
mod options;
mod report;
mod rounds;
mod server;
mod workload;

pub use flushing::{FlushOptions, run as run_flushing};
pub use migrating::{MigrationOptions, run as run_migrating};
pub use options::{Common, NamedAddress, NamedNumber, NamedPath, NamedValue};
pub use rounds::{Mode, run as run_rounds};
