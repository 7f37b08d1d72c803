//! Key versions: whatever ends the process, none is given out twice.

use std::{collections::HashSet, sync::Mutex, thread};

use sluice_store::engine::{SystemBatch, SystemKind};

use crate::engine::Setup;

/// More than one reserved block.
const TAKEN: usize = 70_000;

#[test]
fn no_version_is_given_out_twice_over_restarts_in_order_or_not() {
    let root = tempfile::tempdir().expect("a directory");
    let seen = Mutex::new(HashSet::new());
    let mut highest = 0;
    for (run, wal) in [true, false, true, false].into_iter().enumerate() {
        let engine = Setup::small(wal).open(root.path());
        let take = || {
            let versions: Vec<u64> = (0..TAKEN).map(|_| engine.next_version().expect("a version")).collect();
            let mut seen = seen.lock().expect("the others did not panic");
            assert!(versions.iter().all(|version| seen.insert(*version)), "a version was given out twice");
        };
        thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(take))));
        let all = seen.lock().expect("nobody panicked");
        assert_eq!(all.len(), (run + 1) * 3 * TAKEN);
        let now = *all.iter().max().expect("there are some");
        assert!(engine.versions_end() > now && now > highest);
        highest = now;
        // Every other run ends without closing: what is in memory alone is gone, as after a kill.
        if run % 2 == 0 {
            engine.close().expect("closed");
        }
    }
}

#[test]
fn versions_are_raised_above_those_of_a_source_for_good() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(false).open(root.path());
    let first = engine.next_version().expect("a version");
    engine.raise_versions_above(first).expect("it is so already");
    engine.raise_versions_above(1 << 40).expect("raised");
    assert_eq!(engine.next_version().expect("a version"), (1 << 40) + 1);
    engine.raise_versions_above(5).expect("lower ones change nothing");
    drop(engine);
    let engine = Setup::small(false).open(root.path());
    assert!(engine.next_version().expect("a version") > (1 << 40) + 1);
    let error = engine.raise_versions_above(u64::MAX - 1).expect_err("there are none above");
    assert!(error.to_string().contains("used up"), "{error}");
    assert!(engine.next_version().is_ok(), "a refusal changes nothing");
}

#[test]
fn a_damaged_counter_refuses_to_start() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = Setup::small(true).open(root.path());
    let mut batch = SystemBatch::new();
    batch.put(SystemKind::Versions, b"", vec![1, 2, 3, 4, 5, 6]);
    engine.write_system(batch).expect("written");
    drop(engine);
    let error = Setup::small(true).try_open(root.path()).err().expect("it has to be refused").to_string();
    assert!(error.contains("key versions fails its checksum"), "{error}");
}
