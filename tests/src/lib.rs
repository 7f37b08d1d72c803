//! What the tests share.

use std::path::PathBuf;

pub mod bench;
pub mod certificates;
pub mod dice;
pub mod history;
pub mod kubernetes;
pub mod load;
pub mod otlp;
pub mod proxy;
pub mod resp;
pub mod store;

/// A file or folder of this repository, named from its root. The checkout is asked for when it runs: a target folder that
/// checkouts share may hold what was built for another one.
pub fn repository(file: &str) -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(tests).join("..").join(file)
}
