//! `sluice-load`: loads keys of real input through an ordinary Redis Cluster client, writes on while the cluster is restarted and
//! resized, keeps an account of every acknowledged write, and reads all of it back.
//!
//! `serve` is driven over HTTP, for a pod without a shell; `run` does it all in one go against nodes that are within reach.

mod http;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use sluice_tests::load::{self, Lines, Session};

/// How long a cluster may take to answer for the first time.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_PAUSE: Duration = Duration::from_millis(300);

#[derive(Parser)]
#[command(version, about = "Loads a Sluice cluster, writes on, and reads every acknowledged write back")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Waits for orders over HTTP: POST /load?keys=N, /live/start, /live/stop, /phase?name=NAME, /verify; GET /status.
    Serve {
        #[command(flatten)]
        target: Target,
        /// Address to listen on.
        #[arg(long, default_value = "0.0.0.0:8090")]
        listen: SocketAddr,
    },
    /// Loads, writes for a while, verifies, prints the account as JSON; fails if anything is missing.
    Run {
        #[command(flatten)]
        target: Target,
        /// Keys to load.
        #[arg(long, default_value_t = 10_000)]
        keys: usize,
        /// Seconds of live writes.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
}

#[derive(Args)]
struct Target {
    /// A node of the cluster, as host:port; once for each that is known.
    #[arg(long = "node", required = true)]
    nodes: Vec<String>,
    /// Password of the cluster.
    #[arg(long, env = "SLUICE_LOAD_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Certificates of the authorities its nodes are known by, in PEM: connects by TLS.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// What to load: a line each, key and value separated by a tab.
    #[arg(long, default_value = "/input/lines.tsv")]
    input: PathBuf,
    /// Live writes a second, over all writers.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
}

impl Target {
    async fn session(self) -> anyhow::Result<Session> {
        let lines = Lines::read(&self.input)?;
        // A Service that was made a moment ago refuses connections until every node's proxy knows its pods.
        let deadline = Instant::now() + CONNECT_LIMIT;
        let authorities =
            self.ca_file.map(|path| std::fs::read(&path).with_context(|| path.display().to_string())).transpose()?;
        let cluster = load::Target { nodes: self.nodes, password: self.password, authorities };
        loop {
            match Session::start(cluster.clone(), lines.clone(), self.rate).await {
                Err(error) if Instant::now() < deadline => {
                    eprintln!("not connected yet: {error:#}");
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve { target, listen } => {
            let session = target.session().await?;
            http::serve(listen, session).await.with_context(|| format!("listening on {listen}"))
        }
        Command::Run { target, keys, seconds } => run(target.session().await?, keys, seconds).await,
    }
}

async fn run(session: Session, keys: usize, seconds: u64) -> anyhow::Result<()> {
    session.load(keys).await?;
    session.start_live().await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    session.stop_live().await?;
    let report = session.verify().await?;
    println!("{}", serde_json::to_string_pretty(&session.status())?);
    anyhow::ensure!(report.is_whole(), "not every acknowledged write was read back");
    Ok(())
}
