//! TLS: what clients and people see of it, and what those see who do it wrong.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    certificates::{Authority, Files, client_tls},
    resp::{Answer, Connection},
    store::{ADMIN_PASSWORD, LocalCluster, Setup, StoreProcess, wait_for},
};
use sluice_topology::tls::{ClientTls, Stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::clients::{run_go_redis, run_python};

/// A store for clients that speak TLS alone, and its files.
struct Encrypted {
    root: tempfile::TempDir,
    authority: Authority,
    files: Files,
    store: StoreProcess,
}

impl Encrypted {
    async fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let root = tempfile::tempdir()?;
        let authority = Authority::new("the test's")?;
        let files = Files::of(&root.path().join("tls"), &authority)?;
        let setup = encrypted(&root.path().join("data"), &files, settings)?;
        Ok(Self { store: setup.start().await?, root, authority, files })
    }

    /// Who trusts the authority and shows nothing.
    fn stranger(&self) -> anyhow::Result<ClientTls> {
        client_tls(&self.files.path("ca.crt"), None)
    }

    /// Who shows a certificate of that authority.
    fn known(&self, authority: &Authority, name: &str) -> anyhow::Result<ClientTls> {
        let files = Files::new(&self.root.path().join(name), &authority.for_loopback()?, &self.authority.pem())?;
        client_tls(&files.path("ca.crt"), Some((&files.path("tls.crt"), &files.path("tls.key"))))
    }

    async fn open(&self, tls: &ClientTls) -> anyhow::Result<Connection> {
        Connection::open_encrypted(&self.store.address(), tls).await
    }

    /// A figure of /metrics.
    fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.store.metrics()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{name} is not among the metrics"))?.parse()?)
    }

    /// Waits until a further handshake was counted as failed.
    async fn refused(&self, before: f64) -> anyhow::Result<()> {
        wait_for("a failed handshake to be counted", || async { Ok(self.metric("sluice_tls_handshakes_failed_total")? > before) })
            .await
    }
}

