//! KPROFILE and /debug/pprof.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use sluice_tests::{
    repository,
    store::{ADMIN_PASSWORD, Setup, StoreProcess, Volume, wait_for},
};
use sluice_topology::admin::Reply;

async fn kprofile(store: &StoreProcess, words: &[&str]) -> Result<Reply, String> {
    store.ask_admin(&[&["KPROFILE", "MEMORY"], words].concat()).await
}

fn simple(text: &str) -> Result<Reply, String> {
    Ok(Reply::Simple(text.into()))
}

async fn refused(store: &StoreProcess, words: &[&str], expected: &str) -> anyhow::Result<()> {
    let answer = kprofile(store, words).await;
    ensure!(answer.as_ref().is_err_and(|text| text.contains(expected)), "{words:?}: {answer:?}");
    Ok(())
}

fn dumps(directory: &Path) -> anyhow::Result<usize> {
    let paths: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    ensure!(paths.iter().all(|path| path.extension().is_some_and(|ending| ending == "heap")), "{paths:?}");
    Ok(paths.len())
}

/// Writes that many MiB of values, a connection.
async fn load(store: &StoreProcess, mebibytes: usize) -> anyhow::Result<()> {
    let (mut client, value) = (store.client().await?, "v".repeat(32 << 10));
    for first in (0..mebibytes * 32).step_by(64) {
        let mut pipe = redis::pipe();
        for number in first..first + 64 {
            pipe.set(format!("key:{number}"), &value).ignore();
        }
        let () = pipe.query_async(&mut client).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kprofile_answers_as_kvrocks_where_it_succeeds_and_says_why_where_it_does_not() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let directory = root.path().join("profiles");
    fs::create_dir(&directory)?;
    let path = directory.to_string_lossy().into_owned();
    let store = Setup::new(root.path().join("data"), &[("disk-free-min", "1mb")])?.start().await?;

    ensure!(kprofile(&store, &["STATUS"]).await == simple("disabled"));
    refused(&store, &["DUMP", &path], "jemalloc profiling is not active, please enable it first").await?;
    refused(&store, &["PPROF"], "not active").await?;
    ensure!(dumps(&directory)? == 0, "a refusal writes nothing");
    for _ in 0..2 {
        ensure!(kprofile(&store, &["ENABLE"]).await == simple("OK"));
        ensure!(kprofile(&store, &["status"]).await == simple("enabled"));
    }
    ensure!(kprofile(&store, &["DUMP", &path]).await == simple("OK"));
    ensure!(dumps(&directory)? == 1);

    let missing = root.path().join("missing").to_string_lossy().into_owned();
    refused(&store, &["DUMP", &missing], &format!("\"{missing}\" is not a directory")).await?;
    let file = root.path().join("data.log").to_string_lossy().into_owned();
    refused(&store, &["DUMP", &file], &format!("\"{file}\" is not a directory")).await?;
    let volume = Volume::memory(root.path().join("volume"), "2m")?;
    let inside = volume.path().to_string_lossy().into_owned();
    fs::write(volume.path().join("filler"), vec![0; 1 << 20])?;
    refused(&store, &["DUMP", &inside], "would leave less than the 1048576 that disk-free-min keeps").await?;
    volume.remount("ro,size=64m")?;
    refused(&store, &["DUMP", &inside], "cannot be written: Read-only file system").await?;

    let mut admin = store.admin().await?;
    let limit = ["CONFIG", "SET", "profile-size-max", "100"].map(str::as_bytes);
    ensure!(admin.call(&limit).await? == Reply::Simple("OK".into()));
    refused(&store, &["DUMP", &path], "profile-size-max allows 100").await?;
    ensure!(dumps(&directory)? == 1);

    refused(&store, &[], "wrong number of arguments").await?;
    refused(&store, &["DUMP"], "wrong number of arguments").await?;
    refused(&store, &["STATUS", "now"], "wrong number of arguments").await?;
    refused(&store, &["START"], "must be one of ENABLE, DISABLE, STATUS, DUMP").await?;
    let other = store.ask_admin(&["KPROFILE", "CPU"]).await;
    ensure!(other == Err("ERR only supports MEMORY subcommand".into()), "{other:?}");
    for _ in 0..2 {
        ensure!(kprofile(&store, &["DISABLE"]).await == simple("OK"));
        ensure!(kprofile(&store, &["STATUS"]).await == simple("disabled"));
    }
    // It is the administration's: clients have no say in it.
    let answer = redis::cmd("KPROFILE").arg("MEMORY").arg("ENABLE").query_async::<String>(&mut store.client().await?).await;
    ensure!(format!("{answer:?}").contains("admin-port"), "{answer:?}");
    ensure!(kprofile(&store, &["STATUS"]).await == simple("disabled"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_profiling_says_so_and_serves() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut setup = Setup::new(root.path().join("data"), &[])?;
    setup.wrapper = vec!["env".into(), "MALLOC_CONF=prof:false".into()];
    let store = setup.start().await?;
    ensure!(kprofile(&store, &["STATUS"]).await == simple("disabled"));
    for words in [&["ENABLE"][..], &["RESET"], &["PPROF"], &["DUMP", "/"]] {
        refused(&store, words, "jemalloc profiling isn't enabled: MALLOC_CONF says prof:false").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_once_get_whole_dumps_and_the_store_goes_on() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let directory = root.path().join("profiles");
    fs::create_dir(&directory)?;
    let path = directory.to_string_lossy().into_owned();
    let store = Setup::new(root.path().join("data"), &[("profiles-kept", "3"), ("disk-free-min", "1mb")])?.start().await?;
    let callers = (0..24).map(|number| {
        let (store, path) = (&store, &path);
        async move {
            for round in 0..4 {
                let words: &[&str] = match (number + round) % 4 {
                    0 => &["ENABLE"],
                    1 => &["DUMP", path],
                    2 => &["RESET"],
                    _ => &["DISABLE"],
                };
                let answer = kprofile(store, words).await;
                let inactive = answer.as_ref().is_err_and(|text| text.contains("not active")) && words[0] == "DUMP";
                ensure!(answer == simple("OK") || inactive, "{words:?}: {answer:?}");
            }
            anyhow::Ok(())
        }
    });
    let (_, ()) = tokio::try_join!(try_join_all(callers), load(&store, 8))?;
    ensure!(kprofile(&store, &["ENABLE"]).await == simple("OK"));
    for _ in 0..4 {
        ensure!(kprofile(&store, &["DUMP", &path]).await == simple("OK"));
    }
    ensure!(dumps(&directory)? == 3, "the newest three stay");
    for entry in fs::read_dir(&directory)? {
        let text = fs::read_to_string(entry?.path())?;
        ensure!(text.starts_with("heap_v2/1048576\n") && text.contains("\nMAPPED_LIBRARIES:\n"), "a dump is whole");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_rocksdb_is_in_the_profile_by_name() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    // Memtables large enough to hold all of it.
    let settings = [("memory-budget", "512mb"), ("rocksdb.write_buffer_size", "128mb")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    ensure!(kprofile(&store, &["ENABLE"]).await == simple("OK"));
    load(&store, 48).await?;
    let Ok(Reply::Bulk(zipped)) = kprofile(&store, &["PPROF"]).await else { anyhow::bail!("PPROF gave no bulk") };
    let mut profile = Vec::new();
    flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut profile)?;
    let names = |wanted: &str| profile.windows(wanted.len()).any(|bytes| bytes == wanted.as_bytes());
    for wanted in ["rocksdb::Arena::AllocateNewBlock", "rocksdb::DBImpl::Write", "sluice_store::", "inuse_space", "bytes"] {
        ensure!(names(wanted), "{wanted} is not in the profile");
    }
    let password = format!("Authorization: Bearer {ADMIN_PASSWORD}");
    let svg = store.http("GET", "/debug/pprof/heap?flamegraph", &[&password])?;
    ensure!(svg.status == 200 && svg.head.contains("image/svg+xml"), "{}", svg.head);
    // To be looked at.
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("heap-flamegraph.svg"), &svg.body)?;
    let text = svg.text();
    let block = text.split("<title>").find(|part| part.starts_with("rocksdb::Arena::AllocateNewBlock")).context("no such box")?;
    // 48 MiB of values went into memtables: that many KiB, by sampling, is most of what there is.
    let kib = block.split_once(" (").and_then(|(_, rest)| rest.split_once(" KiB")?.0.parse::<f64>().ok()).context("no size")?;
    ensure!((30_000.0..80_000.0).contains(&kib), "{kib} KiB in memtables");
    // What RESET forgets is no longer shown.
    ensure!(kprofile(&store, &["RESET"]).await == simple("OK"));
    let svg = store.http("GET", "/debug/pprof/heap?flamegraph", &[&password])?;
    ensure!(!svg.text().contains("<title>rocksdb::Arena::AllocateNewBlock"), "RESET left it");
    Ok(())
}

/// What `go tool pprof -top` makes of a profile.
fn pprof(file: &Path) -> anyhow::Result<String> {
    let read = Command::new("go").args(["tool", "pprof", "-top"]).arg(file).output();
    let read = read.context("Go is needed for its pprof: `make setup` says where to get it")?;
    ensure!(read.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&read.stderr));
    Ok(String::from_utf8_lossy(&read.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn pprof_itself_reads_heap_and_cpu_profiles_as_the_documentation_has_them_fetched() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("memory-budget", "512mb")])?.start().await?;
    ensure!(kprofile(&store, &["ENABLE"]).await == simple("OK"));
    load(&store, 16).await?;
    let password = format!("Authorization: Bearer {ADMIN_PASSWORD}");
    let fetched = |path: &str, name: &str| -> anyhow::Result<PathBuf> {
        let answer = store.http("GET", path, &[&password])?;
        ensure!(answer.status == 200, "{path}: {}", answer.head);
        let file = root.path().join(name);
        fs::write(&file, answer.body)?;
        Ok(file)
    };
    // redis-cli ends what it prints with a line's end, which is not of the profile.
    let by_hand = root.path().join("heap.gz");
    let command = "redis-cli -p \"$1\" KPROFILE MEMORY PPROF | head -c -1 >\"$2\"";
    let status = Command::new("sh")
        .args(["-c", command, "sh", &store.setup().admin_port.to_string()])
        .arg(&by_hand)
        .env("REDISCLI_AUTH", ADMIN_PASSWORD)
        .status()?;
    ensure!(status.success());
    for file in [by_hand, fetched("/debug/pprof/heap", "heap.pb.gz")?] {
        let top = pprof(&file)?;
        ensure!(top.contains("Type: inuse_space") && top.contains("rocksdb::DBImpl::Write"), "{}:\n{top}", file.display());
    }
    // Something to see.
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn({
        let (stop, mut client) = (stop.clone(), store.client().await?);
        async move {
            while !stop.load(Ordering::Relaxed) {
                let () = redis::cmd("SET").arg("key").arg("value").query_async(&mut client).await?;
            }
            anyhow::Ok(())
        }
    });
    let cpu = fetched("/debug/pprof/profile?seconds=2", "cpu.pb.gz")?;
    stop.store(true, Ordering::Relaxed);
    busy.await??;
    let top = pprof(&cpu)?;
    ensure!(top.contains("Type: cpu") && top.contains("sluice_store"), "{top}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jeprof_itself_reads_a_dump() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let found = Command::new(repository("scripts/from-debian")).args(["libjemalloc-dev", "usr/bin/jeprof"]).output()?;
    if !found.status.success() {
        eprintln!("jeprof is not here and cannot be fetched: {}", String::from_utf8_lossy(&found.stderr));
        return Ok(());
    }
    let store = Setup::new(root.path().join("data"), &[("memory-budget", "512mb")])?.start().await?;
    ensure!(kprofile(&store, &["ENABLE"]).await == simple("OK"));
    load(&store, 16).await?;
    let directory = root.path().join("profiles");
    fs::create_dir(&directory)?;
    ensure!(kprofile(&store, &["DUMP", &directory.to_string_lossy()]).await == simple("OK"));
    let dump = fs::read_dir(&directory)?.next().context("a dump")??.path();
    let binary = fs::read_link(format!("/proc/{}/exe", store.id()))?;
    let jeprof = String::from_utf8(found.stdout)?;
    let read = Command::new("perl").args([jeprof.trim(), "--text", "--cum"]).args([&binary, &dump]).output()?;
    ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    for wanted in ["rocksdb::DBImpl::Write", "sluice_store::"] {
        ensure!(text.contains(wanted), "{wanted} is not in what jeprof says:\n{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_over_http_are_for_those_who_may_give_admin_commands() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    // `default:between-nodes`, `other:between-nodes`, `default:wrong`
    let basic = "Authorization: Basic ZGVmYXVsdDpiZXR3ZWVuLW5vZGVz";
    let wrong = [
        "Authorization: Basic b3RoZXI6YmV0d2Vlbi1ub2Rlcw==",
        "Authorization: Basic ZGVmYXVsdDp3cm9uZw==",
        "Authorization: Bearer x",
    ];
    let routes = [
        ("GET", "/debug/pprof/heap"),
        ("POST", "/debug/pprof/heap/activate"),
        ("POST", "/debug/pprof/heap/deactivate"),
        ("GET", "/debug/pprof/profile?seconds=1"),
    ];
    for (method, path) in routes {
        for headers in [&[][..], &wrong[..1], &wrong[1..2], &wrong[2..]] {
            let answer = store.http(method, path, headers)?;
            ensure!(
                answer.status == 401 && answer.head.contains("www-authenticate: Basic"),
                "{path} {headers:?}: {}",
                answer.head
            );
        }
    }
    ensure!(kprofile(&store, &["STATUS"]).await == simple("disabled"), "what is refused changes nothing");
    let inactive = store.http("GET", "/debug/pprof/heap", &[basic])?;
    ensure!(inactive.status == 409 && inactive.text().contains("not active"), "{inactive:?}");
    ensure!(store.http("POST", "/debug/pprof/heap/activate", &[basic])?.text() == "enabled\n");
    ensure!(kprofile(&store, &["STATUS"]).await == simple("enabled"));
    let heap = store.http("GET", "/debug/pprof/heap", &[basic])?;
    ensure!(heap.status == 200 && heap.body.starts_with(&[0x1f, 0x8b]), "{}", heap.head);
    let raw = store.http("GET", "/debug/pprof/heap?raw", &[basic])?;
    ensure!(raw.text().starts_with("heap_v2/"), "{}", raw.head);
    ensure!(store.http("POST", "/debug/pprof/heap/deactivate", &[basic])?.text() == "disabled\n");
    ensure!(store.http("GET", "/metrics", &[])?.status == 200, "the rest is as open as it was");

    // Without a password loopback peers may, as with commands.
    let open = Setup::new(root.path().join("open"), &[("admin-password", "")])?.spawn()?;
    wait_for("the store to be ready", || async { Ok(open.http("GET", "/readyz", &[])?.status == 200) }).await?;
    ensure!(open.http("POST", "/debug/pprof/heap/activate", &[])?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cpu_profile_names_what_the_store_is_busy_with() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Arc::new(Setup::new(root.path().join("data"), &[])?.start().await?);
    let password = format!("Authorization: Bearer {ADMIN_PASSWORD}");
    for query in ["seconds=0", "seconds=301", "seconds=x"] {
        let answer = store.http("GET", &format!("/debug/pprof/profile?{query}"), &[&password])?;
        ensure!(answer.status == 400 && answer.text().contains("from 1 to 300"), "{answer:?}");
    }
    let taken = || {
        let (store, password) = (store.clone(), password.clone());
        tokio::task::spawn_blocking(move || store.http("GET", "/debug/pprof/profile?seconds=3&flamegraph", &[&password]))
    };
    let (one, other) = (taken(), taken());
    // The sampler takes a while to begin: busy until there is an answer.
    while !(one.is_finished() && other.is_finished()) {
        load(&store, 8).await?;
    }
    let mut answers = [one.await??, other.await??];
    answers.sort_by_key(|answer| answer.status);
    let [svg, busy] = answers;
    ensure!(svg.status == 200 && busy.status == 409, "one at a time: {} {}", svg.head, busy.head);
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cpu-flamegraph.svg"), &svg.body)?;
    for wanted in ["sluice_store::server::", "rocksdb::"] {
        ensure!(svg.text().contains(wanted), "{wanted} is not in the profile");
    }
    ensure!(kprofile(&store, &["STATUS"]).await == simple("disabled"), "the store goes on");
    Ok(())
}
