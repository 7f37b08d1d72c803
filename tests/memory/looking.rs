//! What can be seen of a node: its log.

use anyhow::{Context as _, ensure};
use sluice_tests::store::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_a_request_has_a_name_in_the_log_and_its_words_have_no_place_there() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("loglevel", "debug"), ("log-format", "json")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut client = store.client().await?;
    let id: u64 = redis::cmd("CLIENT").arg("ID").query_async(&mut client).await?;
    let () = redis::cmd("SET").arg("a-key").arg("a-secret").query_async(&mut client).await?;
    let error = redis::cmd("INCR").arg("a-key").query_async::<i64>(&mut client).await;
    ensure!(error.is_err());
    let log = store.log();
    let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let field = |line: &serde_json::Value, name: &str| line["fields"][name].as_u64();
    let of = |command: &str| {
        let found = lines.iter().find(|line| line["fields"]["command"] == command && field(line, "client") == Some(id));
        found.and_then(|line| field(line, "request")).with_context(|| format!("{command} is not in the log:\n{log}"))
    };
    let (set, incr) = (of("set")?, of("incr")?);
    ensure!(incr == set + 1, "{set} {incr}");
    let failed = lines.iter().find(|line| line["fields"]["error"].is_string() && field(line, "request") == Some(incr));
    ensure!(failed.is_some_and(|line| field(line, "client") == Some(id)), "the error has the name of its request:\n{log}");
    ensure!(!log.contains("a-secret") && !log.contains("a-key"), "what users store is in the log");
    Ok(())
}
