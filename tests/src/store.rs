//! Store processes on loopback, as the tests use them: started, asked, killed.

mod cluster;
mod http;
mod process;
mod volume;

pub use cluster::LocalCluster;
pub use http::HttpAnswer;
pub use process::{ADMIN_PASSWORD, Setup, StoreProcess, environment, free_port, settings_of_this_run, wait_for};
pub use volume::Volume;
