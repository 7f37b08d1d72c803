//! How many distinct things there are, estimated.

use super::{ADMIN, ADMIN_WRITE, ALL, NO_KEYS, ONE, SECOND, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::hyperloglog;

commands! {
    "hyperloglog";
    "pfadd"       -2 WRITE ONE   "2.8.9"  "O(N) of the things" Now(hyperloglog::pfadd) "Counts things.";
    "pfcount"     -2 SLOW_READ ALL "2.8.9" "O(N) of the keys" Now(hyperloglog::pfcount) "How many distinct things were counted, estimated.";
    "pfmerge"     -2 SLOW_WRITE ALL "2.8.9" "O(N) of the keys" Now(hyperloglog::pfmerge) "Counts what several keys have counted.";
    "pfselftest"   1 ADMIN NO_KEYS "2.8.9" "O(N) of a hundred thousand things" Now(hyperloglog::pfselftest) "Counts known numbers of things, and says how well.";
    "pfdebug"      3 ADMIN_WRITE SECOND "2.8.9" "O(N) of the registers" Now(hyperloglog::pfdebug) "Looks into a HyperLogLog: ENCODING, GETREG, TODENSE.";
}
