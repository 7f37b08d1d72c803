//! A B A B: in every round each server in turn, each on a fresh data directory, each asked the same by the same client.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{
    client,
    figures::{Machine, Sample, keep},
    options::{Common, NamedAddress, NamedNumber, commit},
    report,
    server::{Contestant, Kind, REDIS, Server},
    workload::{Workload, chosen},
};

/// Requests of a warm-up at least, a connection.
const WARM_UP_REQUESTS: u64 = 200;
/// Part of a measured part's time that the warm-up takes.
const WARM_UP_PART: f64 = 0.2;

/// Which comparison it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Neither server waits for its disk: redis-server without AOF, the store with its own defaults.
    Throughput,
    /// Every acknowledgement is synced: `appendfsync always`, `sync always`.
    Sync,
    /// The store with heap profiling off for good, built in and not sampling, sampling.
    Profile,
}

/// What the allocator is told: name of the contestant, and `MALLOC_CONF`.
const PROFILING: [(&str, &str); 3] = [
    ("off", "MALLOC_CONF=prof:false"),
    ("inactive", "MALLOC_CONF=prof:true,prof_active:false"),
    ("active", "MALLOC_CONF=prof:true,prof_active:true"),
];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Sync => "sync",
            Self::Profile => "profile",
        }
    }

    /// Whom all others are compared with.
    pub(super) fn reference(self) -> &'static str {
        if self == Self::Profile { PROFILING[0].0 } else { REDIS }
    }

    fn redis_options(self) -> Vec<&'static str> {
        match self {
            Self::Throughput | Self::Profile => vec!["--save", "", "--appendonly", "no"],
            Self::Sync => vec!["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
        }
    }

    /// What the store is started with before the settings from the command line.
    fn store_settings(self) -> Vec<(String, String)> {
        match self {
            Self::Throughput | Self::Profile => Vec::new(),
            Self::Sync => vec![("sync".into(), "always".into())],
        }
    }
}

/// Runs it and prints what it found.
pub async fn run(
    mode: Mode,
    common: &Common,
    tests: &[String],
    pipelines: &[u32],
    peers: &[NamedAddress],
    peer_processes: &[NamedNumber],
) -> anyhow::Result<()> {
    let workloads = chosen(tests)?;
    ensure!(!pipelines.is_empty(), "no pipeline length is given");
    let contestants = contestants(mode, common, peers, peer_processes)?;
    let json_path = common.json_path(mode.name())?;
    let machine = Machine::here();
    println!(
        "{}: {} connections, {} B, {} keys, {} rounds; {}",
        mode.name(),
        common.clients,
        common.value_size,
        common.keys,
        common.rounds,
        machine.text()
    );
    let (mut samples, mut skipped, mut versions) = (Vec::new(), HashSet::new(), Vec::new());
    for round in 1..=common.rounds {
        for contestant in &contestants {
            let folder = tempfile::Builder::new().prefix("sluice-bench-").tempdir().context("making a data directory")?;
            let server = contestant.start(folder.path(), common).await?;
            if round == 1 {
                versions.push(json!({"name": contestant.name, "version": version(&server).await?, "is": describe(contestant)}));
            }
            let mut turn = Turn { round, common, server: &server, filled: HashSet::new() };
            for pipeline in pipelines {
                for workload in &workloads {
                    match turn
                        .measure(workload, *pipeline)
                        .await
                        .with_context(|| format!("{} -P {pipeline}, {}", workload.name, contestant.name))?
                    {
                        Some(sample) => {
                            report::progress(&sample);
                            samples.push(sample);
                        }
                        None => {
                            skipped.insert((contestant.name.clone(), workload.name));
                        }
                    }
                }
            }
        }
    }
    let rows = report::rows(&samples, mode.reference());
    report::print(&rows, mode);
    let mut skipped: Vec<_> = skipped.into_iter().collect();
    skipped.sort();
    for (server, test) in &skipped {
        println!("skipped: {server} does not have {test}");
    }
    let document = json!({
        "format": 1, "bench": mode.name(), "date": jiff::Timestamp::now().to_string(), "commit": commit(), "machine": machine,
        "options": {"rounds": common.rounds, "clients": common.clients, "value_size": common.value_size, "keys": common.keys,
            "seconds": common.seconds, "requests": common.requests, "server_cpus": common.server_cpus, "client_cpus": common.client_cpus},
        "servers": versions, "skipped": skipped, "samples": samples, "summary": rows,
    });
    keep(&json_path, &document)?;
    println!("kept in {}", json_path.display());
    ensure!(!rows.is_empty(), "nothing was measured");
    Ok(())
}

