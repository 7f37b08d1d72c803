//! Subcommands: names, arity, and what HELP says of them. Unknown ones and wrong numbers of words are refused here, as Redis does.

use bytes::Bytes;

use super::{CommandError, table::CommandSpec};
use crate::protocol::ReplyWriter;

/// A subcommand.
pub(super) struct Subcommand {
    /// The command it belongs to.
    pub(super) of: &'static str,
    /// Its name, lower case.
    pub(super) name: &'static str,
    /// Words of a request, both names included; negative: at least that many.
    pub(super) arity: i32,
    /// Its arguments, for HELP.
    pub(super) arguments: &'static str,
    /// What it does.
    pub(super) summary: &'static str,
}

macro_rules! subcommands {
    ($( $of:literal { $( $name:literal $arity:literal $arguments:literal $summary:literal; )* } )*) => {
        static SUBCOMMANDS: &[Subcommand] = &[ $( $( Subcommand {
            of: $of, name: $name, arity: $arity, arguments: $arguments, summary: $summary,
        }, )* )* ];
    };
}

subcommands! {
    "client" {
        "caching" 3 "YES|NO" "Tracks the keys of the next command; client-side caching is not served.";
        "getname" 2 "" "The name of the connection.";
        "getredir" 2 "" "The client that invalidations are redirected to: -1, there are none.";
        "help" 2 "" "Prints this help.";
        "id" 2 "" "The number of the connection.";
        "info" 2 "" "What CLIENT LIST says of this connection.";
        "kill" -3 "addr:port | ID id | TYPE type | ADDR addr:port | LADDR addr:port | USER name | SKIPME yes|no | MAXAGE seconds ..." "Ends connections.";
        "list" -2 "[TYPE normal|master|replica|pubsub] [ID id ...]" "Lists connections.";
        "no-evict" 3 "ON|OFF" "Exempts the connection from eviction; nobody is evicted here.";
        "no-touch" 3 "ON|OFF" "Lets commands of the connection leave the idle time of keys alone.";
        "pause" -3 "milliseconds [WRITE|ALL]" "Lets commands wait for so long.";
        "reply" 3 "ON|OFF|SKIP" "Whether the connection gets replies.";
        "setinfo" 4 "LIB-NAME|LIB-VER value" "Names the client's library.";
        "setname" 3 "name" "Names the connection.";
        "tracking" -3 "ON|OFF ..." "Client-side caching; it is not served: OFF alone is accepted.";
        "trackinginfo" 2 "" "The state of client-side caching: off.";
        "unblock" -3 "id [TIMEOUT|ERROR]" "Ends the wait of a client in a blocking command.";
        "unpause" 2 "" "Ends CLIENT PAUSE.";
    }
    "cluster" {
        "countkeysinslot" 3 "slot" "How many keys of a slot are here.";
        "getkeysinslot" 4 "slot count" "Keys of a slot.";
        "help" 2 "" "Prints this help.";
        "info" 2 "" "The state of the cluster.";
        "keyslot" 3 "key" "The slot of a key.";
        "links" 2 "" "Links by which messages of channels go to other nodes; nodes do not gossip.";
        "myid" 2 "" "The id of this node.";
        "nodes" 2 "" "The nodes, in the form of Redis' file.";
        "replicas" 3 "node-id" "The replicas of a node: none.";
        "shards" 2 "" "Slots and their nodes.";
        "slaves" 3 "node-id" "The replicas of a node: none.";
        "slots" 2 "" "Slots and their nodes, in the older form.";
    }
    "command" {
        "count" 2 "" "How many commands there are.";
        "docs" -2 "[command ...]" "What commands are for.";
        "getkeys" -3 "command [argument ...]" "The keys of a request.";
        "getkeysandflags" -3 "command [argument ...]" "The keys of a request, and what is done to them.";
        "help" 2 "" "Prints this help.";
        "info" -2 "[command ...]" "Arity, flags and key positions of commands.";
        "list" -2 "[FILTERBY MODULE name|ACLCAT category|PATTERN pattern]" "Names of commands.";
    }
    "config" {
        "get" -3 "pattern [pattern ...]" "Settings whose names match, secrets excepted.";
        "help" 2 "" "Prints this help.";
        "resetstat" 2 "" "Begins to count anew.";
        "rewrite" 2 "" "Writes what was changed into the file.";
        "set" -4 "name value [name value ...]" "Changes settings, all of them or none.";
    }
    "debug" {
        "help" 2 "" "Prints this help.";
        "loadaof" 2 "" "As RELOAD.";
        "log" 3 "text" "Writes a line into the log.";
        "object" 3 "key" "What OBJECT and DUMP say of a key, in one line.";
        "panic" 2 "" "Fails inside, as a bug would: the command is answered with an error and nothing else suffers.";
        "protocol" 3 "string|integer|double|null|array|set|map|attrib|push|verbatim|true|false|bignum" "Answers a value of that type.";
        "reload" -2 "[option ...]" "Writes everything to the disk and empties the caches.";
        "set-active-expire" 3 "0|1" "Lets the background leave what has expired alone, or not.";
        "set-disable-deny-scripts" 3 "0|1" "Lets scripts use what of DEBUG is done at once.";
        "sleep" 3 "seconds" "Lets this connection sleep; the others go on.";
        "stringmatch-len" 4 "length pattern" "Matches a text of so many zero bytes.";
    }
    "kprofile" {
        "help" 2 "" "Prints this help.";
        "memory disable" 3 "" "Ends sampling allocations; what was sampled stays.";
        "memory dump" 4 "directory" "Writes what is allocated as jeprof.PID.NUMBER.heap, for jeprof.";
        "memory enable" 3 "" "Begins to sample allocations.";
        "memory pprof" 3 "" "What is allocated, as gzipped pprof with names.";
        "memory reset" 3 "" "Forgets what was sampled.";
        "memory status" 3 "" "Whether allocations are sampled: enabled or disabled.";
    }
    "latency" {
        "doctor" 2 "" "What the latency monitor has seen, in words.";
        "help" 2 "" "Prints this help.";
        "histogram" -2 "[command ...]" "How long commands took, cumulative; see latency-tracking.";
        "history" 3 "event" "Spikes of an event.";
        "latest" 2 "" "The latest spike of each event, and the worst.";
        "reset" -2 "[event ...]" "Forgets spikes.";
    }
    "memory" {
        "doctor" 2 "" "Who holds memory, and what is done about it.";
        "help" 2 "" "Prints this help.";
        "malloc-stats" 2 "" "The allocator's own account.";
        "purge" 2 "" "Gives freed memory back to the system at once.";
        "stats" 2 "" "Bytes of the process, of the allocator, and of who holds them.";
        "usage" -3 "key [SAMPLES count]" "Bytes a key takes in storage, before compression.";
    }
    "slowlog" {
        "get" -2 "[count]" "The newest entries: number, time, microseconds, words, client.";
        "help" 2 "" "Prints this help.";
        "len" 2 "" "How many entries there are.";
        "reset" 2 "" "Forgets them.";
    }
    "function" {
        "delete" 3 "library" "Deletes a library.";
        "dump" 2 "" "Every library, for FUNCTION RESTORE.";
        "flush" -2 "[ASYNC|SYNC]" "Deletes every library.";
        "help" 2 "" "Prints this help.";
        "kill" 2 "" "Ends the function of which others are told BUSY, unless it has written; it has changed nothing.";
        "list" -2 "[LIBRARYNAME pattern] [WITHCODE]" "Libraries and their functions.";
        "load" -3 "[REPLACE] code" "Adds a library; answers its name.";
        "restore" -3 "payload [FLUSH|APPEND|REPLACE]" "Adds the libraries of FUNCTION DUMP.";
        "stats" 2 "" "The function of which others are told BUSY; how many libraries and functions there are.";
    }
    "script" {
        "debug" 3 "YES|SYNC|NO" "The debugger of scripts; it is not served.";
        "exists" -3 "sha1 [sha1 ...]" "Whether scripts are known.";
        "flush" -2 "[ASYNC|SYNC]" "Forgets every script.";
        "help" 2 "" "Prints this help.";
        "kill" 2 "" "Ends the script of which others are told BUSY, unless it has written; it has changed nothing.";
        "load" 3 "script" "Makes a script known; answers its SHA1.";
    }
    "object" {
        "encoding" 3 "key" "What Redis would store the key as.";
        "freq" 3 "key" "How often a key is used; it is not counted.";
        "help" 2 "" "Prints this help.";
        "idletime" 3 "key" "Seconds since a key was used: 0, it is not counted.";
        "refcount" 3 "key" "How often the value is referred to: once.";
    }
    "pubsub" {
        "channels" -2 "[pattern]" "Channels that somebody is subscribed to.";
        "help" 2 "" "Prints this help.";
        "numpat" 2 "" "How many different patterns are subscribed to.";
        "numsub" -2 "[channel ...]" "How many clients are subscribed to each channel.";
        "shardchannels" -2 "[pattern]" "Shard channels that somebody is subscribed to.";
        "shardnumsub" -2 "[channel ...]" "How many clients are subscribed to each shard channel.";
    }
    "xgroup" {
        "create" -5 "key group id|$ [MKSTREAM] [ENTRIESREAD entries-read]" "Creates a consumer group.";
        "createconsumer" 5 "key group consumer" "Creates a consumer.";
        "delconsumer" 5 "key group consumer" "Removes a consumer, and what is pending at it.";
        "destroy" 4 "key group" "Removes a consumer group.";
        "help" 2 "" "Prints this help.";
        "setid" -5 "key group id|$ [ENTRIESREAD entries-read]" "Sets what counts as the last entry delivered to a group.";
    }
    "xinfo" {
        "consumers" 4 "key group" "The consumers of a group.";
        "groups" 3 "key" "The consumer groups of a stream.";
        "help" 2 "" "Prints this help.";
        "stream" -3 "key [FULL [COUNT count]]" "A stream, and with FULL its groups.";
    }
}

