//! What to do about a migration, decided from what the nodes say.

use sluice_topology::{
    NodeId, SlotRanges,
    admin::{MigrationState, MigrationStatus, NodeStatus},
};

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The slots that shall move.
    pub slots: &'a SlotRanges,
    /// The node they shall be at.
    pub target: NodeId,
    /// The only node they may come from, when one is named.
    pub source: Option<NodeId>,
    /// Every node of the cluster: its shard, and what it says or why it says nothing.
    pub nodes: &'a [(u32, NodeId, Result<NodeStatus, String>)],
    /// Whether it shall end.
    pub cancel: bool,
    /// Why it shall hold, when it shall.
    pub hold: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Every slot is at the target.
    Complete,
    /// It has ended before that, as asked.
    Cancelled,
    /// Nothing runs, as asked.
    Held(String),
    /// Nothing can run now.
    Wait(String),
    /// A job of it runs: look at it.
    Watch(Box<MigrationStatus>),
    /// A job of it runs and shall not.
    Stop {
        /// The node it runs on.
        source: NodeId,
        /// The job.
        job: Box<MigrationStatus>,
    },
    /// Start a job.
    Start {
        /// The node to start it on.
        source: NodeId,
        /// The slots that are still there.
        slots: SlotRanges,
    },
}

/// The outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What to do.
    pub step: Step,
    /// Slots at the target, by its own word, or gone from every source by theirs.
    pub done: usize,
    /// The newest job of this migration that ended, when one did.
    pub last: Option<MigrationStatus>,
}

/// Decides.
pub fn decide(seen: &Seen<'_>) -> Verdict {
    let statuses = || seen.nodes.iter().filter_map(|(_, _, status)| status.as_ref().ok());
    let ours = |job: &&MigrationStatus| job.target == seen.target && !job.slots.intersection(seen.slots).is_empty();
    let at_target = statuses().find(|status| status.node_id == seen.target).map(|status| status.owned().intersection(seen.slots));
    let done = at_target.as_ref().map_or(0, SlotRanges::len);
    let running = statuses().find_map(|status| {
        status.migrations.iter().filter(ours).find(|job| job.state == MigrationState::Running).map(|job| (status.node_id, job))
    });
    let last = statuses()
        .flat_map(|status| status.migrations.iter().filter(ours).filter(|job| job.state != MigrationState::Running))
        .max_by_key(|job| job.job)
        .cloned();
    let verdict = |step| Verdict { step, done, last: last.clone() };
    if let Some((source, job)) = running {
        let stop = seen.cancel || seen.hold.is_some();
        return verdict(if stop {
            Step::Stop { source, job: Box::new(job.clone()) }
        } else {
            Step::Watch(Box::new(job.clone()))
        });
    }
    if done == seen.slots.len() {
        return verdict(Step::Complete);
    }
    if seen.cancel {
        // A node that does not answer may still run a job: it is asked again when it is back, before this is called an end.
        return verdict(match silent(seen) {
            Some(why) => Step::Wait(why),
            None => Step::Cancelled,
        });
    }
    if let Some(why) = &seen.hold {
        return verdict(Step::Held(why.clone()));
    }
    if at_target.is_none() {
        return verdict(Step::Wait(format!("the target does not answer: {}", why_silent(seen, seen.target))));
    }
    let source = statuses()
        .filter(|status| status.node_id != seen.target && seen.source.is_none_or(|only| only == status.node_id))
        .map(|status| (status, status.owned().intersection(seen.slots).difference(&status.fenced)))
        .find(|(_, slots)| !slots.is_empty());
    match source {
        Some((status, slots)) => {
            // A source moves one thing at a time to one place; another's job on the same slots has to end first.
            let other = status
                .migrations
                .iter()
                .find(|job| job.state == MigrationState::Running && !job.slots.intersection(&slots).is_empty());
            verdict(match other {
                Some(job) => Step::Wait(format!(
                    "job {} of node {} moves some of these slots to node {}",
                    job.job, status.node_id, job.target
                )),
                None => Step::Start { source: status.node_id, slots },
            })
        }
        None => verdict(Step::Wait(match silent(seen) {
            Some(why) => why,
            None => "the slots that are missing are on their way, or at a node this migration does not take them from".into(),
        })),
    }
}

