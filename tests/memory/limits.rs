//! The limit: caches, memtables, writers, writes, in that order, and back again; no kill by the system.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use sluice_tests::store::{Setup, StoreProcess, wait_for};

/// A memory-limited control group, of either version. Removed when dropped.
struct Group(PathBuf);

impl Group {
    /// `None`: this machine, or who runs the test, does not allow one.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("sluice-test-{}", std::process::id());
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(|(root, limit)| {
            let group = Self(Path::new(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            // No way out of it by swapping, where there is swap.
            let _ = fs::write(group.0.join("memory.swappiness"), "0");
            let _ = fs::write(group.0.join("memory.swap.max"), "0");
            Some(group)
        })
    }

    /// What starts a process in it.
    fn wrapper(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Sends all of a long request but its end, and waits for nothing.
fn hold_a_request(store: &StoreProcess, bytes: usize) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(store.address())?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nheld\r\n${bytes}\r\n");
    // Who is ended meanwhile cannot send all of it.
    let chunk = vec![b'x'; 256 << 10];
    let mut sent = stream.write(head.as_bytes()).map_or(0, |_| 0);
    while sent + chunk.len() < bytes && stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
    }
    Ok(stream)
}

/// Writes keys until so many bytes were sent; returns those that were acknowledged, and how many were refused for want of memory.
async fn write(store: &StoreProcess, writer: usize, bytes: usize) -> anyhow::Result<(Vec<String>, usize)> {
    let (mut client, value) = (store.client().await?, "v".repeat(64 << 10));
    let (mut kept, mut refused) = (Vec::new(), 0);
    for number in 0..bytes / value.len() {
        let key = format!("key:{writer}:{number}");
        match redis::cmd("SET").arg(&key).arg(&value).query_async::<()>(&mut client).await {
            Ok(()) => kept.push(key),
            Err(error) if error.code() == Some("OOM") => refused += 1,
            // Whoever holds most is ended: a writer may be among them.
            Err(error) if error.is_connection_dropped() || error.is_io_error() => client = store.client().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((kept, refused))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_load_that_wants_three_times_the_containers_memory_does_not_kill_the_store() -> anyhow::Result<()> {
    const LIMIT: usize = 256 << 20;
    let root = tempfile::tempdir()?;
    let mut setup = Setup::new(root.path().join("data"), &[("disk-free-min", "1mb"), ("reserve-file-size", "0")])?;
    let group = Group::new(LIMIT as u64);
    match &group {
        Some(group) => setup.wrapper = group.wrapper(),
        None => {
            eprintln!(
                "no control group can be made here: the limit is a setting, and what the process held at most is compared with it"
            );
            setup.settings.push(("maxmemory".into(), LIMIT.to_string()));
        }
    }
    let store = std::sync::Arc::new(setup.start().await?);
    ensure!(store.info("maxmemory").await? == LIMIT.to_string(), "the limit is not found: {}", store.info("maxmemory").await?);
    // Requests that never end hold as much as the limit twice over, and writes bring as much again.
    let held = (0..32).map(|_| {
        let store = store.clone();
        tokio::task::spawn_blocking(move || hold_a_request(&store, LIMIT / 16))
    });
    let held: Vec<_> = held.collect();
    let writers = futures::future::try_join_all((0..4).map(|writer| write(&store, writer, LIMIT / 4))).await?;
    let mut open = Vec::new();
    for stream in held {
        open.push(stream.await??);
    }
    let peak: usize = store.info("used_memory_anonymous_peak").await?.parse()?;
    ensure!(peak < LIMIT, "{peak} bytes were held, {LIMIT} are allowed");
    ensure!(store.info("memory_pressure").await.is_ok(), "it is alive:\n{}", store.log());
    ensure!(open.len() == 32, "nobody was turned away at the door");
    // Some of them were ended: they could not all be held.
    let ended = open.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
        let mut byte = [0];
        matches!(stream.read(&mut byte), Ok(0)).then_some(())
    });
    let ended = ended.count();
    ensure!(ended > 0 || store.log().contains("a client was ended"), "nobody was ended:\n{}", store.log());
    // It recovers by itself, and everything that was acknowledged is there.
    drop(open);
    wait_for("the pressure to be over", || async { Ok(store.info("memory_pressure").await? == "none") }).await?;
    let mut client = store.client().await?;
    let () = redis::cmd("SET").arg("after").arg("all").query_async(&mut client).await?;
    let mut kept = 0;
    for (keys, _) in &writers {
        for key in keys {
            let length: usize = redis::cmd("STRLEN").arg(key).query_async(&mut client).await?;
            ensure!(length == 64 << 10, "{key} was acknowledged and has {length} bytes");
            kept += 1;
        }
    }
    ensure!(kept > 0, "nothing was written");
    drop(store);
    drop(group);
    Ok(())
}

async fn set(store: &StoreProcess, name: &str, value: &str) -> anyhow::Result<()> {
    Ok(redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(&mut store.client().await?).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_last_mark_writes_are_refused_as_redis_does_and_taken_again_below_it() -> anyhow::Result<()> {
    const OOM: &str = "command not allowed when used memory > 'maxmemory'.";
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("memory-budget", "64mb"), ("maxmemory", "40gb")])?.start().await?;
    let mut client = store.client().await?;
    let () = redis::cmd("MSET").arg(&["kept", "1", "gone", "2", "list", "3"]).query_async(&mut client).await?;
    let caches = store.info("block_cache_capacity").await?;
    ensure!(store.info("memory_pressure").await? == "none");
    // What it holds is more than these percents, whatever it is.
    set(&store, "maxmemory-watermarks", "1 2 3 4").await?;
    set(&store, "maxmemory", "100mb").await?;
    wait_for("writes to be refused", || async { Ok(store.info("memory_pressure").await? == "refuse_writes") }).await?;
    let refused = |words: &'static [&'static str]| {
        let mut client = client.clone();
        async move {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            let answer = command.query_async::<redis::Value>(&mut client).await;
            ensure!(answer.as_ref().is_err_and(|error| error.to_string().contains(OOM)), "{words:?}: {answer:?}");
            anyhow::Ok(())
        }
    };
    for words in [
        &["SET", "new", "x"][..],
        &["APPEND", "kept", "x"],
        &["LPUSH", "new", "x"],
        &["EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "new"],
    ] {
        refused(words).await?;
    }
    let aborted = redis::pipe().atomic().cmd("SET").arg("new").arg("x").query_async::<redis::Value>(&mut client).await;
    ensure!(format!("{aborted:?}").contains("Transaction aborted"), "{aborted:?}");
    // Reads go on, and what gives space back.
    let value: String = redis::cmd("GET").arg("kept").query_async(&mut client).await?;
    let deleted: i64 = redis::cmd("DEL").arg("gone").query_async(&mut client).await?;
    ensure!(value == "1" && deleted == 1);
    let there: i64 = redis::cmd("EXISTS").arg("new").query_async(&mut client).await?;
    ensure!(there == 0, "what is refused changes nothing");
    ensure!(store.info("memory_refused_writes_total").await?.parse::<u64>()? >= 5);
    wait_for("caches to be smaller", || async {
        Ok(store.info("block_cache_capacity").await?.parse::<u64>()? < caches.parse::<u64>()? / 2)
    })
    .await?;
    let doctor: String = redis::cmd("MEMORY").arg("DOCTOR").query_async(&mut client).await?;
    ensure!(doctor.contains("refuse_writes") && doctor.contains("writes were refused"), "{doctor}");

    set(&store, "maxmemory", "40gb").await?;
    wait_for("writes to be taken", || async { Ok(store.info("memory_pressure").await? == "none") }).await?;
    let () = redis::cmd("SET").arg("new").arg("x").query_async(&mut client).await?;
    wait_for("caches to be as large as before", || async { Ok(store.info("block_cache_capacity").await? == caches) }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_cannot_hold_are_refused_by_name() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("memory-budget", "256mb")])?.start().await?;
    for (name, value, expected) in [
        ("maxmemory", "256mb", "`memory-budget 268435456` and `maxmemory 268435456` do not go together"),
        ("maxmemory-watermarks", "70 60 80 90", "it has to be four percents"),
        ("maxmemory-watermarks", "70 80 90", "it has to be four percents"),
        ("maxmemory-watermarks", "70 80 90 101", "it has to be four percents"),
        ("profile-watermark-percent", "101", "profile-watermark-percent is over 100"),
    ] {
        let error = set(&store, name, value).await.err().with_context(|| format!("{name} {value} was taken"))?.to_string();
        ensure!(error.contains(expected), "{error}");
    }
    ensure!(store.info("memory_pressure").await? == "none", "a refusal changes nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_written_once_a_crossing_of_the_watermark() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings =
        [("memory-budget", "64mb"), ("maxmemory", "100mb"), ("profile-watermark-percent", "3"), ("disk-free-min", "1mb")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let written = || async {
        let entries = fs::read_dir(root.path().join("data/profiles")).into_iter().flatten().flatten();
        // One that is being written has another ending.
        anyhow::Ok(entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "heap")).count())
    };
    ensure!(store.info("heap_profiling").await? == "enabled", "a profile needs what was allocated on the way");
    wait_for("the first profile", || async { Ok(written().await? == 1) }).await?;
    let text = fs::read_dir(root.path().join("data/profiles"))?.next().context("a profile")??.path();
    ensure!(fs::read_to_string(text)?.starts_with("heap_v2/"));
    // Below it, past it again: one more, and not one a look.
    set(&store, "maxmemory", "40gb").await?;
    let looked = store.info("memory_pressure").await?;
    ensure!(looked == "none" || looked == "shrink_caches", "{looked}");
    wait_for("it to be below the watermark", || async {
        Ok(store.metrics()?.contains("sluice_memory_past_profile_watermark 0\n"))
    })
    .await?;
    set(&store, "maxmemory", "100mb").await?;
    wait_for("the second profile", || async { Ok(written().await? == 2) }).await?;
    ensure!(store.metrics()?.contains("sluice_memory_watermark_profiles_total 2\n"), "as the metric says");
    Ok(())
}
