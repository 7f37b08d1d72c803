//! How fast slots move, and what everybody else notices: two nodes on loopback, three shapes of data in the lower half of the slots, idle
//! and under load on both halves, beside what this machine's loopback and disk can do at all, measured in the same run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sluice_topology::{Slot, SlotRanges, admin::MigrationState};

use super::{
    figures::{Machine, keep},
    options::{Common, commit},
    report::print_aligned,
    server::{cannot_start, cpu_of},
};
use crate::{
    load::{Lines, PhaseReport, Probe, Session, Target},
    store::{LocalCluster, free_port},
};

/// Bytes of one value of each shape.
const STRING: usize = 1 << 10;
const FIELD: usize = 100;
const LARGE: usize = 4 << 20;
/// Hashes that the fields are in.
const HASHES: usize = 256;
/// Commands in one pipeline while loading, in bytes.
const PIPELINE_BYTES: usize = 1 << 20;
/// What moves, and what stays where it is.
const MOVING: &str = "0-8191";
const STAYING: &str = "8192-16383";
/// Requests a second of the clients of what moves.
const LIVE_RATE: u32 = 1000;

/// Options of the migration bench alone.
#[derive(Args, Clone, Debug)]
pub struct MigrationOptions {
    /// MiB of data of each shape.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=65536))]
    mib: u32,
    /// Shapes, by comma: strings of 1 KiB, hash fields of 100 bytes, values of 4 MiB.
    #[arg(long, value_delimiter = ',', default_value = "strings,fields,large", value_parser = ["strings", "fields", "large"])]
    shapes: Vec<String>,
}

/// What this machine can do at all, in MB a second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ceiling {
    /// One TCP stream over loopback, by iperf3.
    loopback: f64,
    /// A sequential write of 1 MiB blocks and an fsync at its end, by fio.
    disk: f64,
}

/// One migration of everything.
#[derive(Clone, Debug, Serialize)]
struct Turn {
    round: u32,
    server: String,
    shape: String,
    /// With clients that write meanwhile.
    loaded: bool,
    /// Bytes of keys and values.
    bytes: u64,
    seconds: f64,
    mb_a_second: f64,
    /// Of the lower ceiling.
    of_ceiling: f64,
    source_cpu_seconds_a_gb: f64,
    target_cpu_seconds_a_gb: f64,
    /// Bytes that the target's process wrote to its disk for each byte moved.
    target_written_a_byte: f64,
    sent: u64,
    resent: u64,
    longest_pause_ms: u64,
    /// What a client saw whose slots stayed at the source.
    others: Option<Seen>,
    /// What clients saw whose slots moved.
    moved: Option<Seen>,
}

/// What clients of one half of the slots saw.
#[derive(Clone, Debug, Serialize)]
struct Seen {
    before: PhaseReport,
    meanwhile: PhaseReport,
}

/// Runs it and prints what it found.
pub async fn run(common: &Common, options: &MigrationOptions) -> anyhow::Result<()> {
    let (binaries, json_path, machine) = (common.store_binaries()?, common.json_path("migration")?, Machine::here());
    println!("migration: {} MiB of each shape, {} rounds; {}", options.mib, common.rounds, machine.text());
    let folder = tempfile::Builder::new().prefix("sluice-bench-").tempdir().context("making a data directory")?;
    let ceiling = Ceiling { loopback: loopback()?, disk: disk(folder.path())? };
    println!("loopback TCP {:.0} MB/s, durable sequential write {:.0} MB/s", ceiling.loopback, ceiling.disk);
    let mut turns = Vec::new();
    for round in 1..=common.rounds {
        for (name, binary) in &binaries {
            for shape in &options.shapes {
                for loaded in [false, true] {
                    let root = folder.path().join(format!("{round}-{name}-{shape}-{loaded}"));
                    let turn = turn(common, options, &root, binary, shape, loaded, ceiling).await;
                    let turn = turn.with_context(|| format!("{name}, {shape}"))?;
                    println!("{name}, {shape}, clients {loaded}: {:.0} MB/s in {:.2} s", turn.mb_a_second, turn.seconds);
                    turns.push(Turn { round, server: name.clone(), ..turn });
                    std::fs::remove_dir_all(&root)?;
                }
            }
        }
    }
    print(&turns);
    keep(
        &json_path,
        &json!({
            "format": 1, "bench": "migration", "date": jiff::Timestamp::now().to_string(), "commit": commit(), "machine": machine,
            "options": {"rounds": common.rounds, "mib": options.mib}, "ceiling": ceiling, "turns": turns,
        }),
    )?;
    println!("kept in {}", json_path.display());
    Ok(())
}