/// A store whose settings name the files, with clients by TLS alone.
fn encrypted(directory: &Path, files: &Files, settings: &[(&str, &str)]) -> anyhow::Result<Setup> {
    let mut all = files.settings(&[("port", "0")]);
    all.extend_from_slice(settings);
    Setup::new(directory, &all)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Whether a client is served: its handshake may be done before the other side has looked at its certificate.
async fn is_served(address: &str, tls: &ClientTls) -> bool {
    match Connection::open_encrypted(address, tls).await {
        Ok(mut connection) => connection.ask(&["PING"]).await.is_ok_and(|answer| answer == Answer::Simple("PONG".into())),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients_are_asked_for_as_the_setting_says() -> anyhow::Result<()> {
    for (setting, stranger_served, foreign_served) in [("yes", false, false), ("optional", true, false), ("no", true, true)] {
        let encrypted = Encrypted::start(&[("tls-auth-clients", setting), ("requirepass", "secret")]).await?;
        let (stranger, known) = (encrypted.stranger()?, encrypted.known(&encrypted.authority, "known")?);
        let foreign = encrypted.known(&Authority::new("somebody's")?, "foreign")?;
        // A certificate does not stand for the password.
        let mut connection = encrypted.open(&known).await?;
        let answer = connection.ask(&["PING"]).await?;
        ensure!(matches!(&answer, Answer::Error(text) if text.starts_with("NOAUTH")), "{setting}: {answer:?}");
        ensure!(connection.ask(&["AUTH", "secret"]).await? == Answer::Simple("OK".into()));
        ensure!(connection.ask(&["SET", "key", "value"]).await? == Answer::Simple("OK".into()));
        for (who, tls, served) in [("nobody", &stranger, stranger_served), ("a foreigner", &foreign, foreign_served)] {
            let before = encrypted.metric("sluice_tls_handshakes_failed_total")?;
            let outcome = async { encrypted.open(tls).await?.ask(&["AUTH", "secret"]).await }.await;
            ensure!(outcome.is_ok() == served, "{setting}, {who}: {outcome:?}");
            if !served {
                encrypted.refused(before).await?;
            }
        }
        ensure!(connection.ask(&["GET", "key"]).await? == Answer::Bulk(Some(b"value".to_vec())));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_trusts_another_authority_is_not_connected() -> anyhow::Result<()> {
    let encrypted = Encrypted::start(&[("tls-auth-clients", "no")]).await?;
    let other = Authority::new("another")?;
    let files = Files::of(&encrypted.root.path().join("other"), &other)?;
    let error = encrypted.open(&client_tls(&files.path("ca.crt"), None)?).await.err().context("it was trusted")?;
    ensure!(format!("{error:#}").contains("UnknownIssuer"), "{error:#}");
    ensure!(is_served(&encrypted.store.address(), &encrypted.stranger()?).await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_and_replies_messages_and_waits_go_through() -> anyhow::Result<()> {
    let encrypted = Encrypted::start(&[("tls-auth-clients", "no"), ("reply-stream-from", "256kb")]).await?;
    let tls = encrypted.stranger()?;
    let (mut one, mut other) = (encrypted.open(&tls).await?, encrypted.open(&tls).await?);
    let value: Vec<u8> = (0..9_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    ensure!(one.ask_bytes(&[b"SET", b"large", &value]).await? == Answer::Simple("OK".into()));
    ensure!(one.ask(&["GET", "large"]).await? == Answer::Bulk(Some(value)));
    // Sent in pieces.
    let elements: Vec<String> = (0..40_000).map(|number| format!("element {number} of a long list")).collect();
    let push: Vec<Vec<String>> =
        elements.chunks(500).map(|chunk| words(&["RPUSH", "list"]).into_iter().chain(chunk.iter().cloned()).collect()).collect();
    ensure!(one.ask_all(&push).await?.last() == Some(&Answer::Integer(40_000)));
    let answer = one.ask(&["LRANGE", "list", "0", "-1"]).await?;
    let found: Vec<&str> = answer.elements().iter().filter_map(Answer::text).collect();
    ensure!(found == elements, "{} elements came", found.len());
    // What comes unasked, and what is waited for.
    one.ask(&["SUBSCRIBE", "news"]).await?;
    ensure!(other.ask(&["PUBLISH", "news", "hello"]).await? == Answer::Integer(1));
    ensure!(one.answer().await?.elements().last().and_then(Answer::text) == Some("hello"));
    let mut waiting = encrypted.open(&tls).await?;
    waiting.send(&[words(&["BLPOP", "queue", "0"])]).await?;
    wait_for("the client to wait", || async { Ok(info(&encrypted, &tls, "blocked_clients").await? == "1") }).await?;
    other.ask(&["RPUSH", "queue", "job"]).await?;
    ensure!(waiting.answer().await?.elements().last().and_then(Answer::text) == Some("job"));
    Ok(())
}

/// A line of INFO, by TLS.
async fn info(encrypted: &Encrypted, tls: &ClientTls, field: &str) -> anyhow::Result<String> {
    let answer = encrypted.open(tls).await?.ask(&["INFO"]).await?;
    let text = answer.text().context("INFO is no text")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("INFO has no field {field}"))?.to_owned())
}

/// Prints the version that was spoken and the answer to PING.
const PING_BY_VERSION: &str = "
import socket, ssl, sys, warnings
warnings.simplefilter('ignore')
version, port, authorities, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=authorities)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
context.load_cert_chain(certificate, key)
with context.wrap_socket(socket.create_connection(('127.0.0.1', int(port))), server_hostname='localhost') as stream:
    stream.sendall(b'PING\\r\\n')
    print(stream.version(), stream.recv(100).decode())
";

#[tokio::test(flavor = "multi_thread")]
async fn redis_cli_and_redis_py_speak_it_in_both_versions() -> anyhow::Result<()> {
    let encrypted = Encrypted::start(&[("requirepass", "secret")]).await?;
    let port = encrypted.store.setup().port.to_string();
    let [certificate, key, authorities] = ["tls.crt", "tls.key", "ca.crt"].map(|name| encrypted.files.path(name));
    let cli = |tls: &[&str]| {
        let output =
            Command::new("redis-cli").args(["-p", &port, "-a", "secret", "--no-auth-warning"]).args(tls).arg("PING").output()?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    ensure!(cli(&["--tls", "--cacert", &authorities, "--cert", &certificate, "--key", &key])? == "PONG");
    ensure!(cli(&["--tls", "--cacert", &authorities])? != "PONG", "no certificate was shown");
    ensure!(cli(&[])? != "PONG", "it was in the clear");
    let options = serde_json::json!({
        "ssl": true, "ssl_ca_certs": authorities, "ssl_certfile": certificate, "ssl_keyfile": key,
    });
    let arguments = vec![port.clone(), options.to_string()];
    tokio::task::spawn_blocking(move || run_python("single.py", &arguments)).await??;
    // By Python's own library, which can be told a version.
    for (version, said) in [("TLSv1_1", ""), ("TLSv1_2", "TLSv1.2 -NOAUTH"), ("TLSv1_3", "TLSv1.3 -NOAUTH")] {
        let output =
            Command::new("python3").args(["-c", PING_BY_VERSION, version, &port, &authorities, &certificate, &key]).output()?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(answer.starts_with(said) && said.is_empty() == answer.is_empty(), "{version}: {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_redirects_clients_by_tls_to_the_port_for_tls() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let authority = Authority::new("the test's")?;
    let files = Files::of(&root.path().join("tls"), &authority)?;
    let settings = files.settings(&[("port", "0"), ("tls-cluster", "yes"), ("tls-auth-clients", "optional")]);
    let cluster = LocalCluster::start(root.path(), 2, 2, &settings).await?;
    let tls = client_tls(&files.path("ca.crt"), None)?;
    // By hand: the redirect names the other node's port, which speaks TLS.
    let mut first = Connection::open_encrypted(&cluster.addresses()[0], &tls).await?;
    let Answer::Error(moved) = first.ask(&["SET", "foo", "bar"]).await? else { anyhow::bail!("slot 12182 is the other's") };
    let address = moved.strip_prefix("MOVED 12182 ").context("a redirect")?;
    ensure!(address == cluster.addresses()[1], "{moved}");
    let mut second = Connection::open_encrypted(address, &tls).await?;
    ensure!(second.ask(&["SET", "foo", "bar"]).await? == Answer::Simple("OK".into()));
    let shards = format!("{:?}", first.ask(&["CLUSTER", "SHARDS"]).await?);
    ensure!(shards.contains(&format!("{:?}", Answer::Bulk(Some(b"tls-port".to_vec())))), "{shards}");
    // And by a client library.
    let port = cluster.node(0).setup().port.to_string();
    let options = serde_json::json!({"ssl": true, "ssl_ca_certs": files.path("ca.crt")}).to_string();
    second.ask(&["DEL", "foo"]).await?;
    tokio::task::spawn_blocking(move || run_python("cluster.py", &[port, options])).await??;
    let (address, authorities) = (cluster.addresses()[0].clone(), files.path("ca.crt"));
    tokio::task::spawn_blocking(move || run_go_redis("cluster", &address, &[authorities])).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn go_redis_speaks_it_with_a_certificate_of_its_own() -> anyhow::Result<()> {
    let encrypted = Encrypted::start(&[]).await?;
    let address = encrypted.store.address();
    let files = ["ca.crt", "tls.crt", "tls.key"].map(|name| encrypted.files.path(name));
    tokio::task::spawn_blocking(move || {
        let without = run_go_redis("single", &address, &files[..1]).err().map(|error| error.to_string());
        ensure!(without.is_some_and(|said| said.contains("go-redis: ")), "no certificate was shown");
        run_go_redis("single", &address, &files)
    })
    .await?
}

/// Sends bytes in the clear, and returns all that comes back until the connection is closed.
async fn in_the_clear(address: &str, bytes: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    // A reset is an end as well: of one that had more to say.
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.context("it stays open")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused_and_disturbs_nobody() -> anyhow::Result<()> {
    let encrypted =
        Encrypted::start(&[("tls-auth-clients", "no"), ("tls-handshake-timeout-ms", "500"), ("maxclients", "2")]).await?;
    let (address, tls) = (encrypted.store.address(), encrypted.stranger()?);
    let mut bystander = encrypted.open(&tls).await?;
    let before = encrypted.metric("sluice_tls_handshakes_failed_total")?;
    let answer = in_the_clear(&address, b"*1\r\n$4\r\nPING\r\n").await?;
    ensure!(answer.contains("this port speaks TLS"), "{answer}");
    encrypted.refused(before).await?;
    // Beginnings of handshakes with anything behind them.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..64 {
        let mut bytes = vec![0x16, 3, 1, 0, 200];
        for _ in 0..200 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state as u8);
        }
        // Some look like a ClientHello for longer.
        if round % 2 == 0 {
            bytes[5..9].copy_from_slice(&[1, 0, 0, 196]);
        }
        in_the_clear(&address, &bytes).await?;
    }
    // Half a handshake takes the last place, for its time.
    let mut half = TcpStream::connect(&address).await?;
    half.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196]).await?;
    wait_for("the table to be full", || async { Ok(!is_served(&address, &tls).await) }).await?;
    ensure!(bystander.ask(&["PING"]).await? == Answer::Simple("PONG".into()));
    wait_for("the place to be free again", || async { Ok(is_served(&address, &tls).await) }).await?;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), half.read_to_end(&mut rest)).await.context("it stays open")?;
    ensure!(bystander.ask(&["PING"]).await? == Answer::Simple("PONG".into()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_serve_the_same_data_and_each_its_own_kind() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let authority = Authority::new("the test's")?;
    let files = Files::of(&root.path().join("tls"), &authority)?;
    let tls_port = sluice_tests::store::free_port()?.to_string();
    let settings = files.settings(&[("tls-port", tls_port.as_str()), ("tls-auth-clients", "no")]);
    let store = Setup::new(root.path().join("data"), &settings)?.start().await?;
    let tls = client_tls(&files.path("ca.crt"), None)?;
    let mut plain = Connection::open(&store.address()).await?;
    let mut encrypted = Connection::open_encrypted(&format!("127.0.0.1:{tls_port}"), &tls).await?;
    ensure!(plain.ask(&["SET", "key", "value"]).await? == Answer::Simple("OK".into()));
    ensure!(encrypted.ask(&["GET", "key"]).await? == Answer::Bulk(Some(b"value".to_vec())));
    // A handshake at the port that does not speak it ends at once, though no line of it ends.
    let answer = in_the_clear(&store.address(), &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]).await?;
    ensure!(answer.contains("this port does not speak TLS"), "{answer}");
    let outcome = tokio::time::timeout(Duration::from_secs(30), Connection::open_encrypted(&store.address(), &tls)).await;
    ensure!(outcome.context("it waits for ever")?.is_err());
    // The admin plane was not asked to speak it.
    ensure!(store.admin().await?.status().await?.ready);
    Ok(())
}

/// An HTTP request to the admin plane by TLS: the whole answer.
async fn https(encrypted: &Encrypted, tls: &ClientTls, path: &str, header: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(("127.0.0.1", encrypted.store.setup().admin_port)).await?;
    let mut stream: Stream = tls.connect(stream, "127.0.0.1").await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: store\r\n{header}\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // HTTP ends where it says; some end without TLS' own end.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_cluster_the_admin_plane_gives_probes_alone_in_the_clear() -> anyhow::Result<()> {
    let encrypted = Encrypted::start(&[("tls-cluster", "yes")]).await?;
    let store = &encrypted.store;
    let admin = format!("127.0.0.1:{}", store.setup().admin_port);
    for path in ["/livez", "/readyz", "/metrics"] {
        ensure!(store.http("GET", path, &[])?.status == 200, "{path}");
    }
    let password = format!("Authorization: Bearer {ADMIN_PASSWORD}");
    let refused = store.http("GET", "/debug/pprof/heap", &[&password])?;
    ensure!(refused.status == 403 && refused.text().contains("tls-cluster"), "{}", refused.text());
    // Before any word is read: the password is not looked at, right or wrong.
    for words in ["*2\r\n$4\r\nAUTH\r\n$13\r\nbetween-nodes\r\n", "*2\r\n$8\r\nCLUSTERX\r\n$6\r\nSTATUS\r\n"] {
        let answer = in_the_clear(&admin, words.as_bytes()).await?;
        ensure!(answer.starts_with("-ERR the admin plane takes commands by TLS alone"), "{answer}");
    }
    // By TLS both are there, for who shows a certificate.
    ensure!(store.admin().await?.status().await?.ready);
    let known = encrypted.known(&encrypted.authority, "known")?;
    ensure!(https(&encrypted, &known, "/readyz", "").await?.starts_with("HTTP/1.0 200"));
    let without = https(&encrypted, &known, "/debug/pprof/heap", "").await?;
    ensure!(without.starts_with("HTTP/1.0 401"), "{without}");
    let profile = https(&encrypted, &known, "/debug/pprof/heap", &format!("{password}\r\n")).await?;
    ensure!(profile.starts_with("HTTP/1.0 409") || profile.starts_with("HTTP/1.0 200"), "{profile}");
    let before = encrypted.metric("sluice_tls_handshakes_failed_total")?;
    let stranger = https(&encrypted, &encrypted.stranger()?, "/readyz", "").await;
    ensure!(stranger.as_ref().is_ok_and(String::is_empty) || stranger.is_err(), "{stranger:?}");
    encrypted.refused(before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificates_are_for_new_connections_and_bad_ones_for_none() -> anyhow::Result<()> {
    let encrypted = Encrypted::start(&[("tls-auth-clients", "no"), ("tls-reload-interval-ms", "50")]).await?;
    let address = encrypted.store.address();
    let expiry = "sluice_tls_certificate_expiry_timestamp_seconds";
    let (first, before) = (encrypted.stranger()?, encrypted.metric(expiry)?);
    let mut old = encrypted.open(&first).await?;
    // Another authority: who trusts the first alone sees that another certificate is shown.
    let other = Authority::new("the next")?;
    encrypted.files.replace(&other.sign(&["127.0.0.1"], 2085)?, &other.pem())?;
    let next = encrypted.stranger()?;
    wait_for("the new certificate to be shown", || async { Ok(is_served(&address, &next).await) }).await?;
    ensure!(!is_served(&address, &first).await, "the old one is still shown");
    ensure!(
        encrypted.metric(expiry)? < before
            && encrypted.metric(expiry)?.to_string() == info(&encrypted, &next, "tls_certificate_not_after").await?
    );
    // A certificate with another's key.
    let (one, another) = (other.for_loopback()?, other.for_loopback()?);
    let bad = sluice_tests::certificates::Pair { certificate: one.certificate.clone(), key: another.key };
    encrypted.files.replace(&bad, &other.pem())?;
    wait_for("the bad pair to be seen", || async { Ok(encrypted.metric("sluice_tls_reload_failed")? > 0.0) }).await?;
    ensure!(is_served(&address, &next).await, "the last good one is gone");
    // Looked at many times more, said once.
    let looks = "changed TLS files were not taken";
    let lines = encrypted.store.log().lines().filter(|line| line.contains(looks)).count();
    encrypted.files.replace(&one, &other.pem())?;
    wait_for("a good pair to be taken again", || async { Ok(encrypted.metric("sluice_tls_reload_failed")? < 1.0) }).await?;
    ensure!(
        lines == 1 && encrypted.store.log().lines().filter(|line| line.contains(looks)).count() == 1,
        "{}",
        encrypted.store.log()
    );
    ensure!(!encrypted.store.log().contains("PRIVATE KEY") && !encrypted.store.log().contains(&bad.key));
    ensure!(old.ask(&["PING"]).await? == Answer::Simple("PONG".into()), "an open connection has ended");
    Ok(())
}
