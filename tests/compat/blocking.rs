//! Commands that wait, beside a real redis-server: several clients wait, others change the keys, and everybody is answered alike, in the
//! same order.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, StoreProcess, wait_for},
};
use tokio::sync::mpsc;

use crate::{
    family::{Words, number_of_environment, words},
    reference::RedisServer,
};

/// A client that may wait: what it is to ask, and a task that asks.
struct Client {
    asks: mpsc::UnboundedSender<Words>,
    task: tokio::task::JoinHandle<()>,
    id: i64,
    outstanding: usize,
}

impl Drop for Client {
    /// It goes, whatever it waits for.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Several clients of one server, and one that never waits.
struct Crowd {
    control: Connection,
    clients: Vec<Client>,
    answers: mpsc::UnboundedReceiver<(usize, anyhow::Result<Answer>)>,
}

impl Crowd {
    async fn join(address: &str, count: usize, version: &str) -> anyhow::Result<Self> {
        let (tell, answers) = mpsc::unbounded_channel();
        let mut clients = Vec::new();
        for number in 0..count {
            let mut connection = Connection::open(address).await?;
            connection.ask(&["HELLO", version]).await?;
            let Answer::Integer(id) = connection.ask(&["CLIENT", "ID"]).await? else { anyhow::bail!("no id") };
            let (asks, mut asked) = mpsc::unbounded_channel::<Words>();
            let tell = tell.clone();
            let task = tokio::spawn(async move {
                while let Some(command) = asked.recv().await {
                    let words: Vec<&str> = command.iter().map(String::as_str).collect();
                    if tell.send((number, connection.ask(&words).await)).is_err() {
                        break;
                    }
                }
            });
            clients.push(Client { asks, task, id, outstanding: 0 });
        }
        Ok(Self { control: Connection::open(address).await?, clients, answers })
    }

    fn ask(&mut self, client: usize, command: &Words) -> anyhow::Result<()> {
        self.clients[client].outstanding += 1;
        Ok(self.clients[client].asks.send(command.clone())?)
    }

    async fn blocked(&mut self) -> anyhow::Result<usize> {
        let info = self.control.ask(&["INFO", "clients"]).await?;
        let text = info.text().context("INFO is a text")?.to_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("blocked_clients:")).context("blocked_clients")?;
        Ok(line.trim().parse()?)
    }

    /// Until everybody who was asked something has answered or waits, and `woken` has answered; what was answered, by client.
    async fn settle(&mut self, woken: Option<usize>) -> anyhow::Result<BTreeMap<usize, Vec<Answer>>> {
        let mut answered: BTreeMap<usize, Vec<Answer>> = BTreeMap::new();
        for _ in 0..20_000 {
            while let Ok((number, answer)) = self.answers.try_recv() {
                self.clients[number].outstanding -= 1;
                answered.entry(number).or_default().push(answer?);
            }
            let all = woken.is_none_or(|woken| answered.contains_key(&woken));
            if all && self.blocked().await? == self.clients.iter().filter(|client| client.outstanding > 0).count() {
                return Ok(answered);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        anyhow::bail!("clients neither answer nor wait: {answered:?}")
    }
}

const KEYS: [&str; 4] = ["{k}1", "{k}2", "{k}3", "{k}4"];

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned)
}

fn side() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["LEFT", "RIGHT"]).prop_map(str::to_owned)
}

