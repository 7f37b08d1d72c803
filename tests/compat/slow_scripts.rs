//! Scripts that run for longer than others wait for them: who is told what, as by a real redis-server, and what nobody sees of it.

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, StoreProcess, wait_for},
};

use crate::{family::words, reference::RedisServer};

const LIBRARY: &str = "#!lua name=lib\nredis.register_function('endless', function(keys) while true do end end)";
const ENDLESS: &str = "while true do end";
const WRITES: &str = "redis.call('set', KEYS[1], 1) while true do end";
/// What others ask while a script runs.
const ASKED: [&str; 22] = [
    "PING",
    "GET k",
    "SET k 1",
    "GET",
    "NOSUCH",
    "EVAL redis 0",
    "WATCH other",
    "MULTI",
    "DISCARD",
    "UNWATCH",
    "MULTI",
    "SET k 2",
    "EXEC",
    "EXEC",
    "MULTI",
    "EXEC",
    "SCRIPT EXISTS abc",
    "FUNCTION LIST",
    "CLIENT ID",
    "SHUTDOWN",
    "RESET",
    "SELECT 1",
];

async fn started(settings: &[(&str, &str)]) -> anyhow::Result<(tempfile::TempDir, StoreProcess)> {
    let root = tempfile::tempdir()?;
    let settings: Vec<(&str, &str)> = [("busy-reply-threshold", "20")].into_iter().chain(settings.iter().copied()).collect();
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    Ok((root, store))
}

fn is_busy(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(text) if text.starts_with("BUSY "))
}

async fn ask(connection: &mut Connection, request: &str) -> anyhow::Result<Answer> {
    connection.send(&[words(request)]).await?;
    connection.answer().await
}

async fn until_busy(address: &str) -> anyhow::Result<()> {
    wait_for("a slow script", || async {
        let mut connection = Connection::open(address).await?;
        Ok(is_busy(&connection.ask(&["PING"]).await?))
    })
    .await
}

