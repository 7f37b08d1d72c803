//! Lists.

use super::{BOTH, FREES, Flags, Keys, ONE, READ, SLOW_FREES, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::{blocking, lists};

const COUNTED: Keys = Keys::Counted { at: 1, destination: false };
const TIMED_COUNTED: Keys = Keys::Counted { at: 2, destination: false };
const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };
const WAITS: Flags = WRITE.and(Flags::WAITS);
const WAITS_FREES: Flags = FREES.and(Flags::WAITS);

commands! {
    "list";
    "lpush"       -3 WRITE ONE   "1.0.0"  "O(N) of the elements" Now(lists::lpush) "Adds elements at the front of a list.";
    "rpush"       -3 WRITE ONE   "1.0.0"  "O(N) of the elements" Now(lists::rpush) "Adds elements at the back of a list.";
    "lpushx"      -3 WRITE ONE   "2.2.0"  "O(N) of the elements" Now(lists::lpushx) "Adds elements at the front of a list that is there.";
    "rpushx"      -3 WRITE ONE   "2.2.0"  "O(N) of the elements" Now(lists::rpushx) "Adds elements at the back of a list that is there.";
    "lpop"        -2 FREES ONE   "1.0.0"  "O(N) of the elements" Now(lists::lpop) "Takes elements off the front of a list.";
    "rpop"        -2 FREES ONE   "1.0.0"  "O(N) of the elements" Now(lists::rpop) "Takes elements off the back of a list.";
    "llen"         2 READ  ONE   "1.0.0"  "O(1)" Now(lists::llen) "How many elements a list has.";
    "lindex"       3 READ  ONE   "1.0.0"  "O(1)" Now(lists::lindex) "The element at an index.";
    "lset"         4 WRITE ONE   "1.0.0"  "O(1)" Now(lists::lset) "Gives the element at an index another value.";
    "lrange"       4 SLOW_READ ONE "1.0.0" "O(N) of the elements answered" Now(lists::lrange) "Elements between two indexes.";
    "ltrim"        4 SLOW_FREES ONE "1.0.0" "O(N) of the elements kept or of those that go, whichever are fewer" Now(lists::ltrim) "Keeps the elements between two indexes.";
    "lrem"         4 SLOW_WRITE ONE "1.0.0" "O(N) of the list to look, and of the shorter side of what goes to write" Now(lists::lrem) "Removes elements of a value.";
    "linsert"      5 SLOW_WRITE ONE "2.2.0" "O(N) up to the pivot to look, and of its shorter side to write" Now(lists::linsert) "Adds an element before or behind another.";
    "lpos"        -3 SLOW_READ ONE "6.0.6" "O(N) of the elements looked at" Now(lists::lpos) "Indexes of a value, with RANK, COUNT, MAXLEN.";
    "lmove"        5 WRITE BOTH  "6.2.0"  "O(1)" Now(lists::lmove) "Moves an element from one list to another.";
    "rpoplpush"    3 WRITE BOTH  "1.2.0"  "O(1)" Now(lists::rpoplpush) "Moves the last element of a list to the front of another.";
    "lmpop"       -4 FREES COUNTED "7.0.0" "O(N) of the keys and the elements" Now(lists::lmpop) "Takes elements off the first list there is.";
    "blpop"       -3 WAITS_FREES ALL_BUT_LAST "2.0.0" "O(N) of the keys" Now(blocking::blpop) "Takes an element off the front of the first list there is; waits for one.";
    "brpop"       -3 WAITS_FREES ALL_BUT_LAST "2.0.0" "O(N) of the keys" Now(blocking::brpop) "Takes an element off the back of the first list there is; waits for one.";
    "blmove"       6 WAITS BOTH  "6.2.0"  "O(1)" Now(blocking::blmove) "Moves an element from one list to another; waits for one.";
    "brpoplpush"   4 WAITS BOTH  "2.2.0"  "O(1)" Now(blocking::brpoplpush) "Moves the last element of a list to the front of another; waits for one.";
    "blmpop"      -5 WAITS_FREES TIMED_COUNTED "7.0.0" "O(N) of the keys and the elements" Now(blocking::blmpop) "Takes elements off the first list there is; waits for one.";
}