/// A command of a client that waits, without end. Nobody who waits for several keys waits for the one that elements are moved to: of keys
/// that are filled by one command, Redis 7.4 takes the client's first, as it does here, and 7.0 the one that was filled first.
fn waiting() -> BoxedStrategy<Words> {
    let single = || key().prop_map(|key| vec![key]);
    let several = || prop::collection::vec(prop::sample::select(KEYS[..3].to_vec()).prop_map(str::to_owned), 2..4);
    let keys = || prop_oneof![single(), several()];
    prop_oneof![
        4 => (prop::sample::select(vec!["BLPOP", "BRPOP"]), keys())
            .prop_map(|(name, keys)| [vec![name.to_owned()], keys, vec!["0".to_owned()]].concat()),
        2 => (key(), side(), side()).prop_map(|(from, off, onto)| vec!["BLMOVE".into(), from, KEYS[3].into(), off, onto, "0".into()]),
        1 => key().prop_map(|from| vec!["BRPOPLPUSH".into(), from, KEYS[3].into(), "0".into()]),
        2 => (keys(), side(), 1..4u8).prop_map(|(keys, side, count)| {
            let number = keys.len().to_string();
            [vec!["BLMPOP".into(), "0".into(), number], keys, vec![side, "COUNT".into(), count.to_string()]].concat()
        }),
        3 => (prop::sample::select(vec!["BZPOPMIN", "BZPOPMAX"]), keys())
            .prop_map(|(name, keys)| [vec![name.to_owned()], keys, vec!["0".to_owned()]].concat()),
        2 => (keys(), prop::sample::select(vec!["MIN", "MAX"]), 1..4u8).prop_map(|(keys, end, count)| {
            let number = keys.len().to_string();
            [vec!["BZMPOP".into(), "0".into(), number], keys, vec![end.into(), "COUNT".into(), count.to_string()]].concat()
        }),
    ]
    .boxed()
}

/// A command that others give meanwhile.
fn meanwhile() -> BoxedStrategy<Words> {
    let element = || "[a-z]{1,3}";
    prop_oneof![
        5 => (prop::sample::select(vec!["RPUSH", "LPUSH"]), key(), prop::collection::vec(element(), 1..4))
            .prop_map(|(name, key, elements)| [vec![name.to_owned(), key], elements].concat()),
        1 => (key(), element()).prop_map(|(key, element)| vec!["RPUSHX".into(), key, element]),
        1 => key().prop_map(|key| vec!["LPOP".into(), key]),
        1 => key().prop_map(|key| vec!["DEL".into(), key]),
        1 => key().prop_map(|key| vec!["SET".into(), key, "text".into()]),
        2 => (key(), key()).prop_map(|(from, to)| vec!["RENAME".into(), from, to]),
        1 => (key(), key()).prop_map(|(from, to)| vec!["COPY".into(), from, to, "REPLACE".into()]),
        1 => (key(), key(), side(), side()).prop_map(|(from, to, off, onto)| vec!["LMOVE".into(), from, to, off, onto]),
        1 => key().prop_map(|key| vec!["LRANGE".into(), key, "0".into(), "-1".into()]),
        3 => (key(), prop::collection::vec((0..9u8, element()), 1..4)).prop_map(|(key, members)| {
            let members = members.into_iter().flat_map(|(score, member)| [score.to_string(), member]);
            ["ZADD".to_owned(), key].into_iter().chain(members).collect()
        }),
        1 => key().prop_map(|key| vec!["ZPOPMIN".into(), key]),
        1 => Just(words("FLUSHDB")),
    ]
    .boxed()
}

/// Commands of a transaction, about one key: several that are filled at once are not taken from in the same order by every Redis.
fn transaction() -> impl Strategy<Value = Vec<Words>> {
    let texts = [
        "RPUSH % a b",
        "LPUSH % c",
        "DEL %",
        "LPOP %",
        "SET % text",
        "ZADD % 1 m 2 n",
        "BLPOP % 0",
        "BZPOPMIN % 0",
        "BLMOVE % % LEFT RIGHT 0",
    ];
    let about_one = (key(), prop::collection::vec(prop::sample::select(texts.to_vec()), 1..5))
        .prop_map(|(key, texts)| texts.into_iter().map(|text| words(&text.replace('%', &key))).collect());
    // Redis does not tell those who wait when something else is written over what was there.
    let stores = (prop::sample::select(vec!["SORT {k}9 ALPHA STORE %", "ZUNIONSTORE % 1 {z}9"]), key());
    let stored = stores.prop_map(|(text, key)| {
        let all = ["RPUSH {k}9 a b", "ZADD {z}9 1 m 2 n", "DEL %", text, "DEL {k}9 {z}9"];
        all.into_iter().map(|text| words(&text.replace('%', &key).replace("{z}9", "{k}8"))).collect()
    });
    prop_oneof![4 => about_one, 1 => stored]
}

