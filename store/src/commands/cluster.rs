//! CLUSTER: the cluster as clients ask for it.

use std::{fmt::Write as _, ops::ControlFlow};

use sluice_topology::{NodeEntry, SLOT_COUNT, Slot, SlotRanges, nodes_text};

use super::{CommandError, Context, subcommands};
use crate::{
    node::Node,
    protocol::{ReplyWriter, Request},
    types::parse_integer,
};

type Outcome = Result<(), CommandError>;

pub(super) fn cluster(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let subcommand = request[1].to_ascii_lowercase();
    if subcommand == b"help" {
        subcommands::help(cx.reply, "cluster");
        return Ok(());
    }
    // Without a cluster as well: clients place their keys by it.
    if subcommand == b"keyslot" {
        cx.reply.integer(i64::from(Slot::of_key(&request[2]).get()));
        return Ok(());
    }
    if !cx.node.cluster.enabled() {
        return Err(CommandError::new("ERR This instance has cluster support disabled"));
    }
    match (subcommand.as_slice(), &request[2..]) {
        (b"slots", []) => slots(cx.node, cx.reply),
        (b"shards", []) => shards(cx.node, cx.reply),
        (b"nodes", []) => {
            let known = cx.node.cluster.known();
            cx.reply.verbatim(&nodes_text(cx.node.cluster.me(), &known.nodes, &cx.node.cluster.slot_entries()));
        }
        (b"info", []) => cx.reply.verbatim(&info(cx.node)),
        (b"replicas" | b"slaves", [id]) => replicas(cx, id)?,
        (b"links", []) => links(cx.node, cx.reply),
        (b"myid", []) => cx.reply.bulk(cx.node.cluster.me().to_string().as_bytes()),
        (b"countkeysinslot", [number]) => {
            let usage = cx.node.engine.slot_usage(slot(number)?, cx.now_ms)?;
            cx.reply.unsigned(usage.keys);
        }
        (b"getkeysinslot", [number, count]) => keys_in_slot(cx, slot(number)?, parse_integer(count)?)?,
        _ => return Err(CommandError::subcommand("CLUSTER", &request[1])),
    }
    Ok(())
}

/// Those that messages of channels go by; there is no gossip, and links of migrations come and go with them.
fn links(node: &Node, reply: &mut ReplyWriter<'_>) {
    let links = node.cluster.bus().up();
    reply.array(links.len());
    for link in links {
        reply.map(6);
        for (name, word) in [("direction", "to"), ("node", &link.node.to_string()), ("events", "w")] {
            reply.bulk(name.as_bytes());
            reply.bulk(word.as_bytes());
        }
        for (name, number) in
            [("create-time", link.since_ms), ("send-buffer-allocated", link.waiting), ("send-buffer-used", link.waiting)]
        {
            reply.bulk(name.as_bytes());
            reply.unsigned(number);
        }
    }
}

fn slot(number: &[u8]) -> Result<Slot, CommandError> {
    let number = parse_integer(number).map_err(|_| CommandError::new("ERR Invalid or out of range slot"))?;
    u16::try_from(number).ok().and_then(Slot::new).ok_or_else(|| CommandError::new("ERR Invalid or out of range slot"))
}

/// The replicas of a node: none yet.
fn replicas(cx: &mut Context<'_, '_>, id: &[u8]) -> Outcome {
    let id = String::from_utf8_lossy(id).to_ascii_lowercase();
    if !cx.node.cluster.known().nodes.iter().any(|node| node.id.to_string() == id) {
        return Err(CommandError::new(format!("ERR Unknown node {id}")));
    }
    cx.reply.array(0);
    Ok(())
}

