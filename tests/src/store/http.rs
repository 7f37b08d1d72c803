//! HTTP of a store's admin plane.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, ensure};

use super::StoreProcess;

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// What it says.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// What it says, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl StoreProcess {
    /// A request to the admin plane, with further header lines.
    pub fn http(&self, method: &str, path: &str, headers: &[&str]) -> anyhow::Result<HttpAnswer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.setup().admin_port))?;
        // Of an earlier version, so that answers come in one piece.
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: store\r\n")?;
        headers.iter().try_for_each(|line| write!(stream, "{line}\r\n"))?;
        stream.write_all(b"\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no HTTP answer")?;
        let (head, body) = (String::from_utf8_lossy(&answer[..at]).into_owned(), answer[at + 4..].to_vec());
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no HTTP status")?;
        Ok(HttpAnswer { status, head, body })
    }

    /// The text of /metrics.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let answer = self.http("GET", "/metrics", &[])?;
        ensure!(answer.status == 200, "{}", answer.head);
        Ok(answer.text())
    }
}
