//! How long commands take: the slow log, the latency monitor, histograms. A command pays one look at the clock when any of them is on,
//! and one load when none is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

/// Words of a logged command, and bytes of a word, as in Redis.
const WORDS_MAX: usize = 32;
const WORD_LEN_MAX: usize = 128;
/// Spikes remembered of each event.
const SPIKES_MAX: usize = 160;
/// Events of the latency monitor.
const EVENTS_MAX: usize = 64;

/// A command that took long.
#[derive(Clone, Debug)]
pub struct SlowCommand {
    /// Its number.
    pub id: u64,
    /// When it was executed, Unix seconds.
    pub at_seconds: u64,
    /// How long it took.
    pub micros: u64,
    /// Its words, cut short.
    pub words: Vec<Bytes>,
    /// The client's address.
    pub peer: String,
    /// The client's name.
    pub name: Bytes,
}

/// What the latency monitor remembers of an event.
#[derive(Clone, Debug, Default)]
pub struct Spikes {
    /// Unix seconds and milliseconds, oldest first; the worst of each second.
    pub history: VecDeque<(u64, u64)>,
    /// The worst of all.
    pub worst_ms: u64,
}

/// See the module's text.
pub struct Slow {
    /// Microseconds; negative: nothing is logged.
    slower_than_micros: AtomicI64,
    entries_max: AtomicUsize,
    /// Milliseconds; 0: off.
    spikes_from_ms: AtomicU64,
    histograms: AtomicBool,
    measures: AtomicBool,
    log: Mutex<(u64, VecDeque<SlowCommand>)>,
    events: Mutex<BTreeMap<&'static str, Spikes>>,
}

