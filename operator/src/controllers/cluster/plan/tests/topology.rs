//! What the document shall be.

use super::{
    super::topology::{Decision, plan, without},
    *,
};
use crate::controllers::testing::{fresh, status};

fn reason(decision: &Decision) -> &str {
    match decision {
        Decision::Wait { reason, .. } | Decision::Refuse { reason, .. } => reason,
        Decision::Bootstrap(_) => "Bootstrap",
        Decision::Rebuild(_) => "Rebuild",
        Decision::Write(_) => "Write",
        Decision::Keep => "Keep",
    }
}

fn bootstrapped(mut facts: Facts) -> Facts {
    facts.cluster.status.get_or_insert_default().topology.bootstrapped = true;
    facts
}

#[test]
#[allow(clippy::large_stack_arrays)]
fn without_a_document() {
    let ok = |status: NodeStatus| shard(Ok(status));
    let half = || NodeStatus { slots: vec![knows("0-8191", node_id(1), 1), knows("8192-16383", node_id(2), 1)], ..status(1, "") };
    let other_cluster = || NodeStatus { cluster_id: Some(NEW), ..status(2, "") };
    let retired = || NodeStatus { retired: true, ..fresh(2) };
    for (name, facts, expected) in [
        ("new nodes", facts(2, vec![ok(fresh(1)), ok(fresh(2))]), "Bootstrap"),
        ("a new node is missing", facts(2, vec![ok(fresh(1)), shard(Err("down"))]), "AwaitingNodes"),
        ("not even a StatefulSet yet", facts(2, vec![ok(fresh(1))]), "AwaitingNodes"),
        ("made before, by the status alone", bootstrapped(facts(2, vec![ok(fresh(1)), ok(fresh(2))])), "TopologyLost"),
        ("made before, a node is silent", bootstrapped(facts(2, vec![ok(fresh(1)), shard(Err("down"))])), "TopologyLost"),
        ("a node knows a cluster, another is silent", facts(2, vec![ok(half()), shard(Err("down"))]), "TopologyLost"),
        ("all know the cluster", facts(2, vec![ok(status(1, "0-8191")), ok(status(2, "8192-16383"))]), "Rebuild"),
        ("the second was never told", facts(2, vec![ok(half()), ok(fresh(2))]), "Rebuild"),
        ("nodes of two clusters", facts(2, vec![ok(status(1, "0-8191")), ok(other_cluster())]), "ForeignNode"),
        ("a copied volume", facts(2, vec![ok(fresh(1)), ok(fresh(1))]), "ForeignNode"),
        ("a retired volume", facts(2, vec![ok(fresh(1)), ok(retired())]), "RetiredVolume"),
        ("fewer shards than hold slots", facts(1, vec![ok(half())]), "MissingShard"),
        ("two claim the same", facts(2, vec![ok(status(1, "0-100")), ok(status(2, "100-200"))]), "ContestedSlots"),
    ] {
        assert_eq!(reason(&plan(&facts, NEW).decision), expected, "{name}");
    }
}

#[test]
fn the_first_document_gives_every_slot_once() {
    for count in [1u8, 2, 3, 7, 100] {
        let shards = (1..=count).map(|n| shard(Ok(fresh(n)))).collect();
        let Decision::Bootstrap(document) = plan(&facts(i32::from(count), shards), NEW).decision else { panic!("{count}") };
        document.validate().unwrap();
        assert_eq!(document.by_slot().len(), 16384);
        let sizes: Vec<usize> = document.nodes.iter().map(|node| document.owned_by(node.id).len()).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        assert_eq!(document.nodes[0].host, "demo-0-0.demo-nodes.ns.svc.cluster.local");
    }
}

#[test]
#[allow(clippy::large_stack_arrays)]
fn with_a_document() {
    let two = || document(&["0-8191", "8192-16383"]);
    let ok = |status: NodeStatus| shard(Ok(status));
    let pair = || vec![ok(status(1, "0-8191")), ok(status(2, "8192-16383"))];
    let and = |mut shards: Vec<ShardFacts>, more: ShardFacts| {
        shards.push(more);
        shards
    };
    let unresolved = ShardFacts { name_resolves: Some(false), ..ok(fresh(3)) };
    let moved = vec![
        ok(NodeStatus { slots: vec![knows("0-99", node_id(2), 2), knows("100-8191", node_id(1), 1)], ..status(1, "") }),
        ok(NodeStatus { slots: vec![knows("0-99", node_id(2), 2), knows("8192-16383", node_id(2), 1)], ..status(2, "") }),
    ];
    for (name, facts, expected) in [
        ("as it should be", facts(2, pair()), "Keep"),
        ("a node is silent", facts(2, vec![ok(status(1, "0-8191")), shard(Err("down"))]), "Keep"),
        ("a node joins", facts(3, and(pair(), ok(fresh(3)))), "Write"),
        ("a node whose name leads nowhere does not", facts(3, and(pair(), unresolved)), "Keep"),
        ("one that is not wanted does not", facts(2, and(pair(), ok(fresh(3)))), "Keep"),
        ("one with a past does not", facts(3, and(pair(), ok(status(3, "0-5")))), "Keep"),
        ("slots have moved", facts(2, moved), "Write"),
        ("a lost volume changes nothing", facts(2, vec![ok(status(1, "0-8191")), ok(fresh(9))]), "Keep"),
    ] {
        let plan = plan(&with(facts, two()), NEW);
        assert_eq!(reason(&plan.decision), expected, "{name}");
        assert_eq!(!plan.lost_volumes.is_empty(), name.starts_with("a lost volume"), "{name}");
        if let Decision::Write(document) = plan.decision {
            document.validate().unwrap();
            assert_eq!(document.by_slot().len(), 16384, "{name}");
        }
    }
}

#[test]
fn who_left_is_retired_for_ever() {
    let left = without(document(&["0-16383", ""]), &[node_id(2)]);
    left.validate().unwrap();
    assert!(left.is_retired(node_id(2)) && left.node(node_id(2)).is_none());
    let facts = with(facts(2, vec![shard(Ok(status(1, "0-16383"))), shard(Ok(status(2, "")))]), left);
    assert_eq!(plan(&facts, NEW).decision, Decision::Keep, "it does not join again");
}
