//! One store process.

use std::{
    ffi::OsString,
    fs::File,
    net::TcpListener,
    ops::Range,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use sluice_topology::{
    admin::{AdminClient, AdminError, AdminTimeouts, Reply},
    tls::ClientTls,
};

use crate::certificates::client_tls;

/// For a store to open its data, serve, or end. Generous: the machine may be busy; no test measures it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Ports of test nodes.
const PORTS: Range<u16> = 12_000..32_000;
/// Password of the admin planes of test nodes.
pub const ADMIN_PASSWORD: &str = "between-nodes";

/// Settings that all stores of this test run have, unless a test says otherwise: `SLUICE_TEST_SETTINGS`, `name=value` behind one another.
/// Whatever holds with what is usual has to hold with a row cache, and without packed collections.
pub fn settings_of_this_run() -> Vec<(String, String)> {
    let all = std::env::var("SLUICE_TEST_SETTINGS").unwrap_or_default();
    all.split_whitespace()
        // One without a value is refused by every store, rather than left out.
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a store is started with. The same again for a restart.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Data directory.
    pub directory: PathBuf,
    /// Port for clients.
    pub port: u16,
    /// Port of the admin plane.
    pub admin_port: u16,
    /// Further settings: names without dashes, and values.
    pub settings: Vec<(String, String)>,
    /// The store's binary; `None`: the one beside this test's own.
    pub binary: Option<PathBuf>,
    /// Program and arguments that run the store, such as `setpriv …`; empty: none.
    pub wrapper: Vec<String>,
}

impl Setup {
    /// A store on free ports.
    pub fn new(directory: impl AsRef<Path>, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut settings: Vec<(String, String)> = settings.iter().map(own).collect();
        let of_run = settings_of_this_run().into_iter().filter(|(name, _)| settings.iter().all(|(other, _)| other != name));
        settings.extend(of_run.collect::<Vec<_>>());
        let directory = directory.as_ref().to_owned();
        let (port, admin_port) = (free_port()?, free_port()?);
        Ok(Self { directory, port, admin_port, settings, binary: None, wrapper: Vec::new() })
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// What its admin plane is dialled with: its own certificate files, where commands go by TLS there.
    pub fn admin_tls(&self) -> anyhow::Result<Option<ClientTls>> {
        if self.setting("tls-cluster") != Some("yes") {
            return Ok(None);
        }
        let files = ["tls-ca-cert-file", "tls-cert-file", "tls-key-file"].map(|name| self.setting(name).unwrap_or_default());
        Ok(Some(client_tls(files[0], Some((files[1], files[2])))?))
    }

    /// The command that starts it.
    pub fn command(&self) -> anyhow::Result<Command> {
        let binary = self.binary.clone().map_or_else(binary, Ok)?;
        let mut command = match self.wrapper.split_first() {
            None => Command::new(binary),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        command.env_clear().envs(environment());
        // Who has no port for plain clients has one for others.
        let port = if self.setting("port") == Some("0") { "--tls-port" } else { "--port" };
        command.arg("--dir").arg(&self.directory).args([port, &self.port.to_string()]);
        command.args(["--admin-port", &self.admin_port.to_string(), "--admin-password", ADMIN_PASSWORD]);
        command.args(["--bind", "127.0.0.1", "--admin-bind", "127.0.0.1"]);
        for (name, value) in &self.settings {
            command.arg(format!("--{name}")).arg(value);
        }
        Ok(command)
    }

    /// Starts it and waits until its admin plane knows a node.
    pub async fn start(&self) -> anyhow::Result<StoreProcess> {
        let process = self.spawn()?;
        process.await_open().await?;
        Ok(process)
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&self) -> anyhow::Result<StoreProcess> {
        std::fs::create_dir_all(&self.directory)?;
        let log = self.directory.with_extension("log");
        let errors = File::options().create(true).append(true).open(&log)?;
        let child = self.command()?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn()?;
        Ok(StoreProcess { child: Mutex::new(child), setup: self.clone(), log })
    }
}

/// A port that nothing listens on, and that this process gives out once. It is none of those that the system gives to connections that go
/// out: such a port, found free, would soon be somebody's. Another process may take it before it is used; then the start fails and says so.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at once begin apart.
    let begin = std::process::id().wrapping_mul(7919);
    let numbers = PORTS.map(|_| begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32);
    let mut ports = numbers.map(|number| PORTS.start + number as u16);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).with_context(|| format!("no port of {PORTS:?} is free"))
}

/// What a server gets of this process' environment: the tests' own settings are not the store's.
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("SLUICE_"))
}

/// The store's binary, beside this test's own: `cargo test --workspace` has built both.
fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("this test has no target folder")?;
    let path = folder.join("sluice-store");
    ensure!(path.exists(), "{} is missing: build it first, with `cargo build -p sluice-store`", path.display());
    Ok(path)
}

/// A running store. Dropped, it is killed.
pub struct StoreProcess {
    child: Mutex<Child>,
    setup: Setup,
    log: PathBuf,
}

impl StoreProcess {
    /// What it was started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.setup.port)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.lock().id()
    }

    /// A connection to its admin plane.
    pub async fn admin(&self) -> anyhow::Result<AdminClient> {
        let timeouts = AdminTimeouts { connect: Duration::from_secs(5), answer: Duration::from_secs(30) };
        let tls = self.setup.admin_tls()?;
        Ok(AdminClient::connect("127.0.0.1", self.setup.admin_port, Some(ADMIN_PASSWORD), tls.as_ref(), timeouts).await?)
    }

    /// What a new admin connection is answered: the error's text if it is one.
    pub async fn ask_admin(&self, words: &[&str]) -> Result<Reply, String> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut admin = self.admin().await.map_err(|error| error.to_string())?;
        admin.call(&words).await.map_err(|error| match error {
            AdminError::Refused { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// A client's connection.
    pub async fn client(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// One line of INFO.
    pub async fn info(&self, field: &str) -> anyhow::Result<String> {
        let text: String = redis::cmd("INFO").query_async(&mut self.client().await?).await?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("INFO has no field {field}"))?.trim().to_owned())
    }

    /// What it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.lock();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended().await
    }

    /// Waits for an end that it comes to by itself.
    pub async fn ended(&self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.lock().try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the store did not end:\n{}", self.log())
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status()?;
        ensure!(sent.success(), "the store is not there to get SIG{name}");
        Ok(())
    }

    async fn await_open(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.lock().try_wait()? {
                bail!("the store ended at its start (code {:?}, signal {:?}):\n{}", status.code(), status.signal(), self.log());
            }
            if let Ok(mut admin) = self.admin().await
                && admin.status().await.is_ok()
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the store did not open its data:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Waits until the condition holds; says what it waited for when it never does.
pub async fn wait_for<F: Future<Output = anyhow::Result<bool>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = condition().await;
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{what}: not within {} s; at last: {outcome:?}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
