//! Writers that pipeline, until the connection breaks.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use sluice_tests::{
    dice::Dice,
    resp::{Answer, Connection},
    store::StoreProcess,
};
use tokio::sync::RwLock;

use crate::{
    account::{Account, Op, State},
    groups::{self, GroupOp},
    members::MembersOp,
    ordered::OrderedOp,
    reading,
};

/// Keys of each kind a writer has.
const KEYS: u64 = 24;
/// Most commands of one pipeline.
const PIPELINE_MAX: u64 = 16;
/// Far enough away for no key to expire while a test runs.
const FAR_MS: u64 = 40 * 24 * 3_600_000;
/// Times to live of the keys that do expire.
const SOON_MS_MAX: u64 = 2500;

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A writer with keys of its own.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) number: u64,
    pub(crate) account: Arc<Mutex<Account>>,
    /// Number of the next entry of a stream.
    next_entry: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, account: Arc::default(), next_entry: Arc::new(AtomicU64::new(1)) }
    }

    pub(crate) fn with_account<R>(&self, act: impl FnOnce(&mut Account) -> R) -> R {
        act(&mut self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn key(&self, kind: &str, number: u64) -> String {
        format!("{kind}:{}:{number}", self.number)
    }

    /// Every key it may write.
    fn keys(&self) -> Vec<String> {
        ["value", "counter", "short", "hash", "list", "stream", "set", "zset"]
            .iter()
            .flat_map(|kind| (0..KEYS).map(|number| self.key(kind, number)))
            .collect()
    }

    fn op(&self, dice: &mut Dice) -> Op {
        let value = |dice: &mut Dice| {
            let letter = char::from(b'a' + dice.below(26) as u8);
            format!("{}{}", dice.below(1 << 40), String::from(letter).repeat(dice.below(300) as usize))
        };
        let key = self.key("value", dice.below(KEYS));
        let hash = self.key("hash", dice.below(KEYS / 4));
        let field = |dice: &mut Dice| format!("field:{}", dice.below(12));
        let collection = dice.below(72);
        if collection < 42 {
            let mut name = |kind: &str| self.key(kind, dice.below(KEYS / 4));
            let (lists, sets, sorted_sets) =
                ([name("list"), name("list")], [name("set"), name("set")], [name("zset"), name("zset")]);
            // Few: what is read of one is then often claimed and acknowledged.
            let stream = self.key("stream", dice.below(2));
            return match collection {
                0 if dice.below(6) == 0 => Op::Delete(vec![lists[0].clone(), stream]),
                0 => Op::Delete(vec![lists[0].clone()]),
                1 => Op::Delete(vec![sets[0].clone(), sorted_sets[0].clone()]),
                2 => Op::ExpireAt(sets[0].clone(), now_ms() + FAR_MS + dice.below(1000)),
                3 => Op::ExpireAt(sorted_sets[0].clone(), now_ms() + FAR_MS + dice.below(1000)),
                4..=13 => Op::Members(MembersOp::random(dice, sets, sorted_sets)),
                14..=25 => Op::Group(GroupOp::random(dice, stream, self.next_entry.load(Ordering::Relaxed))),
                _ => {
                    let [list, other] = lists;
                    // Ids go up whatever becomes of those before.
                    let number = self.next_entry.fetch_add(1, Ordering::Relaxed);
                    Op::Ordered(OrderedOp::random(dice, [list, other, stream], number))
                }
            };
        }
        match dice.below(30) {
            0..=4 => Op::Set(key, value(dice), None),
            5..=8 => Op::Increment(self.key("counter", dice.below(KEYS))),
            9..=11 => {
                let first = dice.below(KEYS);
                let keys = (0..5).map(|step| self.key("value", (first + step * 3) % KEYS));
                Op::SetMany(keys.map(|key| (key, value(dice))).collect::<Vec<_>>())
            }
            // Not for ever: a SET makes it short again.
            12 => Op::Append(key, "+".repeat(dice.below(20) as usize)),
            13 => Op::Delete(vec![key, self.key("counter", dice.below(KEYS))]),
            14 => Op::Set(key, value(dice), Some(now_ms() + FAR_MS + dice.below(1000))),
            15 => Op::ExpireAt(key, now_ms() + FAR_MS + dice.below(1000)),
            16 => Op::Persist(key),
            17 => Op::Delete(vec![self.key("short", dice.below(KEYS))]),
            18..=21 => Op::SetFields(hash, (0..=dice.below(6)).map(|_| (field(dice), value(dice))).collect()),
            22..=24 => Op::DeleteFields(hash, (0..=dice.below(4)).map(|_| field(dice)).collect()),
            25 | 26 => Op::IncrementField(hash, format!("number:{}", dice.below(4))),
            27 => match dice.below(3) {
                0 => Op::Delete(vec![hash]),
                1 => Op::ExpireAt(hash, now_ms() + FAR_MS + dice.below(1000)),
                _ => Op::Persist(hash),
            },
            _ => Op::Set(self.key("short", dice.below(KEYS)), value(dice), Some(now_ms() + dice.below(SOON_MS_MAX))),
        }
    }

    /// Writes until the connection breaks. While somebody holds `pause` alone, nothing is under way. An error answer is an error.
    pub(crate) async fn write(self, store: &StoreProcess, pause: &RwLock<()>, seed: u64) -> anyhow::Result<()> {
        let mut dice = Dice::new(seed);
        let Ok(mut connection) = Connection::open(&store.address()).await else { return Ok(()) };
        loop {
            let _together = pause.read().await;
            let ops: Vec<Op> = (0..=dice.below(PIPELINE_MAX)).map(|_| self.op(&mut dice)).collect();
            let commands: Vec<Vec<String>> = ops.iter().map(Op::words).collect();
            let count = ops.len();
            self.with_account(|account| ops.into_iter().for_each(|op| account.send(op)));
            if connection.send(&commands).await.is_err() {
                return Ok(());
            }
            for _ in 0..count {
                match connection.answer().await {
                    Ok(Answer::Error(text)) if !groups::is_refused(&text) => anyhow::bail!("refused: {text}"),
                    Ok(_) => self.with_account(Account::acknowledge),
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    /// Reads every key it may have written. One that does not agree with itself is an error.
    pub(crate) async fn read_back(&self, connection: &mut Connection) -> anyhow::Result<State> {
        let mut state = State::new();
        for key in self.keys() {
            if let Some(entry) = reading::read(connection, &key).await? {
                state.insert(key, entry);
            }
        }
        Ok(state)
    }
}
