//! The servers that are compared: started on loopback with a data directory of their own, watched, ended by their id.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::options::{Common, NamedAddress};
use crate::store::{Setup, environment, free_port};

/// Name of the server that all others are compared with.
pub(super) const REDIS: &str = "redis-server";
/// For a server to answer for the first time.
const START_LIMIT: Duration = Duration::from_mins(1);
/// For one answer of a server that is not measured.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// What a server is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Debian's redis-server, with these options.
    Redis(Vec<&'static str>),
    /// A build of the store, with these settings.
    Store {
        /// Its binary.
        binary: PathBuf,
        /// Its settings.
        settings: Vec<(String, String)>,
        /// Program and arguments that become it; empty: none.
        wrapper: Vec<String>,
    },
    /// One that runs already; its process, if it is on this machine and known.
    Peer { address: NamedAddress, process: Option<u32> },
}

/// A server by its name.
#[derive(Clone, Debug)]
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// A server that runs.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
    own: Option<OwnProcess>,
    measured: Option<u32>,
}

struct OwnProcess {
    child: Mutex<Child>,
    log: PathBuf,
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Contestant {
    /// Starts it in that folder, which it has for itself, and waits until it answers.
    pub(super) async fn start(&self, folder: &Path, common: &Common) -> anyhow::Result<Server> {
        let (command, port) = match &self.kind {
            Kind::Peer { address, process } => {
                let (name, host, port) = (self.name.clone(), address.host.clone(), address.port);
                let server = Server { name, host, port, own: None, measured: *process };
                server.ask(&["PING"]).await.with_context(|| format!("the peer {} at {}:{port}", self.name, address.host))?;
                return Ok(server);
            }
            Kind::Redis(options) => {
                let port = free_port()?;
                let data = folder.join("data");
                std::fs::create_dir_all(&data)?;
                let mut command = Command::new(REDIS);
                command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(data).args(options);
                (command, port)
            }
            Kind::Store { binary, settings, wrapper } => {
                let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let mut setup = Setup::new(folder.join("data"), &settings)?;
                setup.binary = Some(binary.clone());
                setup.wrapper.clone_from(wrapper);
                (setup.command()?, setup.port)
            }
        };
        let log = folder.join("log");
        let out = File::create(&log)?;
        let mut command = on_processors(command, common.server_cpus.as_deref());
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| cannot_start(&command))?;
        // taskset becomes the server: the id is its.
        let measured = Some(child.id());
        let own = Some(OwnProcess { child: Mutex::new(child), log });
        let server = Server { name: self.name.clone(), host: "127.0.0.1".into(), port, own, measured };
        let deadline = Instant::now() + START_LIMIT;
        loop {
            server.alive()?;
            match server.ask(&["PING"]).await {
                // A server on the same port that is not ours would be measured in its place.
                Ok(_) => return server.alive().map(|()| server),
                Err(error) if Instant::now() >= deadline => {
                    bail!("{} did not answer on port {port} within {} s: {error:#}", self.name, START_LIMIT.as_secs())
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// What to say when a program cannot be started.
pub(super) fn cannot_start(command: &Command) -> String {
    format!("starting {}: is it installed? `make setup` installs what is needed", command.get_program().display())
}

/// The same command, kept to some processors.
pub(super) fn on_processors(command: Command, list: Option<&str>) -> Command {
    let Some(list) = list else { return command };
    let mut bound = Command::new("taskset");
    bound.args(["--cpu-list", list]).arg(command.get_program()).args(command.get_args());
    bound.env_clear().envs(environment());
    bound
}

impl Server {
    /// An error with the end of its log when its process is gone.
    pub(super) fn alive(&self) -> anyhow::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let ended = own.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).try_wait()?;
        let Some(status) = ended else { return Ok(()) };
        let log = std::fs::read_to_string(&own.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        bail!("{} is gone ({status}); the end of its log:\n{}", self.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let client = redis::Client::open(format!("redis://{host}:{}", self.port))?;
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(ANSWER_LIMIT))
            .set_connection_timeout(Some(Duration::from_secs(5)));
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// One command on a connection of its own.
    pub(super) async fn ask(&self, words: &[&str]) -> anyhow::Result<redis::Value> {
        let mut connection = self.connect().await?;
        Ok(redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await?)
    }

    /// Every line of INFO that is `name:number`.
    pub(super) async fn info(&self) -> anyhow::Result<Info> {
        let mut connection = self.connect().await?;
        Ok(Info(redis::cmd("INFO").arg("everything").query_async(&mut connection).await?))
    }

    /// CPU time of its process so far, user and system, all threads; `None` for a peer whose process nobody named.
    pub(super) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.measured.map(cpu_of).transpose()
    }
}

/// The text of INFO.
pub(super) struct Info(String);

impl Info {
    /// A field's text.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
    }

    /// A field's number.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.text(field)?.parse().ok()
    }
}

/// utime + stime of a process, from `/proc/<pid>/stat`.
pub(super) fn cpu_of(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}: is the process there?"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not as it is documented: {text}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / f64::from(ticks_a_second()?)))
}

/// Fields 14 and 15; the name of the program, field 2, may hold anything, closing brackets too.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn ticks_a_second() -> anyhow::Result<u32> {
    static TICKS: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    if let Some(ticks) = TICKS.get() {
        return Ok(*ticks);
    }
    let output = Command::new("getconf").arg("CLK_TCK").output().context("running getconf CLK_TCK")?;
    let ticks = String::from_utf8_lossy(&output.stdout).trim().parse().context("getconf CLK_TCK says no number")?;
    ensure!(ticks > 0, "getconf CLK_TCK says 0");
    Ok(*TICKS.get_or_init(|| ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_program_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 500 0 0 0 123 45 0 0 20 0 4 0 100 1000 10 18446744073709551615";
        assert_eq!(ticks(stat), Some(168));
        assert_eq!(ticks("42 (a"), None);
    }

    #[test]
    fn cpu_time_of_this_process_grows_with_work() {
        let before = cpu_of(std::process::id()).unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while cpu_of(std::process::id()).unwrap() <= before {
            assert!(Instant::now() < deadline, "a minute of work shows no CPU time");
        }
    }
}
