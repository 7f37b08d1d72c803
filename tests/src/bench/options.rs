//! What the command line says, as far as every bench takes it.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::repository;

/// `NAME=PATH`, or a path alone.
#[derive(Clone, Debug)]
pub struct NamedPath {
    pub(super) name: Option<String>,
    pub(super) path: PathBuf,
}

/// `NAME=HOST:PORT`.
#[derive(Clone, Debug)]
pub struct NamedAddress {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
}

/// `NAME=NUMBER`.
#[derive(Clone, Debug)]
pub struct NamedNumber {
    pub(super) name: String,
    pub(super) number: u32,
}

/// `NAME=VALUE`.
#[derive(Clone, Debug)]
pub struct NamedValue {
    pub(super) name: String,
    pub(super) value: String,
}

impl FromStr for NamedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => {
                Ok(Self { name: Some(name.into()), path: path.into() })
            }
            _ => Ok(Self { name: None, path: text.into() }),
        }
    }
}

impl FromStr for NamedValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
        Ok(Self { name: name.into(), value: value.into() })
    }
}

impl FromStr for NamedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "write NAME=HOST:PORT";
        let NamedValue { name, value } = text.parse().map_err(|_| wrong)?;
        let (host, port) = value.rsplit_once(':').ok_or(wrong)?;
        let port = port.parse().map_err(|_| wrong)?;
        Ok(Self { name, host: host.trim_matches(['[', ']']).into(), port })
    }
}

impl FromStr for NamedNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let NamedValue { name, value } = text.parse()?;
        Ok(Self { name, number: value.parse().map_err(|_| "write NAME=NUMBER")? })
    }
}

/// Options of every bench.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Rounds: in each, every server in turn, on a data directory of its own.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: u32,
    /// Requests of each measured part; without it, as many as take --seconds at the rate of the warm-up.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) requests: Option<u64>,
    /// Seconds of each measured part.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    pub(super) seconds: f64,
    /// Connections of the client.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) clients: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(super) value_size: u32,
    /// Keys there are.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(super) keys: u32,
    /// The store's binary, NAME=PATH or a path; again for another build beside it. Without it, the one beside this program.
    #[arg(long = "store", value_name = "[NAME=]PATH")]
    pub(super) stores: Vec<NamedPath>,
    /// A setting of the stores, as NAME=VALUE; again for more.
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    pub(super) settings: Vec<NamedValue>,
    /// Processors the servers may use, as taskset takes them: 0, 0-1, 0,2.
    #[arg(long, value_name = "LIST")]
    pub(super) server_cpus: Option<String>,
    /// Processors the client may use.
    #[arg(long, value_name = "LIST")]
    pub(super) client_cpus: Option<String>,
    /// Where the figures are kept, as JSON; without it, in the cache's bench folder by date and commit.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds: &f64| *seconds > 0.0 && *seconds <= 3600.0).ok_or_else(|| "a number above 0".into())
}

impl Common {
    /// The builds of the store to run, each with a name of its own.
    pub(super) fn store_binaries(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let mut binaries: Vec<(String, PathBuf)> = Vec::new();
        for (number, named) in self.stores.iter().enumerate() {
            let name = named
                .name
                .clone()
                .unwrap_or_else(|| if number == 0 { "sluice".into() } else { format!("sluice-{}", number + 1) });
            binaries.push((name, named.path.clone()));
        }
        if binaries.is_empty() {
            let own = std::env::current_exe()?;
            let folder = own.parent().context("this program is in no folder")?;
            binaries.push(("sluice".into(), folder.join("sluice-store")));
        }
        for (number, (name, path)) in binaries.iter().enumerate() {
            ensure!(path.is_file(), "{} is no file: give the store's binary with --store, or run `make bench`", path.display());
            let again = binaries[..number].iter().any(|(other, _)| other == name) || name == super::server::REDIS;
            ensure!(!again, "there is more than one server called `{name}`: name them, as in --store old=PATH");
        }
        Ok(binaries)
    }

    /// A value of the size that was asked for.
    pub(super) fn value(&self) -> String {
        "x".repeat(self.value_size as usize)
    }

    /// The file for the figures: what was asked for, or one in the cache by date and commit.
    pub(super) fn json_path(&self, bench: &str) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.json {
            return Ok(path.clone());
        }
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let xdg = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).map(|cache| cache.join("sluice"));
        let cache = std::env::var_os("SLUICE_CACHE").map(PathBuf::from).or_else(xdg);
        let folder = cache.context("no HOME and no SLUICE_CACHE: say with --json where the figures go")?.join("bench");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        Ok(folder.join(format!("{date}-{}-{bench}.json", commit())))
    }
}

/// The commit of this checkout, short, with `-dirty` when the sources differ from it.
pub(super) fn commit() -> String {
    let git = |words: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(repository("")).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    git(&["describe", "--always", "--dirty", "--exclude=*"]).filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let named: NamedPath = "old=/tmp/a=b".parse().unwrap();
        assert_eq!((named.name.as_deref(), named.path.to_str()), (Some("old"), Some("/tmp/a=b")));
        let plain: NamedPath = "/tmp/a=b".parse().unwrap();
        assert_eq!((plain.name, plain.path.to_str()), (None, Some("/tmp/a=b")));
        let peer: NamedAddress = "kv=[::1]:6666".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.host.as_str(), peer.port), ("kv", "::1", 6666));
        for wrong in ["kv", "kv=host", "=host:1", "kv=host:port"] {
            assert!(wrong.parse::<NamedAddress>().is_err(), "{wrong}");
        }
    }
}
