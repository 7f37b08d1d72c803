//! Waiting for keys: what ends a wait, and that nothing is lost or missed, by one store alone.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, StoreProcess, wait_for},
};
use tokio::sync::mpsc;

use crate::family::words;

async fn started(settings: &[(&str, &str)]) -> anyhow::Result<(tempfile::TempDir, StoreProcess)> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), settings)?.start().await?;
    Ok((root, store))
}

async fn until_blocked(control: &mut Connection, count: usize) -> anyhow::Result<()> {
    until_info_says(control, &format!("blocked_clients:{count}\r")).await
}

async fn until_info_says(control: &mut Connection, line: &str) -> anyhow::Result<()> {
    for _ in 0..5000 {
        if control.ask(&["INFO", "clients"]).await?.text().is_some_and(|text| text.split('\n').any(|found| found == line)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    anyhow::bail!("INFO does not come to say {line:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_time_and_refuses_what_is_no_time() -> anyhow::Result<()> {
    let (_root, store) = started(&[]).await?;
    let mut connection = Connection::open(&store.address()).await?;
    for command in
        ["BLPOP l 0.01", "BRPOP l l2 0.001", "BLMOVE l l2 LEFT LEFT 0.01", "BRPOPLPUSH l l2 0.01", "BLMPOP 0.01 2 l l2 LEFT"]
    {
        ensure!(connection.ask(&command.split(' ').collect::<Vec<_>>()).await? == Answer::NullArray, "{command}");
    }
    for (time, text) in [
        ("-1", "ERR timeout is negative"),
        ("x", "ERR timeout is not a float or out of range"),
        ("nan", "ERR timeout is not a float or out of range"),
        ("inf", "ERR timeout is out of range"),
        ("9223372036854775807", "ERR timeout is out of range"),
        ("9223372036854775", "ERR timeout is out of range"),
    ] {
        let refused = connection.ask(&["BLPOP", "l", time]).await?;
        ensure!(refused == Answer::Error(text.into()), "{time}: {refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_one_that_waits_are_kept_for_afterwards() -> anyhow::Result<()> {
    let (_root, store) = started(&[]).await?;
    let (mut waits, mut control) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    waits.send(&["RPUSH a 1", "BLPOP b 0", "RPUSH a 2", "LLEN a"].map(words)).await?;
    ensure!(waits.answer().await? == Answer::Integer(1));
    until_blocked(&mut control, 1).await?;
    // Sent while it waits.
    waits.send(&[words("RPUSH a 3")]).await?;
    ensure!(control.ask(&["LLEN", "a"]).await? == Answer::Integer(1));
    ensure!(control.ask(&["RPUSH", "b", "x"]).await? == Answer::Integer(1));
    let expected = ["b", "x"].map(|text| Answer::Bulk(Some(text.into()))).to_vec();
    ensure!(waits.answer().await? == Answer::Array(expected));
    for size in [2, 2, 3] {
        ensure!(waits.answer().await? == Answer::Integer(size));
    }
    ensure!(control.ask(&["LLEN", "b"]).await? == Answer::Integer(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_for_who_has_gone_is_kept_for_others() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "2")]).await?;
    let mut control = Connection::open(&store.address()).await?;
    for round in 0..200 {
        let mut waits = Connection::open(&store.address()).await?;
        waits.send(&[words("BLPOP queue 0")]).await?;
        // Sometimes it is known to wait, and sometimes to have gone; otherwise it may be given the element on its way.
        let known = round % 2 == 0;
        if known {
            until_blocked(&mut control, 1).await?;
        }
        drop(waits);
        if round % 4 == 0 {
            until_blocked(&mut control, 0).await?;
        }
        let pushed = control.ask(&["RPUSH", "queue", "x"]).await?;
        ensure!(pushed == Answer::Integer(1), "round {round}: {pushed:?}");
        let kept = control.ask(&["LPOP", "queue"]).await? != Answer::Bulk(None);
        ensure!(kept || round % 4 != 0, "round {round}: the element was given to nobody");
        until_info_says(&mut control, "connected_clients:1\r").await?;
        control.ask(&["DEL", "queue"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ends_lets_nobody_wait() -> anyhow::Result<()> {
    let (_root, store) = started(&[]).await?;
    let (mut waits, mut control) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    waits.send(&[words("BLPOP l 0")]).await?;
    until_blocked(&mut control, 1).await?;
    store.signal("TERM")?;
    let answer = waits.answer().await?;
    ensure!(matches!(&answer, Answer::Error(text) if text.starts_with("TRYAGAIN")), "{answer:?}");
    store.ended().await?;
    Ok(())
}

/// What was popped for a client is as gone after a kill as what it popped itself: an element is never given out twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_waiting_client_was_given_stays_given_after_a_kill() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("sync", "always"), ("io-threads", "2")])?;
    let mut given = std::collections::BTreeSet::new();
    for round in 0..4 {
        let store = setup.start().await?;
        let mut control = Connection::open(&store.address()).await?;
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..3 {
            let (mut connection, tell) = (Connection::open(&store.address()).await?, tell.clone());
            tokio::spawn(async move {
                while let Ok(answer) = connection.ask(&["BLPOP", "queue", "0"]).await {
                    let _ = tell.send(answer.elements().get(1).and_then(Answer::text).unwrap_or("?").to_owned());
                }
            });
        }
        drop(tell);
        for number in 0..50 {
            control.ask(&["RPUSH", "queue", &format!("{round}:{number}")]).await?;
        }
        store.kill()?;
        while let Some(element) = told.recv().await {
            ensure!(given.insert(element.clone()), "{element} was given twice");
        }
    }
    let store = setup.start().await?;
    let mut control = Connection::open(&store.address()).await?;
    for element in control.ask(&["LRANGE", "queue", "0", "-1"]).await?.elements() {
        ensure!(given.insert(element.text().unwrap_or("?").to_owned()), "{element:?} is still there");
    }
    Ok(())
}

/// Many threads push and pop at once: every element arrives once, nobody waits for what is there.
#[tokio::test(flavor = "multi_thread")]
async fn no_push_is_missed_between_threads() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "2")]).await?;
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..6 {
        let (mut connection, tell) = (Connection::open(&store.address()).await?, tell.clone());
        let command = match number % 3 {
            0 => vec!["BLPOP", "q1", "q2", "0"],
            1 => vec!["BLMPOP", "0", "2", "q2", "q1", "RIGHT", "COUNT", "3"],
            _ => vec!["BLMOVE", "q1", "q2", "LEFT", "RIGHT", "0"],
        };
        tokio::spawn(async move {
            while let Ok(answer) = connection.ask(&command).await {
                let popped = match answer {
                    Answer::Array(parts) => parts.get(1).map(|part| match part {
                        Answer::Array(elements) => elements.clone(),
                        one => vec![one.clone()],
                    }),
                    // What BLMOVE moved is popped by others.
                    _ => Some(Vec::new()),
                };
                let _ = tell.send(popped.unwrap_or_default());
            }
        });
    }
    let mut pushers = tokio::task::JoinSet::new();
    for pusher in 0..4 {
        let mut connection = Connection::open(&store.address()).await?;
        pushers.spawn(async move {
            for number in 0..300 {
                let key = if (pusher + number) % 3 == 0 { "q2" } else { "q1" };
                let pushed = connection.ask(&["RPUSH", key, &format!("{pusher}:{number}")]).await?;
                ensure!(matches!(pushed, Answer::Integer(_)), "{pushed:?}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(outcome) = pushers.join_next().await {
        outcome??;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 1200 {
        let next = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
        let elements = next.with_context(|| format!("{} of 1200 elements arrived", seen.len()))?.context("somebody waits")?;
        for element in elements {
            ensure!(seen.insert(element.clone()), "{element:?} arrived twice");
        }
    }
    let mut control = Connection::open(&store.address()).await?;
    wait_for("everybody to wait again", || async { Ok(store.info("blocked_clients").await? == "6") }).await?;
    ensure!(control.ask(&["EXISTS", "q1", "q2"]).await? == Answer::Integer(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_wait_are_served_in_turn_and_told_when_their_group_is_gone() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "2")]).await?;
    let mut control = Connection::open(&store.address()).await?;
    let (mut one, mut other) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    ensure!(control.ask(&words_of("XGROUP CREATE s g $ MKSTREAM")).await? == Answer::Simple("OK".into()));
    one.send(&[words("XREADGROUP GROUP g a BLOCK 0 STREAMS s >")]).await?;
    until_blocked(&mut control, 1).await?;
    other.send(&[words("XREADGROUP GROUP g b BLOCK 0 STREAMS s >")]).await?;
    until_blocked(&mut control, 2).await?;
    for (connection, id, left) in [(&mut one, "1-1", 1), (&mut other, "2-1", 0)] {
        control.ask(&["XADD", "s", id, "f", "v"]).await?;
        let answer = connection.answer().await?;
        let entries = answer.elements()[0].elements()[1].elements();
        ensure!(entries.len() == 1 && entries[0].elements()[0].text() == Some(id), "{answer:?}");
        until_blocked(&mut control, left).await?;
    }
    let pending = control.ask(&words_of("XPENDING s g - + 10")).await?;
    let owners: Vec<_> = pending.elements().iter().map(|entry| entry.elements()[1].text().map(str::to_owned)).collect();
    ensure!(owners == [Some("a".to_owned()), Some("b".to_owned())], "{pending:?}");
    // What takes the group away ends the wait.
    let gone = "NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    for (command, text) in
        [("XGROUP DESTROY s g", gone), ("DEL s", gone), ("FLUSHDB", gone), ("SET s x", wrong), ("RENAME other s", gone)]
    {
        control.ask(&["DEL", "s"]).await?;
        control.ask(&words_of("XGROUP CREATE s g $ MKSTREAM")).await?;
        control.ask(&words_of("XADD other 1-1 f v")).await?;
        one.send(&[words("XREADGROUP GROUP g a BLOCK 0 STREAMS s >")]).await?;
        until_blocked(&mut control, 1).await?;
        control.ask(&words_of(command)).await?;
        let answer = one.answer().await?;
        ensure!(answer == Answer::Error(text.into()), "{command}: {answer:?}");
    }
    // As does its end, whether that was known before the wait or not.
    for early in [true, false] {
        control.ask(&["DEL", "s"]).await?;
        control.ask(&words_of("XGROUP CREATE s g $ MKSTREAM")).await?;
        if early {
            control.ask(&words_of("PEXPIRE s 300")).await?;
        }
        one.send(&[words("XREADGROUP GROUP g a BLOCK 0 STREAMS s >")]).await?;
        until_blocked(&mut control, 1).await?;
        control.ask(&words_of("PEXPIRE s 20")).await?;
        let answer = one.answer().await?;
        ensure!(answer == Answer::Error(gone.into()), "expired, {early}: {answer:?}");
    }
    // Its own history is there at once.
    control.ask(&["DEL", "s"]).await?;
    control.ask(&words_of("XGROUP CREATE s g $ MKSTREAM")).await?;
    let history = one.ask(&words_of("XREADGROUP GROUP g a BLOCK 0 STREAMS s 0")).await?;
    ensure!(history.elements()[0].elements()[1] == Answer::Array(vec![]), "{history:?}");
    ensure!(one.ask(&words_of("XREAD BLOCK 5 STREAMS s $")).await? == Answer::NullArray);
    Ok(())
}

fn words_of(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// XREAD changes nothing and still misses nothing: its keys are claimed between the look and the wait.
#[tokio::test(flavor = "multi_thread")]
async fn no_entry_is_missed_between_threads() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "2")]).await?;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut connection = Connection::open(&store.address()).await?;
        readers.spawn(async move {
            let (mut last, mut count) = ("0-0".to_owned(), 0);
            while count < 500 {
                let read = connection.ask(&["XREAD", "BLOCK", "20000", "STREAMS", "s", &last]).await?;
                ensure!(read != Answer::NullArray, "nothing came behind {last}, the {count}th entry");
                let entries = read.elements()[0].elements()[1].elements();
                count += entries.len();
                entries.last().and_then(|entry| entry.elements()[0].text()).context("an id")?.clone_into(&mut last);
            }
            ensure!(count == 500, "{count} entries");
            anyhow::Ok(())
        });
    }
    let mut connection = Connection::open(&store.address()).await?;
    for _ in 0..500 {
        connection.ask(&["XADD", "s", "*", "f", "v"]).await?;
    }
    while let Some(outcome) = readers.join_next().await {
        outcome??;
    }
    Ok(())
}

/// Scripts wait for nothing, and whoever waits hears of all of a script at once.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_never_wait_and_serve_who_does() -> anyhow::Result<()> {
    let (_root, store) = started(&[("io-threads", "2")]).await?;
    let (mut waits, mut control) = (Connection::open(&store.address()).await?, Connection::open(&store.address()).await?);
    for (script, expected) in [
        ("return redis.call('BLPOP', KEYS[1], 0)", Answer::Bulk(None)),
        ("return redis.call('BLMOVE', KEYS[1], KEYS[1], 'LEFT', 'RIGHT', 0)", Answer::Bulk(None)),
        ("return redis.call('BZPOPMIN', KEYS[1], 0)", Answer::Bulk(None)),
    ] {
        let answer = control.ask(&["EVAL", script, "1", "k"]).await?;
        ensure!(answer == expected, "{script}: {answer:?}");
    }
    let refused = control.ask(&["EVAL", "return redis.call('XREAD', 'BLOCK', '0', 'STREAMS', KEYS[1], '0')", "1", "k"]).await?;
    let text = "xread command is not allowed with BLOCK option from scripts";
    ensure!(matches!(&refused, Answer::Error(error) if error.contains(text)), "{refused:?}");
    waits.send(&[words("BLPOP k other 0")]).await?;
    until_blocked(&mut control, 1).await?;
    // What is gone when the script ends was never there for others.
    control.ask(&["EVAL", "redis.call('RPUSH', KEYS[1], 'a'); return redis.call('DEL', KEYS[1])", "1", "k"]).await?;
    until_blocked(&mut control, 1).await?;
    control.ask(&["EVAL", "redis.call('RPUSH', KEYS[1], 'a'); return redis.call('LPUSH', KEYS[1], 'b')", "1", "k"]).await?;
    let expected = ["k", "b"].map(|text| Answer::Bulk(Some(text.into()))).to_vec();
    ensure!(waits.answer().await? == Answer::Array(expected));
    ensure!(control.ask(&["LRANGE", "k", "0", "-1"]).await?.elements().len() == 1);
    Ok(())
}
