//! Store processes on loopback, as the tests use them: started, asked, killed.

mod cluster;
mod process;
mod volume;

pub use cluster::LocalCluster;
pub use process::{Setup, StoreProcess, environment, free_port, wait_for};
pub use volume::Volume;