fn contestants(
    mode: Mode,
    common: &Common,
    peers: &[NamedAddress],
    processes: &[NamedNumber],
) -> anyhow::Result<Vec<Contestant>> {
    let mut all = Vec::new();
    if mode != Mode::Profile {
        all.push(Contestant { name: REDIS.into(), kind: Kind::Redis(mode.redis_options()) });
    }
    for (name, binary) in common.store_binaries()? {
        let mut settings = mode.store_settings();
        settings.extend(common.settings.iter().map(|setting| (setting.name.clone(), setting.value.clone())));
        if mode == Mode::Profile {
            ensure!(all.is_empty(), "one build at a time is measured with and without profiling");
            all.extend(PROFILING.map(|(name, allocator)| {
                let wrapper = vec!["env".to_owned(), allocator.to_owned()];
                Contestant {
                    name: name.into(),
                    kind: Kind::Store { binary: binary.clone(), settings: settings.clone(), wrapper },
                }
            }));
        } else {
            all.push(Contestant { name, kind: Kind::Store { binary, settings, wrapper: Vec::new() } });
        }
    }
    for peer in peers {
        ensure!(all.iter().all(|other| other.name != peer.name), "there is more than one server called `{}`", peer.name);
        let process = processes.iter().find(|process| process.name == peer.name).map(|process| process.number);
        all.push(Contestant { name: peer.name.clone(), kind: Kind::Peer { address: peer.clone(), process } });
    }
    for process in processes {
        ensure!(peers.iter().any(|peer| peer.name == process.name), "--peer-pid names `{}`, which no --peer is", process.name);
    }
    Ok(all)
}

fn describe(contestant: &Contestant) -> String {
    match &contestant.kind {
        Kind::Redis(options) => options.join(" "),
        Kind::Store { binary, settings, wrapper } => {
            let begun = format!("{} {}", wrapper.join(" "), binary.display()).trim_start().to_owned();
            settings.iter().fold(begun, |text, (name, value)| format!("{text} --{name} {value}"))
        }
        Kind::Peer { address, .. } => format!("{}:{}", address.host, address.port),
    }
}

async fn version(server: &Server) -> anyhow::Result<String> {
    let info = server.info().await?;
    let version = info.text("sluice_version").or(info.text("kvrocks_version")).or(info.text("redis_version"));
    Ok(version.unwrap_or("unknown").to_owned())
}

/// One server in one round.
struct Turn<'r> {
    round: u32,
    common: &'r Common,
    server: &'r Server,
    filled: HashSet<&'static [&'static str]>,
}

impl Turn<'_> {
    /// Fills, warms up, measures. `None`: the server does not have the command.
    async fn measure(&mut self, workload: &Workload, pipeline: u32) -> anyhow::Result<Option<Sample>> {
        let (common, server) = (self.common, self.server);
        let value = common.value();
        if !workload.is_known_to(server, &value).await? {
            return Ok(None);
        }
        if self.filled.insert(workload.fill) {
            workload.fill(server, common, &value).await?;
        }
        let words = workload.command(&value);
        let least = WARM_UP_REQUESTS * u64::from(common.clients);
        let warm_up = client::run(server, common, pipeline, least, &words).await?;
        let wanted = |seconds: f64, rate: f64| ((seconds * rate) as u64).max(least);
        // The first requests are slow: the rate to reckon with comes from a second, longer warm-up.
        let longer = wanted(common.seconds * WARM_UP_PART, warm_up.rate);
        let warm = client::run(server, common, pipeline, common.requests.map_or(longer, |most| longer.min(most)), &words).await?;
        let requests = common.requests.unwrap_or_else(|| wanted(common.seconds, warm.rate));

        let (info_before, cpu_before) = (server.info().await?, server.cpu()?);
        let run = client::run(server, common, pipeline, requests, &words).await?;
        let (cpu_after, info_after) = (server.cpu()?, server.info().await?);

        let grown = |field: &str| Some(info_after.number(field)?.saturating_sub(info_before.number(field)?));
        let fsyncs = grown("wal_fsyncs_total").filter(|count| *count > 0);
        let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before));
        Ok(Some(Sample {
            round: self.round,
            server: server.name.clone(),
            test: workload.name,
            pipeline,
            requests,
            requests_a_second: run.rate,
            p50_ms: run.p50_ms,
            p99_ms: run.p99_ms,
            longest_ms: run.longest_ms,
            cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests as f64),
            acks_a_fsync: fsyncs.map(|fsyncs| requests as f64 / fsyncs as f64),
        }))
    }
}
