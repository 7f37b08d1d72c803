//! Samples, their medians and spreads, and the file they are kept in.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

/// One measured part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) round: u32,
    pub(super) server: String,
    pub(super) test: &'static str,
    pub(super) pipeline: u32,
    pub(super) requests: u64,
    pub(super) requests_a_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_ms: f64,
    /// CPU time of the server's process, microseconds a command.
    pub(super) cpu_us: Option<f64>,
    /// Requests acknowledged for each fsync of the write-ahead log, where the server counts those.
    pub(super) acks_a_fsync: Option<f64>,
}

/// Median and extremes over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of those figures; `None` when there is none.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, least, most })
    }

    /// `median (least..most)`, with that many decimals.
    pub(super) fn text(&self, decimals: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.decimals$} ({least:.decimals$}..{most:.decimals$})")
    }
}

/// What a figure was measured on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    processors: usize,
    model: String,
    kernel: String,
    /// Load average of the last minute when the run began: other work on the machine disturbs every figure.
    pub(super) load_at_start: f64,
}

impl Machine {
    pub(super) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo");
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("", |(_, name)| name);
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.trim().to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_at_start: read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
        }
    }

    /// In one line.
    pub(super) fn text(&self) -> String {
        format!("{} x {}, Linux {}, load {} at the start", self.processors, self.model, self.kernel, self.load_at_start)
    }
}

/// Writes a document beside its place, then puts it there.
pub(super) fn keep(path: &Path, document: &serde_json::Value) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_string_pretty(document)? + "\n")
        .with_context(|| format!("writing {}", part.display()))?;
    std::fs::rename(&part, path).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_spread_the_extremes() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.25]).map(|spread| spread.text(1)).as_deref(), Some("1.2 (1.2..1.2)"));
    }
}