fn silent(seen: &Seen<'_>) -> Option<String> {
    let involved = |id: NodeId| seen.source.is_none_or(|source| source == id) || id == seen.target;
    seen.nodes.iter().find(|(_, id, status)| status.is_err() && involved(*id)).map(|(shard, _, status)| {
        format!("shard {shard} does not answer: {}", status.as_ref().err().cloned().unwrap_or_default())
    })
}

fn why_silent(seen: &Seen<'_>, id: NodeId) -> String {
    seen.nodes
        .iter()
        .find(|(_, node, _)| *node == id)
        .and_then(|(_, _, status)| status.as_ref().err().cloned())
        .unwrap_or_else(|| "it is no node of the cluster".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::testing::{job, node_id, status};

    #[test]
    fn the_nodes_decide_what_is_next() {
        let slots: SlotRanges = "0-9".parse().unwrap();
        let here =
            |owned: &str, jobs: Vec<MigrationStatus>| (0, node_id(1), Ok(NodeStatus { migrations: jobs, ..status(1, owned) }));
        let there = |owned: &str| (1, node_id(2), Ok(status(2, owned)));
        let gone = |n: u8| (u32::from(n) - 1, node_id(n), Err("no answer".to_owned()));
        let running = || job(7, 1, 2, "0-9", MigrationState::Running);
        let failed = || job(6, 1, 2, "0-9", MigrationState::Failed);
        let foreign = || job(9, 1, 3, "5-20", MigrationState::Running);
        let start = |text: &str| Step::Start { source: node_id(1), slots: text.parse().unwrap() };
        let table = [
            ("at the source: start", vec![here("0-99", vec![]), there("")], false, None, start("0-9")),
            ("half of it there: start the rest", vec![here("5-99", vec![]), there("0-4")], false, None, start("5-9")),
            ("all there: complete", vec![here("10-99", vec![]), there("0-9")], false, None, Step::Complete),
            (
                "all there and cancelled: complete all the same",
                vec![here("10-99", vec![]), there("0-9")],
                true,
                None,
                Step::Complete,
            ),
            (
                "its job runs: watch, never start another",
                vec![here("0-99", vec![running()]), there("")],
                false,
                None,
                Step::Watch(running().into()),
            ),
            ("a job that failed: start again", vec![here("0-99", vec![failed()]), there("")], false, None, start("0-9")),
            (
                "cancelled while it runs: stop",
                vec![here("0-99", vec![running()]), there("")],
                true,
                None,
                Step::Stop { source: node_id(1), job: running().into() },
            ),
            (
                "held while it runs: stop",
                vec![here("0-99", vec![running()]), there("")],
                false,
                Some("restart"),
                Step::Stop { source: node_id(1), job: running().into() },
            ),
            ("held", vec![here("0-99", vec![]), there("")], false, Some("restart"), Step::Held("restart".into())),
            ("cancelled", vec![here("0-99", vec![]), there("")], true, None, Step::Cancelled),
        ];
        for (name, nodes, cancel, hold, expected) in table {
            let seen = Seen {
                slots: &slots,
                target: node_id(2),
                source: Some(node_id(1)),
                nodes: &nodes,
                cancel,
                hold: hold.map(str::to_owned),
            };
            assert_eq!(decide(&seen).step, expected, "{name}");
        }
        for (name, nodes, cancel) in [
            ("a silent target", vec![here("0-99", vec![]), gone(2)], false),
            ("a silent source", vec![gone(1), there("")], false),
            ("a silent source is not cancelled blindly", vec![gone(1), there("")], true),
            ("another job on the same slots", vec![here("0-99", vec![foreign()]), there("")], false),
            ("slots elsewhere", vec![here("10-99", vec![]), there("")], false),
        ] {
            let seen = Seen { slots: &slots, target: node_id(2), source: Some(node_id(1)), nodes: &nodes, cancel, hold: None };
            assert!(matches!(decide(&seen).step, Step::Wait(_)), "{name}");
        }
    }

    #[test]
    fn fenced_slots_are_not_asked_for_again() {
        let slots: SlotRanges = "0-9".parse().unwrap();
        let source = NodeStatus { fenced: "0-4".parse().unwrap(), ..status(1, "0-99") };
        let nodes = [(0, node_id(1), Ok(source)), (1, node_id(2), Ok(status(2, "")))];
        let seen = Seen { slots: &slots, target: node_id(2), source: None, nodes: &nodes, cancel: false, hold: None };
        assert_eq!(decide(&seen).step, Step::Start { source: node_id(1), slots: "5-9".parse().unwrap() });
    }
}
