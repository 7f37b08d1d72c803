//! Sorted sets.

use super::{FREES, Flags, Keys, ONE, READ, SLOW_FREES, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::sorted_sets::{self as zsets, algebra, pages, pops, ranges, waiting};

/// `numkeys key …`
const COUNTED: Keys = Keys::Counted { at: 1, destination: false };
/// `destination numkeys key …`
const INTO_COUNTED: Keys = Keys::Counted { at: 2, destination: true };
/// `destination source …`
const INTO: Keys = Keys::Range { first: 1, last: 2, step: 1 };

const TIMED_COUNTED: Keys = Keys::Counted { at: 2, destination: false };
const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };
const WAITS: Flags = FREES.and(Flags::WAITS);

commands! {
    "sorted-set";
    "zadd"        -4 WRITE ONE   "1.2.0"  "O(N) of the members" Now(zsets::zadd) "Adds members or changes their scores, with NX, XX, GT, LT, CH, INCR.";
    "zincrby"      4 WRITE ONE   "1.2.0"  "O(1)" Now(zsets::zincrby) "Adds to a member's score.";
    "zrem"        -3 FREES ONE   "1.2.0"  "O(N) of the members" Now(zsets::zrem) "Deletes members, and the sorted set with the last of them.";
    "zcard"        2 READ  ONE   "1.2.0"  "O(1)" Now(zsets::zcard) "How many members a sorted set has.";
    "zscore"       3 READ  ONE   "1.2.0"  "O(1)" Now(zsets::zscore) "A member's score.";
    "zmscore"     -3 READ  ONE   "6.2.0"  "O(N) of the members" Now(zsets::zmscore) "Scores of several members.";
    "zrank"       -3 SLOW_READ ONE "2.0.0" "O(N) of the members before it, at most of a block of some hundred once the set was gone over" Now(zsets::zrank) "A member's place from the least score, with WITHSCORE.";
    "zrevrank"    -3 SLOW_READ ONE "2.0.0" "O(N) of the members behind it, at most of a block of some hundred once the set was gone over" Now(zsets::zrevrank) "A member's place from the greatest score, with WITHSCORE.";
    "zcount"       4 SLOW_READ ONE "2.0.0" "O(N) of the members between, at most of two blocks of some hundred once the set was gone over" Now(zsets::zcount) "How many members have scores between two.";
    "zlexcount"    4 SLOW_READ ONE "2.8.9" "O(N) of the members between, at most of two blocks of some hundred once the set was gone over" Now(zsets::zlexcount) "How many members are between two.";
    "zrange"      -4 SLOW_READ ONE "1.2.0" "O(N) of the range and, by rank, of what is before it, at most of a block of some hundred once the set was gone over" Now(ranges::zrange) "Members by rank, BYSCORE or BYLEX, with REV, LIMIT, WITHSCORES.";
    "zrevrange"   -4 SLOW_READ ONE "1.2.0" "O(N) of the range and of what is before it, at most of a block of some hundred once the set was gone over" Now(ranges::zrevrange) "Members by rank, the greatest score first.";
    "zrangebyscore" -4 SLOW_READ ONE "1.0.5" "O(N) of the range" Now(ranges::zrangebyscore) "Members by score, with LIMIT, WITHSCORES.";
    "zrevrangebyscore" -4 SLOW_READ ONE "2.2.0" "O(N) of the range" Now(ranges::zrevrangebyscore) "Members by score, the greatest first.";
    "zrangebylex" -4 SLOW_READ ONE "2.8.9" "O(N) of the range" Now(ranges::zrangebylex) "Members of one score by their bytes, with LIMIT.";
    "zrevrangebylex" -4 SLOW_READ ONE "2.8.9" "O(N) of the range" Now(ranges::zrevrangebylex) "Members of one score by their bytes, the last first.";
    "zrangestore" -5 SLOW_WRITE INTO "6.2.0" "O(N) of the range, as ZRANGE" Now(ranges::zrangestore) "Stores what ZRANGE answers.";
    "zremrangebyrank" 4 SLOW_FREES ONE "2.0.0" "O(N) of the range and of what is before it, at most of a block of some hundred once the set was gone over" Now(ranges::zremrangebyrank) "Deletes members by rank.";
    "zremrangebyscore" 4 SLOW_FREES ONE "1.2.0" "O(N) of the range" Now(ranges::zremrangebyscore) "Deletes members by score.";
    "zremrangebylex" 4 SLOW_FREES ONE "2.8.9" "O(N) of the range" Now(ranges::zremrangebylex) "Deletes members of one score by their bytes.";
    "zpopmin"     -2 FREES ONE   "5.0.0"  "O(N) of the members taken" Now(pops::zpopmin) "Takes members with the least scores.";
    "zpopmax"     -2 FREES ONE   "5.0.0"  "O(N) of the members taken" Now(pops::zpopmax) "Takes members with the greatest scores.";
    "zmpop"       -4 SLOW_FREES COUNTED "7.0.0" "O(N) of the keys and members taken" Now(pops::zmpop) "Takes members from the first sorted set that has any: MIN or MAX, with COUNT.";
    "bzpopmin"    -3 WAITS ALL_BUT_LAST "5.0.0" "O(N) of the keys" Now(waiting::bzpopmin) "Takes the member with the least score of the first sorted set there is; waits for one.";
    "bzpopmax"    -3 WAITS ALL_BUT_LAST "5.0.0" "O(N) of the keys" Now(waiting::bzpopmax) "Takes the member with the greatest score of the first sorted set there is; waits for one.";
    "bzmpop"      -5 WAITS TIMED_COUNTED "7.0.0" "O(N) of the keys and members taken" Now(waiting::bzmpop) "Takes members from the first sorted set that has any; waits for one.";
    "zrandmember" -2 SLOW_READ ONE "6.2.0" "O(N) of the members wanted, O(N) of the set up to 4096 members" Now(pages::zrandmember) "Members at random, with WITHSCORES.";
    "zunion"      -3 SLOW_READ COUNTED "6.2.0" "O(N log N) of all members" Now(algebra::zunion) "Members that any has, with WEIGHTS, AGGREGATE, WITHSCORES.";
    "zinter"      -3 SLOW_READ COUNTED "6.2.0" "O(N*M) of the smallest and the number of keys" Now(algebra::zinter) "Members that all have, with WEIGHTS, AGGREGATE, WITHSCORES.";
    "zdiff"       -3 SLOW_READ COUNTED "6.2.0" "O(N*M) of the first and the number of keys" Now(algebra::zdiff) "Members that the first has and no other, with WITHSCORES.";
    "zunionstore" -4 SLOW_WRITE INTO_COUNTED "2.0.0" "O(N log N) of all members" Now(algebra::zunionstore) "Stores members that any has, with WEIGHTS, AGGREGATE.";
    "zinterstore" -4 SLOW_WRITE INTO_COUNTED "2.0.0" "O(N*M) of the smallest and the number of keys" Now(algebra::zinterstore) "Stores members that all have, with WEIGHTS, AGGREGATE.";
    "zdiffstore"  -4 SLOW_WRITE INTO_COUNTED "6.2.0" "O(N*M) of the first and the number of keys" Now(algebra::zdiffstore) "Stores members that the first has and no other.";
    "zintercard"  -3 SLOW_READ COUNTED "7.0.0" "O(N*M) of the smallest and the number of keys" Now(algebra::zintercard) "How many members all have, up to LIMIT.";
    "zscan"       -3 SLOW_READ ONE "2.8.0" "O(COUNT) a call" Now(pages::zscan) "Iterates over members and scores, with MATCH, COUNT.";
}
