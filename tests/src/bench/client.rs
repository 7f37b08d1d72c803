//! The client of every measured part: redis-benchmark.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use super::{
    options::Common,
    server::{Server, cannot_start, on_processors},
};

/// Longer than this, and the run is given up: redis-benchmark goes on asking for ever when a server has gone.
const RUN_LIMIT: Duration = Duration::from_mins(30);
/// How often the server is looked at meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What redis-benchmark says of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    /// Requests a second.
    pub(super) rate: f64,
    /// Milliseconds of half of all requests at most.
    pub(super) p50_ms: f64,
    /// Milliseconds of 99 in 100 at most.
    pub(super) p99_ms: f64,
    /// Milliseconds of the slowest.
    pub(super) longest_ms: f64,
}

/// Runs that many requests of a command. An error when one was answered with an error (redis-benchmark ends then), or the server died.
pub(super) async fn run(server: &Server, common: &Common, pipeline: u32, requests: u64, words: &[String]) -> anyhow::Result<Run> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &server.host, "-p", &server.port.to_string(), "--csv", "--precision", "3"]);
    command.args(["-c", &common.clients.to_string(), "-P", &pipeline.to_string()]);
    command.args(["-n", &requests.to_string(), "-r", &common.keys.to_string()]).args(words);
    let command = on_processors(command, common.client_cpus.as_deref());
    let what = cannot_start(&command);
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = command.spawn().context(what)?.wait_with_output();
    let watched = async {
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            if let Err(gone) = server.alive() {
                return gone;
            }
        }
    };
    let output = tokio::select! {
        ended = ended => ended?,
        gone = watched => return Err(gone),
        () = tokio::time::sleep(RUN_LIMIT) => bail!("{} took more than {} minutes", words[0], RUN_LIMIT.as_secs() / 60),
    };
    if !output.status.success() {
        // A server that has just died says why better than its client does; it may take a moment to be gone.
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    server.alive()?;
    let said = String::from_utf8_lossy(&output.stderr).replace("WARNING: Could not fetch server CONFIG", "");
    ensure!(output.status.success(), "redis-benchmark on {}, {}: {} ({})", server.name, words[0], said.trim(), output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse(&text).with_context(|| format!("redis-benchmark said nothing that can be read: {text}{said}"))
}

/// The last line: the command, requests a second, then milliseconds: average, least, p50, p95, p99, most.
fn parse(text: &str) -> Option<Run> {
    let line = text.lines().rfind(|line| line.starts_with('"'))?;
    let numbers: Vec<f64> = line.rsplit(',').take(7).filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    let [longest_ms, p99_ms, _, p50_ms, _, _, rate] = numbers[..] else { return None };
    Some(Run { rate, p50_ms, p99_ms, longest_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_run_is_read_whatever_the_command_holds() {
        let head = r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms""#;
        let text =
            format!("{head}\n\"SET a,\"b\" x\",\"833333.31\",\"0.844\",\"0.168\",\"0.759\",\"1.703\",\"2.127\",\"2.223\"\n");
        assert_eq!(parse(&text), Some(Run { rate: 833_333.31, p50_ms: 0.759, p99_ms: 2.127, longest_ms: 2.223 }));
        assert_eq!(parse(&format!("{head}\n")), None);
        assert_eq!(parse(""), None);
    }
}
