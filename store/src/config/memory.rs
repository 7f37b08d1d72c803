//! The memory budget: one number, from the container's limit when it is not set, divided among caches and memtables.

use std::fs;

use super::settings::Settings;

/// Smallest budget that works at all.
const BUDGET_MIN: u64 = 64 << 20;

/// Who gets how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// All of it.
    pub budget: u64,
    /// Record cache.
    pub record_cache: u64,
    /// Block cache; memtables are charged to it, so it is the whole budget less the other caches.
    pub block_cache: u64,
    /// All memtables together.
    pub memtables: u64,
    /// One memtable.
    pub write_buffer: u64,
}

/// Divides the budget of those settings; 0 is to be found.
pub fn plan_memory(settings: &Settings) -> MemoryPlan {
    divide(settings.memory_budget.0, settings.record_cache, settings.row_cache.0, settings.write_buffer.0)
}

fn divide(set: u64, record_percent: u32, row_cache: u64, write_buffer: u64) -> MemoryPlan {
    let budget = if set > 0 { set } else { found() }.max(BUDGET_MIN);
    let besides_rows = budget.saturating_sub(row_cache);
    let record_cache = (budget / 100 * u64::from(record_percent)).min(besides_rows / 4);
    let block_cache = (besides_rows - record_cache).max(BUDGET_MIN / 2);
    let memtables = (block_cache * 2 / 5).max(16 << 20);
    // Four memtables of one family may exist at once; none of them may outgrow its share.
    MemoryPlan { budget, record_cache, block_cache, memtables, write_buffer: write_buffer.min(memtables / 2) }
}

/// What the process holds and the machine has, in bytes, as the system says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident.
    pub resident: u64,
    /// The most that ever was.
    pub resident_peak: u64,
    /// Of the machine.
    pub machine: u64,
}

/// Asks the system.
pub fn process_memory() -> ProcessMemory {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |mark| kib(&status, mark).map_or(0, |kib| kib << 10);
    ProcessMemory { resident: bytes("VmRSS:"), resident_peak: bytes("VmHWM:"), machine: machine() }
}

/// The number behind a mark in one of the kernel's lists.
fn kib(list: &str, mark: &str) -> Option<u64> {
    list.lines().find_map(|line| line.strip_prefix(mark)?.split_whitespace().next()?.parse().ok())
}

fn machine() -> u64 {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemTotal:")).map_or(1 << 30, |kib| kib << 10)
}

fn found() -> u64 {
    let read = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let machine = machine();
    // cgroup v2, then v1; without a limit both show none or more than the machine has.
    let container = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    match container.filter(|limit| *limit < machine) {
        Some(limit) => limit / 10 * 6,
        None => machine / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_stay_within_the_budget() {
        for (budget, row) in [(64 << 20, 0), (256 << 20, 0), (1 << 30, 256 << 20), (8 << 30, 1 << 30)] {
            let plan = divide(budget, 10, row, 64 << 20);
            assert!(plan.block_cache + plan.record_cache + row <= plan.budget, "{plan:?}");
            assert!(plan.memtables <= plan.block_cache && plan.write_buffer <= plan.memtables, "{plan:?}");
        }
        assert!(divide(0, 10, 0, 64 << 20).budget >= BUDGET_MIN);
    }
}
