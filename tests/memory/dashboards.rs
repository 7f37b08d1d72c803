//! The dashboard and the alerts: whatever they name is exported, and every alert has a page that says what to do.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    certificates::{Authority, Files},
    repository,
    store::{Setup, StoreProcess},
};

/// Names of metrics in a text: `sluice_` and what belongs to it.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("sluice_")).map(str::to_owned).collect()
}

/// A store that has something of everything that is counted only when it is there.
async fn busy(root: &tempfile::TempDir) -> anyhow::Result<StoreProcess> {
    let authority = Authority::new("the test's")?;
    let files = Files::of(&root.path().join("tls"), &authority)?;
    let settings = files.settings(&[("latency-tracking", "yes"), ("rocksdb.statistics", "yes"), ("tls-cluster", "yes")]);
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut client = store.client().await?;
    let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut client).await?;
    let error = redis::cmd("INCR").arg("key").query_async::<i64>(&mut client).await;
    ensure!(error.is_err());
    Ok(store)
}

/// What is exported, with the names that queries use.
fn exported(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_dashboard_and_alerts_is_exported() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let known = exported(&busy(&root).await?.metrics()?);
    ensure!(
        known.contains("sluice_rocksdb_ticker_total") && known.contains("sluice_command_duration_seconds_bucket"),
        "{known:?}"
    );
    for file in ["dashboard.json", "alerts.yaml"] {
        let text = fs::read_to_string(repository("charts/sluice/files/monitoring").join(file))?;
        let wanted = metrics_in(&text);
        ensure!(wanted.len() > 8, "{file} names {} metrics", wanted.len());
        let missing: Vec<_> = wanted.difference(&known).collect();
        ensure!(missing.is_empty(), "{file} names what is not exported: {missing:?}");
    }
    Ok(())
}

#[test]
fn every_alert_has_a_runbook_that_names_it() -> anyhow::Result<()> {
    let text = fs::read_to_string(repository("charts/sluice/files/monitoring/alerts.yaml"))?;
    let mut alert = String::new();
    let mut pages = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alert = name.to_owned();
        } else if let Some(page) = line.strip_prefix("runbook: ") {
            let words = fs::read_to_string(repository(page)).with_context(|| format!("{alert} has no page: {page}"))?;
            ensure!(words.contains(&alert), "{page} does not say that it is about {alert}");
            pages.insert(page.trim_start_matches("docs/runbooks/").to_owned());
        }
    }
    ensure!(text.matches("- alert: ").count() == text.matches("runbook: ").count(), "every alert has one");
    let there: BTreeSet<String> = fs::read_dir(repository("docs/runbooks"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    ensure!(there == pages, "pages without an alert: {:?}", there.difference(&pages));
    Ok(())
}

/// `make promtool` fetches it. Without it, what it checks besides the above is left unchecked here.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_of_the_metrics() -> anyhow::Result<()> {
    let found = Command::new(repository("scripts/promtool")).arg("path").output()?;
    let promtool = String::from_utf8(found.stdout)?.trim().to_owned();
    if promtool.is_empty() {
        eprintln!("promtool is not here: `make promtool` fetches it");
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    let text = busy(&root).await?.metrics()?;
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    // It reads the older form, in which the name of a counter ends as those of its samples do.
    let older: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("# UNIT ") && !line.starts_with("# EOF"))
        .map(|line| match line.split(' ').nth(2) {
            Some(name) if line.starts_with('#') && counters.contains(name) => line.replacen(name, &format!("{name}_total"), 1),
            _ => line.to_owned(),
        })
        .collect();
    let file = root.path().join("metrics.txt");
    fs::write(&file, older.join("\n") + "\n")?;
    let checked = Command::new(promtool).args(["check", "metrics"]).stdin(fs::File::open(&file)?).output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    Ok(())
}
