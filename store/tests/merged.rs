//! Subkeys in order: what a writer has gathered over what is stored, against a model.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use proptest::prelude::*;
use sluice_store::engine::{Engine, EngineOptions, Span, Subkeys, Subspace, SyncPolicy, Writer};
use sluice_topology::Slot;

const KEY: &[u8] = b"collection";

fn subkey() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', 0xff]), 0..3)
}

/// A value, or a deletion.
fn change() -> impl Strategy<Value = (Vec<u8>, Option<u8>)> {
    (subkey(), prop::option::weighted(0.7, any::<u8>()))
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![Just(Bound::Unbounded), subkey().prop_map(Bound::Included), subkey().prop_map(Bound::Excluded)]
}

fn apply(writer: &mut Writer, space: Subspace, model: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &[(Vec<u8>, Option<u8>)]) {
    for (subkey, value) in changes {
        if let Some(value) = value {
            writer.put_subkey(space, subkey, &[*value]);
            model.insert(subkey.clone(), vec![*value]);
        } else {
            writer.delete_subkey(space, subkey);
            model.remove(subkey);
        }
    }
}

fn within(model: &BTreeMap<Vec<u8>, Vec<u8>>, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let above = |key: &Vec<u8>| match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    let below = |key: &Vec<u8>| match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    };
    model.iter().filter(|(key, _)| above(key) && below(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[test]
fn a_scan_sees_what_is_stored_and_what_is_gathered_as_one() {
    let root = tempfile::tempdir().expect("a directory");
    let options = EngineOptions { wal: false, sync: SyncPolicy::No, ..EngineOptions::at(root.path()) };
    let engine = Arc::new(Engine::open(options).expect("opened"));
    let slot = Slot::of_key(KEY);
    let rounds = (prop::collection::vec(change(), 0..12), prop::collection::vec(change(), 0..12), bound(), bound(), 0usize..9);
    proptest!(ProptestConfig::with_cases(400), |((stored, gathered, from, to, limit) in rounds)| {
        let version = engine.next_version().expect("a version");
        for family in Subkeys::ALL {
            let space = Subspace { home: slot.into(), version, family };
            let neighbour = Subspace { version: version + 1, ..space };
            let (mut model, mut writer) = (BTreeMap::new(), Writer::new(engine.clone()));
            writer.enter();
            writer.put_subkey(neighbour, b"", b"of another collection");
            apply(&mut writer, space, &mut model, &stored);
            let _ = writer.commit().expect("committed");
            writer.enter();
            writer.put_subkey(neighbour, b"a", b"of another collection");
            apply(&mut writer, space, &mut model, &gathered);
            for reverse in [false, true] {
                let span = Span { from: from.as_ref().map(Vec::as_slice), to: to.as_ref().map(Vec::as_slice), reverse };
                let mut found = Vec::new();
                let overlay = writer.overlay(space, &span);
                let scan = engine.scan_subkeys(space, span, &overlay, |key, value| {
                    found.push((key.to_vec(), value.to_vec()));
                    if found.len() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                scan.expect("read");
                let mut expected = within(&model, &from, &to);
                if reverse {
                    expected.reverse();
                }
                expected.truncate(limit + 1);
                prop_assert_eq!(found, expected, "{:?} reverse {}", family, reverse);
            }
        }
        let _ = engine.next_version().expect("the neighbour's");
    });
}
