//! The table of commands: name, arity, flags, key positions, cost and since. COMMAND, arity errors, cluster routing and the list of
//! what the data port refuses all come from it.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    CommandError, client, cluster, clusterx, config, flush, hash_scans, hashes, info, keys, persistence,
    run::{Context, Later},
    scan, server, strings,
};
use crate::{node::Node, protocol::Request};

/// What a command is, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u16);

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
    /// Goes over the subkeys of a collection: those that its thread has gathered have to be committed first.
    pub const ORDERED: Self = Self(512);
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

    /// Names as COMMAND gives them.
    pub fn names(self) -> Vec<&'static str> {
        let named = [
            (Self::WRITE, "write"),
            (Self::READONLY, "readonly"),
            (Self::FAST, "fast"),
            (Self::ADMIN, "admin"),
            (Self::NO_AUTH, "no_auth"),
        ];
        named.into_iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| name).collect()
    }
}

/// Where the keys are among the words of a request: first, last (negative: from the end), step. First 0: there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPositions {
    /// Position of the first.
    pub first: i32,
    /// Position of the last.
    pub last: i32,
    /// Distance between two.
    pub step: i32,
}

impl KeyPositions {
    /// Positions of the keys in a request of that many words.
    pub fn of(self, words: usize) -> impl Iterator<Item = usize> {
        let last = if self.last < 0 { words as i32 + self.last } else { self.last };
        let range = if self.first > 0 { self.first..last + 1 } else { 0..0 };
        range.step_by(self.step.max(1) as usize).map(|position| position as usize).filter(move |position| *position < words)
    }
}

/// How a command is executed.
#[derive(Clone, Copy)]
pub enum Handler {
    /// At once, inside the engine's gate.
    Now(fn(&mut Context<'_, '_>, &Request) -> Result<(), CommandError>),
    /// By a future: it waits for something, or works long.
    Later(fn(&Arc<Node>, &Request) -> Result<Later, CommandError>),
}

/// How often a command was executed. On a line of its own, so that threads which execute other commands do not wait for it.
#[repr(align(64))]
pub struct Calls(AtomicU64);

