//! The table of commands: name, arity, flags, key positions, cost and since. COMMAND, arity errors, cluster routing and the list of
//! what the data port refuses all come from it.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{CommandError, Session, context::Context, run::Later, walk::Walker};
use bytes::Bytes;

use crate::{clients::Histogram, node::Node, protocol::Request};

/// What a command is, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Changes data.
    pub const WRITE: Self = Self(1);
    /// Reads data.
    pub const READONLY: Self = Self(2);
    /// Constant or logarithmic time.
    pub const FAST: Self = Self(4);
    /// Changes the server; dangerous.
    pub const ADMIN: Self = Self(8);
    /// Allowed before authentication.
    pub const NO_AUTH: Self = Self(16);
    /// On the admin plane only.
    pub const ADMIN_PLANE: Self = Self(32);
    /// About the connection.
    pub const CONNECTION: Self = Self(64);
    /// Changes keys without a look at what they hold.
    pub const BLIND: Self = Self(128);
    /// Only ever gives space back: done on a full disk as well.
    pub const FREES: Self = Self(256);
    /// Subscribes or unsubscribes: what was published before it goes out before it.
    pub const SUBSCRIBES: Self = Self(1 << 16);
    /// What the table calls its keys are shard channels: they have a slot, and no value.
    pub const CHANNELS: Self = Self(1 << 17);
    /// Word 1 is one of its subcommands.
    pub const CONTAINER: Self = Self(1 << 18);
    /// Waits during CLIENT PAUSE WRITE, though it changes no data.
    pub const TELLS: Self = Self(1 << 19);
    /// Executed inside MULTI, not queued.
    pub const AT_ONCE: Self = Self(1 << 20);
    /// Claims its keys though it does not change them.
    pub const CLAIMS: Self = Self(1 << 21);
    /// May wait for its keys.
    pub const WAITS: Self = Self(1 << 22);
    /// Not allowed inside MULTI.
    pub const NO_MULTI: Self = Self(1 << 23);
    /// Executed while a slow script runs.
    pub const ALLOW_BUSY: Self = Self(1 << 24);
    /// None.
    pub const NONE: Self = Self(0);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of those are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of those is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Names as COMMAND gives them.
    pub fn names(self) -> Vec<&'static str> {
        let named = [
            (Self::WRITE, "write"),
            (Self::READONLY, "readonly"),
            (Self::FAST, "fast"),
            (Self::WAITS, "blocking"),
            (Self::ADMIN, "admin"),
            (Self::NO_AUTH, "no_auth"),
            (Self::ALLOW_BUSY, "allow_busy"),
        ];
        named.into_iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| name).collect()
    }
}

/// Where the keys are among the words of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// There are none.
    None,
    /// From `first` to `last` (negative: from the end), `step` apart.
    Range {
        /// Position of the first.
        first: i32,
        /// Position of the last.
        last: i32,
        /// Distance between two.
        step: i32,
    },
    /// Their number is word `at`, they are behind it; with `destination`, word 1 is a key as well.
    Counted {
        /// Position of their number.
        at: usize,
        /// Whether word 1 is one.
        destination: bool,
    },
    /// Half of what is behind the word STREAMS.
    Streams,
    /// Word 1, and what is behind the last of the words STORE and STOREDIST.
    Storing,
}

/// Positions of keys.
#[derive(Clone)]
pub struct Positions {
    one: Option<usize>,
    rest: std::iter::StepBy<std::ops::Range<usize>>,
}

impl Iterator for Positions {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.one.take().or_else(|| self.rest.next())
    }
}

impl Keys {
    /// Whether a request of such a command may have keys.
    pub fn any(self) -> bool {
        self != Self::None
    }

    /// Whether they are not where they are in every request: COMMAND calls them movable.
    pub fn movable(self) -> bool {
        !matches!(self, Self::None | Self::Range { .. })
    }