async fn turn(
    common: &Common,
    options: &MigrationOptions,
    root: &Path,
    binary: &Path,
    shape: &str,
    loaded: bool,
    ceiling: Ceiling,
) -> anyhow::Result<Turn> {
    let settings: Vec<(&str, &str)> =
        common.settings.iter().map(|setting| (setting.name.as_str(), setting.value.as_str())).collect();
    let cluster = LocalCluster::start_of(Some(binary.to_owned()), root, 2, 1, &settings).await?;
    let bytes = fill(&cluster, shape, options.mib as usize * (1 << 20)).await?;
    cluster.node(0).admin().await?.flush(Duration::from_mins(5)).await?;
    // What filling it has left to compact is no part of what is measured.
    idle(cluster.node(0).id()).await?;
    let (moving, staying): (SlotRanges, SlotRanges) = (MOVING.parse()?, STAYING.parse()?);
    let clients = if loaded {
        let probe = Probe::start(&cluster.node(0).address(), &staying)?;
        let session =
            Session::start(Target::new(cluster.addresses()), Lines::numbered(0), LIVE_RATE).await?.within(moving.clone());
        session.start_live().await?;
        Some((probe, session))
    } else {
        None
    };
    let phase = |name: &str| clients.as_ref().map(|(probe, session)| [probe.next_phase(name), session.next_phase(name)]);
    phase("before");
    if loaded {
        tokio::time::sleep(Duration::from_secs_f64(common.seconds)).await;
    }
    let quiet = phase("meanwhile");
    let before = [Used::by(cluster.node(0).id())?, Used::by(cluster.node(1).id())?];
    let started = Instant::now();
    let job = cluster.migrate(0, 1, &moving).await?;
    let status = cluster.ended(0, job).await?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.state == MigrationState::Done, "the migration failed: {status:?}");
    let after = [Used::by(cluster.node(0).id())?, Used::by(cluster.node(1).id())?];
    let meanwhile = phase("after");
    if let Some((probe, session)) = clients {
        session.stop_live().await?;
        probe.stop()?;
    }
    let mut seen =
        quiet.into_iter().flatten().zip(meanwhile.into_iter().flatten()).map(|(before, meanwhile)| Seen { before, meanwhile });
    let (mb, gb) = (bytes as f64 / 1e6, bytes as f64 / 1e9);
    Ok(Turn {
        round: 0,
        server: String::new(),
        shape: shape.to_owned(),
        loaded,
        bytes,
        seconds,
        mb_a_second: mb / seconds,
        of_ceiling: mb / seconds / ceiling.loopback.min(ceiling.disk),
        source_cpu_seconds_a_gb: (after[0].cpu_seconds - before[0].cpu_seconds) / gb,
        target_cpu_seconds_a_gb: (after[1].cpu_seconds - before[1].cpu_seconds) / gb,
        target_written_a_byte: (after[1].written - before[1].written) as f64 / bytes as f64,
        sent: status.bytes_sent,
        resent: status.bytes_resent,
        longest_pause_ms: status.switch_pause_ms_max,
        others: seen.next(),
        moved: seen.next(),
    })
}

/// Writes about that many bytes of a shape that cannot be compressed; returns how many exactly, keys included.
async fn fill(cluster: &LocalCluster, shape: &str, bytes: usize) -> anyhow::Result<u64> {
    let mut connection = cluster.node(0).client().await?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (mut pipeline, mut waiting, mut written) = (redis::pipe(), 0, 0u64);
    let moving: SlotRanges = MOVING.parse()?;
    let named = |word: &'static str| {
        (0..).map(move |number| format!("{word}:{number}")).filter(|key| moving.contains(Slot::of_key(key.as_bytes())))
    };
    let hashes: Vec<String> = named("hash").take(HASHES).collect();
    let (mut strings, mut large) = (named("string"), named("large"));
    for number in 0.. {
        if written >= bytes as u64 {
            break;
        }
        let (key, length) = match shape {
            "strings" => (strings.next(), STRING),
            "large" => (large.next(), LARGE),
            _ => (Some(hashes[number % HASHES].clone()), FIELD),
        };
        let key = key.context("there are no more keys")?;
        let mut value = vec![0; length];
        noise.fill(&mut value);
        let field = format!("field:{number}");
        written += length as u64;
        if shape == "fields" {
            pipeline.hset(&key, &field, value).ignore();
            written += field.len() as u64;
        } else {
            pipeline.set(&key, value).ignore();
            written += key.len() as u64;
        }
        waiting += length;
        if waiting >= PIPELINE_BYTES {
            pipeline.query_async::<()>(&mut connection).await.context("loading")?;
            (pipeline, waiting) = (redis::pipe(), 0);
        }
    }
    if waiting > 0 {
        pipeline.query_async::<()>(&mut connection).await.context("loading")?;
    }
    Ok(written)
}

