//! Bits of strings.

use super::{ALL_BUT_FIRST, ONE, READ, SLOW_READ, SLOW_WRITE};
use crate::commands::bits;

commands! {
    "bitmap";
    "setbit"       4 SLOW_WRITE ONE "2.2.0" "O(N) of the string" Now(bits::setbit) "Sets a bit.";
    "getbit"       3 READ  ONE   "2.2.0"  "O(1)" Now(bits::getbit) "A bit.";
    "bitcount"    -2 SLOW_READ ONE "2.6.0" "O(N) of the range" Now(bits::bitcount) "How many bits are set.";
    "bitpos"      -3 SLOW_READ ONE "2.8.7" "O(N) of the range" Now(bits::bitpos) "The first bit that is set, or is not.";
    "bitop"       -4 SLOW_WRITE ALL_BUT_FIRST "2.6.0" "O(N) of the longest" Now(bits::bitop) "AND, OR, XOR, NOT of strings.";
    "bitfield"    -2 SLOW_WRITE ONE "3.2.0" "O(N) of the string" Now(bits::bitfield) "Numbers of any width inside a string: GET, SET, INCRBY, OVERFLOW.";
    "bitfield_ro" -2 READ  ONE   "6.0.0"  "O(1) a number" Now(bits::bitfield_ro) "BITFIELD with GET alone.";
}
