//! A connection to a node's admin plane.

use std::time::Duration;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    reply::{self, Reply, ReplyError},
    status::{FlushReceipt, MigrationStatus, NodeStatus, SlotStats},
};
use crate::{
    document::{DocumentError, TopologyDocument},
    ids::{InstanceId, JobId, LeaderEpoch, NodeId},
    merge::MergeReport,
    ranges::SlotRanges,
    tls::{ClientTls, Stream, explain},
};

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub struct AdminTimeouts {
    /// For name resolution and the connection.
    pub connect: Duration,
    /// For one answer.
    pub answer: Duration,
}

impl Default for AdminTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), answer: Duration::from_secs(10) }
    }
}

/// A word from this size on is sent from where it is.
const UNCOPIED_MIN: usize = 16 << 10;

/// Most bytes in one call of the system: while it copies, some kernels give the processor to nobody else.
const PART: usize = 256 << 10;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The node was not reached: nothing was sent.
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// The system's reason.
        why: String,
    },
    /// There is no TLS with it, or not the node that was meant: nothing was sent.
    #[error("no TLS with {endpoint}: {why}")]
    Untrusted {
        /// Host and port.
        endpoint: String,
        /// What is wrong: with its certificate, mostly.
        why: String,
    },
    /// The link broke, or no answer came in time: whether the command ran is unknown.
    #[error("{endpoint} did not answer {command}: {why}")]
    NoAnswer {
        /// Host and port.
        endpoint: String,
        /// The command, without its arguments.
        command: String,
        /// The system's reason.
        why: String,
    },
    /// The node refused the command; its text says why.
    #[error("{endpoint} refused {command}: {message}")]
    Refused {
        /// Host and port.
        endpoint: String,
        /// The command, without its arguments.
        command: String,
        /// The node's error text.
        message: String,
    },
    /// The node answered what the command never answers.
    #[error("{endpoint} answered {command} with nonsense: {why}")]
    Nonsense {
        /// Host and port.
        endpoint: String,
        /// The command, without its arguments.
        command: String,
        /// What is wrong with it.
        why: String,
    },
    /// The document to send contradicts itself; nothing was sent.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// One connection to a node's admin plane. After an error other than [`AdminError::Refused`] it is not used again.
pub struct AdminClient {
    endpoint: String,
    stream: Stream,
    buffer: BytesMut,
    answer: Duration,
}

