//! Settings: what excludes each other is refused at the start and live; what changes live is in force at once and can be kept.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::ensure;
use redis::AsyncCommands as _;
use sluice_tests::store::{Setup, StoreProcess, environment, wait_for};

async fn config(store: &StoreProcess, words: &[&str]) -> Result<(), redis::RedisError> {
    let mut client = store.client().await.map_err(|error| std::io::Error::other(error.to_string()))?;
    redis::cmd("CONFIG").arg(words).query_async(&mut client).await
}

async fn value(store: &StoreProcess, name: &str) -> anyhow::Result<String> {
    let found: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut store.client().await?).await?;
    ensure!(found.len() == 2 && found[0] == name, "{found:?}");
    Ok(found[1].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_settings_are_refused_by_both_names() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let data = root.path().join("data");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("wal", "no"), ("sync", "always")], "`sync always` and `wal no` do not go together"),
        (&[("rocksdb.enable_pipelined_write", "yes")], "`rocksdb.enable_pipelined_write yes` and `rocksdb.atomic_flush yes`"),
        (
            &[("rocksdb.row_cache_size", "8mb"), ("rocksdb.min_tombstones_for_range_conversion", "8")],
            "`rocksdb.row_cache_size 8388608` and `rocksdb.min_tombstones_for_range_conversion 8`",
        ),
        (&[("memory-budget", "64mb"), ("rocksdb.row_cache_size", "60mb")], "lower the row cache or raise the budget"),
    ];
    for (settings, expected) in cases {
        let output = Setup::new(&data, settings)?.command()?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(expected), "{said}");
    }
    ensure!(!data.exists(), "a refusal changes nothing");

    let store =
        Setup::new(&data, &[("wal", "no"), ("rocksdb.row_cache_size", "8mb"), ("memory-budget", "128mb")])?.start().await?;
    let refusals: [(&[&str], &str); 4] = [
        (&["SET", "sync", "always"], "`sync always` and `wal no` do not go together"),
        (&["SET", "maxclients", "77", "rocksdb.row_cache_size", "120mb"], "lower the row cache or raise the budget"),
        (&["SET", "maxclients", "77", "port", "1"], "can't set immutable config"),
        (&["SET", "maxclients", "77", "timeout"], "wrong number of arguments"),
    ];
    for (words, expected) in refusals {
        let said = config(&store, words).await.expect_err("it has to be refused").to_string();
        ensure!(said.contains(expected), "{words:?}: {said}");
    }
    ensure!(value(&store, "maxclients").await? == "10000", "a refusal changes nothing");
    ensure!(value(&store, "sync").await? == "everysec");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_changed_live_are_in_force_at_once() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("memory-budget", "128mb"), ("rocksdb.row_cache_size", "16mb"), ("loglevel", "warn")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut client = store.client().await?;
    config(&store, &["SET", "memory-budget", "256mb", "rocksdb.row_cache_size", "32mb", "sync", "no"]).await?;
    ensure!(value(&store, "memory-budget").await? == (256u64 << 20).to_string() && value(&store, "sync").await? == "no");
    ensure!(store.info("sync").await? == "no");
    ensure!(store.info("row_cache_capacity").await? == (32u64 << 20).to_string());
    // What the row cache and the record cache (record-cache-percent 10) leave of it.
    let left = (224u64 << 20) - (256u64 << 20) / 100 * 10;
    ensure!(store.info("block_cache_capacity").await? == left.to_string());
    ensure!(store.info("memory_budget").await? == (256u64 << 20).to_string());

    // The log's level.
    ensure!(!store.log().contains("flush round completed"), "{}", store.log());
    config(&store, &["SET", "loglevel", "info"]).await?;
    redis::cmd("FLUSHMEMTABLE").query_async::<()>(&mut client).await?;
    ensure!(store.log().contains("flush round completed"), "{}", store.log());

    // The low-water mark of the disk, for who has to go on with little room.
    config(&store, &["SET", "disk-free-min", "1000000gb"]).await?;
    wait_for("the disk to be too small", || async { Ok(store.info("storage_fault").await? == "low_space") }).await?;
    let refused = client.set::<_, _, ()>("a", 1).await;
    ensure!(refused.is_err_and(|error| error.code() == Some("MISCONF")));
    config(&store, &["SET", "disk-free-min", "0"]).await?;
    wait_for("writes to be taken", || async { Ok(store.client().await?.set::<_, _, ()>("a", 1).await.is_ok()) }).await?;

    // Counting anew.
    config(&store, &["RESETSTAT"]).await?;
    ensure!(store.info("total_error_replies").await? == "0");
    ensure!(store.info("total_commands_processed").await?.parse::<u64>()? < 10);

    // Places for clients: those who are there stay.
    config(&store, &["SET", "maxclients", "1"]).await?;
    let mut second = std::net::TcpStream::connect(store.address())?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut second, &mut said)?;
    ensure!(said.contains("max number of clients reached"), "{said}");
    let still: u64 = client.get("a").await?;
    ensure!(still == 1);
    Ok(())
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_live_is_written_into_the_file_when_asked() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let file = root.path().join("sluice.conf");
    fs::write(&file, "# kept\nmaxclients 50\nloglevel warn\n")?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let start = || -> anyhow::Result<Killed> {
        let command = setup.command()?;
        // First, or it would be a word of the option before it.
        let mut command_with_file = Command::new(command.get_program());
        command_with_file.arg("-c").arg(&file).args(command.get_args()).env_clear().envs(environment());
        Ok(Killed(command_with_file.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?))
    };
    let client = || async {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", setup.port))?;
        anyhow::Ok(client.get_multiplexed_async_connection().await?)
    };
    let running = start()?;
    wait_for("the store to serve", || async {
        Ok(redis::cmd("PING").query_async::<String>(&mut client().await?).await? == "PONG")
    })
    .await?;
    let mut connection = client().await?;
    redis::cmd("CONFIG").arg(&["SET", "maxclients", "60", "sync", "no"]).query_async::<()>(&mut connection).await?;
    redis::cmd("CONFIG").arg("REWRITE").query_async::<()>(&mut connection).await?;
    ensure!(fs::read_to_string(&file)? == "# kept\nmaxclients 60\nloglevel warn\nsync no\n", "{}", fs::read_to_string(&file)?);
    drop(running);

    let running = start()?;
    wait_for("the store to serve again", || async {
        let found: Vec<String> = redis::cmd("CONFIG").arg(&["GET", "maxclients"]).query_async(&mut client().await?).await?;
        Ok(found == ["maxclients", "60"])
    })
    .await?;
    drop(running);

    // Without a file there is nothing to write.
    let store = Setup::new(root.path().join("other"), &[])?.start().await?;
    let said = config(&store, &["REWRITE"]).await.expect_err("there is no file").to_string();
    ensure!(said.contains("running without a config file"), "{said}");
    Ok(())
}
