//! The server.

use super::{
    ADMIN, ALONE, CONNECTION, DEBUG, ENDS, FAST, MEMORY, NO_KEYS, NONE, PLANE, SECOND, SLOW_READ, SLOW_WRITE, SUBCOMMANDS,
};
use crate::commands::{all_keys, config, databases, debug, flush, info, memory, monitor, persistence, profile, server, slow};

commands! {
    "server";
    "debug"       -2 DEBUG NO_KEYS "1.0.0" "see the subcommands" LaterIn(debug::debug) "SLEEP, RELOAD, PROTOCOL and what else tests ask for; see enable-debug-command.";
    "dbsize"       1 SLOW_READ NO_KEYS "1.0.0" "O(N) of the keys" Walk(all_keys::dbsize) "How many keys there are, counted.";
    "swapdb"       3 SLOW_WRITE NO_KEYS "4.0.0" "O(1)" LaterIn(databases::swapdb) "Exchanges what two databases hold.";
    "flushdb"     -1 SLOW_WRITE NO_KEYS "1.0.0" "O(N) of the slots that hold keys" LaterIn(server::flushdb) "Deletes every key of the database.";
    "flushall"    -1 SLOW_WRITE NO_KEYS "1.0.0" "O(N) of the slots that hold keys" LaterIn(server::flushall) "Deletes every key of every database.";
    "command"     -1 SUBCOMMANDS  NO_KEYS "2.8.13" "O(N) of the commands" Now(server::command) "The table of commands: COUNT, INFO, DOCS, GETKEYS, LIST.";
    "config"      -2 DEBUG NO_KEYS "2.0.0" "O(N) of the settings" Later(config::config) "GET and SET of settings, several at once; RESETSTAT; REWRITE of the file.";
    "info"        -1 NONE  NO_KEYS "1.0.0" "O(1)" Now(info::info) "The server's account of itself.";
    "role"         1 FAST NO_KEYS "2.8.12" "O(1)" Now(server::role) "The node's part in replication: a master without replicas.";
    "time"         1 CONNECTION NO_KEYS "2.6.0" "O(1)" Now(server::time) "The server's time.";
    "flushmemtable" -1 ADMIN NO_KEYS "kvrocks" "O(N) of the memtables" Later(flush::flushmemtable) "Makes every acknowledged write durable: ASYNC, NOWAIT, TIMEOUT ms, RECEIPT.";
    "flushblockcache" 1 ADMIN NO_KEYS "kvrocks" "O(N) of the blocks" Later(persistence::flushblockcache) "Empties the block cache and the row cache.";
    "compact"      1 ADMIN NO_KEYS "kvrocks" "O(N) of the data, in the background" Later(persistence::compact) "Begins to compact the whole database; one at a time.";
    "bgsave"      -1 ADMIN NO_KEYS "1.0.0" "O(N) of the memtables" Later(persistence::bgsave) "Begins to make a checkpoint: a data directory of hard links.";
    "bgrewriteaof" 1 ADMIN NO_KEYS "1.0.0" "O(N) of the memtables, in the background" Later(persistence::bgrewriteaof) "Begins to flush what is in memory: there is no append-only file.";
    "save"         1 ALONE NO_KEYS "1.0.0" "O(N) of the memtables" Later(persistence::save) "Makes a checkpoint and waits for it; other clients do not.";
    "lastsave"     1 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(persistence::lastsave) "When the newest checkpoint was made, in Unix seconds; 0: there is none.";
    "monitor"      1 ALONE NO_KEYS "1.0.0" "O(1) a command" Now(monitor::monitor) "Shows every command that is executed from now on, but for the administration's.";
    "slowlog"     -2 DEBUG NO_KEYS "2.2.12" "O(N) of the entries" Now(slow::slowlog) "Commands that took long: GET, LEN, RESET.";
    "latency"     -2 DEBUG NO_KEYS "2.8.13" "O(N) of the events" Now(slow::latency) "LATEST, HISTORY, RESET, DOCTOR of the latency monitor; HISTOGRAM of commands.";
    "memory"      -2 MEMORY SECOND "4.0.0" "O(N) of the samples" Now(memory::memory) "USAGE of a key; STATS, DOCTOR, MALLOC-STATS of the process.";
    "kprofile"    -2 PLANE NO_KEYS "kvrocks" "O(N) of the sampled allocations" Later(profile::kprofile) "Heap profiles: MEMORY ENABLE, DISABLE, STATUS, DUMP directory, RESET, PPROF.";
    "shutdown"    -1 ENDS NO_KEYS "1.0.0" "O(N) of the memtables" Now(server::shutdown) "Flushes everything and ends the server.";
}
