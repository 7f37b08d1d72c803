//! Settings that change while the node runs, several at once, all or none.
//!
//! What connections read on their way is kept in atomics; the whole is behind a lock that only CONFIG takes.

use std::{
    fs, io,
    io::Write as _,
    path::Path,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    plan_memory,
    settings::{Settings, spec, specs},
};

type SetLogLevel = Box<dyn Fn(&str) + Send + Sync>;
static SET_LOG_LEVEL: OnceLock<SetLogLevel> = OnceLock::new();

/// Says how the log's level is changed. Once, by whoever set the log up.
pub fn on_log_level(set: impl Fn(&str) + Send + Sync + 'static) {
    let _ = SET_LOG_LEVEL.set(Box::new(set));
}

/// The settings in force.
pub struct Live {
    current: Mutex<Settings>,
    /// What was changed since the start, by name, the latest last.
    changed: Mutex<Vec<&'static str>>,
    maxclients: AtomicU32,
    timeout: AtomicU32,
    flush_wait: AtomicBool,
    reply_len_max: AtomicUsize,
    reply_stream_from: AtomicUsize,
    reply_stream_timeout_ms: AtomicU64,
    request_len_max: AtomicUsize,
    park_timeout_ms: AtomicU64,
    command_memory_max: AtomicUsize,
    busy_reply_threshold: AtomicU64,
    script_time_limit: AtomicU64,
    stream_node_max_entries: AtomicU32,
}

/// Why a change is refused. The texts are those of Redis 7.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SetError {
    /// Names and values do not come in pairs.
    #[error("wrong number of arguments for 'config|set' command")]
    Pairs,
    /// No such setting.
    #[error("Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// One of them is refused.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {why}")]
    Refused {
        /// The setting.
        name: String,
        /// The reason.
        why: String,
    },
    /// Together with the others in force they clash.
    #[error("CONFIG SET failed - {0}")]
    Clash(String),
}

impl Live {
    /// The settings of a start.
    pub fn new(settings: Settings) -> Self {
        let live = Self {
            maxclients: AtomicU32::new(0),
            timeout: AtomicU32::new(0),
            flush_wait: AtomicBool::new(false),
            reply_len_max: AtomicUsize::new(0),
            reply_stream_from: AtomicUsize::new(0),
            reply_stream_timeout_ms: AtomicU64::new(0),
            request_len_max: AtomicUsize::new(0),
            park_timeout_ms: AtomicU64::new(0),
            command_memory_max: AtomicUsize::new(0),
            busy_reply_threshold: AtomicU64::new(0),
            script_time_limit: AtomicU64::new(0),
            stream_node_max_entries: AtomicU32::new(0),
            current: Mutex::new(settings.clone()),
            changed: Mutex::default(),
        };
        live.publish(&settings);
        live
    }

    /// Most client connections at once.
    pub fn maxclients(&self) -> u32 {
        self.maxclients.load(Ordering::Relaxed)
    }

    /// Seconds after which an idle client is disconnected; 0: never.
    pub fn timeout(&self) -> u32 {
        self.timeout.load(Ordering::Relaxed)
    }

    /// Entries that a trim of a stream with `~` lets go together; never 0.
    pub fn stream_node_max_entries(&self) -> u64 {
        u64::from(self.stream_node_max_entries.load(Ordering::Relaxed))
    }

    /// Whether FLUSHMEMTABLE waits.
    pub fn flush_wait(&self) -> bool {
        self.flush_wait.load(Ordering::Relaxed)
    }

    /// Longest reply, in bytes.
    pub fn reply_len_max(&self) -> usize {
        self.reply_len_max.load(Ordering::Relaxed)
    }

    /// A reply with all of a collection that is longer than that is sent in pieces; `None`: none is.
    pub fn reply_stream_from(&self) -> Option<usize> {
        Some(self.reply_stream_from.load(Ordering::Relaxed)).filter(|from| *from > 0)
    }

    /// For a client to take a piece of a reply.
    pub fn reply_stream_timeout(&self) -> Duration {
        Duration::from_millis(self.reply_stream_timeout_ms.load(Ordering::Relaxed))
    }

