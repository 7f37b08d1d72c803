//! Real client libraries of other languages, for those who ask: ioredis on Node.js and Jedis on Java, single and cluster, the latter while
//! slots move. `SLUICE_TEST_CLIENTS=ioredis,jedis`, or `make test-clients`; a client that is asked for and cannot be had is a failure.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use sluice_tests::{
    repository,
    store::{LocalCluster, Setup},
};
use sluice_topology::{SlotRanges, admin::MigrationState};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::clients::cache;

/// Names of clients, parted by commas.
const FLAG: &str = "SLUICE_TEST_CLIENTS";
const KNOWN: [&str; 2] = ["ioredis", "jedis"];

/// Whether a client was asked for; none that nobody here knows may be.
fn asked_for(client: &str) -> anyhow::Result<bool> {
    let all = std::env::var(FLAG).unwrap_or_default();
    let asked: Vec<&str> = all.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let unknown = asked.iter().find(|name| !KNOWN.contains(name));
    ensure!(unknown.is_none(), "{FLAG}: {unknown:?} is none of {KNOWN:?}");
    Ok(asked.contains(&client))
}

/// Runs a program that has to succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// Fetches what a client needs from its registry into a folder that stays; later runs find it there.
fn fetched(client: &str) -> anyhow::Result<PathBuf> {
    let (source, place) = (repository("tests/compat").join(client), cache().join("clients").join(client));
    std::fs::create_dir_all(&place)?;
    match client {
        "ioredis" => {
            for file in ["package.json", "package-lock.json"] {
                std::fs::copy(source.join(file), place.join(file))?;
            }
            run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&place))?;
        }
        "jedis" => {
            let output = format!("-DoutputDirectory={}", place.join("lib").display());
            run(Command::new("mvn").args(["-q", "-B", "dependency:copy-dependencies", &output]).current_dir(&source))?;
        }
        other => bail!("nobody knows how to fetch {other}"),
    }
    Ok(place)
}

/// The program that drives a client.
fn program(client: &str, place: &Path) -> tokio::process::Command {
    let source = repository("tests/compat").join(client);
    let mut command = match client {
        "ioredis" => {
            let mut command = tokio::process::Command::new("node");
            command.env("NODE_PATH", place.join("node_modules")).arg(source.join("main.js"));
            command
        }
        _ => {
            let mut command = tokio::process::Command::new("java");
            command.arg("-cp").arg(place.join("lib").join("*")).arg(source.join("Main.java"));
            command
        }
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn works_on_a_single_node(client: &'static str) -> anyhow::Result<()> {
    if !asked_for(client)? {
        return Ok(());
    }
    let place = tokio::task::spawn_blocking(move || fetched(client)).await??;
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let output = program(client, &place).args(["single", &store.address()]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn works_on_a_cluster_whose_slots_move(client: &'static str) -> anyhow::Result<()> {
    if !asked_for(client)? {
        return Ok(());
    }
    let place = tokio::task::spawn_blocking(move || fetched(client)).await??;
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let mut child = program(client, &place).args(["cluster", &cluster.addresses()[0]]).spawn()?;
    let (input, output) = (child.stdin.take().context("its input")?, child.stdout.take().context("its output")?);
    let mut said = String::new();
    BufReader::new(output).read_line(&mut said).await?;
    if said.trim() == "moving" {
        let half: SlotRanges = "0-4095".parse()?;
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            let job = cluster.migrate(from, to, &half).await?;
            let status = cluster.ended(from, job).await?;
            ensure!(status.state == MigrationState::Done, "{status:?}");
            cluster.push_truth().await?;
        }
        let mut input = input;
        input.write_all(b"stop\n").await?;
    }
    let mut problem = String::new();
    child.stderr.take().context("its errors")?.read_to_string(&mut problem).await?;
    let status = child.wait().await?;
    ensure!(status.success() && said.trim() == "moving", "{client} ended with {status}, having said {said:?}:\n{problem}");
    cluster.settled().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ioredis_works_on_a_single_node() -> anyhow::Result<()> {
    works_on_a_single_node("ioredis").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ioredis_works_on_a_cluster_whose_slots_move() -> anyhow::Result<()> {
    works_on_a_cluster_whose_slots_move("ioredis").await
}

#[tokio::test(flavor = "multi_thread")]
async fn jedis_works_on_a_single_node() -> anyhow::Result<()> {
    works_on_a_single_node("jedis").await
}

#[tokio::test(flavor = "multi_thread")]
async fn jedis_works_on_a_cluster_whose_slots_move() -> anyhow::Result<()> {
    works_on_a_cluster_whose_slots_move("jedis").await
}
