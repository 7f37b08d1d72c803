//! The limit that holds: a thread compares what the process holds with what it may, and does what the ladder says. Commands look at one
//! atomic; nothing they do waits for this thread but slowed writers.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    allocator,
    dumps::DumpLimits,
    heap,
    ladder::{Pressure, Watermarks},
};
use crate::{clients::Clients, engine::Engine, traces};

/// Between two looks: far below the limit, on the way, and under pressure. What is allocated in between has to fit beneath the limit.
const LOOK_FAR: Duration = Duration::from_millis(100);
const LOOK_NEAR: Duration = Duration::from_millis(20);
const LOOK_PRESSED: Duration = Duration::from_millis(5);
/// Caches change their size in steps of that length, under pressure and on the way back.
const RESIZE_EVERY: Duration = Duration::from_millis(100);
const GROW_EVERY: Duration = Duration::from_secs(1);
/// Smallest part of their share that caches are left with, in 1/1024.
const SCALE_MIN: u64 = 64;
const SCALE_FULL: u64 = 1024;
/// That part below the watermark of profiles it counts as not crossed again.
const CROSSED_BACK_PART: u128 = 10;
/// Slowed writers wait a part of every such period.
const SLOW_PERIOD: Duration = Duration::from_millis(25);

/// What may be held, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// By the whole process; 0: nobody has said, and nothing is watched.
    pub limit: u64,
    /// Where the steps of the ladder begin.
    pub watermarks: Watermarks,
    /// By the caches, when there is room.
    pub record_cache: u64,
    /// As above.
    pub block_cache: u64,
    /// As above; 0: there is none.
    pub row_cache: u64,
    /// By memtables before they are flushed.
    pub memtables: u64,
    /// By requests and replies of clients; 0: without bound.
    pub clients: u64,
    /// Percent of the limit past which a heap profile is written; 0: none is.
    pub profile_percent: u32,
    /// What such profiles may take.
    pub profiles: DumpLimits,
}

/// Who holds memory, how much, and how much it may; 0: without a bound of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name in INFO and metrics.
    pub name: &'static str,
    /// Bytes it holds.
    pub used: u64,
    /// Bytes it may hold.
    pub limit: u64,
}

/// A room above this one that holds memory of its own, and says so when asked.
struct Registered {
    name: &'static str,
    account: Box<dyn Fn() -> (u64, u64) + Send + Sync>,
}

struct Watch {
    engine: Arc<Engine>,
    clients: Arc<Clients>,
    limits: Mutex<MemoryLimits>,
    /// Where profiles of crossings go.
    profiles: PathBuf,
    profiles_written: Arc<AtomicU64>,
    /// Whether it is past the watermark of profiles.
    past_mark: AtomicBool,
    registered: Mutex<Vec<Registered>>,
    pressure: AtomicU8,
    refuses: AtomicBool,
    used: AtomicU64,
    peak: AtomicU64,
    scale: AtomicU64,
    refused: AtomicU64,
    /// How often each step was begun.
    begun: [AtomicU64; Pressure::ALL.len()],
    ended_clients: AtomicU64,
    stop: (Mutex<bool>, Condvar),
}

/// See the module's text.
pub struct Memory {
    watch: Arc<Watch>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Starts the thread. `profiles`: where profiles of crossings go.
    pub fn start(engine: Arc<Engine>, clients: Arc<Clients>, limits: MemoryLimits, profiles: PathBuf) -> std::io::Result<Self> {
        sample_for(&limits);
        let watch = Arc::new(Watch {
            engine,
            clients,
            limits: Mutex::new(limits),
            profiles,
            profiles_written: Arc::default(),
            past_mark: AtomicBool::new(false),
            registered: Mutex::default(),
            pressure: AtomicU8::new(0),
            refuses: AtomicBool::new(false),
            used: AtomicU64::new(allocator::anonymous()),
            peak: AtomicU64::new(0),
            scale: AtomicU64::new(SCALE_FULL),
            refused: AtomicU64::new(0),
            begun: Default::default(),
            ended_clients: AtomicU64::new(0),
            stop: (Mutex::new(false), Condvar::new()),
        });
        let own = watch.clone();
        let thread = std::thread::Builder::new().name("memory".into()).spawn(move || own.run())?;
        Ok(Self { watch, thread: Mutex::new(Some(thread)) })
    }

    /// Whether writes that need memory are refused. One load.
    pub fn refuses(&self) -> bool {
        self.watch.refuses.load(Ordering::Relaxed)
    }

