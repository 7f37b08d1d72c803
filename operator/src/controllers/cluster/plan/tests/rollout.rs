//! Whose turn it is, and what halts a roll.

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
            ("a broken one goes first", |facts| facts.shards.get_mut(&1).unwrap().pod.as_mut().unwrap().ready = false, "begin 1"),
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
