//! INFO memory, and what MEMORY says of the process. Fields are Redis' where Redis has the thing.

use std::fmt::Write as _;

use super::lines;
use crate::{
    commands::scripting,
    config::{plan_memory, process_memory},
    memory::{self, Owner},
    node::Node,
};

/// Bytes as a person reads them, in Redis' form.
fn human(bytes: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    match units.into_iter().find(|(_, bits)| bytes >= 1 << bits) {
        Some((unit, bits)) => format!("{:.2}{unit}", bytes as f64 / (1u64 << bits) as f64),
        None => format!("{bytes}B"),
    }
}

fn ratio(part: u64, whole: u64) -> String {
    format!("{:.2}", if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

fn used(owners: &[Owner], name: &str) -> u64 {
    owners.iter().find(|owner| owner.name == name).map_or(0, |owner| owner.used)
}

pub(super) fn memory(node: &Node) -> String {
    let plan = plan_memory(&node.live.current());
    let (caches, process, heap) = (node.engine.cache_use(), process_memory(), memory::allocated());
    let (owners, records) = (node.memory.owners(), node.engine.counters().record_cache);
    let (anonymous, peak) = node.memory.used();
    let libraries = scripting::libraries::all();
    let mut text = lines(&[
        ("used_memory", heap.allocated.to_string()),
        ("used_memory_human", human(heap.allocated)),
        ("used_memory_rss", process.resident.to_string()),
        ("used_memory_rss_human", human(process.resident)),
        ("used_memory_rss_peak", process.resident_peak.to_string()),
        // What the limit is compared with: a file that is mapped can be dropped, the rest cannot.
        ("used_memory_anonymous", anonymous.to_string()),
        ("used_memory_anonymous_peak", peak.to_string()),
        ("used_memory_scripts", used(&owners, "scripts").to_string()),
        ("number_of_cached_scripts", scripting::cached().to_string()),
        ("number_of_libraries", libraries.len().to_string()),
        ("number_of_functions", libraries.values().map(|library| library.functions.len()).sum::<usize>().to_string()),
        ("used_memory_scripts_human", human(used(&owners, "scripts"))),
        ("total_system_memory", process.machine.to_string()),
        ("total_system_memory_human", human(process.machine)),
        ("maxmemory", plan.limit.to_string()),
        ("maxmemory_human", human(plan.limit)),
        // Nothing is evicted: what memory holds is bounded by its owners' shares, the data by the disk.
        ("maxmemory_policy", "noeviction".into()),
        ("memory_pressure", node.memory.pressure().name().into()),
        ("memory_refused_writes_total", node.memory.refused().to_string()),
        ("allocator_allocated", heap.allocated.to_string()),
        ("allocator_active", heap.active.to_string()),
        ("allocator_resident", heap.resident.to_string()),
        ("allocator_frag_ratio", ratio(heap.active, heap.allocated)),
        ("allocator_frag_bytes", heap.active.saturating_sub(heap.allocated).to_string()),
        ("allocator_rss_ratio", ratio(heap.resident, heap.active)),
        ("allocator_rss_bytes", heap.resident.saturating_sub(heap.active).to_string()),
        ("mem_fragmentation_ratio", ratio(process.resident, heap.allocated)),
        ("mem_fragmentation_bytes", process.resident.saturating_sub(heap.allocated).to_string()),
        ("mem_clients_normal", used(&owners, "clients").to_string()),
        ("mem_allocator", "jemalloc".into()),
        ("heap_profiling", if memory::is_active().unwrap_or(false) { "enabled" } else { "disabled" }.into()),
        ("memory_budget", plan.budget.to_string()),
        ("memory_budget_used", (caches.block_used + caches.row_used + records.used).to_string()),
        ("cache_share_percent", node.memory.cache_percent().to_string()),
        ("record_cache_capacity", records.capacity.to_string()),
        ("record_cache_used", records.used.to_string()),
        ("record_cache_hits", records.hits.to_string()),
        ("record_cache_misses", records.misses.to_string()),
        ("block_cache_capacity", caches.block_capacity.to_string()),
        ("block_cache_used", caches.block_used.to_string()),
        ("block_cache_pinned", caches.block_pinned.to_string()),
        ("row_cache_capacity", caches.row_capacity.to_string()),
        ("row_cache_used", caches.row_used.to_string()),
    ]);
    for owner in owners.iter().filter(|owner| !owner.name.ends_with("_cache")) {
        let _ = write!(text, "{}_used:{}\r\n{0}_limit:{}\r\n", owner.name, owner.used, owner.limit);
    }
    text
}

/// What a person is to know, the most pressing first.
pub(in crate::commands) fn doctor(node: &Node) -> String {
    let (limits, owners, heap) = (node.memory.limits(), node.memory.owners(), memory::allocated());
    let (anonymous, _) = node.memory.used();
    let mut text = String::new();
    if limits.limit == 0 {
        text.push_str(
            "Nobody has said how much memory the process may hold: set maxmemory, or run it in a container with a limit.\n",
        );
    } else {
        let percent = u128::from(anonymous) * 100 / u128::from(limits.limit);
        let _ = writeln!(
            text,
            "The process holds {} of the {} it may ({percent} %); what is done about it now: {}.",
            human(anonymous),
            human(limits.limit),
            node.memory.pressure().name(),
        );
    }
    let over = owners.iter().filter(|owner| owner.limit > 0 && owner.used > owner.limit);
    for owner in over {
        let _ = writeln!(text, "{} holds {}, more than its share of {}.", owner.name, human(owner.used), human(owner.limit));
    }
    if node.memory.refused() > 0 {
        let _ = writeln!(text, "{} writes were refused for want of memory since the start.", node.memory.refused());
    }
    if heap.allocated > 64 << 20 && heap.active > heap.allocated / 10 * 15 {
        let _ = writeln!(
            text,
            "Pages are badly filled: {} are held for {} in use. It gets better as memory is used again.",
            human(heap.active),
            human(heap.allocated)
        );
    }
    let mut holders: Vec<&Owner> = owners.iter().filter(|owner| owner.used > 0).collect();
    holders.sort_by_key(|owner| std::cmp::Reverse(owner.used));
    let known: u64 = holders.iter().map(|owner| owner.used).sum();
    let listed: Vec<String> = holders.iter().map(|owner| format!("{} {}", owner.name, human(owner.used))).collect();
    let _ = writeln!(
        text,
        "Of {} in use: {}, anything else {}. KPROFILE on the admin plane shows who allocated it.",
        human(heap.allocated),
        listed.join(", "),
        human(heap.allocated.saturating_sub(known)),
    );
    text
}

/// MEMORY STATS: names and bytes.
pub(in crate::commands) fn stats(node: &Node) -> Vec<(String, u64)> {
    let (process, heap, plan) = (process_memory(), memory::allocated(), plan_memory(&node.live.current()));
    let (anonymous, peak) = node.memory.used();
    let mut rows = vec![
        ("peak.allocated".to_owned(), peak),
        ("total.allocated".to_owned(), heap.allocated),
        ("peak.resident".to_owned(), process.resident_peak),
        ("process.resident".to_owned(), process.resident),
        ("process.anonymous".to_owned(), anonymous),
        ("allocator.allocated".to_owned(), heap.allocated),
        ("allocator.active".to_owned(), heap.active),
        ("allocator.resident".to_owned(), heap.resident),
        ("allocator.metadata".to_owned(), heap.metadata),
        ("allocator.retained".to_owned(), heap.retained),
        ("budget.total".to_owned(), plan.budget),
        ("limit.total".to_owned(), plan.limit),
    ];
    for owner in node.memory.owners() {
        let name = owner.name.replace('_', "-");
        rows.push((format!("{name}.used"), owner.used));
        rows.push((format!("{name}.limit"), owner.limit));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_redis_does() {
        let shown = [0, 1023, 1024, 1_500_000, 3 << 30].map(human);
        assert_eq!(shown, ["0B", "1023B", "1.00K", "1.43M", "3.00G"]);
        assert_eq!((ratio(3, 2), ratio(1, 0)), ("1.50".into(), "0.00".into()));
    }
}
