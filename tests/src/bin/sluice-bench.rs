//! `make bench`, `make bench-sync`, `make bench-flush`, `make bench-migration`: the store beside redis-server. Exit code 0 whatever the figures are; another
//! when something did not run.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sluice_tests::bench::{self, Common, FlushOptions, MigrationOptions, Mode, NamedAddress, NamedNumber};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(version, about = "Compares the store with redis-server, by redis-benchmark, in turn on the same processors")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput, latency and server CPU a command, redis-server without AOF.
    Throughput {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        rounds: Rounds,
        /// Tests, by comma.
        #[arg(long, value_delimiter = ',', default_value = "SET,GET,INCR,HSET1,HGET1,SADD1,ZADD1,ZRANGE1,LPUSH1,XADD1")]
        tests: Vec<String>,
    },
    /// The same with every acknowledgement synced: `sync always` beside `appendfsync always`; and acknowledgements a fsync.
    Sync {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        rounds: Rounds,
        /// Tests, by comma.
        #[arg(long, value_delimiter = ',', default_value = "SET,HSET")]
        tests: Vec<String>,
    },
    /// What heap profiling costs: off for good, built in and not sampling, sampling; the same store in turn.
    Profile {
        #[command(flatten)]
        common: Common,
        /// Requests in one pipeline, by comma.
        #[arg(long, value_delimiter = ',', default_value = "1,16", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        pipeline: Vec<u32>,
        /// Tests, by comma.
        #[arg(long, value_delimiter = ',', default_value = "SET,GET,HSET1,ZADD1")]
        tests: Vec<String>,
    },
    /// Flush rounds for many callers at once, and what writes notice of a flush.
    Flush {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        flush: FlushOptions,
    },
    /// Moving all slots to another node: throughput beside what loopback and disk can do, CPU, and what clients notice.
    Migration {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        migration: MigrationOptions,
    },
}

#[derive(Args)]
struct Rounds {
    /// Requests in one pipeline, by comma.
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: Vec<u32>,
    /// A server that runs already, as NAME=HOST:PORT; again for more. Its data is written to, keys `key:…` and the like.
    #[arg(long = "peer", value_name = "NAME=HOST:PORT")]
    peers: Vec<NamedAddress>,
    /// The process of a peer on this machine, as NAME=PID: without it there is no CPU figure.
    #[arg(long = "peer-pid", value_name = "NAME=PID")]
    peer_pids: Vec<NamedNumber>,
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Throughput { common, rounds, tests } => {
            bench::run_rounds(Mode::Throughput, &common, &tests, &rounds.pipeline, &rounds.peers, &rounds.peer_pids).await
        }
        Command::Sync { common, rounds, tests } => {
            bench::run_rounds(Mode::Sync, &common, &tests, &rounds.pipeline, &rounds.peers, &rounds.peer_pids).await
        }
        Command::Profile { common, pipeline, tests } => {
            bench::run_rounds(Mode::Profile, &common, &tests, &pipeline, &[], &[]).await
        }
        Command::Flush { common, flush } => bench::run_flushing(&common, &flush).await,
        Command::Migration { common, migration } => bench::run_migrating(&common, &migration).await,
    }
}

/// Ctrl-C or SIGTERM.
async fn interrupted() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Whichever ends first drops the other: the servers are ended and their data removed on the way out.
    let outcome = tokio::select! {
        outcome = run(arguments.command) => outcome,
        signals = interrupted() => {
            eprintln!("bench: interrupted");
            return signals.map_or(ExitCode::FAILURE, |()| ExitCode::from(130));
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