    /// Longest request that memory has room for, in bytes.
    pub fn request_len_max(&self) -> usize {
        self.request_len_max.load(Ordering::Relaxed)
    }

    /// Bytes that one command may hold where that grows with its keys.
    pub fn command_memory_max(&self) -> usize {
        self.command_memory_max.load(Ordering::Relaxed)
    }

    /// For a script to run, before others are answered BUSY; `None`: they are not.
    pub fn busy_reply_threshold(&self) -> Option<Duration> {
        let ms = self.busy_reply_threshold.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// For a script to run at all.
    pub fn script_time_limit(&self) -> Duration {
        Duration::from_millis(self.script_time_limit.load(Ordering::Relaxed))
    }

    /// Milliseconds that a command waits for a slot.
    pub fn park_timeout_ms(&self) -> u64 {
        self.park_timeout_ms.load(Ordering::Relaxed)
    }

    /// All of them, as they are in force.
    pub fn current(&self) -> Settings {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes settings together. `apply` is told of the outcome before it is in force, and may refuse it.
    pub fn set(&self, pairs: &[(String, String)], apply: impl FnOnce(&Settings) -> Result<(), String>) -> Result<(), SetError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, names) = changed(&current, pairs)?;
        apply(&next).map_err(SetError::Clash)?;
        if next.loglevel != current.loglevel
            && let Some(set) = SET_LOG_LEVEL.get()
        {
            set(&next.loglevel);
        }
        self.publish(&next);
        *current = next;
        let mut known = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name| !names.contains(name));
        known.extend(names);
        Ok(())
    }

    /// Writes what was changed into the file that was read at the start: in the place of the lines that set it, or at the end.
    pub fn rewrite(&self) -> Result<(), String> {
        let current = self.current();
        let Some(path) = &current.source else { return Err("The server is running without a config file".into()) };
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let values: Vec<(&str, String)> = changed
            .iter()
            .filter_map(|name| specs().iter().find(|spec| spec.name == *name))
            .map(|spec| (spec.name, (spec.get)(&current)))
            .collect();
        let outcome = fs::read_to_string(path).and_then(|text| replace(path, &rewritten(&text, &values)));
        outcome.map_err(|error| format!("Rewriting config file: {}: {error}", path.display()))
    }

    fn publish(&self, settings: &Settings) {
        self.maxclients.store(settings.maxclients, Ordering::Relaxed);
        self.timeout.store(settings.timeout, Ordering::Relaxed);
        self.flush_wait.store(settings.flush_wait, Ordering::Relaxed);
        // 0 is no limit to Redis; here every limit is a number, and this the largest.
        let normal = settings.client_output_buffer_limit.normal;
        let normal = if normal == 0 { u64::MAX >> 1 } else { normal };
        let request = plan_memory(settings).request;
        self.reply_len_max.store(normal.min(request) as usize, Ordering::Relaxed);
        self.request_len_max.store(request as usize, Ordering::Relaxed);
        self.reply_stream_from.store(settings.reply_stream_from.0 as usize, Ordering::Relaxed);
        self.reply_stream_timeout_ms.store(settings.reply_stream_timeout_ms, Ordering::Relaxed);
        self.command_memory_max.store(settings.command_memory_limit.0.min(request) as usize, Ordering::Relaxed);
        self.busy_reply_threshold.store(settings.busy_reply_threshold, Ordering::Relaxed);
        self.script_time_limit.store(settings.script_time_limit, Ordering::Relaxed);
        let together = if settings.stream_node_max_entries == 0 { 100 } else { settings.stream_node_max_entries };
        self.stream_node_max_entries.store(together, Ordering::Relaxed);
        self.park_timeout_ms.store(settings.park_timeout_ms, Ordering::Relaxed);
    }
}

