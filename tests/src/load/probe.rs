//! What a client sees that has a machine of its own: one connection, one request after the other, on a thread that the processor is
//! given to at once. What other clients of a full machine wait for their own turn is no part of it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use sluice_topology::{Slot, SlotRanges};

use super::stats::{PhaseReport, Stats};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(1);
/// Keys it writes and reads, each in a slot of its own.
const KEYS: usize = 64;
const VALUE: &str = "a value of an ordinary length, as a session or a small document has it, so that a write is a write";
/// For the slowest answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// See the module's text.
pub struct Probe {
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Probe {
    /// Writes and reads keys of those slots at that node, which serves them all.
    pub fn start(address: &str, slots: &SlotRanges) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let keys = (0..).map(|number| format!("probe:{number}")).filter(|key| slots.contains(Slot::of_key(key.as_bytes())));
        let keys: Vec<String> = keys.take(KEYS).collect();
        let (stats, stop) = (Arc::new(Stats::new("start")), Arc::new(AtomicBool::new(false)));
        let (noted, ending) = (stats.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            go_first();
            for (turn, key) in (0..).zip(keys.iter().cycle()) {
                if ending.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(PAUSE);
                let (request, answer) = if (turn / KEYS).is_multiple_of(2) {
                    (format!("SET {key} \"{VALUE}\"\r\n"), "+OK\r\n".to_owned())
                } else {
                    (format!("GET {key}\r\n"), format!("${}\r\n{VALUE}\r\n", VALUE.len()))
                };
                let started = Instant::now();
                stream.write_all(request.as_bytes())?;
                let mut found = vec![0; answer.len()];
                stream.read_exact(&mut found)?;
                noted.succeeded(started.elapsed());
                ensure!(found == answer.as_bytes(), "{request:?} was answered with {:?}", String::from_utf8_lossy(&found));
            }
            Ok(())
        })?;
        Ok(Self { stats, stop, thread })
    }

    /// Ends the phase that runs and begins another.
    pub fn next_phase(&self, name: &str) -> PhaseReport {
        self.stats.next_phase(name)
    }

    /// Ends it; an error when an answer was not the right one.
    pub fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?
    }
}

/// Has this thread run as soon as it can. Without the right to it, its own turns are part of what it measures, and that is said.
fn go_first() {
    let first = std::fs::read_link("/proc/thread-self").is_ok_and(|thread| {
        let thread = thread.file_name().unwrap_or_default();
        Command::new("chrt").args(["--fifo", "--pid", "1"]).arg(thread).output().is_ok_and(|done| done.status.success())
    });
    if !first {
        eprintln!("the probe may not go before others here (chrt --fifo): its own turns are part of what it measures");
    }
}