/// What happens.
#[derive(Clone, Debug)]
enum Happening {
    Wait(usize, Words),
    Control(Words),
    Transaction(Vec<Words>),
    /// CLIENT UNBLOCK of one of them, with an error or as if its time were over.
    Unblock(usize, bool),
}

const CLIENTS: usize = 5;

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..CLIENTS, waiting()).prop_map(|(client, command)| Happening::Wait(client, command)),
        6 => meanwhile().prop_map(Happening::Control),
        2 => transaction().prop_map(Happening::Transaction),
        1 => (0..CLIENTS, any::<bool>()).prop_map(|(client, error)| Happening::Unblock(client, error)),
    ]
}

async fn compare(threads: &str, seed: u8, rounds: usize) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[("io-threads", threads)])?;
    let (redis, store) = (RedisServer::start()?, setup.start().await?);
    redis.client().await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let strategy = prop::collection::vec(happening(), 40..80);
    for round in 0..rounds {
        let version = if round % 2 == 0 { "2" } else { "3" };
        let mut theirs = Crowd::join(&redis.address(), CLIENTS, version).await?;
        let mut ours = Crowd::join(&store.address(), CLIENTS, version).await?;
        let mut history = Vec::new();
        for happening in strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current() {
            let mut answers = Vec::new();
            for crowd in [&mut theirs, &mut ours] {
                let answer = match &happening {
                    // Who waits already asks nothing more.
                    Happening::Wait(client, _) if crowd.clients[*client].outstanding > 0 => Answer::NullArray,
                    Happening::Wait(client, command) => {
                        crowd.ask(*client, command)?;
                        Answer::NullArray
                    }
                    Happening::Control(command) => {
                        crowd.control.ask(&command.iter().map(String::as_str).collect::<Vec<_>>()).await?
                    }
                    Happening::Transaction(commands) => {
                        let all = [vec![words("MULTI")], commands.clone(), vec![words("EXEC")]].concat();
                        Answer::Array(crowd.control.ask_all(&all).await?)
                    }
                    Happening::Unblock(client, error) => {
                        let id = crowd.clients[*client].id.to_string();
                        let how = if *error { "ERROR" } else { "TIMEOUT" };
                        crowd.control.ask(&["CLIENT", "UNBLOCK", &id, how]).await?
                    }
                };
                let woken = match &happening {
                    Happening::Unblock(client, _) if answer == Answer::Integer(1) => Some(*client),
                    _ => None,
                };
                answers.push((answer, crowd.settle(woken).await?));
            }
            history.push(format!("{happening:?} -> {:?}", answers[0]));
            ensure!(
                answers[0] == answers[1],
                "round {round} of seed {seed}: {happening:?}\n redis: {:?}\nsluice: {:?}\nbefore:\n{}",
                answers[0],
                answers[1],
                history.join("\n")
            );
        }
        for key in KEYS {
            for command in ["TYPE", "LLEN", "ZCARD"] {
                let (expected, found) = (theirs.control.ask(&[command, key]).await?, ours.control.ask(&[command, key]).await?);
                ensure!(expected == found, "round {round} of seed {seed}: {command} {key}: {expected:?}, {found:?}");
            }
        }
        // Some wait while they go: nobody is left behind.
        for crowd in [&mut theirs, &mut ours] {
            crowd.clients.clear();
            crowd.control.ask(&["FLUSHDB"]).await?;
        }
        for mut crowd in [theirs, ours] {
            for _ in 0..5000 {
                if crowd.blocked().await? == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ensure!(crowd.blocked().await? == 0, "round {round}: clients that have gone still wait");
        }
    }
    Ok(())
}

fn seed(otherwise: u8) -> u8 {
    number_of_environment("SLUICE_DIFFERENTIAL_SEED", otherwise)
}

fn rounds() -> usize {
    number_of_environment("SLUICE_DIFFERENTIAL_ROUNDS", 12)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_served_as_by_redis() -> anyhow::Result<()> {
    compare("1", seed(1), rounds()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_served_as_by_redis_from_another_thread() -> anyhow::Result<()> {
    compare("2", seed(2), rounds()).await
}

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
