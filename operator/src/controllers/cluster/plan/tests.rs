//! Facts for the planners' tables.

use std::collections::BTreeMap;

use sluice_topology::{
    ClusterId, LeaderEpoch, NodeId, SlotEntry, SlotEpoch, TopologyDocument, TopologyVersion, admin::NodeStatus,
};

use super::topology::entry;
use crate::{
    api::SluiceCluster,
    controllers::{
        cluster::facts::{Facts, PodFacts, RecordFacts, ShardFacts, StatefulSetFacts},
        testing::{CLUSTER, node_id},
    },
    names::Names,
    topology_record::TopologyRecord,
};

/// A shard whose node says that.
pub(super) fn shard(node: Result<NodeStatus, &str>) -> ShardFacts {
    ShardFacts {
        stateful_set: Some(StatefulSetFacts {
            uid: "set".into(),
            claim_template: "data".into(),
            claim_size: "1Gi".into(),
            deleting: false,
            observed: true,
        }),
        pod: Some(PodFacts { uid: "pod".into(), ready: true, template_hash: Some("old".into()), ..PodFacts::default() }),
        node: node.map_err(str::to_owned),
        name_resolves: Some(true),
        ..ShardFacts::default()
    }
}

/// A cluster that wants so many shards, and what was seen of them, without a document.
pub(super) fn facts(wanted: i32, shards: Vec<ShardFacts>) -> Facts {
    let cluster: SluiceCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "SluiceCluster", "metadata": {"name": "demo", "namespace": "ns"},
        "spec": {"shards": wanted, "storage": {"size": "1Gi"}},
    }))
    .unwrap();
    Facts {
        names: Names::of(&cluster),
        cluster,
        shards: (0..).zip(shards).collect::<BTreeMap<_, _>>(),
        record: RecordFacts::Missing,
        migrations: Vec::new(),
        now_ms: 1_000_000,
    }
}

/// A document of nodes 1, 2, … for shards 0, 1, …, with those slots.
pub(super) fn document(slots: &[&str]) -> TopologyDocument {
    let names = Names { cluster: "demo".into(), namespace: "ns".into(), domain: "cluster.local".into() };
    let mut document = TopologyDocument::new(CLUSTER, LeaderEpoch(1), TopologyVersion(1));
    for (position, owned) in slots.iter().enumerate() {
        let number = u8::try_from(position + 1).unwrap();
        document.nodes.push(entry(&names, u32::from(number) - 1, node_id(number)));
        if !owned.is_empty() {
            document.slots.push(SlotEntry { slots: owned.parse().unwrap(), owner: node_id(number), epoch: SlotEpoch(1) });
        }
    }
    document.normalised()
}

/// Facts with that document written down.
pub(super) fn with(mut facts: Facts, document: TopologyDocument) -> Facts {
    facts.record =
        RecordFacts::Present(Box::new(TopologyRecord { document, operation: None, resource_version: Some("1".into()) }));
    facts
}

/// The id a cluster would be made with.
pub(super) const NEW: ClusterId = ClusterId::from_bytes([8; 16]);

/// Slots of that node, at that epoch, as any node may know them.
pub(super) fn knows(slots: &str, owner: NodeId, epoch: u64) -> SlotEntry {
    SlotEntry { slots: slots.parse().unwrap(), owner, epoch: SlotEpoch(epoch) }
}

mod ownership_table {
    use super::{super::ownership::ownership, *};
    use crate::controllers::testing::status;
    use sluice_topology::Slot;