impl Calls {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
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
    pub keys: KeyPositions,
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

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const BLIND: Flags = WRITE.and(Flags::BLIND);
const FREES: Flags = WRITE.and(Flags::FREES);
const SLOW_FREES: Flags = Flags::WRITE.and(Flags::FREES);
const SLOW_BLIND: Flags = Flags::WRITE.and(Flags::BLIND);
const CONNECTION: Flags = Flags::CONNECTION.and(Flags::FAST);
const OPEN: Flags = CONNECTION.and(Flags::NO_AUTH);
const PLANE: Flags = Flags::ADMIN.and(Flags::ADMIN_PLANE);
const NO_KEYS: KeyPositions = KeyPositions { first: 0, last: 0, step: 0 };
const ONE: KeyPositions = KeyPositions { first: 1, last: 1, step: 1 };
const BOTH: KeyPositions = KeyPositions { first: 1, last: 2, step: 1 };
const ALL: KeyPositions = KeyPositions { first: 1, last: -1, step: 1 };
const PAIRS: KeyPositions = KeyPositions { first: 1, last: -1, step: 2 };

macro_rules! commands {
    ($( $name:literal $arity:literal $flags:ident $keys:ident $since:literal $cost:literal $kind:ident($handler:path) $summary:literal; )*) => {
        static TABLE: &[CommandSpec] = &[ $( CommandSpec {
            name: $name, arity: $arity, flags: $flags, keys: $keys, since: $since, complexity: $cost, summary: $summary,
            handler: Handler::$kind($handler), calls: { static CALLS: Calls = Calls(AtomicU64::new(0)); &CALLS },
        }, )* ];
    };
}

const NONE: Flags = Flags::NONE;
const SLOW_READ: Flags = Flags::READONLY;
const ORDERED: Flags = Flags::READONLY.and(Flags::ORDERED);
const ORDERED_WRITE: Flags = Flags::WRITE.and(Flags::ORDERED);
const SLOW_WRITE: Flags = Flags::WRITE;
const ADMIN: Flags = Flags::ADMIN;

commands! {
    "get"          2 READ  ONE   "1.0.0"  "O(1)" Now(strings::get) "The value of a string.";
    "set"         -3 BLIND ONE   "1.0.0"  "O(1)" Now(strings::set) "Sets a string, with EX, PX, EXAT, PXAT, KEEPTTL, NX, XX, GET.";
    "setnx"        3 WRITE ONE   "1.0.0"  "O(1)" Now(strings::setnx) "Sets a string if there is no such key.";
    "setex"        4 BLIND ONE   "2.0.0"  "O(1)" Now(strings::setex) "Sets a string that expires after seconds.";
    "psetex"       4 BLIND ONE   "2.6.0"  "O(1)" Now(strings::psetex) "Sets a string that expires after milliseconds.";
    "getset"       3 WRITE ONE   "1.0.0"  "O(1)" Now(strings::getset) "Sets a string and returns the old value.";
    "getdel"       2 FREES ONE   "6.2.0"  "O(1)" Now(strings::getdel) "Returns a string and deletes it.";
    "mget"        -2 READ  ALL   "1.0.0"  "O(N) of the keys" Now(strings::mget) "Values of several strings.";
    "mset"        -3 SLOW_BLIND PAIRS "1.0.1" "O(N) of the keys" Now(strings::mset) "Sets several strings at once.";
    "append"       3 WRITE ONE   "2.0.0"  "O(N) of the value" Now(strings::append) "Appends to a string.";
    "strlen"       2 READ  ONE   "2.2.0"  "O(1)" Now(strings::strlen) "Length of a string.";
    "incr"         2 WRITE ONE   "1.0.0"  "O(1)" Now(strings::incr) "Adds one.";
    "decr"         2 WRITE ONE   "1.0.0"  "O(1)" Now(strings::decr) "Subtracts one.";
    "incrby"       3 WRITE ONE   "1.0.0"  "O(1)" Now(strings::incrby) "Adds a whole number.";
    "decrby"       3 WRITE ONE   "1.0.0"  "O(1)" Now(strings::decrby) "Subtracts a whole number.";
    "incrbyfloat"  3 WRITE ONE   "2.6.0"  "O(1)" Now(strings::incrbyfloat) "Adds a floating point number.";
    "del"         -2 SLOW_FREES ALL "1.0.0" "O(N) of the keys" Now(keys::del) "Deletes keys.";
    "unlink"      -2 FREES ALL   "4.0.0"  "O(N) of the keys" Now(keys::del) "Deletes keys; the same as DEL here, whose cost never depends on the value.";
    "rename"       3 ORDERED_WRITE BOTH "1.0.0" "O(1) inside a slot, O(N) of the subkeys into another" Now(keys::rename) "Gives a key another name.";
    "renamenx"     3 ORDERED_WRITE BOTH "1.0.0" "O(1) inside a slot, O(N) of the subkeys into another" Now(keys::renamenx) "Gives a key another name if that is free.";
    "exists"      -2 READ  ALL   "1.0.0"  "O(N) of the keys" Now(keys::exists) "How many of the keys exist.";
    "type"         2 READ  ONE   "1.0.0"  "O(1)" Now(keys::kind) "The type of a key.";
    "expire"      -3 WRITE ONE   "1.0.0"  "O(1)" Now(keys::expire) "Expires a key after seconds, with NX, XX, GT, LT.";
    "pexpire"     -3 WRITE ONE   "2.6.0"  "O(1)" Now(keys::pexpire) "Expires a key after milliseconds, with NX, XX, GT, LT.";
    "expireat"    -3 WRITE ONE   "1.2.0"  "O(1)" Now(keys::expireat) "Expires a key at a Unix time in seconds.";
    "pexpireat"   -3 WRITE ONE   "2.6.0"  "O(1)" Now(keys::pexpireat) "Expires a key at a Unix time in milliseconds.";
    "ttl"          2 READ  ONE   "1.0.0"  "O(1)" Now(keys::ttl) "Seconds until a key expires.";
    "pttl"         2 READ  ONE   "2.6.0"  "O(1)" Now(keys::pttl) "Milliseconds until a key expires.";
    "expiretime"   2 READ  ONE   "7.0.0"  "O(1)" Now(keys::expiretime) "Unix time in seconds at which a key expires.";
    "pexpiretime"  2 READ  ONE   "7.0.0"  "O(1)" Now(keys::pexpiretime) "Unix time in milliseconds at which a key expires.";
    "persist"      2 WRITE ONE   "2.2.0"  "O(1)" Now(keys::persist) "Lets a key live for ever.";
    "hset"        -4 WRITE ONE   "2.0.0"  "O(N) of the fields" Now(hashes::hset) "Sets fields of a hash.";
    "hmset"       -4 WRITE ONE   "2.0.0"  "O(N) of the fields" Now(hashes::hmset) "Sets fields of a hash; HSET with another reply.";
    "hsetnx"       4 WRITE ONE   "2.0.0"  "O(1)" Now(hashes::hsetnx) "Sets a field of a hash if there is no such field.";
    "hget"         3 READ  ONE   "2.0.0"  "O(1)" Now(hashes::hget) "The value of a field.";
    "hmget"       -3 READ  ONE   "2.0.0"  "O(N) of the fields" Now(hashes::hmget) "Values of several fields.";
    "hdel"        -3 FREES ONE   "2.0.0"  "O(N) of the fields" Now(hashes::hdel) "Deletes fields, and the hash with the last of them.";
    "hlen"         2 READ  ONE   "2.0.0"  "O(1)" Now(hashes::hlen) "How many fields a hash has.";
    "hexists"      3 READ  ONE   "2.0.0"  "O(1)" Now(hashes::hexists) "Whether a hash has a field.";
    "hstrlen"      3 READ  ONE   "3.2.0"  "O(1)" Now(hashes::hstrlen) "Length of a field's value.";
    "hincrby"      4 WRITE ONE   "2.0.0"  "O(1)" Now(hashes::hincrby) "Adds a whole number to a field.";
    "hincrbyfloat" 4 WRITE ONE   "2.6.0"  "O(1)" Now(hashes::hincrbyfloat) "Adds a floating point number to a field.";
    "hgetall"      2 ORDERED ONE "2.0.0"  "O(N) of the hash" Now(hash_scans::hgetall) "Every field and its value.";
    "hkeys"        2 ORDERED ONE "2.0.0"  "O(N) of the hash" Now(hash_scans::hkeys) "Every field.";
    "hvals"        2 ORDERED ONE "2.0.0"  "O(N) of the hash" Now(hash_scans::hvals) "Every value.";
    "hrandfield"  -2 ORDERED ONE "6.2.0"  "O(N) of the hash" Now(hash_scans::hrandfield) "Fields at random, with WITHVALUES.";
    "hscan"       -3 ORDERED ONE "2.8.0"  "O(COUNT) a call" Now(hash_scans::hscan) "Iterates over the fields, with MATCH, COUNT, NOVALUES.";
    "scan"        -2 SLOW_READ NO_KEYS "2.8.0" "O(COUNT) a call" Later(scan::scan) "Iterates over the keys, with MATCH, COUNT, TYPE.";
    "dbsize"       1 SLOW_READ NO_KEYS "1.0.0" "O(N) of the keys" Later(scan::dbsize) "How many keys there are, counted.";
    "flushdb"     -1 SLOW_WRITE NO_KEYS "1.0.0" "O(N) of the slots that hold keys" Later(server::flushdb) "Deletes every key.";
    "flushall"    -1 SLOW_WRITE NO_KEYS "1.0.0" "O(N) of the slots that hold keys" Later(server::flushdb) "Deletes every key.";
    "ping"        -1 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(client::ping) "Answers PONG, or its argument.";
    "echo"         2 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(client::echo) "Answers its argument.";
    "auth"        -2 OPEN  NO_KEYS "1.0.0" "O(1)" Now(client::auth) "Authenticates the connection.";
    "hello"       -1 OPEN  NO_KEYS "6.0.0" "O(1)" Now(client::hello) "Chooses RESP2 or RESP3, with AUTH and SETNAME.";
    "quit"        -1 OPEN  NO_KEYS "1.0.0" "O(1)" Now(client::quit) "Closes the connection.";
    "reset"        1 OPEN  NO_KEYS "6.2.0" "O(1)" Now(client::reset) "Puts the connection back to its beginning.";
    "select"       2 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(client::select) "Chooses the database; there is number 0.";
    "client"      -2 CONNECTION NO_KEYS "2.4.0" "O(1)" Now(client::client) "ID, SETNAME, GETNAME, SETINFO.";
    "readonly"     1 CONNECTION NO_KEYS "3.0.0" "O(1)" Now(client::readonly) "Allows reads from replicas; there are none.";
    "readwrite"    1 CONNECTION NO_KEYS "3.0.0" "O(1)" Now(client::readonly) "Ends READONLY.";
    "command"     -1 NONE  NO_KEYS "2.8.13" "O(N) of the commands" Now(server::command) "The table of commands: COUNT, INFO, DOCS, GETKEYS, LIST.";
    "config"      -2 ADMIN NO_KEYS "2.0.0" "O(N) of the settings" Later(config::config) "GET and SET of settings, several at once; RESETSTAT; REWRITE of the file.";
    "info"        -1 NONE  NO_KEYS "1.0.0" "O(1)" Now(info::info) "The server's account of itself.";
    "time"         1 CONNECTION NO_KEYS "2.6.0" "O(1)" Now(server::time) "The server's time.";
    "cluster"     -2 NONE  NO_KEYS "3.0.0" "O(N) of the nodes" Now(cluster::cluster) "SLOTS, SHARDS, NODES, INFO, MYID, KEYSLOT, COUNTKEYSINSLOT, GETKEYSINSLOT.";
    "flushmemtable" -1 ADMIN NO_KEYS "kvrocks" "O(N) of the memtables" Later(flush::flushmemtable) "Makes every acknowledged write durable: ASYNC, NOWAIT, TIMEOUT ms, RECEIPT.";
    "flushblockcache" 1 ADMIN NO_KEYS "kvrocks" "O(N) of the blocks" Later(persistence::flushblockcache) "Empties the block cache and the row cache.";
    "compact"      1 ADMIN NO_KEYS "kvrocks" "O(N) of the data, in the background" Later(persistence::compact) "Begins to compact the whole database; one at a time.";
    "bgsave"      -1 ADMIN NO_KEYS "1.0.0" "O(N) of the memtables" Later(persistence::bgsave) "Begins to make a checkpoint: a data directory of hard links.";
    "save"         1 ADMIN NO_KEYS "1.0.0" "O(N) of the memtables" Later(persistence::save) "Makes a checkpoint and waits for it; other clients do not.";
    "lastsave"     1 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(persistence::lastsave) "When the newest checkpoint was made, in Unix seconds; 0: there is none.";
    "clusterx"    -2 PLANE NO_KEYS "kvrocks" "see the subcommands" Later(clusterx::clusterx) "What operator, peers and cluster tools say.";
}

/// Every command.
pub fn table() -> &'static [CommandSpec] {
    TABLE
}

/// How many commands were executed since the start, or since CONFIG RESETSTAT.
pub fn calls() -> u64 {
    TABLE.iter().map(|spec| spec.calls.get()).sum()
}

/// The command of that name, in any case.
pub fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    static BY_NAME: OnceLock<HashMap<&'static [u8], &'static CommandSpec>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| TABLE.iter().map(|spec| (spec.name.as_bytes(), spec)).collect());
    let mut lower = [0u8; 24];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    by_name.get(&*lower).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_positions_are_those_of_redis() {
        let of = |keys: KeyPositions, words| keys.of(words).collect::<Vec<_>>();
        assert_eq!(of(ONE, 3), [1]);
        assert_eq!(of(ALL, 4), [1, 2, 3]);
        assert_eq!(of(PAIRS, 5), [1, 3]);
        assert_eq!(of(NO_KEYS, 5), Vec::<usize>::new());
    }

    #[test]
    fn names_are_found_in_any_case_and_are_unique() {
        assert_eq!(find(b"GeT").unwrap().name, "get");
        assert!(find(b"nosuchcommand").is_none());
        assert!(find(&[b'x'; 1000]).is_none());
        let mut names: Vec<_> = table().iter().map(|spec| spec.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table().len());
    }
}
