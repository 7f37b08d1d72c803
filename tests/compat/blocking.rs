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
    store::Setup,
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
        4 => prop::collection::btree_map(key(), prop::sample::select(vec!["$", "0", "5", "$"]), 1..3).prop_map(|streams| {
            let (keys, ids): (Words, Vec<&str>) = streams.into_iter().unzip();
            [words("XREAD BLOCK 0 STREAMS"), keys, ids.into_iter().map(str::to_owned).collect()].concat()
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
        4 => (key(), 1..30u8).prop_map(|(key, ms)| vec!["XADD".into(), key, format!("{ms}-*"), "f".into(), "v".into()]),
        1 => key().prop_map(|key| vec!["XTRIM".into(), key, "MAXLEN".into(), "0".into()]),
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
            for command in ["TYPE", "LLEN", "ZCARD", "XLEN"] {
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
