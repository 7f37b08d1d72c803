//! Writers that pipeline, and see each answer by itself: a connection that breaks leaves some of a pipeline answered and some not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use sluice_tests::store::StoreProcess;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::RwLock,
};

use crate::account::{Account, Entry, Op, State};

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

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below that bound (splitmix64).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A connection that sends many commands and reads one answer at a time.
pub(crate) struct Connection(BufReader<TcpStream>);

/// An answer, as far as these tests look into it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Line(String),
    Bulk(Option<String>),
    Array(Vec<Answer>),
}

impl Connection {
    pub(crate) async fn open(store: &StoreProcess) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(store.address()).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) async fn send(&mut self, commands: &[Vec<String>]) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        }
        Ok(self.0.get_mut().write_all(&bytes).await?)
    }

    /// The next answer; an error answer is an error.
    pub(crate) async fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "the connection is closed");
        let line = line.strip_suffix("\r\n").context("the connection was closed within a line")?;
        let (kind, rest) = line.split_at_checked(1).context("an empty line")?;
        match kind {
            "+" | ":" => Ok(Answer::Line(rest.to_owned())),
            "$" => match rest.parse::<i64>()? {
                -1 => Ok(Answer::Bulk(None)),
                length => {
                    let mut bytes = vec![0; usize::try_from(length)? + 2];
                    self.0.read_exact(&mut bytes).await?;
                    bytes.truncate(bytes.len() - 2);
                    Ok(Answer::Bulk(Some(String::from_utf8(bytes)?)))
                }
            },
            "*" => {
                let mut answers = Vec::new();
                for _ in 0..rest.parse::<u64>()? {
                    answers.push(Box::pin(self.answer()).await?);
                }
                Ok(Answer::Array(answers))
            }
            "-" => bail!(RefusedError(rest.to_owned())),
            _ => bail!("no answer begins with {line:?}"),
        }
    }

    /// One command and its answer.
    pub(crate) async fn ask(&mut self, words: &[&str]) -> anyhow::Result<Answer> {
        self.send(&[words.iter().map(|word| (*word).to_owned()).collect()]).await?;
        self.answer().await
    }
}

/// An error answer: not a broken connection.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub(crate) struct RefusedError(pub(crate) String);

/// A writer with keys of its own.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) number: u64,
    pub(crate) account: Arc<Mutex<Account>>,
}

impl Writer {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, account: Arc::default() }
    }

    pub(crate) fn with_account<R>(&self, act: impl FnOnce(&mut Account) -> R) -> R {
        act(&mut self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn key(&self, kind: &str, number: u64) -> String {
        format!("{kind}:{}:{number}", self.number)
    }

    /// Every key it may write.
    fn keys(&self) -> Vec<String> {
        ["value", "counter", "short"].iter().flat_map(|kind| (0..KEYS).map(|number| self.key(kind, number))).collect()
    }

    fn op(&self, dice: &mut Dice) -> Op {
        let value = |dice: &mut Dice| {
            let letter = char::from(b'a' + dice.below(26) as u8);
            format!("{}{}", dice.below(1 << 40), String::from(letter).repeat(dice.below(300) as usize))
        };
        let key = self.key("value", dice.below(KEYS));
        match dice.below(20) {
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
            _ => Op::Set(self.key("short", dice.below(KEYS)), value(dice), Some(now_ms() + dice.below(SOON_MS_MAX))),
        }
    }

    /// Writes until the connection breaks. While somebody holds `pause` alone, nothing is under way. An error answer is an error.
    pub(crate) async fn write(self, store: &StoreProcess, pause: &RwLock<()>, seed: u64) -> anyhow::Result<()> {
        let mut dice = Dice::new(seed);
        let Ok(mut connection) = Connection::open(store).await else { return Ok(()) };
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
                    Ok(_) => self.with_account(Account::acknowledge),
                    Err(error) if error.is::<RefusedError>() => return Err(error),
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    /// Reads every key it may have written.
    pub(crate) async fn read_back(&self, connection: &mut Connection) -> anyhow::Result<State> {
        let keys = self.keys();
        let commands: Vec<Vec<String>> =
            keys.iter().flat_map(|key| ["GET", "PEXPIRETIME"].map(|name| vec![name.to_owned(), key.clone()])).collect();
        connection.send(&commands).await?;
        let mut state = State::new();
        for key in keys {
            let (value, expires) = (connection.answer().await?, connection.answer().await?);
            // A key that expires between the two is gone.
            if let (Answer::Bulk(Some(value)), Answer::Line(expires)) = (value, expires)
                && expires != "-2"
            {
                state.insert(key, Entry { value, expires_at_ms: expires.parse().ok() });
            }
        }
        Ok(state)
    }
}