    #[test]
    fn an_owners_word_counts_over_hearsay_and_a_higher_epoch_over_both() {
        let slot = Slot::new(5).unwrap();
        let told = |n: u8, slots: Vec<SlotEntry>| NodeStatus { slots, ..status(n, "") };
        for (name, document_says, nodes, expected) in [
            ("the owner's own word", None, vec![told(1, vec![knows("5", node_id(1), 1)])], Some((1, 1))),
            ("hearsay alone", None, vec![told(2, vec![knows("5", node_id(1), 1)])], Some((1, 1))),
            (
                "a switch the document has not heard of",
                Some(1),
                vec![told(1, vec![knows("5", node_id(2), 2)]), told(2, vec![knows("5", node_id(2), 2)])],
                Some((2, 2)),
            ),
            (
                "target live, source not done",
                Some(1),
                vec![told(1, vec![knows("5", node_id(1), 1)]), told(2, vec![knows("5", node_id(2), 2)])],
                Some((2, 2)),
            ),
            (
                "an old volume that came back",
                Some(2),
                vec![told(1, vec![knows("5", node_id(1), 1)]), told(2, vec![knows("5", node_id(2), 3)])],
                Some((2, 3)),
            ),
            ("nobody", None, vec![told(1, vec![])], None),
        ] {
            let document = document_says.map(|owner| {
                let mut document = document(&["", ""]);
                document.slots = vec![knows("5", node_id(owner), 1)];
                document
            });
            let result = ownership(document.as_ref(), nodes.iter());
            assert_eq!(result.of(slot), expected.map(|(n, e)| (node_id(n), SlotEpoch(e))), "{name}");
            assert!(result.contested.is_empty(), "{name}");
        }
        let both = [told(1, vec![knows("5", node_id(1), 4)]), told(2, vec![knows("5", node_id(2), 4)])];
        assert_eq!(ownership(None, both.iter()).contested.to_string(), "5");
    }
}

mod topology_table {
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
        let half =
            || NodeStatus { slots: vec![knows("0-8191", node_id(1), 1), knows("8192-16383", node_id(2), 1)], ..status(1, "") };
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
}

mod scaling_table {
    use super::{
        super::scaling::{ScalingPlan, may_leave, operation, plan},
        *,
    };
    use crate::controllers::testing::{fresh, job, status};
    use sluice_topology::admin::MigrationState;

    fn planned(facts: &Facts, hold: Option<&str>) -> ScalingPlan {
        plan(facts, facts.record().map(|record| &record.document), hold)
    }

    #[test]
    fn a_plan_is_made_when_shards_come_or_go_and_at_no_other_time() {
        let ok = |status: NodeStatus| shard(Ok(status));
        let two = || document(&["0-8191", "8192-16383"]);
        let three = || document(&["0-8191", "8192-16383", ""]);
        let full = || vec![ok(status(1, "0-8191")), ok(status(2, "8192-16383")), ok(status(3, ""))];
        let steady = with(facts(2, vec![ok(status(1, "0-100")), ok(status(2, "101-16383"))]), two());
        assert!(!planned(&steady, None).is_busy(), "uneven by a person's hand stays so");
        assert_eq!(planned(&with(facts(3, full()), three()), None).start, Some(3));
        assert_eq!(planned(&with(facts(1, full()), three()), None).start, Some(1));
        let held = planned(&with(facts(3, full()), three()), Some("a pod restarts"));
        assert_eq!((held.start, held.blockers), (None, vec!["a pod restarts".to_owned()]));
        let waiting = planned(&with(facts(3, vec![ok(status(1, "0-8191")), ok(status(2, "8192-16383"))]), two()), None);
        assert_eq!((waiting.start, waiting.blockers.len()), (None, 1), "the third is no member yet");
        assert!(waiting.stateful_sets.contains(&2));
        let empty = planned(&with(facts(2, full()), three()), None);
        assert_eq!((empty.start, empty.remove), (None, vec![2]), "an empty one may leave if it proves it");
        assert!(empty.stateful_sets.contains(&2), "until then it stays");
    }

