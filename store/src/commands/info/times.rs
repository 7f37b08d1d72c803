//! INFO commandstats, latencystats, errorstats and cpu: how often, how long, with which outcome.

use std::{fmt::Write as _, fs};

use super::lines;
use crate::{commands::table, node::Node};

/// Percentiles of INFO latencystats.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// How often each command was executed, and for how long: time is counted while something asks for it (slowlog-log-slower-than,
/// latency-monitor-threshold, latency-tracking), which is the default.
pub(super) fn commands(_: &Node) -> String {
    table().fold(String::new(), |mut text, spec| {
        let (calls, (failed, rejected), micros) = (spec.calls.get(), spec.calls.errors(), spec.calls.micros());
        if calls + rejected > 0 {
            let each = micros / calls.max(1) as f64;
            let _ = write!(
                text,
                "cmdstat_{}:calls={calls},usec={micros:.0},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}\r\n",
                spec.name
            );
        }
        text
    })
}

/// Percentiles of the time each command took, while latency-tracking is on.
pub(super) fn latencies(_: &Node) -> String {
    table().fold(String::new(), |mut text, spec| {
        let (calls, bounds) = spec.calls.latency.cumulative();
        if calls > 0 {
            let at = |share: f64| {
                let wanted = (calls as f64 * share).ceil() as u64;
                bounds.iter().find(|(_, count)| *count >= wanted).map_or(0, |(bound, _)| *bound)
            };
            let shares: Vec<String> =
                PERCENTILES.iter().map(|(name, share)| format!("{name}={:.3}", at(*share) as f64)).collect();
            let _ = write!(text, "latency_percentiles_usec_{}:{}\r\n", spec.name, shares.join(","));
        }
        text
    })
}

/// Errors by their codes.
pub(super) fn errors(node: &Node) -> String {
    node.stats.error_codes().iter().fold(String::new(), |mut text, (code, count)| {
        let _ = write!(text, "errorstat_{code}:count={count}\r\n");
        text
    })
}

/// Processor time of the process, as the system counts it.
pub(super) fn cpu(_: &Node) -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the process' name, which may hold anything: state, ten numbers, then the times.
    let fields: Vec<u64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).map_while(|word| word.parse().ok()).collect();
    let seconds = |ticks: Option<&u64>| {
        format!("{:.6}", ticks.copied().unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64)
    };
    lines(&[("used_cpu_sys", seconds(fields.get(1))), ("used_cpu_user", seconds(fields.first()))])
}

/// There is none: a master without replicas.
pub(super) fn replication(node: &Node) -> String {
    lines(&[
        ("role", "master".into()),
        ("connected_slaves", "0".into()),
        ("master_replid", node.cluster.me().to_string()),
        ("master_repl_offset", node.engine.latest_sequence().to_string()),
    ])
}
