//! Who holds memory: each of them in the account, each within its bound.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::ensure;
use sluice_tests::store::{Setup, StoreProcess, wait_for};

async fn held(store: &StoreProcess, field: &str) -> anyhow::Result<u64> {
    Ok(store.info(field).await?.parse()?)
}

/// A request as it is sent.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_ranks_are_in_the_account_with_their_bound() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut client = store.client().await?;
    ensure!(held(&store, "rank_tables_used").await? == 0);
    let mut add = redis::cmd("ZADD");
    add.arg("board");
    (0..20_000).for_each(|member| _ = add.arg(member).arg(format!("member:{member}")));
    let () = add.query_async(&mut client).await?;
    let rank: u64 = redis::cmd("ZRANK").arg("board").arg("member:15000").query_async(&mut client).await?;
    ensure!(rank == 15_000);
    let (used, limit) = (held(&store, "rank_tables_used").await?, held(&store, "rank_tables_limit").await?);
    ensure!(used > 0 && used <= limit && limit == 32 << 20, "{used} of {limit}");
    ensure!(store.metrics()?.contains("sluice_memory_owner_bytes{owner=\"rank_tables\"}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_and_what_multi_queues_count_as_their_clients() -> anyhow::Result<()> {
    const LENGTH: usize = 4 << 20;
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("maxmemory-clients", "200mb")])?.start().await?;
    let mut admin = store.client().await?;
    let value = vec![b'v'; LENGTH];
    // In its line of CLIENT LIST and in the account.
    let field = |list: &str, who: &str, name: &str| -> Option<u64> {
        let line = list.lines().find(|line| line.contains(&format!("name={who} ")))?;
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let connect = |who: &str| -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(store.address())?;
        stream.write_all(&request(&[b"CLIENT", b"SETNAME", who.as_bytes()]))?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n");
        Ok(stream)
    };
    // One that waits for keys, with a name as long as keys may be, many times over.
    let mut blocked = connect("blocked")?;
    let keys: Vec<Vec<u8>> = (0..16).map(|number| vec![number; 60 << 10]).collect();
    let words: Vec<&[u8]> = [&b"BLPOP"[..]].into_iter().chain(keys.iter().map(Vec::as_slice)).chain([&b"0"[..]]).collect();
    blocked.write_all(&request(&words))?;
    // One that queues.
    let mut queues = connect("queues")?;
    queues.write_all(&[request(&[b"MULTI"]), request(&[b"SET", b"queued", &value])].concat())?;
    // One that is held back by a pause.
    let mut paused = connect("paused")?;
    let () = redis::cmd("CLIENT").arg("PAUSE").arg(600_000).arg("WRITE").query_async(&mut admin).await?;
    paused.write_all(&request(&[b"SET", b"paused", &value]))?;
    let expected = [("blocked", "argv-mem", 16 * (60 << 10)), ("queues", "multi-mem", LENGTH), ("paused", "argv-mem", LENGTH)];
    wait_for("what waits to be in the account", || async {
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin.clone()).await?;
        Ok(expected.iter().all(|(who, name, bytes)| field(&list, who, name).is_some_and(|held| held >= *bytes as u64)))
    })
    .await?;
    let account = held(&store, "clients_used").await?;
    ensure!(account >= expected.iter().map(|(_, _, bytes)| *bytes as u64).sum(), "{account}");

    // And it goes as it comes.
    let () = redis::cmd("CLIENT").arg("UNPAUSE").query_async(&mut admin).await?;
    queues.write_all(&request(&[b"DISCARD"]))?;
    let () = redis::cmd("RPUSH").arg(&keys[3]).arg("served").query_async(&mut admin).await?;
    wait_for("it to be given back", || async {
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin.clone()).await?;
        Ok(expected.iter().all(|(who, name, _)| field(&list, who, name) == Some(0)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_queues_more_than_all_clients_may_hold_is_ended() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[("maxmemory-clients", "20mb")])?.start().await?;
    let mut queues = TcpStream::connect(store.address())?;
    queues.write_all(&request(&[b"MULTI"]))?;
    let queued = request(&[b"SET", b"key", &vec![b'v'; 1 << 20]]);
    // The end of it is an error of the socket, at some point.
    let mut sent = 0;
    while sent < 200 && queues.write_all(&queued).is_ok() {
        sent += 1;
    }
    wait_for("it to be ended", || async { Ok(store.log().contains("a client was ended: clients hold more")) }).await?;
    ensure!(held(&store, "clients_used").await? < 20 << 20);
    let missing: bool = redis::cmd("EXISTS").arg("key").query_async::<i64>(&mut store.client().await?).await? == 0;
    ensure!(missing, "nothing of it was executed");
    Ok(())
}
