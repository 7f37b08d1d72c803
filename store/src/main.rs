//! The store's binary: chooses the allocator and the provider of cryptography, reads the configuration, serves.

use std::{io::IsTerminal as _, process::ExitCode};

use sluice_store::{
    commands,
    config::{self, Invocation, Settings},
    server,
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "\
sluice-store: a Redis-protocol key-value store on RocksDB

usage: sluice-store [FILE] [-c FILE] [--key value ...]

  FILE, -c FILE   configuration file: `key value` lines
  --key value     one setting; wins over environment (SLUICE_KEY_NAME) and file
  --settings      prints every setting with its default and meaning
  --commands      prints every command with its cost, as docs/commands.md has it
  --version       prints the version
  --help          prints this

Without arguments it serves on 127.0.0.1:6379 from ./sluice-data.";

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail(&anyhow::anyhow!("another TLS provider is installed already"));
    }
    let settings = match config::load(std::env::args().skip(1), std::env::vars()) {
        Ok(Invocation::Serve(settings)) => *settings,
        Ok(Invocation::Help) => return print(USAGE),
        Ok(Invocation::Version) => return print(concat!("sluice-store ", env!("CARGO_PKG_VERSION"))),
        Ok(Invocation::ListSettings) => return print(&list()),
        Ok(Invocation::ListCommands) => return print(commands::document().trim_end()),
        Err(error) => return fail(&error.into()),
    };
    log(&settings);
    match server::serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn log(settings: &Settings) {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&settings.loglevel));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if settings.log_format == "json" {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal())).init();
    }
    config::on_log_level(move |level| {
        let _ = handle.reload(EnvFilter::new(level));
    });
}

#[allow(clippy::print_stdout, reason = "what the user asked for")]
fn print(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "the last word of a process that cannot go on")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("sluice-store: {error:#}");
    ExitCode::FAILURE
}

fn list() -> String {
    let defaults = Settings::default();
    let lines = config::specs().iter().map(|spec| format!("# {}\n{} {}\n", spec.doc, spec.name, (spec.get)(&defaults)));
    lines.collect::<Vec<_>>().join("\n")
}
