//! The bench harness runs, measures what it says, leaves nothing behind, and fails when something did not run. No figure is judged.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// For something that takes seconds, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_mins(2);

fn bench(words: &[&str], json: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-bench"));
    command.args(words).args(["--clients", "4", "--keys", "500", "--json"]).arg(json);
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end; returns what it kept.
fn kept(words: &[&str]) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    let output = bench(words, &json).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&std::fs::read(&json)?)?)
}

/// The samples of a server and a test, one a round and pipeline length.
fn samples<'v>(document: &'v Value, server: &str, test: &str) -> Vec<&'v Value> {
    let all = document["samples"].as_array().expect("samples");
    all.iter().filter(|sample| sample["server"] == server && sample["test"] == test).collect()
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn every_server_is_measured_in_every_round() -> anyhow::Result<()> {
    let words = ["throughput", "--rounds", "2", "--requests", "3000", "--tests", "SET,GET,HSET,ZADD", "--pipeline", "1,16"];
    let document = kept(&words)?;
    for (server, tests) in [("redis-server", &["SET", "GET", "HSET", "ZADD"][..]), ("sluice", &["SET", "GET", "HSET"])] {
        for test in tests {
            let samples = samples(&document, server, test);
            let rounds: Vec<_> = samples.iter().map(|sample| (sample["round"].as_u64(), sample["pipeline"].as_u64())).collect();
            ensure!(rounds == [(1, 1), (1, 16), (2, 1), (2, 16)].map(|(a, b)| (Some(a), Some(b))), "{server} {test}: {rounds:?}");
            for sample in samples {
                ensure!(is_positive(&sample["requests_a_second"]) && sample["requests"] == 3000, "{sample}");
                // So few requests may cost less than the system's clock counts, but there is a figure.
                ensure!(sample["cpu_us"].is_number(), "{sample}");
            }
        }
    }
    // What a server does not have is said and not counted.
    let skipped = document["skipped"].as_array().context("skipped")?;
    let missing: Vec<&str> = skipped.iter().filter(|pair| pair[0] == "sluice").filter_map(|pair| pair[1].as_str()).collect();
    ensure!(missing.len() == usize::from(samples(&document, "sluice", "ZADD").is_empty()), "{missing:?}");
    let ratio = document["summary"].as_array().context("summary")?.iter().find(|row| row["server"] == "sluice");
    ensure!(ratio.is_some_and(|row| is_positive(&row["throughput_ratio"]["median"])), "{ratio:?}");
    Ok(())
}

#[test]
fn synced_writes_are_counted_by_fsync() -> anyhow::Result<()> {
    let document = kept(&["sync", "--rounds", "1", "--requests", "500", "--tests", "SET", "--pipeline", "4"])?;
    let ours = samples(&document, "sluice", "SET");
    ensure!(ours.len() == 1 && is_positive(&ours[0]["acks_a_fsync"]), "{ours:?}");
    ensure!(samples(&document, "redis-server", "SET").len() == 1);
    Ok(())
}

#[test]
fn flushes_of_many_callers_are_counted_by_their_receipts() -> anyhow::Result<()> {
    let document = kept(&["flush", "--rounds", "1", "--flushes", "2", "--seconds", "0.3", "--callers", "100"])?;
    let turns = document["turns"].as_array().context("turns")?;
    ensure!(turns.iter().map(|turn| turn["wal"].as_str()).eq([Some("yes"), Some("no")]), "{turns:?}");
    for turn in turns {
        let rounds = turn["distinct_rounds"].as_array().context("rounds")?;
        ensure!(rounds.len() == 2 && rounds.iter().all(|count| (1..=100).contains(&count.as_u64().unwrap_or(0))), "{turn}");
        ensure!(is_positive(&turn["quiet"]["writes"]) && is_positive(&turn["during_a_flush"]["writes"]), "{turn}");
    }
    Ok(())
}

/// Ids of the children of a process.
fn children(of: u32) -> Vec<u32> {
    let tasks = format!("/proc/{of}/task");
    let Ok(tasks) = std::fs::read_dir(tasks) else { return Vec::new() };
    let texts = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

fn name_of(process: u32) -> String {
    std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default().trim().to_owned()
}

/// A bench that would run for minutes, and the ids of its server and its client.
fn running(json: &Path) -> anyhow::Result<(Child, u32, u32)> {
    let words = ["throughput", "--rounds", "1", "--seconds", "300", "--tests", "SET", "--pipeline", "1"];
    let mut child = bench(&words, json).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = children(child.id());
        let named = |name: &str| found.iter().copied().find(|id| name_of(*id) == name);
        if let (Some(server), Some(client)) = (named("redis-server"), named("redis-benchmark")) {
            return Ok((child, server, client));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            anyhow::bail!("its server and client did not start: {found:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ended(mut child: Child) -> anyhow::Result<(Option<i32>, String)> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            anyhow::bail!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn signal(name: &str, process: u32) -> anyhow::Result<()> {
    ensure!(Command::new("kill").args([format!("-{name}"), process.to_string()]).status()?.success(), "no process {process}");
    Ok(())
}

#[test]
fn a_signal_ends_what_it_has_started() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (child, server, client) = running(&folder.path().join("figures.json"))?;
    signal("INT", child.id())?;
    let (code, said) = ended(child)?;
    ensure!(code == Some(130), "{code:?}: {said}");
    let deadline = Instant::now() + PATIENCE;
    while [server, client].iter().any(|id| ["redis-server", "redis-benchmark"].contains(&name_of(*id).as_str())) {
        ensure!(Instant::now() < deadline, "its server or client is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn a_server_that_dies_is_an_error_that_says_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    let (child, server, _) = running(&json)?;
    signal("KILL", server)?;
    let (code, said) = ended(child)?;
    ensure!(code == Some(1) && said.contains("redis-server is gone"), "{code:?}: {said}");
    ensure!(!json.exists(), "nothing is kept of a run that failed");
    Ok(())
}

#[test]
fn what_cannot_run_is_refused_by_name() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    for (words, expected) in [
        (&["throughput", "--tests", "NOPE"][..], "there is no test `NOPE`; there are SET, GET"),
        (&["throughput", "--store", "/no/store"], "/no/store is no file"),
        (&["throughput", "--peer-pid", "x=1"], "names `x`, which no --peer is"),
        (&["sync", "--rounds", "0"], "0 is not in 1..=1000"),
        (&["flush", "--setting", "nonsense"], "write NAME=VALUE"),
        (&["flush", "--rounds", "1", "--setting", "no-such=1"], "there is no setting `no-such`"),
    ] {
        let output = bench(words, &json).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(expected), "{words:?}: {said}");
    }
    Ok(())
}

#[test]
fn profiling_is_compared_with_itself_switched_off() -> anyhow::Result<()> {
    let document = kept(&["profile", "--rounds", "1", "--requests", "2000", "--tests", "SET", "--pipeline", "16"])?;
    let rows = document["summary"].as_array().context("summary")?;
    let ratios: Vec<_> =
        rows.iter().map(|row| (row["server"].as_str(), is_positive(&row["throughput_ratio"]["median"]))).collect();
    ensure!(ratios == [(Some("off"), false), (Some("inactive"), true), (Some("active"), true)], "{ratios:?}");
    Ok(())
}