/// Bytes that nothing can be made of: xorshift.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// What a process has used so far.
struct Used {
    cpu_seconds: f64,
    written: u64,
}

impl Used {
    fn by(process: u32) -> anyhow::Result<Self> {
        let io = std::fs::read_to_string(format!("/proc/{process}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes in /proc")?;
        Ok(Self { cpu_seconds: cpu_of(process)?.as_secs_f64(), written: written.trim().parse()? })
    }
}

/// Waits, a minute at most, until a process does hardly anything.
async fn idle(process: u32) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(500);
    for _ in 0..120 {
        let before = Used::by(process)?.cpu_seconds;
        tokio::time::sleep(LOOK).await;
        if Used::by(process)?.cpu_seconds - before < LOOK.as_secs_f64() / 20.0 {
            break;
        }
    }
    Ok(())
}

/// MB a second of one TCP stream over loopback.
fn loopback() -> anyhow::Result<f64> {
    let port = free_port()?.to_string();
    let mut server = Command::new("iperf3");
    server.args(["--server", "--bind", "127.0.0.1", "--port", &port]).stdout(std::process::Stdio::null());
    let mut server = server.spawn().with_context(|| cannot_start(&Command::new("iperf3")))?;
    let mut client = Command::new("iperf3");
    client.args(["--client", "127.0.0.1", "--port", &port, "--time", "3", "--json"]);
    let measured = (0..50).find_map(|attempt| {
        if attempt > 0 {
            // It does not listen yet.
            std::thread::sleep(Duration::from_millis(100));
        }
        let report: serde_json::Value = serde_json::from_slice(&client.output().ok()?.stdout).ok()?;
        report["end"]["sum_received"]["bits_per_second"].as_f64()
    });
    let _ = server.kill();
    let _ = server.wait();
    let bits = measured.with_context(|| format!("{client:?} reports no throughput"))?;
    Ok(bits / 8e6)
}

/// MB a second of a sequential write that is durable at its end.
fn disk(folder: &Path) -> anyhow::Result<f64> {
    let file: PathBuf = folder.join("fio");
    let mut fio = Command::new("fio");
    fio.args(["--name=write", "--rw=write", "--bs=1m", "--size=1g", "--end_fsync=1", "--output-format=json"]);
    fio.arg(format!("--filename={}", file.display()));
    let answer = fio.output().with_context(|| cannot_start(&fio))?;
    std::fs::remove_file(&file)?;
    let report: serde_json::Value = serde_json::from_slice(&answer.stdout).context("reading fio's report")?;
    let bytes = report["jobs"][0]["write"]["bw_bytes"].as_f64().context("fio reports no throughput")?;
    Ok(bytes / 1e6)
}

fn print(turns: &[Turn]) {
    let head = [
        "round",
        "build",
        "shape",
        "clients",
        "MB/s",
        "of ceiling",
        "CPU s/GB source",
        "target",
        "written/byte",
        "resent B",
        "pause ms",
        "others' p99 ms before",
        "meanwhile",
        "longest",
        "movers' p99 ms",
        "longest",
        "failed",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for turn in turns {
        let seen = |of: &Option<Seen>, figure: fn(&Seen) -> f64| {
            of.as_ref().map_or("-".to_owned(), |seen| format!("{:.2}", figure(seen)))
        };
        let failed: u64 = [&turn.others, &turn.moved].into_iter().flatten().map(|seen| seen.meanwhile.failed).sum();
        rows.push([
            turn.round.to_string(),
            turn.server.clone(),
            turn.shape.clone(),
            if turn.loaded { "writing" } else { "none" }.to_owned(),
            format!("{:.0}", turn.mb_a_second),
            format!("{:.2}", turn.of_ceiling),
            format!("{:.2}", turn.source_cpu_seconds_a_gb),
            format!("{:.2}", turn.target_cpu_seconds_a_gb),
            format!("{:.2}", turn.target_written_a_byte),
            turn.resent.to_string(),
            turn.longest_pause_ms.to_string(),
            seen(&turn.others, |seen| seen.before.p99_ms),
            seen(&turn.others, |seen| seen.meanwhile.p99_ms),
            seen(&turn.others, |seen| seen.meanwhile.longest_ms),
            seen(&turn.moved, |seen| seen.meanwhile.p99_ms),
            seen(&turn.moved, |seen| seen.meanwhile.longest_ms),
            failed.to_string(),
        ]);
    }
    print_aligned(&rows);
}
