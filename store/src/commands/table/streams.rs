//! Streams.

use super::{FREES, Flags, Keys, ONE, READ, SLOW_FREES, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::streams::{self, groups, info, pending, reading};

/// `SUBCOMMAND key …`
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };
const STREAMS: Keys = Keys::Streams;
const WAITS_READ: Flags = SLOW_READ.and(Flags::WAITS);
const WAITS_WRITE: Flags = SLOW_WRITE.and(Flags::WAITS);
const GROUPS: Flags = SLOW_WRITE.and(Flags::CONTAINER);
const INFO: Flags = SLOW_READ.and(Flags::CONTAINER);

commands! {
    "stream";
    "xadd"        -5 WRITE ONE   "5.0.0"  "O(1), and O(N) of the entries that are trimmed" Now(streams::xadd) "Adds an entry, with NOMKSTREAM, MAXLEN, MINID, LIMIT.";
    "xtrim"       -4 SLOW_FREES ONE "5.0.0" "O(N) of the entries that go" Now(streams::xtrim) "Deletes the oldest entries, with MAXLEN, MINID, LIMIT.";
    "xdel"        -3 FREES ONE   "5.0.0"  "O(N) of the ids" Now(streams::xdel) "Deletes entries.";
    "xlen"         2 READ  ONE   "5.0.0"  "O(1)" Now(streams::xlen) "How many entries a stream has.";
    "xrange"      -4 SLOW_READ ONE "5.0.0" "O(N) of the entries answered" Now(streams::xrange) "Entries between two ids, with COUNT.";
    "xrevrange"   -4 SLOW_READ ONE "5.0.0" "O(N) of the entries answered" Now(streams::xrevrange) "Entries between two ids, the last first, with COUNT.";
    "xsetid"      -3 WRITE ONE   "5.0.0"  "O(1)" Now(streams::xsetid) "Sets the last id of a stream, with ENTRIESADDED, MAXDELETEDID.";
    "xread"       -4 WAITS_READ STREAMS "5.0.0" "O(N) of the entries answered" Now(reading::xread) "Entries behind given ids of several streams, with COUNT, BLOCK.";
    "xreadgroup"  -7 WAITS_WRITE STREAMS "5.0.0" "O(N) of the entries answered" Now(reading::xreadgroup) "Reads as a consumer of a group, with COUNT, BLOCK, NOACK.";
    "xgroup"      -2 GROUPS SECOND "5.0.0" "O(1); DESTROY and DELCONSUMER O(N) of what is pending" Now(groups::xgroup) "CREATE, SETID, DESTROY, CREATECONSUMER, DELCONSUMER.";
    "xack"        -4 WRITE ONE   "5.0.0"  "O(N) of the ids" Now(groups::xack) "Acknowledges entries: they are pending no more.";
    "xpending"    -3 SLOW_READ ONE "5.0.0" "O(N) of the entries looked at; without a range O(N) of the consumers" Now(pending::xpending) "What is pending in a group, with IDLE, a range, a consumer.";
    "xclaim"      -6 WRITE ONE   "5.0.0"  "O(N) of the ids" Now(pending::xclaim) "Gives pending entries to another consumer, with IDLE, TIME, RETRYCOUNT, FORCE, JUSTID, LASTID.";
    "xautoclaim"  -6 WRITE ONE   "6.2.0"  "O(1), ten times COUNT at most" Now(pending::xautoclaim) "Gives a consumer what was pending for long, with COUNT, JUSTID.";
    "xinfo"       -2 INFO SECOND "5.0.0"  "O(N) of what is shown" Now(info::xinfo) "STREAM, GROUPS, CONSUMERS.";
}
