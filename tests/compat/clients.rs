//! Real client libraries: redis-py and go-redis, single and cluster, and redis-rs.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    load::{Lines, Session, Target},
    repository,
    store::{LocalCluster, Setup},
};

/// Where `make setup` and the tests keep what they fetch.
pub(crate) fn cache() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"))).unwrap_or_default();
    std::env::var_os("SLUICE_CACHE").map_or_else(|| home.join("sluice"), PathBuf::from)
}

/// A Python that has redis-py: the one `make setup` prepared, or the system's.
fn python() -> PathBuf {
    let own = cache().join("venv/bin/python3");
    if own.exists() { own } else { "python3".into() }
}

pub(crate) fn run_python(script: &str, arguments: &[String]) -> anyhow::Result<()> {
    let path = repository("tests/compat").join(script);
    let output =
        Command::new(python()).arg(path).args(arguments).output().context("python3 with redis-py: `make setup` prepares it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_py_works_on_a_single_node() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("requirepass", "secret")])?.start().await?;
    tokio::task::spawn_blocking(move || run_python("single.py", &[store.setup().port.to_string()])).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_py_works_on_a_cluster() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let port = cluster.node(0).setup().port.to_string();
    tokio::task::spawn_blocking(move || run_python("cluster.py", &[port])).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_rs_works_on_a_cluster() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 3, 3, &[]).await?;
    let session = Session::start(Target::new(cluster.addresses()), Lines::numbered(2000), 2000).await?;
    session.load(2000).await?;
    let report = session.verify().await?;
    ensure!(report.is_whole(), "{report:?}");
    Ok(())
}

/// go-redis, built by the Go that the tests on Kubernetes need as well; by TLS, if files of authorities, and certificate and key, are named.
pub(crate) fn run_go_redis(mode: &str, address: &str, files: &[String]) -> anyhow::Result<()> {
    let output = Command::new("go")
        .args(["run", ".", mode, address])
        .args(files)
        .current_dir(repository("tests/compat/goredis"))
        .output()
        .context("Go is needed for go-redis: `make setup` says where to get it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn go_redis_works_on_a_single_node() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let address = store.address();
    tokio::task::spawn_blocking(move || run_go_redis("single", &address, &[])).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn go_redis_works_on_a_cluster() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let address = cluster.addresses()[0].clone();
    tokio::task::spawn_blocking(move || run_go_redis("cluster", &address, &[])).await?
}
