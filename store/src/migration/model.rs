//! The model test of switches: three nodes that move two slots between each other, by the rules of `rules.rs` and of
//! [`sluice_topology::merge`], while messages are lost, late and come twice, nodes are killed at any moment and documents of any age
//! are pushed. After every step no two nodes serve a slot, and who serves it has exactly what was acknowledged; once the faults end, every
//! slot is served again and nothing is left over. A schedule is a seed: the same number is the same schedule.

mod parts;
mod world;

use sluice_topology::{NodeId, SlotEpoch, merge::SlotRow};

use super::{
    journal::ImportStep,
    rules::{self, AtStart, Obeyed, Order, Outcome},
};
use world::World;

const STEPS: usize = 400;

/// The rules, so that a broken one can take a place.
#[derive(Clone, Copy)]
struct Rules {
    outcome: fn(Option<bool>, bool) -> Outcome,
    obey: fn(Order, ImportStep, bool) -> Obeyed,
    learned: fn(Outcome, ImportStep) -> Option<Order>,
    may_stage: fn(NodeId, SlotRow, NodeId, SlotEpoch) -> bool,
    may_take_back: fn(bool) -> bool,
    records: fn(SlotRow, SlotRow) -> bool,
    at_start: fn(bool) -> AtStart,
}

const RULES: Rules = Rules {
    outcome: rules::outcome,
    obey: rules::obey,
    learned: rules::learned,
    may_stage: rules::may_stage,
    may_take_back: rules::may_take_back,
    records: rules::records,
    at_start: rules::at_start,
};

/// Runs one schedule; says how many switches there were.
fn run(seed: u64, rules: Rules) -> Result<usize, String> {
    let mut world = World::new(seed, rules);
    for _ in 0..STEPS {
        world.step();
        world.check()?;
    }
    world.settle()?;
    Ok(world.switched)
}

/// The first schedule of so many that breaks a promise.
fn first_broken(schedules: u64, rules: Rules) -> Option<(u64, String)> {
    (0..schedules).find_map(|seed| run(seed, rules).err().map(|error| (seed, error)))
}

#[test]
fn no_order_of_crashes_and_losses_breaks_a_switch() {
    const SCHEDULES: u64 = 20_000;
    let mut switched = 0;
    for seed in 0..SCHEDULES {
        switched += run(seed, RULES).unwrap_or_else(|error| panic!("schedule {seed}: {error}"));
    }
    assert!(switched as u64 > SCHEDULES, "{switched} switches in {SCHEDULES} schedules: the model hardly moves anything");
}

#[test]
fn every_broken_rule_is_found() {
    let broken: [(&str, Rules); 9] = [
        (
            "a target says that it has prepared and has not",
            Rules {
                obey: |order, step, whole| match (order, step) {
                    (Order::Prepare, ImportStep::Staged) if whole => Obeyed::Done,
                    _ => rules::obey(order, step, whole),
                },
                ..RULES
            },
        ),
        ("a target prepares what is not whole", Rules { obey: |order, step, _| rules::obey(order, step, true), ..RULES }),
        (
            "a target gives up what is live",
            Rules {
                obey: |order, step, whole| match (order, step) {
                    (Order::Commit, ImportStep::Live) => Obeyed::Do,
                    _ => rules::obey(order, step, whole),
                },
                ..RULES
            },
        ),
        (
            "a target takes waiting for a decision",
            Rules {
                learned: |outcome, step| match (outcome, step) {
                    (Outcome::Pending, ImportStep::Prepared) => Some(Order::Commit),
                    _ => rules::learned(outcome, step),
                },
                ..RULES
            },
        ),
        (
            "a source calls aborted what it may still decide",
            Rules {
                outcome: |decided, active| rules::outcome(decided.filter(|committed| *committed), active && decided.is_none()),
                ..RULES
            },
        ),
        ("a start gives up what was decided", Rules { at_start: |_| AtStart::Abort, ..RULES }),
        ("a start keeps what was not decided", Rules { at_start: |_| AtStart::Fence, ..RULES }),
        ("a slot comes back before its switch away is done", Rules { may_take_back: |_| true, ..RULES }),
        ("a source forgets what it has learned since", Rules { records: |_, _| true, may_take_back: |_| true, ..RULES }),
    ];
    for (what, rules) in broken {
        assert!(first_broken(20_000, rules).is_some(), "not found: {what}");
    }
}
