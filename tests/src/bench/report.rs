//! What is printed: a line while a part is measured, the table with ratios and targets at the end.

use serde::Serialize;

use super::{
    figures::{Sample, Spread},
    rounds::Mode,
};

/// What a ratio to redis-server should be: throughput at least, CPU a command at most.
struct Target {
    test: &'static str,
    pipeline: u32,
    throughput: Option<f64>,
    cpu: Option<f64>,
}

const THROUGHPUT_TARGETS: &[Target] = &[
    Target { test: "SET", pipeline: 1, throughput: Some(0.8), cpu: Some(1.5) },
    Target { test: "GET", pipeline: 1, throughput: Some(0.9), cpu: None },
    Target { test: "SET", pipeline: 16, throughput: Some(0.4), cpu: Some(2.5) },
    Target { test: "GET", pipeline: 16, throughput: Some(0.7), cpu: None },
    Target { test: "HSET1", pipeline: 1, throughput: Some(0.62), cpu: None },
    Target { test: "HSET1", pipeline: 16, throughput: Some(0.34), cpu: None },
    Target { test: "ZADD1", pipeline: 1, throughput: Some(0.44), cpu: None },
    Target { test: "ZADD1", pipeline: 16, throughput: Some(0.38), cpu: None },
    Target { test: "LPUSH1", pipeline: 1, throughput: Some(0.7), cpu: None },
    Target { test: "LPUSH1", pipeline: 16, throughput: Some(0.24), cpu: None },
];

const SYNC_TARGETS: &[Target] = &[
    Target { test: "SET", pipeline: 1, throughput: Some(1.0), cpu: None },
    Target { test: "SET", pipeline: 16, throughput: Some(1.0), cpu: None },
    Target { test: "HSET", pipeline: 1, throughput: Some(1.0), cpu: None },
    Target { test: "HSET", pipeline: 16, throughput: Some(1.0), cpu: None },
];

/// What is left of the throughput with heap profiling built in and not sampling, and sampling.
const INACTIVE: f64 = 0.99;
const ACTIVE: f64 = 0.95;

/// One server's figures for one test, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    test: &'static str,
    pipeline: u32,
    server: String,
    requests_a_second: Option<Spread>,
    p50_ms: Option<Spread>,
    p99_ms: Option<Spread>,
    cpu_us: Option<Spread>,
    acks_a_fsync: Option<Spread>,
    /// To the reference in the same round.
    throughput_ratio: Option<Spread>,
    /// To the reference in the same round.
    cpu_ratio: Option<Spread>,
}

/// A line for what was just measured.
pub(super) fn progress(sample: &Sample) {
    let cpu = sample.cpu_us.map_or("-".into(), |us| format!("{us:.2} us"));
    println!(
        "  round {} {:<14} {:<7} -P {:<3} {:>9.0} requests/s  p50 {:.3} ms  p99 {:.3} ms  CPU a command {cpu}",
        sample.round, sample.server, sample.test, sample.pipeline, sample.requests_a_second, sample.p50_ms, sample.p99_ms
    );
}

