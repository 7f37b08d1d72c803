//! Text forms of a topology: the lines of `CLUSTER NODES`, and of `CLUSTERX SETNODES` as Kvrocks' tools write them.

use std::fmt::Write as _;

use crate::{
    document::{NodeEntry, SlotEntry},
    ids::{NodeId, SlotEpoch},
    ranges::SlotRanges,
};

/// Why a SETNODES text is refused.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the nodes is refused: {why}")]
pub struct NodesTextError {
    line: usize,
    why: String,
}

/// The lines of `CLUSTER NODES`: `id host:port@bus,hostname flags master ping pong epoch state slots`. There is no bus, so its port
/// is given as the client port plus 10000 as clients expect, and ping and pong are 0.
pub fn nodes_text(me: NodeId, nodes: &[NodeEntry], slots: &[SlotEntry]) -> String {
    let mut text = String::new();
    for node in nodes {
        let owned: SlotRanges =
            slots.iter().filter(|entry| entry.owner == node.id).flat_map(|entry| entry.slots.iter()).collect();
        let epoch = slots.iter().filter(|entry| entry.owner == node.id).map(|entry| entry.epoch.0).max().unwrap_or(0);
        let flags = if node.id == me { "myself,master" } else { "master" };
        let bus = u32::from(node.port) + 10_000;
        let _ = write!(text, "{} {}:{}@{bus},{} {flags} - 0 0 {epoch} connected", node.id, node.host, node.port, node.host);
        for part in owned.to_string().split(',').filter(|part| !part.is_empty()) {
            let _ = write!(text, " {part}");
        }
        text.push('\n');
    }
    text
}

/// Reads `CLUSTERX SETNODES`: a line a node, `id host port master|slave master-id|- slots…`. Every slot gets epoch 1: such a text
/// can assign slots nobody owned, or repeat what is so already, and nothing else. Replicas are refused: there are none yet.
pub fn parse_setnodes(text: &str, admin_port: u16) -> Result<(Vec<NodeEntry>, Vec<SlotEntry>), NodesTextError> {
    let (mut nodes, mut slots) = (Vec::new(), Vec::new());
    for (position, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let error = |why: String| NodesTextError { line: position + 1, why };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, host, port, role, _master, ranges @ ..] = words.as_slice() else {
            return Err(error("it has to read `id host port master - slots`".into()));
        };
        let id: NodeId = id.parse().map_err(|e| error(format!("{e}")))?;
        let port: u16 = port.parse().map_err(|_| error(format!("`{port}` is not a port")))?;
        if *role != "master" {
            return Err(error(format!("role `{role}` is not supported: every node is a master")));
        }
        let owned: SlotRanges = ranges.join(",").parse().map_err(|e| error(format!("{e}")))?;
        let shard = u32::try_from(nodes.len()).map_err(|_| error("there are too many nodes".into()))?;
        nodes.push(NodeEntry { id, shard, host: (*host).to_owned(), port, admin_port });
        if !owned.is_empty() {
            slots.push(SlotEntry { slots: owned, owner: id, epoch: SlotEpoch(1) });
        }
    }
    Ok((nodes, slots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setnodes_reads_what_kvrocks_tools_write() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!("{a} 127.0.0.1 7001 master - 0-100 200\n{b} 127.0.0.1 7002 master -\n");
        let (nodes, slots) = parse_setnodes(&text, 7379).unwrap();
        assert_eq!((nodes.len(), slots.len()), (2, 1));
        assert_eq!(slots[0].slots.to_string(), "0-100,200");
        let lines = nodes_text(nodes[0].id, &nodes, &slots);
        assert!(lines.starts_with(&format!("{a} 127.0.0.1:7001@17001,127.0.0.1 myself,master - 0 0 1 connected 0-100 200\n")));
        for bad in ["x 127.0.0.1 7001 master -", &format!("{a} h 99999 master -"), &format!("{a} h 1 slave {b}"), &a] {
            assert!(parse_setnodes(bad, 7379).is_err(), "{bad}");
        }
    }
}
