//! CLIENT, and what one connection does to another.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::Setup,
};

use crate::{family::words, reference::RedisServer};

fn text_of(answer: &Answer) -> String {
    match answer {
        Answer::Verbatim(text) => text.clone(),
        other => other.text().unwrap_or_default().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_connections_are_those_of_redis() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let texts = [
        "CLIENT GETNAME",
        "CLIENT SETNAME one",
        "CLIENT GETNAME",
        "CLIENT LIST TYPE what",
        "CLIENT LIST ID",
        "CLIENT LIST ID x",
        "CLIENT LIST what",
        "CLIENT KILL",
        "CLIENT KILL ID",
        "CLIENT KILL ID x",
        "CLIENT KILL TYPE x",
        "CLIENT KILL USER x",
        "CLIENT KILL SKIPME x",
        "CLIENT KILL ID 0",
        "CLIENT KILL 1.2.3.4:5",
        "CLIENT KILL ID 99999999",
        "CLIENT KILL TYPE master",
        "CLIENT NO-EVICT x",
        "CLIENT NO-EVICT on",
        "CLIENT NO-EVICT OFF",
        "CLIENT PAUSE x",
        "CLIENT PAUSE -1",
        "CLIENT PAUSE 1 what",
        "CLIENT UNPAUSE",
        "CLIENT UNPAUSE x",
        "CLIENT REPLY what",
        "CLIENT REPLY ON",
        "CLIENT UNBLOCK x",
        "CLIENT UNBLOCK 12345",
        "CLIENT UNBLOCK 1 what",
        "CLIENT GETREDIR",
        "CLIENT TRACKINGINFO",
        "CLIENT CACHING yes",
        "CLIENT WHAT",
        "CLIENT",
        "CLIENT ID x",
        "CLIENT SETNAME",
        "HELLO 4",
        "HELLO x",
        "HELLO 3 WHAT",
        "HELLO 3 SETNAME",
        "HELLO 3 AUTH a",
        "AUTH a",
        "AUTH a b",
        "AUTH a b c",
        "AUTH",
        "PING a b",
        "ECHO",
        "ECHO a b",
        "SELECT x",
        "SELECT 99",
        "SELECT -1",
        "QUIT x y",
    ];
    for version in ["2", "3"] {
        for text in texts {
            let mut answers = Vec::new();
            for address in [redis.address(), store.address()] {
                let mut connection = Connection::open(&address).await?;
                connection.ask(&["HELLO", version]).await?;
                answers.push(connection.ask_all(&[words(text)]).await?);
            }
            ensure!(answers[0] == answers[1], "{text}, RESP{version}\n redis: {:?}\nsluice: {:?}", answers[0], answers[1]);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_listed_named_and_ended() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let (mut one, mut other) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    one.ask_all(&["CLIENT SETNAME victim", "SELECT 3", "CLIENT SETINFO LIB-NAME lib", "MULTI", "GET a"].map(words)).await?;
    let list = text_of(&other.ask(&["CLIENT", "LIST"]).await?);
    let line = list.lines().find(|line| line.contains("name=victim")).context("it is not listed")?;
    for field in [" db=3 ", " multi=1 ", " flags=x ", " cmd=multi ", " lib-name=lib ", " resp=2 ", " addr=127.0.0.1:"] {
        ensure!(line.contains(field), "{field:?} is not in {line}");
    }
    ensure!(list.lines().count() == 2, "{list}");
    let id = line.strip_prefix("id=").and_then(|rest| rest.split(' ').next()).context("an id")?;
    ensure!(other.ask(&["CLIENT", "KILL", "ID", id]).await? == Answer::Integer(1));
    ensure!(one.ask(&["PING"]).await.is_err(), "it is still connected");
    ensure!(text_of(&other.ask(&["CLIENT", "LIST"]).await?).lines().count() == 1);
    // Itself: with a reply, and then the end.
    ensure!(other.ask(&["CLIENT", "KILL", "SKIPME", "no"]).await? == Answer::Integer(1));
    ensure!(other.ask(&["PING"]).await.is_err(), "it is still connected");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_commands_back_and_loses_none() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let (mut one, mut other) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    other.ask(&["CLIENT", "PAUSE", "100000", "WRITE"]).await?;
    ensure!(one.ask(&["GET", "k"]).await? == Answer::Bulk(None), "reads go on");
    one.send(&["SET k 1", "GET k", "PUBLISH c x"].map(words)).await?;
    let early = tokio::time::timeout(Duration::from_millis(200), one.answer()).await;
    ensure!(early.is_err(), "{early:?}");
    ensure!(other.ask(&["GET", "k"]).await? == Answer::Bulk(None));
    other.ask(&["CLIENT", "UNPAUSE"]).await?;
    let answers = [one.answer().await?, one.answer().await?, one.answer().await?];
    ensure!(answers == [Answer::Simple("OK".into()), Answer::Bulk(Some(b"1".to_vec())), Answer::Integer(0)], "{answers:?}");
    let begun = Instant::now();
    other.ask(&["CLIENT", "PAUSE", "300"]).await?;
    ensure!(one.ask(&["GET", "k"]).await?.text() == Some("1"));
    ensure!(begun.elapsed() >= Duration::from_millis(250), "it did not wait");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_not_wanted_are_not_sent() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (redis, store) = (RedisServer::start()?, Setup::new(root.path().join("data"), &[])?.start().await?);
    redis.client().await?;
    let commands = [
        "SET a 1",
        "CLIENT REPLY SKIP",
        "INCR a",
        "INCR a",
        "CLIENT REPLY OFF",
        "INCR a",
        "NOSUCH",
        "DBSIZE",
        "CLIENT REPLY SKIP",
        "INCR a",
        "CLIENT REPLY ON",
        "GET a",
        "CLIENT REPLY SKIP",
        "DBSIZE",
        "PING end",
    ];
    let mut answered = Vec::new();
    for address in [redis.address(), store.address()] {
        let mut connection = Connection::open(&address).await?;
        connection.send(&commands.map(words)).await?;
        let mut answers = Vec::new();
        while answers.last().and_then(Answer::text) != Some("end") {
            answers.push(connection.answer().await?);
        }
        answered.push(answers);
    }
    ensure!(answered[0] == answered[1], " redis: {:?}\nsluice: {:?}", answered[0], answered[1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_commands_are_found_by_their_new_names_alone() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("rename-command", "FLUSHALL \"\""), ("rename-command", "config a-name-that-nobody-guesses")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    for gone in [&["FLUSHALL"][..], &["CONFIG", "GET", "port"]] {
        let refused = connection.ask(gone).await?;
        ensure!(matches!(&refused, Answer::Error(text) if text.starts_with("ERR unknown command")), "{gone:?}: {refused:?}");
    }
    let port = connection.ask(&["A-Name-That-Nobody-Guesses", "GET", "port"]).await?;
    ensure!(port.elements().len() == 2, "{port:?}");
    for refused in ["nosuch x", "clusterx x", "get set"] {
        let setup = Setup::new(root.path().join("refused"), &[("rename-command", refused)])?;
        let ended = setup.command()?.output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(!ended.status.success() && said.contains("rename-command"), "{refused}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_executed_is_shown_and_what_takes_long_is_remembered() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("enable-debug-command", "local"), ("slowlog-log-slower-than", "20000"), ("latency-tracking", "yes")];
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let (mut monitor, mut client) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    monitor.ask(&["MONITOR"]).await?;
    let commands =
        ["SET k a\"b", "AUTH default secret", "CONFIG GET port", "MULTI", "GET k", "EXEC", "DEBUG SLEEP 0.03", "GET end"];
    client.ask_all(&commands.map(words)).await?;
    let mut shown = Vec::new();
    while shown.last().is_none_or(|line: &String| !line.contains("\"end\"")) {
        let Answer::Simple(line) = monitor.answer().await? else { anyhow::bail!("no line") };
        shown.push(line.split_once("] ").context("a line of MONITOR")?.1.to_owned());
    }
    let expected = [
        r#""SET" "k" "a\"b""#,
        r#""AUTH" "(redacted)" "(redacted)""#,
        r#""MULTI""#,
        r#""GET" "k""#,
        r#""EXEC""#,
        r#""GET" "end""#,
    ];
    ensure!(shown == expected, "{shown:#?}");
    let entries = client.ask(&["SLOWLOG", "GET"]).await?;
    let logged: Vec<String> = entries.elements().iter().map(|entry| format!("{:?}", entry.elements()[3])).collect();
    let slept = entries.elements().iter().find(|entry| entry.elements()[3].elements()[0].text() == Some("DEBUG"));
    ensure!(matches!(slept.map(|entry| &entry.elements()[2]), Some(Answer::Integer(30_000..))), "{logged:?}");
    client.ask(&["SLOWLOG", "RESET"]).await?;
    ensure!(client.ask(&["SLOWLOG", "LEN"]).await? == Answer::Integer(0));
    let histogram = client.ask(&["LATENCY", "HISTOGRAM", "get", "nosuch"]).await?;
    ensure!(histogram.elements().len() == 2 && histogram.elements()[1].elements()[1] == Answer::Integer(2), "{histogram:?}");
    // A reset ends it.
    monitor.ask(&["RESET"]).await?;
    client.ask(&["PING"]).await?;
    ensure!(monitor.ask(&["ECHO", "x"]).await?.text() == Some("x"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_inside_harms_nobody() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("enable-debug-command", "local")])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let pipeline =
        ["SET a 1", "DEBUG PANIC", "SET b 2", "INCR a", "GET b"].map(|text| text.split(' ').map(str::to_owned).collect());
    for _ in 0..3 {
        let answers = connection.ask_all(&pipeline).await?;
        ensure!(matches!(&answers[1], Answer::Error(text) if text.contains("a bug")), "{answers:?}");
        ensure!(answers[3] == Answer::Integer(2) && answers[4] == Answer::Bulk(Some(b"2".to_vec())), "{answers:?}");
    }
    let mut other = Connection::open(&store.address()).await?;
    ensure!(other.ask(&["MGET", "a", "b"]).await?.elements().len() == 2);
    Ok(())
}