/// All rows, in the order of their first measurement, the servers of one test together.
pub(super) fn rows(samples: &[Sample], reference: &str) -> Vec<Row> {
    let mut tests: Vec<(u32, &'static str)> = Vec::new();
    let mut servers: Vec<&str> = Vec::new();
    for sample in samples {
        if !tests.contains(&(sample.pipeline, sample.test)) {
            tests.push((sample.pipeline, sample.test));
        }
        if !servers.contains(&sample.server.as_str()) {
            servers.push(&sample.server);
        }
    }
    let places = tests.iter().flat_map(|test| servers.iter().map(move |server| (test, server)));
    places.filter_map(|((pipeline, test), server)| row(samples, test, *pipeline, server, reference)).collect()
}

fn row(samples: &[Sample], test: &'static str, pipeline: u32, server: &str, compared_with: &str) -> Option<Row> {
    let of = |name: &str| -> Vec<&Sample> {
        let wanted = |sample: &&Sample| sample.test == test && sample.pipeline == pipeline && sample.server == name;
        samples.iter().filter(wanted).collect()
    };
    let (own, reference) = (of(server), of(compared_with));
    let ratio = |figure: fn(&Sample) -> Option<f64>| {
        let pairs = own.iter().filter_map(|sample| {
            let same_round = reference.iter().find(|other| other.round == sample.round)?;
            Some(figure(sample)? / figure(same_round).filter(|divisor| *divisor > 0.0)?)
        });
        Spread::of(pairs)
    };
    if own.is_empty() {
        return None;
    }
    let spread = |figure: fn(&Sample) -> Option<f64>| Spread::of(own.iter().filter_map(|sample| figure(sample)));
    let is_reference = server == compared_with;
    Some(Row {
        test,
        pipeline,
        server: server.into(),
        requests_a_second: spread(|sample| Some(sample.requests_a_second)),
        p50_ms: spread(|sample| Some(sample.p50_ms)),
        p99_ms: spread(|sample| Some(sample.p99_ms)),
        cpu_us: spread(|sample| sample.cpu_us),
        acks_a_fsync: spread(|sample| sample.acks_a_fsync),
        throughput_ratio: ratio(|sample| Some(sample.requests_a_second)).filter(|_| !is_reference),
        cpu_ratio: ratio(|sample| sample.cpu_us).filter(|_| !is_reference),
    })
}

/// Prints the table, then the targets.
pub(super) fn print(rows: &[Row], mode: Mode) {
    let text = |spread: &Option<Spread>, decimals| spread.as_ref().map_or("-".to_owned(), |spread| spread.text(decimals));
    let synced = mode == Mode::Sync;
    println!("\nMedians over the rounds (least..most); ratios are to {} in the same round.", mode.reference());
    let mut table = vec![
        [
            "test",
            "-P",
            "server",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU us/command",
            "throughput",
            "CPU",
            if synced { "acks/fsync" } else { "" },
        ]
        .map(str::to_owned),
    ];
    for row in rows {
        table.push([
            row.test.into(),
            row.pipeline.to_string(),
            row.server.clone(),
            text(&row.requests_a_second, 0),
            text(&row.p50_ms, 3),
            text(&row.p99_ms, 3),
            text(&row.cpu_us, 2),
            text(&row.throughput_ratio, 2),
            text(&row.cpu_ratio, 2),
            if synced { text(&row.acks_a_fsync, 1) } else { String::new() },
        ]);
    }
    print_aligned(&table);
    let targets = if synced { SYNC_TARGETS } else { THROUGHPUT_TARGETS };
    println!("\nTargets, by the medians:");
    for row in rows.iter().filter(|row| row.server != mode.reference()) {
        if mode == Mode::Profile {
            verdict(row, "throughput", Some(if row.server == "active" { ACTIVE } else { INACTIVE }), row.throughput_ratio, true);
            continue;
        }
        for target in targets.iter().filter(|target| target.test == row.test && target.pipeline == row.pipeline) {
            verdict(row, "throughput", target.throughput, row.throughput_ratio, true);
            verdict(row, "CPU a command", target.cpu, row.cpu_ratio, false);
        }
    }
}

fn verdict(row: &Row, what: &str, target: Option<f64>, ratio: Option<Spread>, at_least: bool) {
    let (Some(target), Some(ratio)) = (target, ratio) else { return };
    let met = if at_least { ratio.median >= target } else { ratio.median <= target };
    let (sign, word) = (if at_least { ">=" } else { "<=" }, if met { "met" } else { "NOT met" });
    let (test, pipeline, server) = (row.test, row.pipeline, &row.server);
    println!("  {server:<12} {test:<7} -P {pipeline:<3} {what:<14} {sign} {target:.2}x  {:<18} {word}", ratio.text(2));
}

/// Columns as wide as what they hold; the first three to the left, figures to the right.
pub(super) fn print_aligned<const N: usize>(table: &[[String; N]]) {
    let widths: Vec<usize> =
        (0..N).map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for row in table {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0..3 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::server::REDIS;

    fn sample(round: u32, server: &str, rate: f64, cpu_us: Option<f64>) -> Sample {
        Sample {
            round,
            server: server.into(),
            test: "SET",
            pipeline: 1,
            requests: 1,
            requests_a_second: rate,
            p50_ms: 1.0,
            p99_ms: 1.0,
            longest_ms: 1.0,
            cpu_us,
            acks_a_fsync: None,
        }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let samples = [
            sample(1, REDIS, 100.0, Some(10.0)),
            sample(1, "sluice", 50.0, Some(20.0)),
            sample(1, "peer", 300.0, None),
            sample(2, REDIS, 10.0, Some(10.0)),
            sample(2, "sluice", 9.0, Some(15.0)),
        ];
        let rows = rows(&samples, REDIS);
        assert_eq!(rows.iter().map(|row| row.server.as_str()).collect::<Vec<_>>(), [REDIS, "sluice", "peer"]);
        assert!(rows[0].throughput_ratio.is_none());
        assert_eq!(rows[1].throughput_ratio, Some(Spread { median: 0.7, least: 0.5, most: 0.9 }));
        assert_eq!(rows[1].cpu_ratio, Some(Spread { median: 1.75, least: 1.5, most: 2.0 }));
        assert_eq!((rows[2].throughput_ratio.map(|ratio| ratio.median), rows[2].cpu_ratio), (Some(3.0), None));
    }
}
