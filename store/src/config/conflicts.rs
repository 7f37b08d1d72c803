//! Settings that exclude each other: one table, judged at the start and at CONFIG SET. Each is named with the way out.

use super::{MemoryPlan, Settings, plan_memory, settings::specs};
use crate::{engine::SyncPolicy, tls::ClientAuth};

/// Two settings, and when they clash.
pub(super) struct Rule {
    /// Names of the two.
    pub(super) settings: [&'static str; 2],
    /// Whether their values clash.
    pub(super) clash: fn(&Settings, &MemoryPlan) -> bool,
    /// Why, and what to do.
    pub(super) why: &'static str,
}

const fn rule(settings: [&'static str; 2], clash: fn(&Settings, &MemoryPlan) -> bool, why: &'static str) -> Rule {
    Rule { settings, clash, why }
}

/// The smallest room that blocks and memtables need beside a row cache.
const BESIDE_ROWS: u64 = 32 << 20;
/// The memtable of the system records, which has a size of its own.
const SYSTEM_MEMTABLE: u64 = 8 << 20;

pub(super) const RULES: &[Rule] = &[
    rule(["port", "admin-port"], |s, _| s.port == s.admin_port && s.port != 0, "give one of them another number"),
    rule(["tls-port", "port"], |s, _| s.tls_port == s.port && s.port != 0, "give one of them another number, or set port 0"),
    rule(["tls-port", "admin-port"], |s, _| s.tls_port == s.admin_port && s.tls_port != 0, "give one of them another number"),
    rule(["port", "tls-port"], |s, _| s.port == 0 && s.tls_port == 0, "no client could connect: give one of them a number"),
    rule(
        ["tls-port", "port"],
        |s, _| s.cluster_enabled && s.tls_port != 0 && s.port != 0,
        "in a cluster redirects name one port, which is for all clients: set one of them to 0",
    ),
    rule(
        ["tls-port", "tls-cert-file"],
        |s, _| s.tls_port != 0 && s.tls_cert_file.is_empty(),
        "a port for TLS needs a certificate: name its file",
    ),
    rule(
        ["tls-port", "tls-key-file"],
        |s, _| s.tls_port != 0 && s.tls_key_file.is_empty(),
        "a port for TLS needs its certificate's key: name its file",
    ),
    rule(
        ["tls-cluster", "tls-cert-file"],
        |s, _| s.tls_cluster && s.tls_cert_file.is_empty(),
        "TLS on the admin plane needs a certificate: name its file",
    ),
    rule(
        ["tls-cluster", "tls-key-file"],
        |s, _| s.tls_cluster && s.tls_key_file.is_empty(),
        "TLS on the admin plane needs its certificate's key: name its file",
    ),
    rule(
        ["tls-cluster", "tls-ca-cert-file"],
        |s, _| s.tls_cluster && s.tls_ca_cert_file.is_empty(),
        "a link between nodes needs authorities to know its peer by: name their file",
    ),
    rule(
        ["tls-auth-clients", "tls-ca-cert-file"],
        |s, _| s.tls_port != 0 && s.tls_auth_clients != ClientAuth::No && s.tls_ca_cert_file.is_empty(),
        "certificates of clients are known by their authorities: name their file, or set tls-auth-clients no",
    ),
    rule(
        ["sync", "wal"],
        |s, _| s.sync == SyncPolicy::Always && !s.wal,
        "there is no log to sync before a write is acknowledged: set wal yes, or sync no and use FLUSHMEMTABLE",
    ),
    rule(
        ["rocksdb.manual_wal_flush", "wal"],
        |s, _| s.manual_wal_flush && s.wal,
        "a log kept in the process is lost by a kill after writes were acknowledged: set rocksdb.manual_wal_flush no",
    ),
    rule(
        ["rocksdb.enable_pipelined_write", "rocksdb.atomic_flush"],
        |s, _| s.enable_pipelined_write && s.atomic_flush,
        "RocksDB has no atomic flush with pipelined writes: set rocksdb.enable_pipelined_write no",
    ),
    rule(
        ["rocksdb.atomic_flush", "wal"],
        |s, _| !s.atomic_flush,
        "a flush that is not of all families at once could bring half a key back, and a flush round would prove nothing: set \
         rocksdb.atomic_flush yes",
    ),
    rule(
        ["rocksdb.unordered_write", "rocksdb.atomic_flush"],
        |s, _| s.unordered_write,
        "unordered writes break the snapshots that migrations and checkpoints read: set rocksdb.unordered_write no",
    ),
    rule(
        ["rocksdb.row_cache_size", "rocksdb.min_tombstones_for_range_conversion"],
        |s, _| s.row_cache.0 > 0 && s.range_conversion > 0,
        "a row cache does not see range tombstones and would serve deleted rows: set one of them to 0",
    ),
    rule(
        ["memory-budget", "maxmemory"],
        |s, plan| (s.maxmemory.0 > 0 || s.memory_budget.0 > 0) && plan.limit > 0 && plan.budget > plan.limit / 10 * 8,
        "caches and memtables alone (64mb at least) would take more than eight tenths of what the process may hold, in a container with a \
         limit that: lower the first or raise the second",
    ),
    rule(
        ["rocksdb.row_cache_size", "memory-budget"],
        |s, plan| s.row_cache.0 > 0 && s.row_cache.0.saturating_add(BESIDE_ROWS) > plan.budget,
        "the row cache is part of the budget, and blocks and memtables need at least 32mb of it: lower the row cache or raise the budget",
    ),
    rule(
        ["rocksdb.write_buffer_size", "memory-budget"],
        |s, plan| s.write_buffer.0 > plan.budget,
        "one memtable would be more than the whole budget: lower it or raise the budget",
    ),
    rule(
        ["rocksdb.max_total_wal_size", "rocksdb.write_buffer_size"],
        |s, plan| s.wal && s.max_total_wal_size.0 < plan.write_buffer,
        "the log would be full before a memtable is, and every write would flush: raise rocksdb.max_total_wal_size or lower the other",
    ),
    rule(
        ["reserve-file-size", "rocksdb.write_buffer_size"],
        |s, plan| s.reserve_file_size.0 > 0 && s.reserve_file_size.0 < plan.write_buffer.max(SYSTEM_MEMTABLE),
        "RocksDB resumes on a disk that was full only when a memtable fits: raise the reserve, or set it to 0 for none",
    ),
    rule(
        ["rocksdb.level0_file_num_compaction_trigger", "rocksdb.level0_slowdown_writes_trigger"],
        |s, _| s.l0_compaction_trigger > s.l0_slowdown_trigger,
        "writes would be slowed down before a compaction begins: lower the first or raise the second",
    ),
    rule(
        ["rocksdb.level0_slowdown_writes_trigger", "rocksdb.level0_stop_writes_trigger"],
        |s, _| s.l0_slowdown_trigger > s.l0_stop_trigger,
        "writes would be held back before they are slowed down: lower the first or raise the second",
    ),
    rule(
        ["client-query-buffer-limit", "proto-max-bulk-len"],
        |s, _| s.client_query_buffer_limit.0 < s.proto_max_bulk_len.0,
        "an argument of the allowed length would not fit into a request: raise the first or lower the second",
    ),
];

/// The first clash, with both names and values and the way out.
pub(super) fn find(settings: &Settings) -> Option<String> {
    let plan = plan_memory(settings);
    let rule = RULES.iter().find(|rule| (rule.clash)(settings, &plan))?;
    let shown = rule.settings.map(|name| {
        let value = specs().iter().find(|spec| spec.name == name).map_or_else(String::new, |spec| (spec.get)(settings));
        format!("{name} {value}")
    });
    Some(format!("`{}` and `{}` do not go together: {}", shown[0], shown[1], rule.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash(changes: &[(&str, &str)]) -> Option<String> {
        let mut settings = Settings::default();
        for (name, value) in changes {
            let spec = specs().iter().find(|spec| spec.name == *name).unwrap_or_else(|| panic!("{name}"));
            (spec.set)(&mut settings, value).unwrap();
        }
        find(&settings)
    }

    #[test]
    fn every_rule_names_settings_that_exist_and_the_defaults_keep_them_all() {
        for rule in RULES {
            for name in rule.settings {
                assert!(specs().iter().any(|spec| spec.name == name), "{name}");
            }
        }
        assert_eq!(find(&Settings::default()), None);
    }

    #[test]
    fn what_excludes_each_other_is_refused_with_both_names_and_the_way_out() {
        let cases: [(&[(&str, &str)], &str); 24] = [
            (&[("port", "7000"), ("admin-port", "7000")], "`port 7000` and `admin-port 7000`"),
            (&[("tls-port", "6379")], "`tls-port 6379` and `port 6379`"),
            (&[("tls-port", "7379")], "`tls-port 7379` and `admin-port 7379`"),
            (&[("port", "0")], "`port 0` and `tls-port 0` do not go together: no client could connect"),
            (
                &[("cluster-enabled", "yes"), ("tls-port", "6380")],
                "`tls-port 6380` and `port 6379` do not go together: in a cluster",
            ),
            (&[("tls-port", "6380")], "`tls-port 6380` and `tls-cert-file \"\"`"),
            (&[("tls-port", "6380"), ("tls-cert-file", "c")], "`tls-port 6380` and `tls-key-file \"\"`"),
            (&[("tls-cluster", "yes")], "`tls-cluster yes` and `tls-cert-file \"\"`"),
            (&[("tls-cluster", "yes"), ("tls-cert-file", "c")], "`tls-cluster yes` and `tls-key-file \"\"`"),
            (
                &[("tls-cluster", "yes"), ("tls-cert-file", "c"), ("tls-key-file", "k"), ("tls-auth-clients", "no")],
                "`tls-cluster yes` and `tls-ca-cert-file \"\"`",
            ),
            (
                &[("tls-port", "6380"), ("tls-cert-file", "c"), ("tls-key-file", "k")],
                "`tls-auth-clients yes` and `tls-ca-cert-file \"\"`",
            ),
            (&[("sync", "always"), ("wal", "no")], "`sync always` and `wal no` do not go together: there is no log"),
            (&[("rocksdb.manual_wal_flush", "yes")], "`rocksdb.manual_wal_flush yes` and `wal yes`"),
            (&[("rocksdb.enable_pipelined_write", "yes")], "`rocksdb.enable_pipelined_write yes` and `rocksdb.atomic_flush yes`"),
            (&[("rocksdb.atomic_flush", "no"), ("wal", "no")], "`rocksdb.atomic_flush no` and `wal no`"),
            (&[("rocksdb.unordered_write", "yes")], "set rocksdb.unordered_write no"),
            (
                &[("rocksdb.row_cache_size", "8mb"), ("rocksdb.min_tombstones_for_range_conversion", "16")],
                "`rocksdb.row_cache_size 8388608` and `rocksdb.min_tombstones_for_range_conversion 16`",
            ),
            (&[("memory-budget", "128mb"), ("rocksdb.row_cache_size", "112mb")], "`memory-budget 134217728`"),
            (&[("memory-budget", "128mb"), ("rocksdb.write_buffer_size", "256mb")], "more than the whole budget"),
            (
                &[("memory-budget", "1gb"), ("rocksdb.max_total_wal_size", "8mb")],
                "`rocksdb.max_total_wal_size 8388608` and `rocksdb.write_buffer_size 16777216`",
            ),
            (&[("memory-budget", "1gb"), ("reserve-file-size", "8mb")], "`reserve-file-size 8388608`"),
            (&[("rocksdb.level0_file_num_compaction_trigger", "25")], "before a compaction begins"),
            (&[("rocksdb.level0_slowdown_writes_trigger", "44")], "`rocksdb.level0_stop_writes_trigger 40`"),
            (&[("client-query-buffer-limit", "1mb")], "`proto-max-bulk-len 536870912`"),
        ];
        for (changes, expected) in cases {
            let text = clash(changes).unwrap_or_else(|| panic!("{changes:?} was taken"));
            assert!(text.contains(expected), "{changes:?}: {text}");
        }
    }

    #[test]
    fn what_goes_together_is_taken() {
        let cases: [&[(&str, &str)]; 9] = [
            &[("wal", "no")],
            &[("tls-port", "6380"), ("tls-cert-file", "c"), ("tls-key-file", "k"), ("tls-auth-clients", "no")],
            &[("tls-port", "6380"), ("tls-cert-file", "c"), ("tls-key-file", "k"), ("tls-ca-cert-file", "a")],
            &[
                ("cluster-enabled", "yes"),
                ("port", "0"),
                ("tls-port", "6379"),
                ("tls-cert-file", "c"),
                ("tls-key-file", "k"),
                ("tls-ca-cert-file", "a"),
                ("tls-cluster", "yes"),
            ],
            &[("rocksdb.row_cache_size", "8mb")],
            &[("rocksdb.min_tombstones_for_range_conversion", "16")],
            &[("memory-budget", "128mb"), ("rocksdb.row_cache_size", "64mb")],
            &[("reserve-file-size", "0")],
            &[("memory-budget", "64mb"), ("rocksdb.write_buffer_size", "4mb"), ("reserve-file-size", "16mb")],
        ];
        for changes in cases {
            assert_eq!(clash(changes), None, "{changes:?}");
        }
    }
}