    /// First, last and step as COMMAND gives them.
    pub fn classic(self) -> [i32; 3] {
        match self {
            Self::Range { first, last, step } => [first, last, step],
            Self::Counted { destination: true, .. } | Self::Storing => [1, 1, 1],
            Self::None | Self::Counted { .. } | Self::Streams => [0, 0, 0],
        }
    }

    /// Positions of the keys in a request. A number of keys that is none, or too large, names no keys: the command refuses it.
    pub fn of(self, words: &[Bytes]) -> Positions {
        let count = words.len();
        let (one, from, to, step) = match self {
            Self::None => (None, 0, 0, 1),
            Self::Range { first, last, step } => {
                let last = if last < 0 { count as i32 + last } else { last };
                (None, first as usize, (last + 1).max(0) as usize, step as usize)
            }
            Self::Counted { at, destination } => {
                let named = words.get(at).and_then(|word| std::str::from_utf8(word).ok()?.parse::<usize>().ok());
                let keys = named.filter(|named| *named <= count.saturating_sub(at + 1)).unwrap_or(0);
                (destination.then_some(1), at + 1, at + 1 + keys, 1)
            }
            Self::Streams => {
                let behind = words.iter().position(|word| word.eq_ignore_ascii_case(b"streams")).map_or(count, |at| at + 1);
                (None, behind, behind + count.saturating_sub(behind) / 2, 1)
            }
            Self::Storing => {
                let named = |word: &Bytes| word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist");
                let stored = words.iter().rposition(named).filter(|at| *at > 1).map_or(count, |at| at + 1);
                (Some(1), stored, stored + 1, 1)
            }
        };
        Positions { one: one.filter(|at| *at < count), rest: (from..to.min(count)).step_by(step.max(1)) }
    }
}

/// How a command is executed.
#[derive(Clone, Copy)]
pub enum Handler {
    /// At once, inside the engine's gate.
    Now(fn(&mut Context<'_, '_>, &Request) -> Result<(), CommandError>),
    /// By a future: it waits for something, or works long.
    Later(fn(&Arc<Node>, &Request) -> Result<Later, CommandError>),
    /// The same, of the connection's database.
    LaterIn(fn(&Arc<Node>, &Session, &Request) -> Result<Later, CommandError>),
    /// Over the keys of the connection's database: by a future, or inside a script at once.
    Walk(Walker),
}

/// How often a command was executed. On a line of its own, so that threads which execute other commands do not wait for it.
#[repr(align(64))]
pub struct Calls {
    count: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    nanos: AtomicU64,
    /// How long they took, while `latency-tracking` says so.
    pub latency: Histogram,
}

impl Calls {
    const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            latency: Histogram::new(),
        }
    }

    /// Counts one more.
    pub fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that was executed and ended with an error.
    pub fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that was refused before it was executed.
    pub fn add_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the time one took.
    pub fn add_time(&self, took: Duration) {
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How long all of them took, in microseconds, as far as time was taken.
    pub fn micros(&self) -> f64 {
        self.nanos.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// Those that failed, and those that were refused.
    pub fn errors(&self) -> (u64, u64) {
        (self.failed.load(Ordering::Relaxed), self.rejected.load(Ordering::Relaxed))
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        self.rejected.store(0, Ordering::Relaxed);
        self.nanos.store(0, Ordering::Relaxed);
        self.latency.reset();
    }
}

/// A command.
pub struct CommandSpec {
    /// Its name, lower case.
    pub name: &'static str,
    /// Words of a request, the name included; negative: at least that many.
    pub arity: i32,
    /// What it is.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// Its group, as COMMAND DOCS names it.
    pub group: &'static str,
    /// First version of Redis (or Kvrocks) that has it.
    pub since: &'static str,
    /// Its cost.
    pub complexity: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// How it is executed.
    pub handler: Handler,
    /// How often it was executed since the start, or since CONFIG RESETSTAT.
    pub calls: &'static Calls,
}

impl CommandSpec {
    /// Whether a request may have so many words.
    pub fn admits(&self, words: usize) -> bool {
        let words = words as i32;
        if self.arity < 0 { words >= -self.arity } else { words == self.arity }
    }
}

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const BLIND: Flags = WRITE.and(Flags::BLIND);
const FREES: Flags = WRITE.and(Flags::FREES);
const SLOW_FREES: Flags = Flags::WRITE.and(Flags::FREES);
const SLOW_BLIND: Flags = Flags::WRITE.and(Flags::BLIND);
const CONNECTION: Flags = Flags::CONNECTION.and(Flags::FAST);
const OPEN: Flags = CONNECTION.and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);
const PLANE: Flags = Flags::ADMIN.and(Flags::ADMIN_PLANE);
const NO_KEYS: Keys = Keys::None;
const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };
const BOTH: Keys = Keys::Range { first: 1, last: 2, step: 1 };
const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
const ALL_BUT_FIRST: Keys = Keys::Range { first: 2, last: -1, step: 1 };
const COUNTED_2: Keys = Keys::Counted { at: 2, destination: false };
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

