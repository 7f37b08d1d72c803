//! Clients at work, and what they write down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::task::JoinHandle;

use super::{
    Call, History, Operation, Reply,
    client::{Answered, Client},
};
use crate::dice::Dice;

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many clients there are.
    pub clients: usize,
    /// How many operations a client sends at once, as a pipeline.
    pub depth: usize,
    /// How many keys of each kind: texts, counters, hashes.
    pub keys: usize,
    /// What they begin with: two runs of one seed ask for the same in the same order, if not at the same time.
    pub seed: u64,
    /// Between two calls of a client; what there is to check grows with what is asked.
    pub pause: Duration,
    /// How long a client waits for an answer, or for a node that takes its call.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { clients: 8, depth: 1, keys: 8, seed: 1, pause: Duration::from_millis(1), patience: Duration::from_secs(20) }
    }
}

/// Fields of a hash.
const FIELDS: u64 = 4;

/// A run of clients that goes on until it is ended.
pub struct Recording {
    addresses: Vec<String>,
    plan: Plan,
    clock: Instant,
    ending: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    clients: Vec<JoinHandle<History>>,
}

impl Recording {
    /// Starts clients of a cluster whose nodes are at those addresses.
    pub fn start(addresses: Vec<String>, plan: Plan) -> Self {
        let (clock, ending, calls) = (Instant::now(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..plan.clients)
            .map(|number| {
                let worker = Worker {
                    number,
                    client: Client::new(addresses.clone(), number, plan.patience),
                    dice: Dice::new(plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number as u64)),
                    clock,
                    history: History::default(),
                };
                tokio::spawn(worker.work(plan.clone(), ending.clone(), calls.clone()))
            })
            .collect();
        Self { addresses, plan, clock, ending, calls, clients }
    }

    /// How many calls were answered so far.
    pub fn answered(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until that many more calls were answered: that clients are at work again.
    pub async fn more(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.answered() + count;
        crate::store::wait_for("clients to be answered", || async { Ok(self.answered() >= goal) }).await
    }

    /// Ends the clients, reads every key once more, and gives what they wrote down. What was lost last is missed by the last reads.
    pub async fn end(self) -> anyhow::Result<History> {
        self.ending.store(true, Ordering::SeqCst);
        let mut history = History::default();
        for client in self.clients {
            let one = client.await?;
            one.calls.into_iter().for_each(|(key, calls)| history.calls.entry(key).or_default().extend(calls));
            one.errors.into_iter().for_each(|(error, count)| *history.errors.entry(error).or_default() += count);
        }
        let mut last = Client::new(self.addresses, 0, self.plan.patience);
        for (key, calls) in &mut history.calls {
            let fields = (0..FIELDS).map(|field| Operation::HGet(format!("f{field}")));
            let reads: Vec<Operation> = if key.starts_with("hash") { fields.collect() } else { vec![Operation::Get] };
            for operation in reads {
                let began = now(self.clock);
                let answered = last.call(key, &operation).await;
                let Answered::Reply(reply) = answered else { anyhow::bail!("{key} cannot be read at the end: {answered:?}") };
                calls.push(Call { client: self.plan.clients, operation, began, ended: Some((now(self.clock), reply)) });
            }
        }
        let (all, open) = history.size();
        ensure!(open < all, "nothing was answered");
        Ok(history)
    }
}

fn now(clock: Instant) -> u64 {
    clock.elapsed().as_nanos() as u64
}

struct Worker {
    number: usize,
    client: Client,
    dice: Dice,
    clock: Instant,
    history: History,
}

impl Worker {
    async fn work(mut self, plan: Plan, ending: Arc<AtomicBool>, calls: Arc<AtomicU64>) -> History {
        let mut count = 0u64;
        while !ending.load(Ordering::SeqCst) {
            let mut chosen = Vec::new();
            for _ in 0..plan.depth {
                count += 1;
                chosen.push(self.choose(plan.keys as u64, count));
            }
            let began = now(self.clock);
            let mut answers = Vec::new();
            let note = |number: usize, answered: Answered| answers.push((number, now(self.clock), answered));
            self.client.call_all(&chosen, note).await;
            for (number, at, answered) in answers {
                let ended: Option<(u64, Reply)> = match answered {
                    Answered::Reply(reply) => {
                        calls.fetch_add(1, Ordering::SeqCst);
                        Some((at, reply))
                    }
                    Answered::Never => continue,
                    Answered::Open => None,
                    Answered::Error(text) => {
                        *self.history.errors.entry(text).or_default() += 1;
                        None
                    }
                };
                let (key, operation) = chosen[number].clone();
                self.history.calls.entry(key).or_default().push(Call { client: self.number, operation, began, ended });
            }
            tokio::time::sleep(plan.pause).await;
        }
        self.history
    }

    /// A key and what is done to it. What is written is unlike anything else of the run.
    fn choose(&mut self, keys: u64, count: u64) -> (String, Operation) {
        let key = self.dice.below(keys);
        let unique = format!("{}.{count}", self.number);
        let choice = self.dice.below(100);
        match self.dice.below(3) {
            0 => {
                let operation = match choice {
                    0..30 => Operation::Get,
                    30..50 => Operation::Set(unique),
                    50..90 => Operation::Append(format!(",{unique}")),
                    _ => Operation::Del,
                };
                (format!("text:{key}"), operation)
            }
            1 => {
                let operation = match choice {
                    0..25 => Operation::Get,
                    25..98 => Operation::Incr,
                    _ => Operation::Del,
                };
                (format!("counter:{key}"), operation)
            }
            _ => {
                let field = format!("f{}", self.dice.below(FIELDS));
                let operation = match choice {
                    0..40 => Operation::HGet(field),
                    40..95 => Operation::HSet(field, unique),
                    _ => Operation::Del,
                };
                (format!("hash:{key}"), operation)
            }
        }
    }
}
