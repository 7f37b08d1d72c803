//! Faults of every kind, drawn by a seed, round after round, while writers of every type add and take away: after each round what was
//! acknowledged is there once, what was taken away has not come back, and the node that gave the slots away holds nothing of them.
//!
//! `make fault-loop` for long; `SLUICE_FAULT_SEED` draws the same faults again, at about the same moments.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use sluice_tests::{
    dice::Dice,
    proxy::{Link, Proxy, Way},
    resp::{Answer, Connection},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{SlotRanges, admin::MigrationState};
use tokio::{sync::Mutex, time::timeout};

use super::faults::behind_proxies;

const KEYS: usize = 6;
const ROUNDS: u64 = 6;
/// For an answer of a node that is alive and has the slot, or knows who has.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Bits,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
}

const TYPES: [Type; 7] = [Type::Text, Type::Bits, Type::Hash, Type::List, Type::Set, Type::SortedSet, Type::Stream];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Type {
    /// Adds an element; each is added once, in rising order.
    fn add(self, key: &str, element: u64) -> Vec<String> {
        let e = element.to_string();
        match self {
            Self::Text => words(&["APPEND", key, &format!("{e},")]),
            Self::Bits => words(&["SETBIT", key, &e, "1"]),
            Self::Hash => words(&["HSET", key, &e, "value"]),
            Self::List => words(&["RPUSH", key, &e]),
            Self::Set => words(&["SADD", key, &e]),
            Self::SortedSet => words(&["ZADD", key, &e, &e]),
            Self::Stream => words(&["XADD", key, &format!("{e}-1"), "field", "value"]),
        }
    }

    /// Takes one away again; `None`: nothing of this type can be.
    fn remove(self, key: &str, element: u64) -> Option<Vec<String>> {
        let e = element.to_string();
        Some(match self {
            Self::Text => return None,
            Self::Bits => words(&["SETBIT", key, &e, "0"]),
            Self::Hash => words(&["HDEL", key, &e]),
            Self::List => words(&["LREM", key, "1", &e]),
            Self::Set => words(&["SREM", key, &e]),
            Self::SortedSet => words(&["ZREM", key, &e]),
            Self::Stream => words(&["XDEL", key, &format!("{e}-1")]),
        })
    }

    fn all(self, key: &str) -> Vec<String> {
        match self {
            Self::Text | Self::Bits => words(&["GET", key]),
            Self::Hash => words(&["HKEYS", key]),
            Self::List => words(&["LRANGE", key, "0", "-1"]),
            Self::Set => words(&["SMEMBERS", key]),
            Self::SortedSet => words(&["ZRANGE", key, "0", "-1"]),
            Self::Stream => words(&["XRANGE", key, "-", "+"]),
        }
    }

    /// The elements in an answer to [`Type::all`], each as often as it is there.
    fn elements(self, answer: &Answer) -> anyhow::Result<Vec<u64>> {
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text:?} is no element"));
        match (self, answer) {
            (Self::Text | Self::Bits, Answer::Bulk(None)) => Ok(Vec::new()),
            (Self::Text, text) => text.text().context("a text")?.split_terminator(',').map(number).collect(),
            (Self::Bits, Answer::Bulk(Some(bytes))) => {
                let bit = |at: u64| bytes[at as usize / 8] >> (7 - at % 8) & 1 == 1;
                Ok((0..bytes.len() as u64 * 8).filter(|at| bit(*at)).collect())
            }
            (Self::Stream, entries) => {
                let id = |entry: &Answer| entry.elements().first().and_then(Answer::text).map(str::to_owned);
                entries.elements().iter().map(|entry| number(id(entry).context("an entry")?.trim_end_matches("-1"))).collect()
            }
            (_, elements) => elements.elements().iter().map(|element| number(element.text().context("a text")?)).collect(),
        }
    }
}

/// What is known of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Added,
    Removed,
    /// The last that was asked got no answer.
    Open,
}

/// A key, what is known of it, and whoever writes it.
struct Writer {
    kind: Type,
    key: String,
    known: BTreeMap<u64, Known>,
    next: u64,
    node: usize,
    connection: Option<Connection>,
}

