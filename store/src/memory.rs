//! Memory of the process: the limit that holds, who holds how much of it, heap and CPU profiles on demand.
//!
//! jemalloc is the allocator of Rust and of RocksDB alike, so a heap profile shows both. Sampling is compiled in and off until it is
//! asked for. Nothing here runs on a thread that serves clients.

mod allocator;
mod cpu;
mod dumps;
mod flamegraph;
mod heap;
mod ladder;
mod pprof;
mod profile;
mod symbols;
mod watch;

pub use allocator::{Allocated, allocated, report};
pub use cpu::{CpuProfileError, SECONDS_MAX, cpu_profile};
pub use dumps::DumpLimits;
pub use heap::{ProfileError, dump, heap_profile, is_active, raw_profile, reset, set_active};
pub use ladder::{Pressure, Watermarks};
pub use profile::Profile;
pub use watch::{Memory, MemoryLimits, Owner};