    #[test]
    fn only_a_shard_that_says_itself_that_it_is_empty_may_leave() {
        let three = document(&["0-8191", "8192-16383", ""]);
        let base = || vec![shard(Ok(status(1, "0-8191"))), shard(Ok(status(2, "8192-16383")))];
        let fenced = NodeStatus { fenced: "1".parse().unwrap(), ..status(3, "") };
        let moving = NodeStatus { migrations: vec![job(1, 3, 1, "5", MigrationState::Running)], ..status(3, "") };
        for (name, last, may) in [
            ("empty", shard(Ok(status(3, ""))), true),
            ("owns a slot", shard(Ok(status(3, "16383"))), false),
            ("owns a fenced slot", shard(Ok(fenced)), false),
            ("takes part in a migration", shard(Ok(moving)), false),
            ("silent", shard(Err("no answer")), false),
            ("came back as another", shard(Ok(status(9, ""))), false),
        ] {
            let mut shards = base();
            shards.push(last.clone());
            let facts = with(facts(2, shards), three.clone());
            assert_eq!(may_leave(&facts, &three, 2, &last).is_ok(), may, "{name}");
        }
        // One that was never a member and never ran was never given anything.
        let mut never = shard(Err("its pod does not run"));
        never.pod.as_mut().unwrap().pending = true;
        let two = document(&["0-8191", "8192-16383"]);
        let mut shards = base();
        shards.push(never.clone());
        assert!(may_leave(&with(facts(2, shards), two.clone()), &two, 2, &never).is_ok());
    }

    #[test]
    fn a_running_operation_makes_its_moves_in_bounds_and_yields_to_a_newer_number() {
        let ok = |status: NodeStatus| shard(Ok(status));
        let three = document(&["0-8191", "8192-16383", ""]);
        let full = || vec![ok(status(1, "0-8191")), ok(status(2, "8192-16383")), ok(status(3, ""))];
        let mut facts_now = with(facts(3, full()), three.clone());
        let running = operation(&facts_now, &three, 3, None);
        assert_eq!((running.id, running.from_shards, running.to_shards, running.moves.len()), (2, 2, 3, 2));
        let RecordFacts::Present(record) = &mut facts_now.record else { panic!() };
        record.operation = Some(running.clone());
        assert_eq!(planned(&facts_now, None).migrate.len(), 2);
        facts_now.cluster.spec.scaling.max_concurrent_migrations = 1;
        assert_eq!(planned(&facts_now, None).migrate.len(), 1);
        assert!(planned(&facts_now, Some("held")).migrate.is_empty());
        facts_now.cluster.spec.shards = 2;
        let turned = planned(&facts_now, None);
        assert!(turned.clear && turned.migrate.is_empty(), "nothing runs: a new plan may be made");
        if let Ok(node) = &mut facts_now.shards.get_mut(&0).unwrap().node {
            node.migrations = vec![job(1, 1, 3, "8000", MigrationState::Running)];
        }
        let stopping = planned(&facts_now, None);
        assert!(!stopping.clear && !stopping.blockers.is_empty(), "a job still runs");
    }

    #[test]
    fn a_retired_leftover_goes_before_its_number_is_used_again() {
        let mut document = document(&["0-16383"]);
        document.retired = vec![node_id(2)];
        let facts = with(facts(2, vec![shard(Ok(status(1, "0-16383"))), shard(Ok(fresh(2)))]), document);
        assert_eq!(planned(&facts, None).remove, vec![1]);
    }
}

mod rollout_table {
    use super::{
        super::rollout::{Step, plan},
        *,
    };
    use crate::{
        api::{CurrentRestart, HaltedRollout, Receipt, RolloutStatus},
        controllers::testing::{job, status},
    };
    use sluice_topology::{
        InstanceId,
        admin::{MigrationState, PersistenceStatus},
    };

    fn cluster() -> Facts {
        let shards = vec![shard(Ok(status(1, "0-8191"))), shard(Ok(status(2, "8192-16383")))];
        with(facts(2, shards), document(&["0-8191", "8192-16383"]))
    }

    fn receipt(round: i64) -> Receipt {
        Receipt {
            instance: InstanceId::from_bytes([1; 16]).to_string(),
            round,
            sequence: 1,
            durable_at_ms: 1,
            bytes: 1,
            duration_ms: 1,
        }
    }