macro_rules! commands {
    ($group:literal; $( $name:literal $arity:literal $flags:ident $keys:tt $since:literal $cost:literal $kind:ident($handler:path) $summary:literal; )*) => {
        /// The commands of this family.
        pub(super) static COMMANDS: &[super::CommandSpec] = &[ $( super::CommandSpec {
            name: $name, arity: $arity, flags: $flags, keys: $keys, group: $group, since: $since, complexity: $cost, summary: $summary,
            handler: super::Handler::$kind($handler),
            calls: { static CALLS: super::Calls = super::Calls::new(); &CALLS },
        }, )* ];
    };
}

mod bitmaps;
mod cluster;
mod connection;
mod geo;
mod hashes;
mod hyperloglog;
mod keys;
mod lists;
mod pubsub;
mod scripting;
mod server;
mod sets;
mod streams;
mod strings;
mod transactions;
mod zsets;

const SUBSCRIBE: Flags = Flags::SUBSCRIBES;
const PUBLISH: Flags = Flags::FAST.and(Flags::TELLS);
const CHANNEL: Flags = PUBLISH.and(Flags::CHANNELS);
const CHANNELS: Flags = Flags::SUBSCRIBES.and(Flags::CHANNELS);
const DEBUG: Flags = Flags::ADMIN.and(Flags::CONTAINER);
const ALONE: Flags = Flags::ADMIN.and(Flags::NO_MULTI);
const SYNCS: Flags = Flags::CONNECTION.and(Flags::NO_MULTI);
const MEMORY: Flags = Flags::READONLY.and(Flags::CONTAINER);
const CLIENT: Flags = Flags::CONNECTION.and(Flags::CONTAINER);
const FAST: Flags = Flags::FAST;
const AT_ONCE: Flags = Flags::FAST.and(Flags::AT_ONCE);
const BEGINS: Flags = AT_ONCE.and(Flags::ALLOW_BUSY);
const CLAIMS: Flags = BEGINS.and(Flags::CLAIMS);
const FORGETS: Flags = Flags::FAST.and(Flags::ALLOW_BUSY);
const ENDS: Flags = ALONE.and(Flags::ALLOW_BUSY);
const LEAVES: Flags = OPEN.and(Flags::AT_ONCE);
const SUBCOMMANDS: Flags = Flags::CONTAINER;
const NONE: Flags = Flags::NONE;
const OBJECT: Flags = Flags::READONLY.and(Flags::CONTAINER);
const SLOW_READ: Flags = Flags::READONLY;
const SLOW_WRITE: Flags = Flags::WRITE;
const ADMIN: Flags = Flags::ADMIN;
const ADMIN_WRITE: Flags = Flags::WRITE.and(Flags::ADMIN);

/// The families, in the order in which COMMAND lists them.
static FAMILIES: &[&[CommandSpec]] = &[
    strings::COMMANDS,
    bitmaps::COMMANDS,
    hyperloglog::COMMANDS,
    keys::COMMANDS,
    hashes::COMMANDS,
    lists::COMMANDS,
    sets::COMMANDS,
    zsets::COMMANDS,
    geo::COMMANDS,
    streams::COMMANDS,
    pubsub::COMMANDS,
    transactions::COMMANDS,
    scripting::COMMANDS,
    connection::COMMANDS,
    server::COMMANDS,
    cluster::COMMANDS,
];

