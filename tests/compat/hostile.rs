//! Input that is not a request: refused by name, and everybody else is served on.

use std::time::Duration;

use anyhow::ensure;
use sluice_tests::store::{Setup, StoreProcess};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Sends bytes and returns what comes back until the store closes the connection or is silent.
async fn exchange(store: &StoreProcess, bytes: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(store.address()).await?;
    let (mut reader, mut writer) = stream.split();
    // A store that has refused the beginning does not read the end.
    let _ = tokio::time::timeout(Duration::from_secs(10), writer.write_all(bytes)).await;
    let mut answer = vec![0; 4096];
    let count = tokio::time::timeout(Duration::from_secs(10), reader.read(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_by_name() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("client-query-buffer-limit", "1mb"), ("proto-max-bulk-len", "1mb")])?
        .start()
        .await?;
    let deep = "*1\r\n".repeat(10_000);
    let long = "a".repeat(10 << 20);
    let cases = [
        (long.as_str(), "too big inline request"),
        (deep.as_str(), "expected '$', got '*'"),
        ("*-5\r\n*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$99999999999\r\n", "invalid bulk length"),
        ("*99999999\r\n", "invalid multibulk length"),
        ("*2\r\n$3\r\nGET\r\n:5\r\n", "expected '$', got ':'"),
        ("SET \"a b\r\n", "unbalanced quotes"),
        ("\u{1}\u{2}\u{3}\r\n", "unknown command"),
    ];
    for (input, expected) in cases {
        let answer = exchange(&store, input.as_bytes()).await;
        // A reset is what a client sees that goes on sending after the refusal; the refusal itself may be lost with it.
        let Ok(answer) = answer else { continue };
        ensure!(answer.contains(expected), "{}…: {answer}", &input[..input.len().min(20)]);
    }
    ensure!(exchange(&store, b"PING\r\n").await? == "+PONG\r\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_past_its_limit_is_an_error_and_no_memory() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("client-output-buffer-limit", "1mb")])?.start().await?;
    let mut client = store.client().await?;
    redis::cmd("SET").arg("big").arg(vec![b'x'; 600_000]).query_async::<()>(&mut client).await?;
    let refused = redis::cmd("MGET").arg(&["big", "big"]).query_async::<Vec<Vec<u8>>>(&mut client).await;
    let error = refused.expect_err("it has to be refused").to_string();
    ensure!(error.contains("client-output-buffer-limit"), "{error}");
    let whole: Vec<u8> = redis::cmd("GET").arg("big").query_async(&mut client).await?;
    ensure!(whole.len() == 600_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_password_nothing_but_auth_is_done() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("requirepass", "secret")])?.start().await?;
    for (input, expected) in [
        ("GET a\r\n", "-NOAUTH Authentication required."),
        ("AUTH wrong\r\n", "-WRONGPASS"),
        ("HELLO 3\r\n", "-NOAUTH HELLO must be called"),
        ("AUTH secret\r\nGET a\r\n", "+OK\r\n$-1\r\n"),
        ("*2\r\n$4\r\nAUTH\r\n$20000\r\n", "invalid bulk length"),
    ] {
        let answer = exchange(&store, input.as_bytes()).await?;
        ensure!(answer.contains(expected), "{input}: {answer}");
    }
    ensure!(!store.log().contains("secret"), "a secret is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_client_table_does_not_stop_the_admin_plane() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("maxclients", "5")])?.start().await?;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(store.address()).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).await?;
        open.push(stream);
    }
    ensure!(exchange(&store, b"PING\r\n").await?.contains("max number of clients reached"));
    ensure!(store.admin().await?.status().await?.ready, "the admin plane has to answer");
    let receipt = store.admin().await?.flush(Duration::from_secs(30)).await?;
    ensure!(receipt.round >= 1);
    Ok(())
}