    /// The turn of shard 0, whose pod had that uid.
    fn turn(facts: &mut Facts, old_uid: &str, since_ms: i64, receipt: Option<Receipt>, halted: Option<HaltedRollout>) {
        let current =
            CurrentRestart { shard: 0, pod: "demo-0-0".into(), old_uid: old_uid.into(), since_ms, receipt, deleting: false };
        facts.cluster.status.get_or_insert_default().rollout =
            Some(RolloutStatus { template_hash: "new".into(), current: Some(current), halted, ..RolloutStatus::default() });
    }

    fn pod(facts: &mut Facts) -> &mut PodFacts {
        facts.shards.get_mut(&0).unwrap().pod.as_mut().unwrap()
    }

    fn node(facts: &mut Facts) -> &mut NodeStatus {
        facts.shards.get_mut(&0).unwrap().node.as_mut().unwrap()
    }

    fn word(step: &Step) -> String {
        match step {
            Step::Idle => "Idle".into(),
            Step::Wait { reason, .. } => format!("wait {reason}"),
            Step::Begin { shard, .. } => format!("begin {shard}"),
            Step::FlushAndDelete { shard, .. } => format!("flush {shard}"),
            Step::Delete { shard, uid } => format!("delete {shard} {uid}"),
            Step::Passed { shard } => format!("passed {shard}"),
            Step::Halt { reason, .. } => format!("halt {reason}"),
        }
    }

    type Case = (&'static str, fn(&mut Facts), &'static str);

    fn check(cases: &[Case], trouble: Option<&str>) {
        for (name, change, expected) in cases {
            let mut facts = cluster();
            change(&mut facts);
            assert_eq!(word(&plan(&facts, "new", trouble).step), *expected, "{name}");
        }
    }

    #[test]
    fn whose_turn_it_is() {
        check(
            &[
                ("the first outdated", |_| {}, "begin 0"),
                ("the next", |facts| pod(facts).template_hash = Some("new".into()), "begin 1"),
                (
                    "nobody",
                    |facts| facts.shards.values_mut().for_each(|s| s.pod.as_mut().unwrap().template_hash = Some("new".into())),
                    "Idle",
                ),
                ("paused", |facts| facts.cluster.spec.rollout.paused = true, "wait Paused"),
                ("another is down", |facts| facts.shards.get_mut(&1).unwrap().node = Err("down".into()), "wait AwaitingHealth"),
                (
                    "a broken one goes first",
                    |facts| facts.shards.get_mut(&1).unwrap().pod.as_mut().unwrap().ready = false,
                    "begin 1",
                ),
                (
                    "its StatefulSet lags",
                    |facts| facts.shards.values_mut().for_each(|s| s.stateful_set.as_mut().unwrap().observed = false),
                    "wait AwaitingStatefulSet",
                ),
            ],
            None,
        );
        check(&[("the cluster is in trouble", |_| {}, "wait AwaitingHealth")], Some("a volume is lost"));
        check(&[("but a broken pod is replaced", |facts| pod(facts).ready = false, "begin 0")], Some("a volume is lost"));
    }