/// What a server says to others while one client's script runs, then to that client, then that it is over.
async fn talk(address: &str, requests: &[Vec<String>], kills: &[&str]) -> anyhow::Result<Vec<Answer>> {
    let (mut runs, mut other) = (Connection::open(address).await?, Connection::open(address).await?);
    let mut told = vec![other.ask(&["CONFIG", "SET", "lua-time-limit", "20"]).await?];
    told.push(other.ask(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]).await?);
    told.push(other.ask(&["DEL", "k", "queued"]).await?);
    runs.send(requests).await?;
    until_busy(address).await?;
    for asked in ASKED {
        told.push(ask(&mut other, asked).await?);
    }
    // How long it has run differs.
    told.extend(other.ask(&["FUNCTION", "STATS"]).await?.elements().get(1).map(|running| match running {
        Answer::Array(fields) => Answer::Array(fields.iter().take(fields.len() - 1).cloned().collect()),
        other => other.clone(),
    }));
    for kill in kills {
        told.push(ask(&mut other, kill).await?);
    }
    for _ in requests {
        told.push(runs.answer().await?);
    }
    for asked in ["GET k", "GET queued", "SCRIPT KILL", "FUNCTION KILL"] {
        told.push(ask(&mut runs, asked).await?);
    }
    Ok(told)
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_told_of_a_slow_script_in_redis_words() -> anyhow::Result<()> {
    let request = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let eval = vec![request(&["EVAL", ENDLESS, "1", "k"])];
    let function = vec![request(&["FCALL", "endless", "1", "k"])];
    // What came before it in the same pipeline has its answer, and what comes behind it is executed.
    let pipeline = vec![request(&["SET", "k", "before"]), eval[0].clone(), request(&["APPEND", "k", "+"])];
    let transaction = vec![
        request(&["MULTI"]),
        request(&["SET", "queued", "1"]),
        eval[0].clone(),
        request(&["APPEND", "queued", "2"]),
        request(&["EXEC"]),
    ];
    for threads in ["1", "3"] {
        let (redis, (_root, store)) = (RedisServer::start()?, started(&[("io-threads", threads)]).await?);
        redis.client().await?;
        for (requests, kills) in [
            (&eval, &["FUNCTION KILL", "SCRIPT KILL"][..]),
            (&function, &["SCRIPT KILL", "FUNCTION KILL"]),
            (&pipeline, &["SCRIPT KILL"]),
            (&transaction, &["SCRIPT KILL"]),
        ] {
            let expected = talk(&redis.address(), requests, kills).await.context("redis")?;
            let found = talk(&store.address(), requests, kills).await.context("sluice")?;
            ensure!(expected == found, "{requests:?}\n redis: {expected:?}\nsluice: {found:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_has_written_is_ended_on_the_admin_port_alone_and_leaves_nothing() -> anyhow::Result<()> {
    for threads in ["1", "3"] {
        let (_root, store) = started(&[("io-threads", threads)]).await?;
        let (mut runs, mut other) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
        runs.send(&[["EVAL", WRITES, "1", "k"].map(String::from).to_vec()]).await?;
        until_busy(&store.address()).await?;
        let refused = other.ask(&["SCRIPT", "KILL"]).await?;
        ensure!(matches!(&refused, Answer::Error(text) if text.starts_with("UNKILLABLE ")), "{refused:?}");
        // WATCH is served while a script runs, as in Redis, but for its keys: which it has once it has begun anew.
        wait_for("a script that has its key", || async {
            Ok(is_busy(&Connection::open(&store.address()).await?.ask(&["WATCH", "k"]).await?))
        })
        .await?;
        // Nobody waits for its keys either, whatever their command.
        for asked in ["GET k", "SET k 2", "WATCH k", "BLPOP k 0", "XREAD BLOCK 0 STREAMS k $"] {
            ensure!(is_busy(&ask(&mut other, asked).await?), "{asked}");
        }
        let ended = store.ask_admin(&["SCRIPT", "KILL"]).await;
        ensure!(ended.is_ok(), "{ended:?}");
        let answer = runs.answer().await?;
        ensure!(matches!(&answer, Answer::Error(text) if text.contains("killed by user")), "{answer:?}");
        ensure!(other.ask(&["EXISTS", "k"]).await? == Answer::Integer(0));
        ensure!(other.ask(&["SET", "k", "2"]).await? == Answer::Simple("OK".into()));
    }
    Ok(())
}

/// Whoever was told BUSY changed nothing, and nothing was changed between two looks of a slow script.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_script_is_alone_from_its_first_command_to_its_last() -> anyhow::Result<()> {
    const LOOKS: &str = "local first = redis.call('get', 'counted') or '0' redis.call('incr', 'runs') \
                         local till = os.clock() + 0.3 while os.clock() < till do end \
                         redis.call('rpush', 'list', 'pushed') return {first, redis.call('get', 'counted') or '0'}";
    for (threads, sync) in [("1", "everysec"), ("1", "always"), ("3", "always")] {
        let (_root, store) = started(&[("io-threads", threads), ("sync", sync)]).await?;
        let mut waits = Connection::open(&store.address()).await?;
        waits.send(&[words("BLPOP list 0")]).await?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut counting = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (address, stopped) = (store.address(), stopped.clone());
            counting.spawn(async move {
                let (mut connection, mut counted, mut refused) = (Connection::open(&address).await?, 0, 0);
                while !*stopped.borrow() {
                    match connection.ask(&["INCR", "counted"]).await? {
                        Answer::Integer(_) => counted += 1,
                        answer if is_busy(&answer) => refused += 1,
                        other => anyhow::bail!("{other:?}"),
                    }
                }
                anyhow::Ok((counted, refused))
            });
        }
        let mut runs = Connection::open(&store.address()).await?;
        for _ in 0..3 {
            let seen = runs.ask(&["EVAL", LOOKS, "0"]).await?;
            let [first, last] = seen.elements() else { anyhow::bail!("{seen:?}") };
            ensure!(first == last, "{threads} threads: {first:?} at its beginning, {last:?} at its end");
        }
        stop.send(true)?;
        let (mut counted, mut refused) = (0, 0);
        while let Some(client) = counting.join_next().await {
            let (more, busy) = client??;
            counted += more;
            refused += busy;
        }
        ensure!(refused > 0, "nobody was told of the script");
        let found = runs.ask(&["MGET", "counted", "runs"]).await?;
        let expected = [counted.to_string(), "3".into()].map(|text: String| Answer::Bulk(Some(text.into_bytes())));
        ensure!(found.elements() == expected, "{found:?}: {counted} were acknowledged");
        // Who waited for a key was not told, but served.
        let served = waits.answer().await?;
        ensure!(served.elements().get(1).and_then(Answer::text) == Some("pushed"), "{served:?}");
        ensure!(runs.ask(&["LLEN", "list"]).await? == Answer::Integer(2));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_slow_scripts_the_later_is_told_of_the_other() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "3")]).await?;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..3 {
        let address = store.address();
        running.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            connection.ask(&["EVAL", WRITES, "1", &format!("k{number}")]).await
        });
    }
    for _ in 0..2 {
        let answer = running.join_next().await.context("three run")???;
        ensure!(is_busy(&answer), "{answer:?}");
    }
    let ended = store.ask_admin(&["SCRIPT", "KILL"]).await;
    ensure!(ended.is_ok(), "{ended:?}");
    let answer = running.join_next().await.context("one is left")???;
    ensure!(matches!(&answer, Answer::Error(text) if text.contains("killed by user")), "{answer:?}");
    let mut connection = Connection::open(&store.address()).await?;
    ensure!(connection.ask(&["DBSIZE"]).await? == Answer::Integer(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_cannot_be_one_batch_ends_its_slow_scripts() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "1")]).await?;
    let mut connection = Connection::open(&store.address()).await?;
    for queued in [&["MULTI"][..], &["FLUSHALL"], &["EVAL", WRITES, "1", "k"], &["SET", "after", "1"]] {
        connection.ask(queued).await?;
    }
    let answer = connection.ask(&["EXEC"]).await?;
    let refused = |answer: &Answer| matches!(answer, Answer::Error(text) if text.contains("busy-reply-threshold"));
    ensure!(answer.elements().get(1).is_some_and(refused), "{answer:?}");
    ensure!(connection.ask(&["EXISTS", "k", "after"]).await? == Answer::Integer(1));
    Ok(())
}

/// A process that is told to end does not wait for a script, and nothing of it is there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_process_ends_a_slow_script() -> anyhow::Result<()> {
    for ask in [false, true] {
        let (_root, store) = started(&[("script-time-limit", "3600000")]).await?;
        let (mut runs, mut other) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
        runs.send(&[["EVAL", WRITES, "1", "k"].map(String::from).to_vec()]).await?;
        until_busy(&store.address()).await?;
        let setup = store.setup().clone();
        let status = if ask {
            ensure!(is_busy(&other.ask(&["SHUTDOWN"]).await?));
            other.send(&[words("SHUTDOWN NOSAVE")]).await?;
            store.ended().await?
        } else {
            store.terminate().await?
        };
        ensure!(status.success(), "{status}: {}", store.log());
        let store = setup.start().await?;
        let mut connection = Connection::open(&store.address()).await?;
        ensure!(connection.ask(&["EXISTS", "k"]).await? == Answer::Integer(0));
        ensure!(store.admin().await?.status().await?.persistence.clean_shutdown, "{}", store.log());
    }
    Ok(())
}
