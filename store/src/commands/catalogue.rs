//! The table of commands as a document: docs/commands.md. And what Redis has that is not in it, each with the reason.

use std::fmt::Write as _;

use super::table::{CommandSpec, table};

/// Commands of Redis 7.4 that are not served: names, and why.
pub const MISSING: &[(&str, &str)] = &[
    ("acl", "there is one user: `requirepass`"),
    ("failover", "there are no replicas"),
    ("lolwut", "there is no art"),
    ("migrate", "slots move whole: CLUSTERX MIGRATE; DUMP and RESTORE take single keys to another server"),
    ("module", "there are no modules"),
    ("psync", "there are no replicas"),
    ("replconf", "there are no replicas"),
    ("replicaof", "there are no replicas"),
    ("restore-asking", "slots move whole: CLUSTERX MIGRATE"),
    ("slaveof", "there are no replicas"),
    ("sync", "there are no replicas"),
];

/// Groups in the order of the document, as COMMAND DOCS names them, and their titles.
const GROUPS: &[(&str, &str)] = &[
    ("string", "Strings"),
    ("bitmap", "Bitmaps"),
    ("hyperloglog", "HyperLogLogs"),
    ("hash", "Hashes"),
    ("list", "Lists"),
    ("set", "Sets"),
    ("sorted-set", "Sorted sets"),
    ("geo", "Places"),
    ("stream", "Streams"),
    ("generic", "Keys"),
    ("transactions", "Transactions"),
    ("pubsub", "Publishing and subscribing"),
    ("scripting", "Scripts and functions"),
    ("connection", "Connections"),
    ("server", "The server"),
    ("cluster", "The cluster"),
];

/// docs/commands.md.
pub fn document() -> String {
    let mut text = String::from(
        "# Commands\n\nMade by `sluice-store --commands` from the table that the store itself works by. *Since* is the version of Redis that has the \
         command first; `kvrocks` marks those of Kvrocks and of Sluice itself. Subcommands are listed by `HELP`.\n",
    );
    for (group, title) in GROUPS {
        let commands: Vec<&CommandSpec> = table().filter(|spec| spec.group == *group).collect();
        let _ = write!(text, "\n## {title}\n\n| command | since | cost | what it does |\n|---|---|---|---|\n");
        for spec in commands {
            let name = spec.name.to_ascii_uppercase();
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(text, "| `{name}` | {} | {} | {} |", spec.since, cell(spec.complexity), cell(spec.summary));
        }
    }
    text.push_str("\n## Not served\n\nOf Redis 7.4:\n\n| command | why |\n|---|---|\n");
    for (name, why) in MISSING {
        let _ = writeln!(text, "| `{}` | {why} |", name.to_ascii_uppercase());
    }
    text.push_str("\nHow commands that are served differ from Redis': [compatibility.md](compatibility.md).\n");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `group: names`, a line a group: the commands of Redis 7.4, without its modules.
    const REDIS: &str = include_str!("redis-7.4.txt");

    #[test]
    fn every_command_of_redis_is_served_or_named_with_the_reason() {
        let served: BTreeSet<&str> = table().map(|spec| spec.name).collect();
        let missing: BTreeSet<&str> = MISSING.iter().map(|(name, _)| *name).collect();
        for line in REDIS.lines() {
            let (group, names) = line.split_once(": ").unwrap();
            assert!(GROUPS.iter().any(|(known, _)| *known == group), "{group}");
            for name in names.split(' ') {
                assert!(served.contains(name) != missing.contains(name), "{name}");
            }
        }
        assert!(missing.iter().all(|name| REDIS.contains(name)));
        assert!(table().all(|spec| GROUPS.iter().any(|(group, _)| *group == spec.group)));
    }

    #[test]
    fn the_document_is_the_one_that_is_checked_in() {
        assert_eq!(document(), include_str!("../../../docs/commands.md"), "sluice-store --commands > docs/commands.md");
    }
}
