//! Who owns a slot, by what is said of it.

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