    #[test]
    fn before_it_is_deleted() {
        check(
            &[
                ("flush", |facts| turn(facts, "pod", 999_000, None, None), "flush 0"),
                (
                    "another went down meanwhile",
                    |facts| {
                        turn(facts, "pod", 999_000, None, None);
                        facts.shards.get_mut(&1).unwrap().node = Err("down".into());
                    },
                    "wait AwaitingHealth",
                ),
                ("just flushed", |facts| turn(facts, "pod", 999_000, Some(receipt(1)), None), "delete 0 pod"),
                ("flushed long ago", |facts| turn(facts, "pod", 900_000, Some(receipt(1)), None), "flush 0"),
                (
                    "going",
                    |facts| {
                        turn(facts, "pod", 999_000, Some(receipt(1)), None);
                        pod(facts).deleting = true;
                    },
                    "wait AwaitingPod",
                ),
                (
                    "migrating",
                    |facts| {
                        turn(facts, "pod", 999_000, None, None);
                        node(facts).migrations = vec![job(1, 1, 2, "5", MigrationState::Running)];
                    },
                    "wait PausingMigrations",
                ),
                (
                    "ready, not answering",
                    |facts| {
                        turn(facts, "pod", 999_000, None, None);
                        facts.shards.get_mut(&0).unwrap().node = Err("x".into());
                    },
                    "wait NodeUnreachable",
                ),
                (
                    "broken",
                    |facts| {
                        turn(facts, "pod", 999_000, None, None);
                        pod(facts).ready = false;
                        facts.shards.get_mut(&0).unwrap().node = Err("x".into());
                    },
                    "delete 0 pod",
                ),
                (
                    "the spec went back",
                    |facts| {
                        turn(facts, "pod", 999_000, None, None);
                        pod(facts).template_hash = Some("new".into());
                    },
                    "passed 0",
                ),
                (
                    "paused",
                    |facts| {
                        turn(facts, "pod", 999_000, None, None);
                        facts.cluster.spec.rollout.paused = true;
                    },
                    "wait Paused",
                ),
            ],
            None,
        );
    }

    #[test]
    fn after_it_came_back() {
        fn back(facts: &mut Facts, round: u64) {
            turn(facts, "before", 999_000, Some(receipt(5)), None);
            pod(facts).template_hash = Some("new".into());
            node(facts).persistence = PersistenceStatus { recovered_round: round, ..status(1, "").persistence };
        }
        check(
            &[
                ("with all it had", |facts| back(facts, 5), "passed 0"),
                ("with more", |facts| back(facts, 9), "passed 0"),
                ("with less", |facts| back(facts, 4), "halt WritesLost"),
                (
                    "as another database",
                    |facts| {
                        back(facts, 5);
                        node(facts).instance = InstanceId::from_bytes([9; 16]);
                    },
                    "halt InstanceChanged",
                ),
                (
                    "as another node",
                    |facts| {
                        back(facts, 5);
                        node(facts).node_id = node_id(9);
                    },
                    "halt VolumeLost",
                ),
                (
                    "killed on its way out",
                    |facts| {
                        back(facts, 5);
                        node(facts).persistence.clean_shutdown = false;
                    },
                    "halt UncleanShutdown",
                ),
                (
                    "not ready yet",
                    |facts| {
                        back(facts, 5);
                        pod(facts).ready = false;
                    },
                    "wait AwaitingReady",
                ),
                (
                    "not ready for long",
                    |facts| {
                        back(facts, 5);
                        pod(facts).ready = false;
                        facts.now_ms += 3_600_000;
                    },
                    "halt ReadyTimeout",
                ),
                (
                    "its name leads elsewhere",
                    |facts| {
                        back(facts, 5);
                        facts.shards.get_mut(&0).unwrap().name_resolves = Some(false);
                    },
                    "wait AwaitingName",
                ),
                (
                    "from a template that is old already",
                    |facts| {
                        back(facts, 5);
                        pod(facts).ready = false;
                        pod(facts).template_hash = Some("old".into());
                    },
                    "delete 0 pod",
                ),
                (
                    "not made again yet",
                    |facts| {
                        back(facts, 5);
                        facts.shards.get_mut(&0).unwrap().pod = None;
                    },
                    "wait AwaitingPod",
                ),
            ],
            None,
        );
        let halted =
            |hash: &str| HaltedRollout { reason: "WritesLost".into(), message: "m".into(), shard: 0, template_hash: hash.into() };
        for (name, hash, expected) in
            [("the same spec stays halted", "new", "halt WritesLost"), ("a newer one goes on", "earlier", "passed 0")]
        {
            let mut facts = cluster();
            back(&mut facts, 4);
            turn(&mut facts, "before", 999_000, Some(receipt(5)), Some(halted(hash)));
            assert_eq!(word(&plan(&facts, "new", None).step), expected, "{name}");
        }
    }
}
