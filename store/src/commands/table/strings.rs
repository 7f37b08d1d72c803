//! Strings.

use super::{ALL, BLIND, FREES, ONE, PAIRS, READ, SLOW_BLIND, WRITE};
use crate::commands::strings;

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
}
