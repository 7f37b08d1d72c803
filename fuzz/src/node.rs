//! A store inside of this process, and a client's connection to it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
use sluice_store::{
    config::{self, Invocation},
    server,
};

/// For an answer. What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module's text. The store lives as long as the process.
pub(crate) struct Node {
    stream: TcpStream,
    received: Vec<u8>,
    _directory: tempfile::TempDir,
}

impl Node {
    /// Starts a store of its own, with those settings.
    pub(crate) fn start(settings: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let (port, admin_port) = (one.local_addr()?.port().to_string(), other.local_addr()?.port().to_string());
        drop((one, other));
        let data = directory.path().join("data");
        let fixed = [
            "--port",
            &port,
            "--admin-port",
            &admin_port,
            "--dir",
            &data.to_string_lossy(),
            "--wal",
            "no",
            "--memory-budget",
            "256mb",
        ]
        .map(str::to_owned);
        let words = fixed.into_iter().chain(settings.iter().map(|word| (*word).to_owned()));
        let Invocation::Serve(settings) = config::load(words, std::iter::empty())? else { anyhow::bail!("no store is started") };
        std::thread::spawn(move || server::serve(*settings).expect("a store that serves"));
        let begun = Instant::now();
        let stream = loop {
            match TcpStream::connect(format!("127.0.0.1:{port}")) {
                Ok(stream) => break stream,
                Err(error) => anyhow::ensure!(begun.elapsed() < PATIENCE, "the store does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new(), _directory: directory })
    }

    /// Sends commands behind one another and takes their answers.
    pub(crate) fn ask_all(&mut self, commands: &[&[&[u8]]]) -> Vec<OwnedFrame> {
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in *words {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.stream.write_all(&bytes).expect("the store takes commands");
        commands.iter().map(|_| self.answer()).collect()
    }

    /// One command and its answer.
    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> OwnedFrame {
        self.ask_all(&[words]).pop().expect("an answer")
    }

    fn answer(&mut self) -> OwnedFrame {
        loop {
            if let Some((frame, length)) = decode(&self.received).expect("an answer of the protocol") {
                self.received.drain(..length);
                return frame;
            }
            let mut more = vec![0; 64 << 10];
            let count = match self.stream.read(&mut more) {
                Ok(count) => count,
                // libFuzzer's own clock.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("the store does not answer: {error}"),
            };
            assert!(count > 0, "the store has closed the connection");
            self.received.extend_from_slice(&more[..count]);
        }
    }
}

/// Whether an answer is an error.
pub(crate) fn error(answer: &OwnedFrame) -> Option<&str> {
    match answer {
        OwnedFrame::Error(text) => Some(text),
        _ => None,
    }
}

/// How many elements an array has.
pub(crate) fn length(answer: &OwnedFrame) -> Option<i64> {
    match answer {
        OwnedFrame::Array(elements) => Some(elements.len() as i64),
        _ => None,
    }
}

/// What a bulk string holds.
pub(crate) fn bulk(answer: OwnedFrame) -> Option<Vec<u8>> {
    match answer {
        OwnedFrame::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}