    /// Counts a write that was refused.
    pub fn count_refused(&self) {
        self.watch.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes refused since the start.
    pub fn refused(&self) -> u64 {
        self.watch.refused.load(Ordering::Relaxed)
    }

    /// Clients ended because all of them together held too much.
    pub fn ended_clients(&self) -> u64 {
        self.watch.ended_clients.load(Ordering::Relaxed)
    }

    /// What is done now.
    pub fn pressure(&self) -> Pressure {
        self.watch.pressure()
    }

    /// How often each step was begun.
    pub fn begun(&self) -> [(Pressure, u64); Pressure::ALL.len()] {
        Pressure::ALL.map(|step| (step, self.watch.begun[step as usize].load(Ordering::Relaxed)))
    }

    /// What the process held at the last look, and the most it ever held at one: memory without files behind it.
    pub fn used(&self) -> (u64, u64) {
        (self.watch.used.load(Ordering::Relaxed), self.watch.peak.load(Ordering::Relaxed))
    }

    /// The limits in force.
    pub fn limits(&self) -> MemoryLimits {
        *lock(&self.watch.limits)
    }

    /// Part of their share that the caches have right now, in percent.
    pub fn cache_percent(&self) -> u64 {
        self.watch.scale.load(Ordering::Relaxed) * 100 / SCALE_FULL
    }

    /// Changes the limits: caches have their new size at once, as far as there is no pressure.
    pub fn set_limits(&self, limits: MemoryLimits) {
        let before = std::mem::replace(&mut *lock(&self.watch.limits), limits);
        if before.profile_percent == 0 {
            sample_for(&limits);
        }
        self.watch.resize();
        self.watch.stop.1.notify_one();
    }

    /// Gives freed memory back to the system now.
    pub fn purge(&self) {
        allocator::give_back_at_once(true);
        if self.cache_percent() == 100 {
            allocator::give_back_at_once(false);
        }
    }

    /// Takes in a room that holds memory of its own; `account` says whenever it is asked how much, and how much that may be.
    pub fn register(&self, name: &'static str, account: impl Fn() -> (u64, u64) + Send + Sync + 'static) {
        lock(&self.watch.registered).push(Registered { name, account: Box::new(account) });
    }

    /// Whether the process holds more than the watermark of profiles.
    pub fn past_profile_mark(&self) -> bool {
        self.watch.past_mark.load(Ordering::Relaxed)
    }

    /// Profiles written because the watermark was crossed.
    pub fn profiles_written(&self) -> u64 {
        self.watch.profiles_written.load(Ordering::Relaxed)
    }

    /// Who holds how much.
    pub fn owners(&self) -> Vec<Owner> {
        let (limits, caches) = (self.limits(), self.watch.engine.cache_use());
        let records = self.watch.engine.counters().record_cache;
        let owner = |name, used, limit| Owner { name, used, limit };
        let mut owners = vec![
            owner("block_cache", caches.block_used.saturating_sub(caches.memtables_used), caches.block_capacity),
            owner("memtables", caches.memtables_used, caches.memtables_limit),
            owner("record_cache", records.used, records.capacity),
            owner("row_cache", caches.row_used, caches.row_capacity),
            owner("table_readers", self.watch.engine.storage().table_reader_bytes, 0),
            owner("clients", self.watch.clients.held_bytes(), limits.clients),
        ];
        let engine = [("rank_tables", self.watch.engine.rank_tables()), ("change_feed", self.watch.engine.feed_use())];
        owners.extend(engine.map(|(name, (used, limit))| owner(name, used, limit)));
        owners.extend(lock(&self.watch.registered).iter().map(|known| {
            let (used, limit) = (known.account)();
            owner(known.name, used, limit)
        }));
        owners
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *lock(&self.watch.stop.0) = true;
        self.watch.stop.1.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A profile at a watermark needs what was allocated on the way there.
fn sample_for(limits: &MemoryLimits) {
    if limits.profile_percent > 0
        && let Err(error) = heap::set_active(true)
    {
        tracing::warn!(%error, "profile-watermark-percent is set, and allocations cannot be sampled");
    }
}

/// When the thread did what it does now and then.
struct Last {
    resized: Instant,
    slowed: Instant,
}

impl Watch {
    fn pressure(&self) -> Pressure {
        Pressure::ALL[self.pressure.load(Ordering::Relaxed) as usize]
    }

    fn run(&self) {
        let mut last = Last { resized: Instant::now(), slowed: Instant::now() };
        loop {
            let limits = *lock(&self.limits);
            let pause = self.look(&limits, &mut last);
            let stopped = lock(&self.stop.0);
            if *stopped {
                return;
            }
            let (stopped, _) = self.stop.1.wait_timeout(stopped, pause).unwrap_or_else(PoisonError::into_inner);
            if *stopped {
                return;
            }
        }
    }

    /// One look; returns how long to wait for the next.
    fn look(&self, limits: &MemoryLimits, last: &mut Last) -> Duration {
        let used = allocator::anonymous();
        self.used.store(used, Ordering::Relaxed);
        self.peak.fetch_max(used, Ordering::Relaxed);
        if limits.clients > 0 {
            let ended = self.clients.end_largest(limits.clients);
            self.ended_clients.fetch_add(ended, Ordering::Relaxed);
        }
        let before = self.pressure();
        // Without a limit nothing presses; what was made small under one grows again.
        let now = if limits.limit == 0 { Pressure::None } else { limits.watermarks.pressure(used, limits.limit, before) };
        if now != before {
            self.change(now, used, limits);
        }
        self.profile_at_crossing(used, limits);
        self.size_caches(now, last);
        if now >= Pressure::Flush {
            // Only if none runs: it empties all memtables, and the next look asks again.
            drop(self.engine.flush(true));
        }
        if now >= Pressure::Slow && last.slowed.elapsed() >= SLOW_PERIOD {
            last.slowed = Instant::now();
            self.clients.pause.slow_writes(SLOW_PERIOD.mul_f64(limits.watermarks.beyond_slow(used, limits.limit)));
        }
        match now {
            Pressure::None if limits.limit == 0 || used < limits.limit / 2 => LOOK_FAR,
            Pressure::None => LOOK_NEAR,
            _ => LOOK_PRESSED,
        }
    }

    /// Past the watermark, once a crossing: on a thread of its own, as this one must not wait for the disk.
    fn profile_at_crossing(&self, used: u64, limits: &MemoryLimits) {
        let mark = u128::from(limits.limit) * u128::from(limits.profile_percent) / 100;
        let used_wide = u128::from(used);
        if limits.profile_percent == 0 || limits.limit == 0 || used_wide < mark - mark / CROSSED_BACK_PART {
            self.past_mark.store(false, Ordering::Relaxed);
        } else if used_wide >= mark && !self.past_mark.swap(true, Ordering::Relaxed) {
            let (directory, written, profiles) = (self.profiles.clone(), self.profiles_written.clone(), limits.profiles);
            let write = move || {
                let mut span = traces::span("watermark dump");
                span.count("sluice.memory.used", used);
                let outcome = fs::create_dir_all(&directory).map_err(Into::into).and_then(|()| heap::dump(&directory, &profiles));
                span.judge(&outcome);
                match outcome {
                    Ok(path) => {
                        written.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(used, path = %path.display(), "memory is past profile-watermark-percent: who holds it is in this profile");
                    }
                    Err(error) => {
                        tracing::warn!(used, %error, "memory is past profile-watermark-percent, and no profile was written");
                    }
                }
            };
            if let Err(error) = std::thread::Builder::new().name("heap-profile".into()).spawn(write) {
                tracing::warn!(%error, "memory is past profile-watermark-percent, and no thread could be started for a profile");
            }
        }
    }

    fn change(&self, now: Pressure, used: u64, limits: &MemoryLimits) {
        let before = self.pressure();
        if now == before {
            return;
        }
        self.pressure.store(now as u8, Ordering::Relaxed);
        self.refuses.store(now == Pressure::Refuse, Ordering::Relaxed);
        self.begun[now as usize].fetch_add(1, Ordering::Relaxed);
        if now == Pressure::Refuse || before == Pressure::Refuse {
            tracing::warn!(
                used,
                limit = limits.limit,
                now = now.name(),
                before = before.name(),
                "memory: writes are refused, or taken again"
            );
        } else {
            tracing::info!(used, limit = limits.limit, now = now.name(), before = before.name(), "memory: pressure has changed");
        }
    }

    /// Makes caches smaller while there is pressure, and larger again when there has been none for a while.
    fn size_caches(&self, now: Pressure, last: &mut Last) {
        let scale = self.scale.load(Ordering::Relaxed);
        let next = if now > Pressure::None && last.resized.elapsed() >= RESIZE_EVERY {
            (scale * 3 / 4).max(SCALE_MIN)
        } else if now == Pressure::None && last.resized.elapsed() >= GROW_EVERY {
            (scale * 5 / 4).min(SCALE_FULL)
        } else {
            return;
        };
        last.resized = Instant::now();
        if next == scale {
            return;
        }
        if scale == SCALE_FULL || next == SCALE_FULL {
            allocator::give_back_at_once(next < SCALE_FULL);
        }
        self.scale.store(next, Ordering::Relaxed);
        self.resize();
    }

    fn resize(&self) {
        let (limits, scale) = (*lock(&self.limits), self.scale.load(Ordering::Relaxed));
        let scaled = |bytes: u64| (u128::from(bytes) * u128::from(scale) / u128::from(SCALE_FULL)) as usize;
        // The block cache is charged for memtables: what they may hold is in its capacity.
        let memtables = scaled(limits.memtables).max(limits.memtables as usize / 4);
        let blocks = scaled(limits.block_cache.saturating_sub(limits.memtables)) + memtables;
        self.engine.resize_caches(scaled(limits.record_cache), blocks, scaled(limits.row_cache), memtables);
    }
}