impl AdminClient {
    /// Connects to `host:port`, encrypted when there is something to do that with, and authenticates when a password is given.
    pub async fn connect(
        host: &str,
        port: u16,
        password: Option<&str>,
        tls: Option<&ClientTls>,
        timeouts: AdminTimeouts,
    ) -> Result<Self, AdminError> {
        let endpoint = format!("{host}:{port}");
        let unreachable = |why: String| AdminError::Unreachable { endpoint: endpoint.clone(), why };
        let connecting = async {
            let stream = TcpStream::connect((host, port)).await.map_err(|error| unreachable(error.to_string()))?;
            stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            match tls {
                None => Ok(Stream::Plain(stream)),
                Some(tls) => tls
                    .connect(stream, host)
                    .await
                    .map_err(|error| AdminError::Untrusted { endpoint: endpoint.clone(), why: explain(&error) }),
            }
        };
        let stream = match timeout(timeouts.connect, connecting).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(unreachable(format!("no connection within {} ms", timeouts.connect.as_millis()))),
        };
        let mut client = Self { endpoint, stream, buffer: BytesMut::new(), answer: timeouts.answer };
        if let Some(password) = password {
            client.call(&[b"AUTH", password.as_bytes()]).await?;
        }
        Ok(client)
    }

    /// The node's account of itself.
    pub async fn status(&mut self) -> Result<NodeStatus, AdminError> {
        self.json("CLUSTERX STATUS", &[b"CLUSTERX", b"STATUS"]).await
    }

    /// Pushes a document; what the node did with it is in the report.
    pub async fn set_topology(&mut self, document: &TopologyDocument) -> Result<MergeReport, AdminError> {
        document.validate()?;
        let text = document.to_json()?;
        self.json("CLUSTERX SETTOPOLOGY", &[b"CLUSTERX", b"SETTOPOLOGY", text.as_bytes()]).await
    }

    /// Starts moving slots of this node to another, and returns the job's number at once.
    pub async fn migrate(&mut self, slots: &SlotRanges, target: NodeId, leader: LeaderEpoch) -> Result<JobId, AdminError> {
        let (slots, target, leader) = (slots.to_string(), target.to_string(), leader.to_string());
        let words: [&[u8]; 7] =
            [b"CLUSTERX", b"MIGRATE", slots.as_bytes(), target.as_bytes(), b"ASYNC", b"LEADER", leader.as_bytes()];
        match self.call(&words).await? {
            Reply::Integer(job) if job >= 0 => Ok(JobId(job.unsigned_abs())),
            other => Err(self.nonsense("CLUSTERX MIGRATE", format!("{other:?} is not a job number"))),
        }
    }

    /// Jobs with this node as their source.
    pub async fn migrations(&mut self) -> Result<Vec<MigrationStatus>, AdminError> {
        Ok(self.status().await?.migrations)
    }

    /// Cancels a job; units already switched stay switched.
    pub async fn cancel(&mut self, job: JobId, leader: LeaderEpoch) -> Result<(), AdminError> {
        let (job, leader) = (job.to_string(), leader.to_string());
        self.call(&[b"CLUSTERX", b"CANCEL", job.as_bytes(), b"LEADER", leader.as_bytes()]).await.map(|_| ())
    }

    /// Keys and bytes of each of those slots.
    pub async fn slot_stats(&mut self, slots: &SlotRanges) -> Result<SlotStats, AdminError> {
        let text = slots.to_string();
        let stats: SlotStats = self.json("CLUSTERX SLOTSTATS", &[b"CLUSTERX", b"SLOTSTATS", text.as_bytes()]).await?;
        if stats.slots != *slots || stats.keys.len() != slots.len() || stats.bytes.len() != slots.len() {
            return Err(self.nonsense("CLUSTERX SLOTSTATS", "it speaks of other slots than asked for".into()));
        }
        Ok(stats)
    }

    /// Flushes every memtable and returns the proof. `limit` bounds the node's wait; the flush itself goes on past it.
    pub async fn flush(&mut self, limit: Duration) -> Result<FlushReceipt, AdminError> {
        let limit_ms = limit.as_millis().max(1).to_string();
        let usual = std::mem::replace(&mut self.answer, limit + Duration::from_secs(5));
        let reply = self.call(&[b"FLUSHMEMTABLE", b"TIMEOUT", limit_ms.as_bytes(), b"RECEIPT"]).await;
        self.answer = usual;
        receipt(&reply?).map_err(|why| self.nonsense("FLUSHMEMTABLE", why))
    }

    /// Sends one command and reads its answer; an error reply is [`AdminError::Refused`].
    pub async fn call(&mut self, words: &[&[u8]]) -> Result<Reply, AdminError> {
        self.send(words).await?;
        self.receive(words).await
    }

    /// Sends a command without waiting for its answer. Answers come in order, one by each [`AdminClient::receive`]. Given up in the middle,
    /// the connection is not used again.
    pub async fn send(&mut self, words: &[&[u8]]) -> Result<(), AdminError> {
        match timeout(self.answer, self.write(words)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.no_answer(words, explain(&error))),
            Err(_) => Err(self.no_answer(words, format!("it took nothing for {} ms", self.answer.as_millis()))),
        }
    }

    /// Waits for the answer to the oldest command that has none; `words` name it where it fails. May be given up and called again.
    pub async fn receive(&mut self, words: &[&[u8]]) -> Result<Reply, AdminError> {
        let reply = match timeout(self.answer, self.read()).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(Broken::Link(why))) => return Err(self.no_answer(words, why)),
            Ok(Err(Broken::Reply(error))) => return Err(self.nonsense(&name(words), error.to_string())),
            Err(_) => return Err(self.no_answer(words, format!("no answer within {} ms", self.answer.as_millis()))),
        };
        match reply {
            Reply::Error(message) => Err(AdminError::Refused { endpoint: self.endpoint.clone(), command: name(words), message }),
            reply => Ok(reply),
        }
    }

    /// Waits for the end of a connection of which no answer is due; `words` name what it was for. May be given up and called again.
    pub async fn ended(&mut self, words: &[&[u8]]) -> AdminError {
        let why = match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => "it closed the connection".into(),
            Ok(_) => "it said what was not asked for".into(),
            Err(error) => explain(&error),
        };
        self.no_answer(words, why)
    }

    async fn write(&mut self, words: &[&[u8]]) -> std::io::Result<()> {
        let mut request = BytesMut::new();
        request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            if word.len() < UNCOPIED_MIN {
                request.extend_from_slice(word);
            } else {
                self.stream.write_all(&request).await?;
                for part in word.chunks(PART) {
                    self.stream.write_all(part).await?;
                }
                request.clear();
            }
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).await?;
        self.stream.flush().await
    }

    async fn read(&mut self) -> Result<Reply, Broken> {
        loop {
            let needed = match reply::take(&mut self.buffer)? {
                Ok(reply) => return Ok(reply),
                Err(more) => more.max(self.buffer.len() + 1),
            };
            while self.buffer.len() < needed {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(Broken::Link("it closed the connection".into()));
                }
            }
        }
    }

    async fn json<T: DeserializeOwned>(&mut self, command: &str, words: &[&[u8]]) -> Result<T, AdminError> {
        match self.call(words).await? {
            Reply::Bulk(text) => serde_json::from_slice(&text).map_err(|error| self.nonsense(command, error.to_string())),
            _ => Err(self.nonsense(command, "it is not a bulk string".into())),
        }
    }

    fn no_answer(&self, words: &[&[u8]], why: String) -> AdminError {
        AdminError::NoAnswer { endpoint: self.endpoint.clone(), command: name(words), why }
    }

    fn nonsense(&self, command: &str, why: String) -> AdminError {
        AdminError::Nonsense { endpoint: self.endpoint.clone(), command: command.to_owned(), why }
    }
}

