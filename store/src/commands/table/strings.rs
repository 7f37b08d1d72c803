//! Strings.

use super::{ALL, BLIND, BOTH, FREES, ONE, PAIRS, READ, SLOW_BLIND, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::{strings, substrings};

commands! {
    "string";
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
    "getrange"     4 SLOW_READ ONE "2.4.0" "O(N) of the range" Now(substrings::getrange) "Part of a string.";
    "substr"       4 SLOW_READ ONE "1.0.0" "O(N) of the range" Now(substrings::getrange) "Part of a string; GETRANGE is its new name.";
    "setrange"     4 SLOW_WRITE ONE "2.2.0" "O(N) of the string" Now(substrings::setrange) "Writes into a string.";
    "msetnx"      -3 SLOW_WRITE PAIRS "1.0.1" "O(N) of the keys" Now(substrings::msetnx) "Sets several strings if none of the keys is there.";
    "getex"       -2 WRITE ONE   "6.2.0"  "O(1)" Now(substrings::getex) "Returns a string and changes its expiry: EX, PX, EXAT, PXAT, PERSIST.";
    "lcs"         -3 SLOW_READ BOTH "7.0.0" "O(N*M) of the strings" Now(substrings::lcs) "Longest common subsequence: LEN, IDX, MINMATCHLEN, WITHMATCHLEN.";
    "cas"         -4 WRITE ONE   "kvrocks" "O(N) of the string" Now(substrings::cas) "Sets a string if it holds a value: 1, 0 if it holds another, -1 if there is none; EX, PX, EXAT, PXAT, KEEPTTL.";
    "cad"          3 FREES ONE   "kvrocks" "O(N) of the string" Now(substrings::cad) "Deletes a string if it holds a value: 1, 0 if it holds another, -1 if there is none.";
}