impl Default for Slow {
    fn default() -> Self {
        Self {
            slower_than_micros: AtomicI64::new(-1),
            entries_max: AtomicUsize::new(0),
            spikes_from_ms: AtomicU64::new(0),
            histograms: AtomicBool::new(false),
            measures: AtomicBool::new(false),
            log: Mutex::default(),
            events: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The words as they are logged: the first of them, each cut short, with what was left out.
pub fn shortened(words: &[Bytes]) -> Vec<Bytes> {
    let whole = words.len() <= WORDS_MAX;
    let kept = if whole { words.len() } else { WORDS_MAX - 1 };
    let mut short: Vec<Bytes> = words[..kept]
        .iter()
        .map(|word| {
            if word.len() <= WORD_LEN_MAX {
                return Bytes::copy_from_slice(word);
            }
            let more = format!("... ({} more bytes)", word.len() - WORD_LEN_MAX);
            Bytes::from([&word[..WORD_LEN_MAX], more.as_bytes()].concat())
        })
        .collect();
    if !whole {
        short.push(Bytes::from(format!("... ({} more arguments)", words.len() - kept)));
    }
    short
}

impl Slow {
    /// Changes what is measured.
    pub fn set(&self, slower_than_micros: i64, entries_max: u32, spikes_from_ms: u64, histograms: bool) {
        self.slower_than_micros.store(slower_than_micros, Ordering::Relaxed);
        self.entries_max.store(entries_max as usize, Ordering::Relaxed);
        self.spikes_from_ms.store(spikes_from_ms, Ordering::Relaxed);
        self.histograms.store(histograms, Ordering::Relaxed);
        self.measures.store(slower_than_micros >= 0 || spikes_from_ms > 0 || histograms, Ordering::Relaxed);
    }

    /// Whether the time of commands is wanted at all. One load.
    pub fn measures(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    /// Whether histograms are kept.
    pub fn keeps_histograms(&self) -> bool {
        self.histograms.load(Ordering::Relaxed)
    }

    /// Whether anybody wants to hear of a command that took that long: most are told of nowhere.
    pub fn concerns(&self, took: Duration) -> bool {
        let micros = took.as_micros() as u64;
        let limit = self.slower_than_micros.load(Ordering::Relaxed);
        let spikes_from_ms = self.spikes_from_ms.load(Ordering::Relaxed);
        self.keeps_histograms()
            || u64::try_from(limit).is_ok_and(|limit| micros >= limit)
            || spikes_from_ms > 0 && micros >= 1000 * spikes_from_ms
    }

    /// A command took that long. `entry` is asked for what is logged if it is logged; `event` is what the latency monitor calls it.
    pub fn note(&self, took: Duration, now_seconds: u64, event: &'static str, entry: impl FnOnce() -> Option<SlowCommand>) {
        let micros = took.as_micros() as u64;
        let limit = self.slower_than_micros.load(Ordering::Relaxed);
        if u64::try_from(limit).is_ok_and(|limit| micros >= limit)
            && let Some(entry) = entry()
        {
            let mut log = lock(&self.log);
            let (next_id, entries) = &mut *log;
            entries.push_front(SlowCommand { id: *next_id, micros, at_seconds: now_seconds, ..entry });
            *next_id += 1;
            entries.truncate(self.entries_max.load(Ordering::Relaxed));
        }
        let spikes_from_ms = self.spikes_from_ms.load(Ordering::Relaxed);
        if spikes_from_ms > 0 && micros >= 1000 * spikes_from_ms {
            self.spike(event, now_seconds, micros / 1000);
        }
    }

    fn spike(&self, event: &'static str, now_seconds: u64, ms: u64) {
        let mut events = lock(&self.events);
        if events.len() >= EVENTS_MAX && !events.contains_key(event) {
            return;
        }
        let spikes = events.entry(event).or_default();
        spikes.worst_ms = spikes.worst_ms.max(ms);
        match spikes.history.back_mut() {
            Some((at, worst)) if *at == now_seconds => *worst = ms.max(*worst),
            _ => spikes.history.push_back((now_seconds, ms)),
        }
        if spikes.history.len() > SPIKES_MAX {
            spikes.history.pop_front();
        }
    }

    /// What was logged, the newest first.
    pub fn entries(&self, count: usize) -> Vec<SlowCommand> {
        lock(&self.log).1.iter().take(count).cloned().collect()
    }

    /// How much is logged.
    pub fn len(&self) -> usize {
        lock(&self.log).1.len()
    }

    /// How many were logged since the start.
    pub fn logged(&self) -> u64 {
        lock(&self.log).0
    }

    /// Whether nothing is logged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what is logged; numbers go on.
    pub fn reset(&self) {
        lock(&self.log).1.clear();
    }

    /// What the latency monitor has seen, by event.
    pub fn spikes(&self) -> Vec<(&'static str, Spikes)> {
        lock(&self.events).iter().map(|(name, spikes)| (*name, spikes.clone())).collect()
    }

    /// Forgets the events for which `which` says yes; returns how many.
    pub fn forget_spikes(&self, which: impl Fn(&str) -> bool) -> usize {
        let mut events = lock(&self.events);
        let before = events.len();
        events.retain(|name, _| !which(name));
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Option<SlowCommand> {
        Some(SlowCommand { id: 0, at_seconds: 0, micros: 0, words: Vec::new(), peer: String::new(), name: Bytes::new() })
    }

    #[test]
    fn what_takes_long_is_logged_and_the_oldest_goes() {
        let slow = Slow::default();
        assert!(!slow.measures());
        slow.set(1000, 2, 5, false);
        assert!(slow.measures());
        for (ms, second) in [(0, 1), (1, 1), (5, 2), (7, 2), (6, 3)] {
            slow.note(Duration::from_millis(ms), second, "command", entry);
        }
        let ids: Vec<(u64, u64)> = slow.entries(9).iter().map(|entry| (entry.id, entry.micros)).collect();
        assert_eq!(ids, [(3, 6000), (2, 7000)]);
        let spikes = slow.spikes();
        assert_eq!((spikes[0].1.worst_ms, spikes[0].1.history.iter().copied().collect::<Vec<_>>()), (7, vec![(2, 7), (3, 6)]));
        slow.reset();
        slow.set(-1, 2, 0, false);
        slow.note(Duration::from_secs(1), 4, "command", entry);
        assert!(slow.is_empty() && slow.forget_spikes(|_| true) == 1);
    }

    #[test]
    fn long_commands_are_cut_short() {
        let words: Vec<Bytes> = (0..40).map(|number| Bytes::from(vec![b'x'; if number == 1 { 200 } else { 3 }])).collect();
        let short = shortened(&words);
        assert_eq!(short.len(), 32);
        assert!(short[1].ends_with(b"... (72 more bytes)") && short[31] == "... (9 more arguments)");
        assert_eq!(shortened(&words[2..34]).len(), 32);
    }
}
