//! Small collections in their keys' records: what is stored of them, and when it is not any more.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

use std::{cell::RefCell, ops::ControlFlow, sync::Arc};

use sluice_store::{
    engine::{Engine, EngineError, EngineOptions, Kind, RawFamily, SyncPolicy, Writer},
    types::{AddOptions, End, Keyspace, Selection},
};
use sluice_topology::Slot;

const KEY: &[u8] = b"{tag}collection";
const OTHER: &[u8] = b"{tag}other";
/// Members that are packed, and that are not, with the limit of 512 bytes.
const FEW: u32 = 10;
const MANY: u32 = 100;
const KINDS: [Kind; 4] = [Kind::Hash, Kind::List, Kind::Set, Kind::SortedSet];

fn open(root: &tempfile::TempDir) -> Arc<Engine> {
    let options = EngineOptions { sync: SyncPolicy::No, ..EngineOptions::at(root.path()) };
    Arc::new(Engine::open(options).expect("opened"))
}

/// What `work` does in one batch.
fn commit<R>(engine: &Arc<Engine>, work: impl FnOnce(&Keyspace<'_>) -> R) -> R {
    let writer = RefCell::new(Writer::new(engine.clone()));
    writer.borrow_mut().enter();
    let keys = [KEY, OTHER].into_iter().map(|key| (Slot::of_key(key), key));
    assert!(writer.borrow_mut().try_claim(keys, false).expect("claimed"));
    let result = work(&Keyspace::new(engine, &writer, 0, engine.now_ms()));
    let _ = writer.borrow_mut().commit().expect("committed");
    result
}

fn member(number: u32) -> Vec<u8> {
    format!("member:{number:03}").into_bytes()
}

/// Adds a member with that number, which is its score, or its value.
fn add(keys: &Keyspace<'_>, kind: Kind, number: u32) {
    let (member, text) = (member(number), number.to_string());
    match kind {
        Kind::Hash => drop(keys.hash_set(KEY, &[(&member, text.as_bytes())]).expect("set")),
        Kind::List => drop(keys.list_push(KEY, End::Back, [member.as_slice()].into_iter(), false).expect("pushed")),
        Kind::Set => drop(keys.set_add(KEY, &[&member]).expect("added")),
        _ => drop(keys.sorted_set_add(KEY, &[(f64::from(number), &member)], AddOptions::default()).expect("added")),
    }
}

/// The members that a key has, in order.
fn members(engine: &Arc<Engine>, kind: Kind, key: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut note = |member: &[u8]| {
        found.push(member.to_vec());
        ControlFlow::Continue(())
    };
    commit(engine, |keys| match kind {
        Kind::Hash => keys.hash(key).expect("read").expect("there").each(None, |field, _| note(field)),
        Kind::List => {
            let list = keys.list(key).expect("read").expect("there");
            list.each(0..list.size(), false, |_, element| note(element))
        }
        Kind::Set => keys.members_of(key).expect("read").expect("there").each(None, |member| note(member)),
        _ => keys
            .sorted_set(key)
            .expect("read")
            .expect("there")
            .each(&Selection::Rank(0, -1), false, None, |member, _| note(member)),
    })
    .expect("read");
    found
}

/// How many keys are stored in each family.
fn stored(engine: &Arc<Engine>) -> [usize; 4] {
    let mut count = [0; 4];
    let all = engine.raw_records(&Slot::of_key(KEY).into(), |record| {
        count[RawFamily::ALL.iter().position(|family| *family == record.family).expect("a family")] += 1;
        Ok::<(), EngineError>(())
    });
    all.expect("read");
    count
}

fn unpacked(kind: Kind, size: u32) -> [usize; 4] {
    [1, size as usize, if kind == Kind::SortedSet { size as usize } else { 0 }, 0]
}

#[test]
fn a_small_collection_is_one_record_and_a_larger_one_has_subkeys() {
    for kind in KINDS {
        let root = tempfile::tempdir().expect("a directory");
        let mut engine = open(&root);
        (0..FEW).for_each(|number| commit(&engine, |keys| add(keys, kind, number)));
        assert_eq!(stored(&engine), [1, 0, 0, 0], "{kind:?}");
        let few: Vec<Vec<u8>> = (0..FEW).map(member).collect();
        assert_eq!(members(&engine, kind, KEY), few);
        // A copy is packed too, and gone without a trace.
        assert_eq!(commit(&engine, |keys| keys.copy(KEY, keys, OTHER, false).expect("copied")), Some(true));
        assert_eq!((stored(&engine), members(&engine, kind, OTHER)), ([2, 0, 0, 0], few.clone()));
        assert_eq!(commit(&engine, |keys| keys.delete([OTHER].into_iter()).expect("deleted")), 1);
        assert_eq!(stored(&engine), [1, 0, 0, 0], "{kind:?}");
        drop(engine);
        engine = open(&root);
        assert_eq!(members(&engine, kind, KEY), few);
        // It grows in pieces, the limit is met in the middle of a batch, and what the batch has gathered is seen.
        commit(&engine, |keys| (FEW..MANY).for_each(|number| add(keys, kind, number)));
        let many: Vec<Vec<u8>> = (0..MANY).map(member).collect();
        assert_eq!((stored(&engine), members(&engine, kind, KEY)), (unpacked(kind, MANY), many));
        // It stays so, however small it gets.
        for number in (1..MANY).rev() {
            commit(&engine, |keys| match kind {
                Kind::Hash => drop(keys.hash_delete(KEY, [member(number).as_slice()].into_iter()).expect("deleted")),
                Kind::List => drop(keys.list_pop(KEY, End::Back, 1, &mut (), |(), _| (), |(), _| ()).expect("popped")),
                Kind::Set => drop(keys.set_remove(KEY, &[&member(number)]).expect("removed")),
                _ => drop(keys.sorted_set_remove(KEY, &[&member(number)]).expect("removed")),
            });
        }
        assert_eq!((stored(&engine), members(&engine, kind, KEY)), (unpacked(kind, 1), vec![member(0)]), "{kind:?}");
    }
}

#[test]
fn a_change_that_is_taken_back_leaves_a_collection_packed() {
    for kind in KINDS {
        let root = tempfile::tempdir().expect("a directory");
        let engine = open(&root);
        commit(&engine, |keys| (0..FEW).for_each(|number| add(keys, kind, number)));
        let writer = RefCell::new(Writer::new(engine.clone()));
        writer.borrow_mut().enter();
        assert!(writer.borrow_mut().try_claim([(Slot::of_key(KEY), KEY)].into_iter(), false).expect("claimed"));
        {
            let keys = Keyspace::new(&engine, &writer, 0, engine.now_ms());
            add(&keys, kind, FEW);
            let kept = writer.borrow().gathered();
            (FEW + 1..MANY).for_each(|number| add(&keys, kind, number));
            assert!(writer.borrow().gathered() > MANY as usize);
            writer.borrow_mut().truncate(kept);
        }
        let _ = writer.borrow_mut().commit().expect("committed");
        drop(writer);
        assert_eq!(stored(&engine), [1, 0, 0, 0], "{kind:?}");
        assert_eq!(members(&engine, kind, KEY), (0..=FEW).map(member).collect::<Vec<_>>());
    }
}

#[test]
fn the_limit_is_that_of_the_moment_of_a_write() {
    for kind in KINDS {
        let root = tempfile::tempdir().expect("a directory");
        let engine = open(&root);
        engine.set_packed_bytes_max(0);
        commit(&engine, |keys| add(keys, kind, 0));
        assert_eq!(stored(&engine), unpacked(kind, 1), "nothing is packed");
        commit(&engine, |keys| keys.delete([KEY].into_iter()).expect("deleted"));
        engine.set_packed_bytes_max(4096);
        let before = stored(&engine);
        commit(&engine, |keys| (0..MANY).for_each(|number| add(keys, kind, number)));
        assert_eq!(stored(&engine)[1..], before[1..], "{kind:?}: all of it is in the record");
        // A lower one changes nothing by itself: the next write does, be it of a member that is there.
        engine.set_packed_bytes_max(16);
        assert_eq!(members(&engine, kind, KEY).len(), MANY as usize);
        assert_eq!(stored(&engine)[1..], before[1..]);
        match kind {
            Kind::SortedSet => commit(&engine, |keys| {
                keys.sorted_set_add(KEY, &[(-1.0, &member(MANY - 1))], AddOptions::default()).expect("added");
            }),
            _ => commit(&engine, |keys| add(keys, kind, MANY)),
        }
        let size = if kind == Kind::SortedSet { MANY } else { MANY + 1 };
        let mut expected = unpacked(kind, size);
        expected.iter_mut().zip(before).skip(1).for_each(|(expected, before)| *expected += before);
        assert_eq!(stored(&engine), expected, "{kind:?}: and the index is that of the members as they are");
        let found = members(&engine, kind, KEY);
        assert_eq!(found.len(), size as usize);
        if kind == Kind::SortedSet {
            assert_eq!(found[0], member(MANY - 1));
        }
    }
}
