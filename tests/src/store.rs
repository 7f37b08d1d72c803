//! Store processes on loopback, as the tests use them: started, asked, killed.

mod cluster;
mod http;
mod process;
mod volume;

pub use cluster::LocalCluster;
pub use http::HttpAnswer;
pub use process::{ADMIN_PASSWORD, ROW_CACHE, Setup, StoreProcess, environment, free_port, row_cache_of_this_run, wait_for};
pub use volume::Volume;