enum Broken {
    Link(String),
    Reply(ReplyError),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Link(explain(&error))
    }
}

impl From<ReplyError> for Broken {
    fn from(error: ReplyError) -> Self {
        Self::Reply(error)
    }
}

/// The command's name for messages: never its arguments, which may be secrets or large.
fn name(words: &[&[u8]]) -> String {
    let shown = if words.first().is_some_and(|word| word.eq_ignore_ascii_case(b"CLUSTERX")) { 2 } else { 1 };
    words.iter().take(shown).map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
}

fn receipt(reply: &Reply) -> Result<FlushReceipt, String> {
    let Reply::Array(items) = reply else { return Err("it is not a map".into()) };
    let field = |name: &str| -> Result<&Reply, String> {
        items
            .chunks_exact(2)
            .find(|pair| matches!(&pair[0], Reply::Bulk(key) if key.as_ref() == name.as_bytes()))
            .map(|pair| &pair[1])
            .ok_or_else(|| format!("`{name}` is missing"))
    };
    let number = |name: &str| match field(name)? {
        Reply::Integer(value) => u64::try_from(*value).map_err(|_| format!("`{name}` is negative")),
        other => Err(format!("`{name}` is {other:?}, not a number")),
    };
    let instance: InstanceId = match field("instance")? {
        Reply::Bulk(text) => std::str::from_utf8(text).map_err(|e| e.to_string())?.parse().map_err(|e| format!("{e}"))?,
        other => return Err(format!("`instance` is {other:?}")),
    };
    Ok(FlushReceipt {
        instance,
        round: number("round")?,
        sequence: number("sequence")?,
        durable_at_ms: number("durable_at_ms")?,
        bytes: number("bytes")?,
        duration_ms: number("duration_ms")?,
        waiters: number("waiters")?,
    })
}