/// What became of a command.
enum Sent {
    Done,
    /// Executed or not.
    Unknown,
    /// Certainly not executed.
    Not,
}

impl Writer {
    async fn send(&mut self, addresses: &[String], command: Vec<String>) -> anyhow::Result<(Sent, Answer)> {
        let nobody = (Sent::Not, Answer::NullArray);
        let Some(mut connection) = self.connection.take() else {
            match Connection::open(&addresses[self.node]).await {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => self.elsewhere(addresses).await,
            }
            return Ok(nobody);
        };
        if connection.send(&[command]).await.is_err() {
            return Ok((Sent::Unknown, Answer::NullArray));
        }
        match timeout(PATIENCE, connection.answer()).await.context("no answer at all")? {
            Err(_) => Ok((Sent::Unknown, Answer::NullArray)),
            Ok(Answer::Error(text)) if text.starts_with("MOVED") => {
                self.elsewhere(addresses).await;
                Ok(nobody)
            }
            Ok(Answer::Error(text)) if ["TRYAGAIN", "CLUSTERDOWN", "LOADING"].iter().any(|word| text.starts_with(word)) => {
                self.connection = Some(connection);
                Ok(nobody)
            }
            Ok(Answer::Error(text)) => bail!("{} was answered {text}", self.key),
            Ok(answer) => {
                self.connection = Some(connection);
                Ok((Sent::Done, answer))
            }
        }
    }

