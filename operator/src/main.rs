//! `sluice-operator`: runs clusters of Sluice on Kubernetes, and writes their CustomResourceDefinitions.

use std::{
    collections::BTreeMap, io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kube::Client;
use sluice_operator::{
    context::{Context, StoreDefaults},
    controllers::{
        cluster::check_settings,
        run::{self, Scope},
    },
    crds, http,
    leader_election::{Candidate, Election, Leadership, Timing},
    metrics::Metrics,
    network::PodNetwork,
    signals::until,
};
use tokio::sync::watch;
use tracing::{error, info};

/// The Kubernetes operator of Sluice.
#[derive(Parser)]
#[command(name = "sluice-operator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator.
    Run(RunArguments),
    /// Prints the CustomResourceDefinitions, or writes a file a kind.
    Crds {
        /// Folder to write the files into.
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// Namespaces to watch, separated by commas; all of them when empty.
    #[arg(long, alias = "watch-namespaces", env = "SLUICE_NAMESPACES", value_delimiter = ',', default_value = "")]
    namespaces: Vec<String>,
    /// Image of the store where a SluiceCluster names none.
    #[arg(long, env = "SLUICE_STORE_IMAGE", default_value = concat!("sluice-store:", env!("CARGO_PKG_VERSION")))]
    store_image: String,
    /// A setting of stores where a SluiceCluster does not have it in its config: `name=value`, once for each.
    #[arg(long = "store-setting", value_name = "NAME=VALUE")]
    store_settings: Vec<String>,
    /// Whether to act only while holding the lease.
    #[arg(long, env = "SLUICE_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    leader_election: bool,
    /// Name of the lease.
    #[arg(long, env = "SLUICE_LEASE_NAME", default_value = "sluice-operator")]
    lease_name: String,
    /// Namespace of the lease; the pod's own when not set.
    #[arg(long, env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Reconciles of a kind at once.
    #[arg(long, env = "SLUICE_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, alias = "bind", env = "SLUICE_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Logs as JSON.
    #[arg(long, env = "SLUICE_LOG_JSON")]
    log_json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => operate(arguments).await,
        Command::Crds { write: Some(folder) } => crds::write(&folder),
        Command::Crds { write: None } => crds::print(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            eprintln!("sluice-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn operate(arguments: RunArguments) -> anyhow::Result<()> {
    logs(arguments.log_json);
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let store = StoreDefaults { image: arguments.store_image, settings: store_settings(&arguments.store_settings)? };
    let client = Client::try_default().await.context("no way to a Kubernetes API: neither in a pod nor by KUBECONFIG")?;
    let metrics = Arc::new(Metrics::new());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        signal().await;
        info!("stopping");
        stop.send_replace(true);
        // Kept, so that nobody takes a closed channel for a signal before there is one.
        std::future::pending::<()>().await;
    });
    let serving = tokio::spawn(http::serve(arguments.listen, Arc::clone(&metrics), stopped.clone()));

    let leadership = if arguments.leader_election { Leadership::none() } else { Leadership::unconditional() };
    let (leading, mut is_leading) = watch::channel(!arguments.leader_election);
    let election = if arguments.leader_election {
        let namespace = arguments.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let candidate =
            Candidate { identity: identity()?, namespace, lease: arguments.lease_name.clone(), timing: Timing::default() };
        let election = Election::new(client.clone(), candidate, leadership.clone());
        Some(tokio::spawn(election.run(leading, stopped.clone())))
    } else {
        None
    };
    let mut stop_waiting = stopped.clone();
    tokio::select! {
        () = until(&mut is_leading, true) => {}
        () = until(&mut stop_waiting, true) => return Ok(()),
        served = serving => return served.context("the probes ended")?.with_context(|| format!("listening on {}", arguments.listen)),
    }
    metrics.set_leading(true);
    let context = Arc::new(Context::new(client, Arc::new(PodNetwork), store, leadership, Arc::clone(&metrics)));
    let namespaces =
        arguments.namespaces.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let scope = Scope { namespaces, concurrency: arguments.concurrency };
    info!(namespaces = ?scope.namespaces, concurrency = scope.concurrency, "controllers run");
    let result = tokio::select! {
        () = run::run(context, scope, stopped.clone()) => Ok(()),
        () = until(&mut is_leading, false), if arguments.leader_election => {
            // A process that lost its lease starts anew, remembering nothing. One that stops gives it back, which looks the same.
            if *stopped.borrow() { Ok(()) } else { Err(anyhow::anyhow!("the lease is lost")) }
        }
    };
    metrics.set_leading(false);
    if let Some(election) = election {
        let _ = tokio::time::timeout(Duration::from_secs(5), election).await;
    }
    result
}

/// Settings that stores have by default.
fn store_settings(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |pair: &String| {
        let (name, value) = pair.split_once('=').with_context(|| format!("--store-setting {pair}: it has to be name=value"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let settings = pairs.iter().map(pair).collect::<anyhow::Result<_>>()?;
    check_settings("--store-setting", &settings).map_err(anyhow::Error::msg)?;
    Ok(settings)
}

/// Differs from every other process, also from an earlier one of the same pod.
fn identity() -> anyhow::Result<String> {
    let mut bytes = [0u8; 4];
    getrandom::fill(&mut bytes)?;
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "sluice-operator".into());
    Ok(format!("{name}_{:08x}", u32::from_be_bytes(bytes)))
}

fn logs(json: bool) {
    let wanted = std::env::var(tracing_subscriber::EnvFilter::DEFAULT_ENV).unwrap_or_default();
    // kube's own spans say the same as ours in more words; who names kube gets them.
    let quiet = if wanted.contains("kube") { "" } else { ",kube_runtime=warn,kube_client=warn" };
    let wanted = if wanted.is_empty() { "info" } else { wanted.as_str() };
    let filter = tracing_subscriber::EnvFilter::new(format!("{wanted}{quiet}"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.init() }
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            error!(%error, "SIGTERM cannot be listened for");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
