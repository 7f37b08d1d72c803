//! What the allocator and the system say of this process' memory, and how fast freed memory goes back.

use std::{fs, sync::OnceLock};

use tikv_jemalloc_ctl::{
    Access as _, AsName as _, arenas, epoch, stats,
    stats_print::{self, Options},
};

/// Figures of jemalloc, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Asked for and not yet freed, by Rust and RocksDB alike.
    pub allocated: u64,
    /// Pages that hold some of it.
    pub active: u64,
    /// Pages held, those that are free and not yet given back included.
    pub resident: u64,
    /// Its own books.
    pub metadata: u64,
    /// Address space kept for later, without memory behind it.
    pub retained: u64,
}

/// Asks jemalloc. It sums over its arenas: for whoever asks, not for every command.
pub fn allocated() -> Allocated {
    let read = || {
        epoch::advance()?;
        Ok::<_, tikv_jemalloc_ctl::Error>(Allocated {
            allocated: stats::allocated::read()? as u64,
            active: stats::active::read()? as u64,
            resident: stats::resident::read()? as u64,
            metadata: stats::metadata::read()? as u64,
            retained: stats::retained::read()? as u64,
        })
    };
    read().unwrap_or_default()
}

/// jemalloc's own account of itself, without its arenas one by one.
pub fn report() -> String {
    let mut options = Options::default();
    (options.skip_per_arena, options.skip_bin_size_classes, options.skip_large_size_classes) = (true, true, true);
    let mut text = Vec::new();
    match stats_print::stats_print(&mut text, options) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("the allocator gave no account: {error}\n"),
    }
}

/// Memory of the process that has no file behind it, in bytes: what a container's limit is about, as the rest can be dropped.
pub(super) fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = status.split(' ').skip(1).map_while(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * page_bytes()
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Milliseconds that jemalloc keeps freed pages, as it was when the process started.
fn usual_decay() -> isize {
    static USUAL: OnceLock<isize> = OnceLock::new();
    *USUAL.get_or_init(|| b"opt.dirty_decay_ms\0".name().read().unwrap_or(10_000))
}

/// Has freed pages go back to the system at once, those that are free now included; or again as usual, which is later and cheaper.
pub(super) fn give_back_at_once(at_once: bool) {
    let decay_ms = if at_once { 0 } else { usual_decay() };
    // For arenas to come, and for those that are there; ones that were never used have no figure to set.
    let _ = b"arenas.dirty_decay_ms\0".name().write(decay_ms);
    for arena in 0..arenas::narenas::read().unwrap_or(0) {
        let _ = format!("arena.{arena}.dirty_decay_ms\0").as_str().name().write(decay_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_and_the_allocator_know_of_this_process() {
        assert!(anonymous() > 1 << 20);
        give_back_at_once(true);
        give_back_at_once(false);
        assert_eq!(b"arenas.dirty_decay_ms\0".name().read(), Ok(usual_decay()));
    }
}
