//! Sets.

use super::{ALL, BOTH, FREES, Keys, ONE, READ, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::sets;

/// `numkeys key …`
const COUNTED: Keys = Keys::Counted { at: 1, destination: false };

commands! {
    "set";
    "sadd"        -3 WRITE ONE   "1.0.0"  "O(N) of the members" Now(sets::sadd) "Adds members to a set.";
    "srem"        -3 FREES ONE   "1.0.0"  "O(N) of the members" Now(sets::srem) "Deletes members, and the set with the last of them.";
    "sismember"    3 READ  ONE   "1.0.0"  "O(1)" Now(sets::sismember) "Whether a set has a member.";
    "smismember"  -3 READ  ONE   "6.2.0"  "O(N) of the members" Now(sets::smismember) "Whether a set has each of several members.";
    "scard"        2 READ  ONE   "1.0.0"  "O(1)" Now(sets::scard) "How many members a set has.";
    "smembers"     2 SLOW_READ ONE "1.0.0" "O(N) of the set" Now(sets::smembers) "Every member.";
    "smove"        4 WRITE BOTH  "1.0.0"  "O(1)" Now(sets::smove) "Takes a member from one set to another.";
    "spop"        -2 FREES ONE   "1.0.0"  "O(N) of the members taken, O(N) of the set up to 4096 members" Now(sets::spop) "Takes members at random out of a set.";
    "srandmember" -2 SLOW_READ ONE "1.0.0" "O(N) of the members wanted, O(N) of the set up to 4096 members" Now(sets::srandmember) "Members at random.";
    "sinter"      -2 SLOW_READ ALL "1.0.0" "O(N*M) of the smallest set and the number of sets" Now(sets::sinter) "Members that all sets have.";
    "sunion"      -2 SLOW_READ ALL "1.0.0" "O(N) of all sets" Now(sets::sunion) "Members that any of the sets has.";
    "sdiff"       -2 SLOW_READ ALL "1.0.0" "O(N*M) of the first set and the number of sets" Now(sets::sdiff) "Members that the first set has and no other.";
    "sinterstore" -3 SLOW_WRITE ALL "1.0.0" "O(N*M) of the smallest set and the number of sets" Now(sets::sinterstore) "Stores members that all sets have.";
    "sunionstore" -3 SLOW_WRITE ALL "1.0.0" "O(N) of all sets" Now(sets::sunionstore) "Stores members that any of the sets has.";
    "sdiffstore"  -3 SLOW_WRITE ALL "1.0.0" "O(N*M) of the first set and the number of sets" Now(sets::sdiffstore) "Stores members that the first set has and no other.";
    "sintercard"  -3 SLOW_READ COUNTED "7.0.0" "O(N*M) of the smallest set and the number of sets" Now(sets::sintercard) "How many members all sets have, up to LIMIT.";
    "sscan"       -3 SLOW_READ ONE "2.8.0" "O(COUNT) a call" Now(sets::sscan) "Iterates over the members, with MATCH, COUNT.";
}
