//! Hashes.

use super::{FREES, ONE, READ, SLOW_READ, WRITE};
use crate::commands::{field_expiry, hash_scans, hashes};

commands! {
    "hash";
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
    "hgetall"      2 SLOW_READ ONE "2.0.0"  "O(N) of the hash" Now(hash_scans::hgetall) "Every field and its value.";
    "hkeys"        2 SLOW_READ ONE "2.0.0"  "O(N) of the hash" Now(hash_scans::hkeys) "Every field.";
    "hvals"        2 SLOW_READ ONE "2.0.0"  "O(N) of the hash" Now(hash_scans::hvals) "Every value.";
    "hrandfield"  -2 SLOW_READ ONE "6.2.0"  "O(N) of the hash" Now(hash_scans::hrandfield) "Fields at random, with WITHVALUES.";
    "hscan"       -3 SLOW_READ ONE "2.8.0"  "O(COUNT) a call" Now(hash_scans::hscan) "Iterates over the fields, with MATCH, COUNT, NOVALUES.";
    "hexpire"     -6 WRITE ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hexpire) "Expires fields after seconds, with NX, XX, GT, LT.";
    "hpexpire"    -6 WRITE ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hpexpire) "Expires fields after milliseconds, with NX, XX, GT, LT.";
    "hexpireat"   -6 WRITE ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hexpireat) "Expires fields at a Unix time in seconds.";
    "hpexpireat"  -6 WRITE ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hpexpireat) "Expires fields at a Unix time in milliseconds.";
    "hpersist"    -5 WRITE ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hpersist) "Lets fields live for ever.";
    "httl"        -5 READ  ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::httl) "Seconds until fields expire.";
    "hpttl"       -5 READ  ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hpttl) "Milliseconds until fields expire.";
    "hexpiretime" -5 READ  ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hexpiretime) "Unix times in seconds at which fields expire.";
    "hpexpiretime" -5 READ ONE   "7.4.0"  "O(N) of the fields" Now(field_expiry::hpexpiretime) "Unix times in milliseconds at which fields expire.";
}
