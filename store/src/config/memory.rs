//! The memory plan: how much the process may hold, and who of it how much. One number to begin with, the container's limit unless
//! `maxmemory` says otherwise, divided among caches, memtables, clients and the rest.

use std::fs;

use super::{container, settings::Settings};

/// Smallest budget that works at all.
const BUDGET_MIN: u64 = 64 << 20;

/// Who gets how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What the process may hold in all; 0: nobody has said.
    pub limit: u64,
    /// Caches and memtables.
    pub budget: u64,
    /// Record cache.
    pub record_cache: u64,
    /// Row cache; 0: there is none.
    pub row_cache: u64,
    /// Block cache; memtables are charged to it, so it is the whole budget less the other caches.
    pub block_cache: u64,
    /// All memtables together.
    pub memtables: u64,
    /// One memtable.
    pub write_buffer: u64,
    /// Requests and replies of all clients; 0: without bound.
    pub clients: u64,
    /// What migrations hold of the stream, and once more of changed keys; 0: without bound.
    pub migrations: u64,
    /// One request or one reply; [`u64::MAX`]: what other settings say.
    pub request: u64,
}

/// Divides what those settings say; 0 is to be found.
pub fn plan_memory(settings: &Settings) -> MemoryPlan {
    divide(settings, container::memory_limit(), machine())
}

fn divide(settings: &Settings, container: Option<u64>, machine: u64) -> MemoryPlan {
    let set = |value: u64| Some(value).filter(|value| *value > 0);
    let limit = set(settings.maxmemory.0).or(container.filter(|limit| *limit < machine)).unwrap_or(0);
    let found = if limit > 0 { limit / 10 * 6 } else { machine / 4 };
    let budget = set(settings.memory_budget.0).unwrap_or(found).max(BUDGET_MIN);
    let row_cache = settings.row_cache.0;
    let besides_rows = budget.saturating_sub(row_cache);
    let record_cache = (budget / 100 * u64::from(settings.record_cache)).min(besides_rows / 4);
    let block_cache = (besides_rows - record_cache).max(BUDGET_MIN / 2);
    let memtables = (block_cache * 2 / 5).max(16 << 20);
    // Four memtables of one family may exist at once; none of them may outgrow its share.
    let write_buffer = settings.write_buffer.0.min(memtables / 2);
    let clients = set(settings.maxmemory_clients.0).unwrap_or(limit / 6);
    let migrations = set(settings.migrate_memory.0).unwrap_or(limit / 16);
    // One of them is never the whole of what all may hold.
    let request = if clients > 0 { (clients / 2).max(1 << 20) } else { u64::MAX };
    MemoryPlan { limit, budget, record_cache, row_cache, block_cache, memtables, write_buffer, clients, migrations, request }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Bytes;

    const MACHINE: u64 = 64 << 30;

    #[test]
    fn the_parts_stay_within_the_budget() {
        for (budget, row) in [(64 << 20, 0), (256 << 20, 0), (1 << 30, 256 << 20), (8 << 30, 1 << 30)] {
            let settings = Settings { memory_budget: Bytes(budget), row_cache: Bytes(row), ..Settings::default() };
            let plan = divide(&settings, None, MACHINE);
            assert!(plan.block_cache + plan.record_cache + row <= plan.budget, "{plan:?}");
            assert!(plan.memtables <= plan.block_cache && plan.write_buffer <= plan.memtables, "{plan:?}");
            assert_eq!((plan.limit, plan.clients, plan.request), (0, 0, u64::MAX), "nobody has said what all of it may be");
        }
    }

    #[test]
    fn the_containers_limit_is_divided_unless_a_setting_says_otherwise() {
        let plan = |settings: &Settings, container| divide(settings, container, MACHINE);
        let defaults = Settings::default();
        let small = plan(&defaults, Some(1 << 30));
        assert_eq!((small.limit, small.budget), (1 << 30, (1 << 30) / 10 * 6));
        assert_eq!(small.migrations, (1 << 30) / 16);
        assert!(small.budget + small.clients + 2 * small.migrations < small.limit && small.request <= small.clients / 2);
        assert_eq!(plan(&defaults, Some(MACHINE * 2)), plan(&defaults, None), "no limit at all");
        let set = Settings { maxmemory: Bytes(512 << 20), maxmemory_clients: Bytes(100 << 20), ..Settings::default() };
        let plan = plan(&set, Some(1 << 30));
        assert_eq!((plan.limit, plan.clients, plan.request), (512 << 20, 100 << 20, 50 << 20));
    }
}
