//! Keys whatever they hold.

use super::{
    ALL, BOTH, CONNECTION, FREES, Keys, NO_KEYS, OBJECT, ONE, READ, SECOND, SLOW_FREES, SLOW_READ, SLOW_WRITE, SYNCS, WRITE,
};
use crate::commands::{acknowledged, all_keys, databases, keys, scan, serialized, sort};

/// The key, and that of STORE.
const STORING: Keys = Keys::Storing;

commands! {
    "generic";
    "del"         -2 SLOW_FREES ALL "1.0.0" "O(N) of the keys" Now(keys::del) "Deletes keys.";
    "unlink"      -2 FREES ALL   "4.0.0"  "O(N) of the keys" Now(keys::del) "Deletes keys; the same as DEL here, whose cost never depends on the value.";
    "rename"       3 SLOW_WRITE BOTH "1.0.0" "O(1) inside a slot, O(N) of the subkeys into another" Now(keys::rename) "Gives a key another name.";
    "renamenx"     3 SLOW_WRITE BOTH "1.0.0" "O(1) inside a slot, O(N) of the subkeys into another" Now(keys::renamenx) "Gives a key another name if that is free.";
    "copy"        -3 SLOW_WRITE BOTH "6.2.0" "O(N) of the subkeys" Now(databases::copy) "Copies a key, with DB and REPLACE.";
    "move"         3 SLOW_WRITE ONE "1.0.0" "O(N) of the subkeys" Now(databases::move_key) "Takes a key to another database.";
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
    "keys"         2 SLOW_READ NO_KEYS "1.0.0" "O(N) of all keys" Walk(all_keys::keys) "Every key whose name matches; SCAN gives them in pages.";
    "randomkey"    1 SLOW_READ NO_KEYS "1.0.0" "O(1) mostly" Walk(all_keys::randomkey) "A key at random.";
    "touch"       -2 READ  ALL   "3.2.1"  "O(N) of the keys" Now(keys::exists) "How many of the keys exist.";
    "scan"        -2 SLOW_READ NO_KEYS "2.8.0" "O(COUNT) a call" Walk(scan::scan) "Iterates over the keys, with MATCH, COUNT, TYPE.";
    "sort"        -2 SLOW_WRITE STORING "1.0.0" "O(N log N) of the elements" Now(sort::sort) "Sorts a list, set or sorted set, with BY, LIMIT, GET, ASC, DESC, ALPHA, STORE.";
    "sort_ro"     -2 SLOW_READ ONE "7.0.0" "O(N log N) of the elements" Now(sort::sort_ro) "Sorts a list, set or sorted set, with BY, LIMIT, GET, ASC, DESC, ALPHA.";
    "dump"         2 SLOW_READ ONE "2.6.0" "O(N) of the value" Now(serialized::dump) "The value in Redis' serialized form.";
    "restore"     -4 SLOW_WRITE ONE "2.6.0" "O(N) of the value" Now(serialized::restore) "Makes a key from what DUMP answered, here or by a Redis server; REPLACE, ABSTTL.";
    "object"      -2 OBJECT SECOND "2.2.3" "O(1), ENCODING O(N) of a small collection" Now(serialized::object) "ENCODING, REFCOUNT, IDLETIME, FREQ of a key.";
    "wait"         3 CONNECTION NO_KEYS "3.0.0" "O(1)" Now(acknowledged::wait) "How many replicas have what was written: none, at once.";
    "waitaof"      4 SYNCS NO_KEYS "7.2.0" "an fsync, shared" Later(acknowledged::waitaof) "Waits until what was written is on disk; says whether it is, and on how many replicas.";
}