    async fn elsewhere(&mut self, addresses: &[String]) {
        self.node = (self.node + 1) % addresses.len();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    /// Adds an element, or takes away one of those before.
    async fn step(&mut self, addresses: &[String]) -> anyhow::Result<()> {
        let old = self.known.iter().rev().nth(7).filter(|(_, known)| **known == Known::Added).map(|(element, _)| *element);
        let removal = old.filter(|_| self.next.is_multiple_of(3)).and_then(|old| Some((old, self.kind.remove(&self.key, old)?)));
        let (element, command, then) = match removal {
            Some((old, command)) => (old, command, Known::Removed),
            None => (self.next, self.kind.add(&self.key, self.next), Known::Added),
        };
        match self.send(addresses, command).await?.0 {
            Sent::Done => self.known.insert(element, then),
            Sent::Unknown => self.known.insert(element, Known::Open),
            Sent::Not => return Ok(()),
        };
        self.next += 1;
        Ok(())
    }

    /// Reads the key where it is, and compares.
    async fn check(&mut self, addresses: &[String]) -> anyhow::Result<()> {
        let found = loop {
            if let (Sent::Done, answer) = self.send(addresses, self.kind.all(&self.key)).await? {
                break self.kind.elements(&answer)?;
            }
        };
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        found.iter().for_each(|element| *times.entry(*element).or_default() += 1);
        for (element, known) in &self.known {
            let times = times.remove(element).unwrap_or(0);
            let right = match known {
                Known::Added => times == 1,
                Known::Removed => times == 0,
                Known::Open => times <= 1,
            };
            ensure!(right, "{}: element {element} is {known:?} and there {times} times", self.key);
        }
        ensure!(times.is_empty(), "{}: nobody has added {times:?}", self.key);
        Ok(())
    }
}

/// Makes something go wrong in the middle of a migration. Says what.
async fn spoil(
    cluster: &mut LocalCluster,
    proxies: &[Proxy; 2],
    (from, to): (usize, usize),
    job: sluice_topology::JobId,
    dice: &mut Dice,
) -> anyhow::Result<&'static str> {
    let (to_target, wait) = (&proxies[to], Duration::from_millis(dice.below(400)));
    let way = if dice.below(2) == 0 { Way::There } else { Way::Back };
    let at = dice.below(if way == Way::There { 400_000 } else { 600 });
    match dice.below(7) {
        0 => {
            to_target.cut_after(way, at);
            Ok("a connection is cut")
        }
        1 => {
            to_target.spoil_after(way, at);
            Ok("a byte is changed")
        }
        2 => {
            tokio::time::sleep(wait).await;
            to_target.set(Link { silent: true, ..Link::default() });
            tokio::time::sleep(Duration::from_millis(dice.below(1500))).await;
            to_target.set(Link::default());
            Ok("the link falls silent")
        }
        3 => {
            tokio::time::sleep(wait).await;
            // It may have ended: then there is nothing to cancel.
            let _ = cluster.node(from).admin().await?.cancel(job, sluice_topology::LeaderEpoch(1)).await;
            Ok("it is cancelled")
        }
        which => {
            tokio::time::sleep(wait).await;
            let dead: &[usize] = match which {
                4 => &[from],
                5 => &[to],
                _ => &[from, to],
            };
            dead.iter().try_for_each(|number| cluster.kill(*number))?;
            for number in dead {
                cluster.restart(*number).await?;
            }
            Ok(["the source is killed", "the target is killed", "both are killed"][which as usize - 4])
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_of_every_type_is_there_once_whatever_goes_wrong() -> anyhow::Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("SLUICE_FAULT_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("SLUICE_FAULT_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("SLUICE_FAULT_SEED={seed}");
    let root = tempfile::tempdir()?;
    let settings = [("migrate-timeout-ms", "1000"), ("migrate-backoff-ms-max", "200"), ("cluster-peer-timeout-ms", "1000")];
    let (mut cluster, proxies) = behind_proxies(root.path(), &settings).await?;
    let addresses = cluster.addresses();
    let writer = |at: usize| Writer {
        kind: TYPES[at % TYPES.len()],
        key: format!("{:?}:{}", TYPES[at % TYPES.len()], at / TYPES.len()),
        known: BTreeMap::new(),
        next: 0,
        node: 0,
        connection: None,
    };
    let writers: Vec<Arc<Mutex<Writer>>> = (0..TYPES.len() * KEYS).map(|at| Arc::new(Mutex::new(writer(at)))).collect();
    let mut dice = Dice::new(seed);
    let (mut from, mut to) = (0, 1);
    for round in 0..rounds {
        let over = Arc::new(AtomicBool::new(false));
        let working: Vec<_> = (writers.iter().cloned())
            .map(|writer| {
                let (over, addresses) = (over.clone(), addresses.clone());
                tokio::spawn(async move {
                    let mut writer = writer.lock().await;
                    while !over.load(Ordering::SeqCst) {
                        writer.step(&addresses).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        proxies.iter().for_each(|proxy| proxy.set(Link { latency: Duration::from_millis(5), ..Link::default() }));
        let all = cluster.status(from).await?.owned();
        let job = cluster.migrate(from, to, &all).await?;
        let what = spoil(&mut cluster, &proxies, (from, to), job, &mut dice).await?;
        let context = || format!("seed {seed}, round {round}: {what}");
        proxies.iter().for_each(|proxy| proxy.set(Link::default()));
        cluster.ended_if_known(from, job).await.with_context(context)?;
        cluster.settled().await.with_context(context)?;
        cluster.push_truth().await?;
        // What is left of a cancelled or failed job goes after it.
        let left = cluster.status(from).await?.owned();
        if !left.is_empty() {
            let job = cluster.migrate(from, to, &left).await?;
            let status = cluster.ended(from, job).await?;
            ensure!(status.state == MigrationState::Done, "{}: {status:?}", context());
            cluster.push_truth().await?;
        }
        over.store(true, Ordering::SeqCst);
        for task in working {
            task.await?.with_context(context)?;
        }
        ensure!(cluster.status(to).await?.owned() == SlotRanges::full(), "{}: slots are missing", context());
        for writer in &writers {
            writer.lock().await.check(&addresses).await.with_context(context)?;
        }
        wait_for("the space of what left to come back", || async {
            Ok(cluster.node(from).info("reclaim_pending_generations").await? == "0")
        })
        .await
        .with_context(context)?;
        let mut elements = 0;
        for writer in &writers {
            elements += writer.lock().await.known.len();
        }
        println!("round {round}: {what}; {elements} elements so far");
        (from, to) = (to, from);
    }
    Ok(())
}