/// Every command.
pub fn table() -> impl Iterator<Item = &'static CommandSpec> {
    FAMILIES.iter().copied().flatten()
}

/// How many commands were executed since the start, or since CONFIG RESETSTAT.
pub fn calls() -> u64 {
    table().map(|spec| spec.calls.get()).sum()
}

/// Longest name of a command, renamed ones included.
const NAME_LEN_MAX: usize = 64;

/// Names are few and the table's own: FNV-1a is enough, and costs a fifth of the hash that nobody can make collide.
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }
}

type ByName = HashMap<Vec<u8>, &'static CommandSpec, BuildHasherDefault<NameHasher>>;

static BY_NAME: OnceLock<ByName> = OnceLock::new();

/// The command of that name, in any case.
pub fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    let by_name = BY_NAME.get_or_init(|| table().map(|spec| (spec.name.as_bytes().to_vec(), spec)).collect());
    let mut lower = [0u8; NAME_LEN_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    by_name.get(&*lower).copied()
}

/// Gives commands other names, an empty one: none. Once, before anything was looked for; an error says what cannot be.
pub fn rename(renames: &[(String, String)]) -> Result<(), String> {
    let mut by_name: ByName = table().map(|spec| (spec.name.as_bytes().to_vec(), spec)).collect();
    for (from, to) in renames {
        let spec = by_name.remove(from.as_bytes()).ok_or_else(|| format!("rename-command: there is no command `{from}`"))?;
        if spec.flags.has(Flags::ADMIN_PLANE) || spec.name == "flushmemtable" {
            return Err(format!("rename-command: `{from}` is what operator and peers call it"));
        }
        if to.len() > NAME_LEN_MAX || by_name.contains_key(to.as_bytes()) {
            return Err(format!("rename-command: `{to}` is too long, or the name of another command"));
        }
        if !to.is_empty() {
            by_name.insert(to.as_bytes().to_vec(), spec);
        }
    }
    BY_NAME.set(by_name).map_err(|_| "rename-command: commands were renamed before".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_positions_are_those_of_redis() {
        let of = |keys: Keys, text: &str| {
            let words: Vec<Bytes> = text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            keys.of(&words).collect::<Vec<_>>()
        };
        assert_eq!(of(ONE, "get k x"), [1]);
        assert_eq!(of(ALL, "del a b c"), [1, 2, 3]);
        assert_eq!(of(PAIRS, "mset a 1 b 2"), [1, 3]);
        assert!(of(NO_KEYS, "ping a b").is_empty());
        let counted = Keys::Counted { at: 2, destination: true };
        assert_eq!(of(counted, "zunionstore d 2 a b weights 1 2"), [1, 3, 4]);
        for wrong in ["zunionstore d 3 a b", "zunionstore d x a b", "zunionstore d -1 a", "zunionstore d 18446744073709551615 a"]
        {
            assert_eq!(of(counted, wrong), [1], "{wrong}");
        }
        assert_eq!(of(Keys::Counted { at: 1, destination: false }, "sintercard 1 a limit 2"), [2]);
        assert_eq!(of(Keys::Streams, "xread count 2 streams a b 0 0"), [4, 5]);
        assert!(of(Keys::Streams, "xread count 2").is_empty());
        assert_eq!(of(Keys::Storing, "sort k by x store d"), [1, 5]);
        assert_eq!(of(Keys::Storing, "sort k by x"), [1]);
    }

    #[test]
    fn names_are_found_in_any_case_and_are_unique() {
        assert_eq!(find(b"GeT").unwrap().name, "get");
        assert!(find(b"nosuchcommand").is_none());
        assert!(find(&[b'x'; 1000]).is_none());
        let mut names: Vec<_> = table().map(|spec| spec.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table().count());
    }
}