/// The settings after a change, and the names of what it names. Pure.
fn changed(current: &Settings, pairs: &[(String, String)]) -> Result<(Settings, Vec<&'static str>), SetError> {
    let (mut next, mut names) = (current.clone(), Vec::new());
    for (name, value) in pairs {
        let shown: String = name.chars().take(64).collect();
        let spec = spec(name).ok_or_else(|| SetError::Unknown(shown.clone()))?;
        let refused = |why: &str| SetError::Refused { name: shown.clone(), why: why.into() };
        if names.contains(&spec.name) {
            return Err(refused("duplicate parameter"));
        }
        if !spec.live {
            return Err(refused("can't set immutable config: it is read at the start, so change the configuration and restart"));
        }
        (spec.set)(&mut next, value).map_err(|why| refused(&why))?;
        names.push(spec.name);
    }
    if names.is_empty() {
        return Err(SetError::Pairs);
    }
    if current.row_cache.0 == 0 && next.row_cache.0 > 0 {
        return Err(SetError::Refused {
            name: "rocksdb.row_cache_size".into(),
            why: "it was 0 at the start, so there is no row cache to size: change the configuration and restart".into(),
        });
    }
    next.check().map_err(SetError::Clash)?;
    Ok((next, names))
}

/// A configuration file with other values. Lines of other settings, comments and the order stay. Pure.
fn rewritten(text: &str, values: &[(&str, String)]) -> String {
    let mut left: Vec<&(&str, String)> = values.iter().collect();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let name = line.split_whitespace().next().and_then(spec).map(|spec| spec.name);
        match values.iter().find(|(changed, _)| Some(*changed) == name) {
            None => lines.push(line.to_owned()),
            // A later line of the same setting would win over this one.
            Some(value) if left.iter().any(|other| other.0 == value.0) => {
                left.retain(|other| other.0 != value.0);
                lines.push(format!("{} {}", value.0, value.1));
            }
            Some(_) => {}
        }
    }
    lines.extend(left.into_iter().map(|(name, value)| format!("{name} {value}")));
    lines.join("\n") + "\n"
}

/// Puts text in the place of a file, whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::File::create(&fresh).and_then(|mut file| {
        file.set_permissions(fs::metadata(path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn several_are_changed_together_or_none() {
        let live = Live::new(Settings::default());
        live.set(&pairs(&[("maxclients", "7"), ("Timeout", "3"), ("sync", "no")]), |_| Ok(())).unwrap();
        assert_eq!((live.maxclients(), live.timeout(), live.current().sync.name()), (7, 3, "no"));
        let refusals: [(&[(&str, &str)], &str); 8] = [
            (&[("maxclients", "9"), ("timeout", "soon")], "'timeout') - it has to be a whole number"),
            (&[("maxclients", "9"), ("nosuch", "1")], "Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
            (&[("maxclients", "9"), ("port", "1")], "'port') - can't set immutable config"),
            (&[("maxclients", "9"), ("maxclients", "10")], "duplicate parameter"),
            (&[("lua-time-limit", "9"), ("busy-reply-threshold", "10")], "duplicate parameter"),
            (&[("maxclients", "0")], "maxclients is 0"),
            (&[("maxclients", "9"), ("rocksdb.row_cache_size", "8mb")], "no row cache to size"),
            (&[], "wrong number of arguments"),
        ];
        for (change, expected) in refusals {
            let error = live.set(&pairs(change), |_| Ok(())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(live.maxclients(), 7, "a refusal changes nothing");
        }
        let refused = live.set(&pairs(&[("maxclients", "9")]), |_| Err("the engine says no".into()));
        assert_eq!(refused, Err(SetError::Clash("the engine says no".into())));
        assert_eq!(live.current().maxclients, 7);
    }

    #[test]
    fn a_clash_is_refused_as_at_the_start() {
        let live = Live::new(Settings { wal: false, ..Settings::default() });
        let error = live.set(&pairs(&[("sync", "always")]), |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("`sync always` and `wal no` do not go together"), "{error}");
    }

    #[test]
    fn a_file_is_rewritten_in_place() {
        let text = "# a comment\nport 1\nmaxclients 5\n\nmaxclients 6\ndir /data\n";
        let values = [("maxclients", "9".to_owned()), ("sync", "no".to_owned())];
        assert_eq!(rewritten(text, &values), "# a comment\nport 1\nmaxclients 9\n\ndir /data\nsync no\n");
        assert_eq!(rewritten("", &values), "maxclients 9\nsync no\n");
        let renamed = [("busy-reply-threshold", "7".to_owned())];
        assert_eq!(rewritten("Lua-Time-Limit 5\nport 1\n", &renamed), "busy-reply-threshold 7\nport 1\n");
    }
}