fn keys_in_slot(cx: &mut Context<'_, '_>, slot: Slot, count: i64) -> Outcome {
    let count = usize::try_from(count).map_err(|_| CommandError::new("ERR Invalid number of keys"))?;
    let (now, mut keys) = (cx.now_ms, Vec::new());
    cx.node.engine.scan_slot(slot, None, |entry| {
        if keys.len() >= count {
            return ControlFlow::Break(());
        }
        if !entry.record.is_expired(now) {
            keys.push(entry.key.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    cx.reply.array(keys.len());
    keys.iter().for_each(|key| cx.reply.bulk(key));
    Ok(())
}

/// A range, then its nodes; a node is its preferred endpoint, its port, its id, and metadata.
fn slots(node: &Node, reply: &mut ReplyWriter<'_>) {
    let nodes = node.cluster.nodes_with_slots();
    reply.array(nodes.iter().map(|(_, slots)| slots.bounds().len()).sum());
    for (entry, slots) in &nodes {
        for (low, high) in slots.bounds() {
            reply.array(3);
            reply.integer(i64::from(low.get()));
            reply.integer(i64::from(high.get()));
            reply.array(4);
            reply.bulk(entry.host.as_bytes());
            reply.integer(i64::from(entry.port));
            reply.bulk(entry.id.to_string().as_bytes());
            reply.map(1);
            reply.bulk(b"hostname");
            reply.bulk(entry.host.as_bytes());
        }
    }
}

fn shards(node: &Node, reply: &mut ReplyWriter<'_>) {
    let nodes = node.cluster.nodes_with_slots();
    reply.array(nodes.len());
    for (entry, slots) in &nodes {
        reply.map(2);
        reply.bulk(b"slots");
        bounds(reply, slots);
        reply.bulk(b"nodes");
        reply.array(1);
        shard_node(node, reply, entry);
    }
}

fn bounds(reply: &mut ReplyWriter<'_>, slots: &SlotRanges) {
    reply.array(2 * slots.bounds().len());
    for (low, high) in slots.bounds() {
        reply.integer(i64::from(low.get()));
        reply.integer(i64::from(high.get()));
    }
}

fn shard_node(node: &Node, reply: &mut ReplyWriter<'_>, entry: &NodeEntry) {
    reply.map(8);
    let id = entry.id.to_string();
    for (name, value) in [
        ("id", id.as_str()),
        ("ip", &entry.host),
        ("endpoint", &entry.host),
        ("hostname", &entry.host),
        ("role", "master"),
        ("health", "online"),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    // Its peers are as it is: clients of a port for TLS find it under this name.
    reply.bulk(if node.settings.port == 0 { b"tls-port" } else { b"port" });
    reply.integer(i64::from(entry.port));
    reply.bulk(b"replication-offset");
    reply.integer(0);
}

/// The fields of Redis, then those that Kvrocks' tools poll.
fn info(node: &Node) -> String {
    let entries = node.cluster.slot_entries();
    let assigned: usize = entries.iter().map(|entry| entry.slots.len()).sum();
    let epoch = entries.iter().map(|entry| entry.epoch.0).max().unwrap_or(0);
    let state = if assigned == usize::from(SLOT_COUNT) && node.ready() { "ok" } else { "fail" };
    let (known, messages) = (node.cluster.known(), node.cluster.bus().totals());
    let size = known.nodes.iter().filter(|node| entries.iter().any(|entry| entry.owner == node.id)).count();
    let mut text = format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{assigned}\r\ncluster_slots_pfail:0\r\n\
         cluster_slots_fail:0\r\ncluster_known_nodes:{}\r\ncluster_size:{size}\r\ncluster_current_epoch:{epoch}\r\n\
         cluster_my_epoch:{epoch}\r\ncluster_topology_version:{}\r\ncluster_stats_messages_publish_sent:{}\r\n\
         cluster_stats_messages_sent:{}\r\ncluster_stats_messages_publish_received:{}\r\ncluster_stats_messages_received:{}\r\n",
        known.nodes.len(),
        known.version,
        messages.sent,
        messages.sent,
        messages.received,
        messages.received,
    );
    if let Some(job) = node.migrations.jobs().first() {
        let state = match job.state {
            sluice_topology::admin::MigrationState::Running => "start",
            sluice_topology::admin::MigrationState::Done => "success",
            _ => "fail",
        };
        let (slots, target) = (&job.slots, job.target);
        let _ = write!(text, "migrating_slot(s):{slots}\r\ndestination_node:{target}\r\nmigrating_state:{state}\r\n");
    }
    let importing = node.migrations.importing();
    if !importing.is_empty() {
        let _ = write!(text, "importing_slot(s):{importing}\r\nimport_state:start\r\n");
    }
    text
}