/// Those of a command.
pub(super) fn subcommands(of: &str) -> impl Iterator<Item = &'static Subcommand> {
    SUBCOMMANDS.iter().filter(move |known| known.of == of)
}

/// The one that a request names.
pub(super) fn subcommand(of: &str, name: &[u8]) -> Option<&'static Subcommand> {
    subcommands(of).find(|known| name.eq_ignore_ascii_case(known.name.as_bytes()))
}

/// Refuses what is none of a command's subcommands, or has the wrong number of words.
pub(super) fn check(spec: &CommandSpec, request: &[Bytes]) -> Result<(), CommandError> {
    let Some(given) = request.get(1) else { return Ok(()) };
    let Some(known) = subcommand(spec.name, given) else {
        let given: String = String::from_utf8_lossy(given).chars().take(128).collect();
        let command = spec.name.to_ascii_uppercase();
        return Err(CommandError::new(format!("ERR unknown subcommand '{given}'. Try {command} HELP.")));
    };
    let count = request.len() as i32;
    if if known.arity < 0 { count < -known.arity } else { count != known.arity } {
        return Err(CommandError::arity(&format!("{}|{}", spec.name, known.name)));
    }
    Ok(())
}

/// HELP.
pub(super) fn help(reply: &mut ReplyWriter<'_>, of: &str) {
    let mut lines = vec![format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", of.to_ascii_uppercase())];
    for known in subcommands(of) {
        lines.push(format!("{} {}", known.name.to_ascii_uppercase(), known.arguments).trim_end().to_owned());
        lines.push(format!("    {}", known.summary));
    }
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
}
