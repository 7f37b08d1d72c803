//! A connection that sends whole pipelines and sees each answer by itself: one that breaks leaves some of a pipeline answered and some not.

use anyhow::{Context as _, bail, ensure};
use sluice_topology::tls::{ClientTls, Stream};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// An answer, in RESP2 or RESP3.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// `+`
    Simple(String),
    /// `-`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`, or `_` for none.
    Bulk(Option<Vec<u8>>),
    /// `*`
    Array(Vec<Answer>),
    /// `*-1`: an array that is not there.
    NullArray,
    /// `~`
    Set(Vec<Answer>),
    /// `>`: a message that no command asked for.
    Push(Vec<Answer>),
    /// `,`: a number as its text.
    Double(String),
    /// `#`
    Boolean(bool),
    /// `=`: format and text.
    Verbatim(String),
    /// `%`: keys and values in turn.
    Map(Vec<Answer>),
}

impl Answer {
    /// A bulk string's text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Bulk(Some(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The elements of an aggregate; those of a map are keys and values in turn.
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::Array(elements) | Self::Set(elements) | Self::Push(elements) | Self::Map(elements) => elements,
            _ => &[],
        }
    }
}

/// See the module's text.
pub struct Connection(BufReader<Stream>);

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(Stream::Plain(stream))))
    }

    /// Connects to `host:port` by TLS.
    pub async fn open_encrypted(address: &str, tls: &ClientTls) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Ok(Self(BufReader::new(tls.connect(stream, host).await?)))
    }

    /// Sends commands behind one another.
    pub async fn send(&mut self, commands: &[Vec<String>]) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        }
        self.write(&bytes).await
    }

    /// The next answer. An error is the connection's; what the server refuses is an [`Answer::Error`].
    pub async fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "the connection is closed");
        let line = line.strip_suffix("\r\n").context("the connection was closed within a line")?;
        let (kind, rest) = line.split_at_checked(1).context("an empty line")?;
        Ok(match kind {
            "+" => Answer::Simple(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Integer(rest.parse()?),
            "_" => Answer::Bulk(None),
            "$" => match usize::try_from(rest.parse::<i64>()?) {
                Err(_) => Answer::Bulk(None),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes).await?;
                    bytes.truncate(length);
                    Answer::Bulk(Some(bytes))
                }
            },
            "*" if rest.starts_with('-') => Answer::NullArray,
            "*" => Answer::Array(self.elements(rest.parse::<i64>()?).await?),
            "~" => Answer::Set(self.elements(rest.parse::<i64>()?).await?),
            ">" => Answer::Push(self.elements(rest.parse::<i64>()?).await?),
            "," => Answer::Double(rest.to_owned()),
            "#" => Answer::Boolean(rest == "t"),
            "=" => {
                let mut bytes = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Answer::Verbatim(String::from_utf8(bytes)?)
            }
            "(" => Answer::Bulk(Some(rest.as_bytes().to_vec())),
            "%" => Answer::Map(self.elements(2 * rest.parse::<i64>()?).await?),
            _ => bail!("no answer begins with {line:?}"),
        })
    }

    async fn elements(&mut self, count: i64) -> anyhow::Result<Vec<Answer>> {
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(Box::pin(self.answer()).await?);
        }
        Ok(elements)
    }

    /// Several commands in one pipeline, and their answers.
    pub async fn ask_all(&mut self, commands: &[Vec<String>]) -> anyhow::Result<Vec<Answer>> {
        self.send(commands).await?;
        let mut answers = Vec::new();
        for _ in commands {
            answers.push(self.answer().await?);
        }
        Ok(answers)
    }

    /// One command of words that are no texts, and its answer.
    pub async fn ask_bytes(&mut self, words: &[&[u8]]) -> anyhow::Result<Answer> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.write(&bytes).await?;
        self.answer().await
    }

    async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.get_mut().write_all(bytes).await?;
        Ok(self.0.get_mut().flush().await?)
    }

    /// One command and its answer.
    pub async fn ask(&mut self, words: &[&str]) -> anyhow::Result<Answer> {
        self.send(&[words.iter().map(|word| (*word).to_owned()).collect()]).await?;
        self.answer().await
    }
}
