//! When a plan is made, carried on, dropped, and who may leave.

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
