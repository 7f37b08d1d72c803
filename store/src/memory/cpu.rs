//! What the processors are busy with: the stacks of running threads, sampled by a timer for some seconds. Off, it costs nothing.

use std::{
    path::Path,
    sync::{Mutex, Once, TryLockError},
    thread,
    time::{Duration, Instant},
};

use super::{
    profile::{Profile, Sample},
    symbols::Symbols,
};

/// Samples a second of processor time; odd, so as not to beat with what is itself periodic.
const FREQUENCY: i32 = 99;
/// Longest profile, in seconds.
pub const SECONDS_MAX: u64 = 300;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum CpuProfileError {
    /// One at a time.
    #[error("a CPU profile is being taken: there is one at a time; try again when it has ended")]
    Busy,
    /// The sampler did not start.
    #[error("the CPU profiler did not start: {0}; it needs room for a small file in the data directory")]
    Failed(#[from] pprof::Error),
}

/// Samples for that long, on the calling thread's time: it sleeps. The sampler keeps what does not fit into its table in a file without a
/// name in `directory`.
pub fn cpu_profile(time: Duration, directory: &Path) -> Result<Profile, CpuProfileError> {
    static ONE: Mutex<()> = Mutex::new(());
    static DIRECTORY: Once = Once::new();
    let _one = match ONE.try_lock() {
        Ok(one) => one,
        Err(TryLockError::Poisoned(one)) => one.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(CpuProfileError::Busy),
    };
    // An image of ours has no /tmp. Refused only if somebody has said so before, and then that stands.
    DIRECTORY.call_once(|| drop(tempfile::env::override_temp_dir(directory)));
    let begun = Instant::now();
    let guard = pprof::ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&["libgcc", "vdso"]).build()?;
    // It has looked names up to warm up, and keeps what it read of the binary.
    backtrace::clear_symbol_cache();
    thread::sleep(time);
    let report = guard.report().build_unresolved()?;
    drop(guard);
    let interval_ns = 1_000_000_000 / FREQUENCY as u64;
    let mut symbols = Symbols::default();
    let samples = report.data.iter().map(|(frames, count)| {
        let count = u64::try_from(*count).unwrap_or(0);
        let stack: Vec<usize> = frames.frames.iter().map(|frame| frame.ip() as usize).collect();
        // Innermost are the sampler itself, its signal handler, and the system's return from that.
        let handler = stack.iter().position(|address| symbols.at(*address).contains("perf_signal_handler"));
        let busy = handler.map_or(0, |at| (at + 2).min(stack.len()));
        let mut stack = stack[busy..].to_vec();
        // Not a return address but where it was: one further, as names are looked up for the instruction before.
        stack.iter_mut().take(1).for_each(|address| *address += 1);
        Sample { stack, values: [count, count * interval_ns] }
    });
    Ok(Profile {
        kinds: [("samples", "count"), ("cpu", "nanoseconds")],
        period: ("cpu", "nanoseconds", interval_ns),
        samples: samples.filter(|sample| !sample.stack.is_empty()).collect(),
        duration_ns: begun.elapsed().as_nanos() as u64,
    })
}
