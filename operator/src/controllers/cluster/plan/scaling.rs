//! Another number of shards: new ones first, then moves, then - proven empty by their own live word - the ones that leave.

use std::collections::{BTreeMap, BTreeSet};

use sluice_topology::{NodeId, Slot, SlotRanges, TopologyDocument};

use super::balance::{self, Layout, Weights};
use crate::{
    api::{MigrationPhase, SlotMigration},
    controllers::cluster::facts::{Facts, ShardFacts},
    names::OPERATION,
    topology_record::{Move, Operation},
};
use kube::ResourceExt as _;

/// What to do about the number of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingPlan {
    /// Shards that shall have a StatefulSet now.
    pub stateful_sets: BTreeSet<u32>,
    /// A plan has to be made now, for this many shards.
    pub start: Option<u32>,
    /// The running operation has ended, or was overtaken by a newer spec and nothing of it runs any more.
    pub clear: bool,
    /// Moves of the operation to make SlotMigrations of now: position, and what of it is left.
    pub migrate: Vec<(usize, Move)>,
    /// SlotMigrations of an operation that was overtaken.
    pub cancel: Vec<String>,
    /// Shards that may leave if they prove now that they are empty.
    pub remove: Vec<u32>,
    /// What it waits for.
    pub blockers: Vec<String>,
    /// Slots of the operation that are where they shall be.
    pub slots_done: usize,
    /// Slots of the operation.
    pub slots_total: usize,
}

impl ScalingPlan {
    /// Whether anything about the number of shards is unfinished.
    pub fn is_busy(&self) -> bool {
        self.start.is_some() || self.clear || self.slots_total > 0 || !self.remove.is_empty() || !self.blockers.is_empty()
    }
}

/// Decides. `document` is the one in force, `hold` says why nothing new may begin.
pub fn plan(facts: &Facts, document: Option<&TopologyDocument>, hold: Option<&str>) -> ScalingPlan {
    let wanted = facts.wanted_shards();
    let mut plan = ScalingPlan { stateful_sets: (0..wanted).collect(), ..ScalingPlan::default() };
    // A StatefulSet goes only by `remove`: what exists or is recorded stays until then.
    plan.stateful_sets.extend(facts.shards.iter().filter(|(_, shard)| shard.stateful_set.is_some()).map(|(number, _)| *number));
    plan.stateful_sets.extend(facts.recorded_ids().into_keys());
    let Some(document) = document else { return plan };
    if let Some(operation) = facts.record().and_then(|record| record.operation.as_ref()) {
        carry_on(facts, operation, hold, &mut plan);
        return plan;
    }
    let members: BTreeMap<u32, NodeId> = document.nodes.iter().map(|node| (node.shard, node.id)).collect();
    let leaving: Vec<u32> = plan.stateful_sets.iter().copied().filter(|shard| *shard >= wanted).collect();
    // A StatefulSet whose node left for ever was on its way out: it goes first, whatever its number is wanted for now.
    let retired =
        |seen: &ShardFacts| seen.node.as_ref().is_ok_and(|status| status.retired || document.is_retired(status.node_id));
    let leftover =
        facts.shards.iter().filter(|(_, seen)| seen.stateful_set.as_ref().is_some_and(|set| !set.deleting) && retired(seen));
    plan.remove.extend(leftover.map(|(shard, _)| *shard).filter(|shard| *shard < wanted));
    let missing: Vec<u32> = (0..wanted).filter(|shard| !members.contains_key(shard)).collect();
    if !missing.is_empty() {
        plan.blockers.push(waits_for_members(facts, document, &missing));
        return plan;
    }
    let owned = |shard: &u32| members.get(shard).map(|id| facts.owned(*id)).unwrap_or_default();
    let uneven = (0..wanted).any(|shard| owned(&shard).is_empty()) || leaving.iter().any(|shard| !owned(shard).is_empty());
    if uneven {
        let unfinished = facts.migrations.iter().find(|migration| is_live(migration));
        match (hold, unfinished) {
            (Some(why), _) => plan.blockers.push(why.to_owned()),
            // One change of the topology at a time: a plan made while slots move would be of what is not so any more.
            (None, Some(migration)) => plan.blockers.push(format!("SlotMigration {} has not ended yet", migration.name_any())),
            (None, None) => plan.start = Some(wanted),
        }
        return plan;
    }
    for shard in leaving {
        match facts.shards.get(&shard).map(|facts_of| may_leave(facts, document, shard, facts_of)) {
            Some(Ok(())) | None => plan.remove.push(shard),
            Some(Err(why)) => plan.blockers.push(format!("shard {shard} stays: {why}")),
        }
    }
    plan
}

fn waits_for_members(facts: &Facts, document: &TopologyDocument, missing: &[u32]) -> String {
    let reasons: Vec<String> = missing
        .iter()
        .take(3)
        .map(|shard| {
            let why = match facts.shards.get(shard) {
                Some(ShardFacts { node: Ok(status), .. }) if status.retired || document.is_retired(status.node_id) => {
                    "its node left for ever; its StatefulSet is made anew with a new volume".to_owned()
                }
                Some(ShardFacts { node: Ok(_), name_resolves: Some(false), .. }) => {
                    "its name does not lead to its pod yet".to_owned()
                }
                Some(ShardFacts { node: Ok(status), .. }) if !status.owned().is_empty() => {
                    "its volume owns slots nobody wrote down: delete the volume, or ask what it is".to_owned()
                }
                Some(shard) => shard.trouble(),
                None => "it does not exist yet".to_owned(),
            };
            format!("shard {shard} is no member yet: {why}")
        })
        .collect();
    reasons.join("; ")
}

/// Whether a shard may leave, as far as this pass has seen. The proof itself is read again right before anything is removed.
pub fn may_leave(facts: &Facts, document: &TopologyDocument, shard: u32, seen: &ShardFacts) -> Result<(), String> {
    let member = document.nodes.iter().find(|node| node.shard == shard).map(|node| node.id);
    match (&seen.node, member) {
        (Ok(status), _) if status.retired || document.is_retired(status.node_id) => Ok(()),
        (Ok(status), Some(id)) if status.node_id != id => Err(format!("it came back as node {} instead of {id}", status.node_id)),
        (Ok(status), _) if !status.owned().is_empty() => Err(format!("it owns {} slots", status.owned().len())),
        (Ok(status), _) if !status.fenced.is_empty() => Err(format!("{} of its slots are fenced", status.fenced.len())),
        (Ok(status), _) if facts.is_migrating(status.node_id) => Err("it takes part in a migration".into()),
        (Ok(_), _) => Ok(()),
        // It was never written down as a member and never ran: it cannot have been given a slot.
        (Err(_), None) if seen.stateful_set.is_some() && seen.pod.as_ref().is_none_or(|pod| pod.pending) => Ok(()),
        (Err(why), _) => Err(format!("it cannot be asked whether it is empty ({why})")),
    }
}

fn is_live(migration: &SlotMigration) -> bool {
    !migration.status.as_ref().is_some_and(|status| status.state.is_final())
}

fn carry_on(facts: &Facts, operation: &Operation, hold: Option<&str>, plan: &mut ScalingPlan) {
    let of_operation = |migration: &&SlotMigration| migration.annotations().get(OPERATION) == Some(&operation.id.to_string());
    let live: Vec<&SlotMigration> = facts.migrations.iter().filter(of_operation).filter(|m| is_live(m)).collect();
    plan.slots_total = operation.moves.iter().map(|step| step.slots.len()).sum();
    let left: Vec<SlotRanges> = operation.moves.iter().map(|step| facts.owned(step.from).intersection(&step.slots)).collect();
    plan.slots_done = plan.slots_total - left.iter().map(SlotRanges::len).sum::<usize>();
    if operation.to_shards != facts.wanted_shards() {
        plan.cancel = live.iter().filter(|m| !m.spec.cancel).map(|m| m.name_any()).collect();
        let nodes = operation.moves.iter().flat_map(|step| [step.from, step.to]).collect::<BTreeSet<_>>();
        if live.is_empty() && !nodes.iter().any(|id| facts.is_migrating(*id)) {
            plan.clear = true;
        } else {
            plan.blockers.push(format!("the change to {} shards is being stopped first", operation.to_shards));
        }
        return;
    }
    if left.iter().all(SlotRanges::is_empty) && live.is_empty() {
        plan.clear = true;
        return;
    }
    for migration in &live {
        let status = migration.status.clone().unwrap_or_default();
        if status.state != MigrationPhase::Running && !status.last_error.is_empty() {
            plan.blockers.push(format!("{}: {}", migration.name_any(), status.last_error));
        }
    }
    if let Some(why) = hold {
        plan.blockers.push(why.to_owned());
        return;
    }
    let limit = usize::try_from(facts.cluster.spec.scaling.max_concurrent_migrations).unwrap_or(1).max(1);
    let mut free = limit.saturating_sub(live.len());
    for (position, (step, left)) in operation.moves.iter().zip(left).enumerate() {
        let name = migration_name(&facts.names.cluster, operation, position);
        let exists = facts.migrations.iter().any(|m| m.name_any() == name);
        if free == 0 || left.is_empty() {
            continue;
        }
        if exists {
            // A person may have ended it, or found it impossible: say so, rather than start the same again and again.
            if !live.iter().any(|m| m.name_any() == name) {
                plan.blockers
                    .push(format!("SlotMigration {name} ended before its slots were moved: delete it to have it made again"));
            }
            continue;
        }
        free -= 1;
        plan.migrate.push((position, Move { slots: left, ..step.clone() }));
    }
}

/// Name of the SlotMigration for a move.
pub fn migration_name(cluster: &str, operation: &Operation, position: usize) -> String {
    format!("{cluster}-scale-{}-{position}", operation.id)
}

/// Makes the operation that brings the slots onto `wanted` shards, from who owns what now.
pub fn operation(facts: &Facts, document: &TopologyDocument, wanted: u32, sizes: Option<&SlotSizes>) -> Operation {
    let ids: BTreeMap<u32, NodeId> = document.nodes.iter().map(|node| (node.shard, node.id)).collect();
    let layout: Layout = ids.iter().map(|(shard, id)| (*shard, facts.owned(*id))).collect();
    let targets: Vec<u32> = (0..wanted).collect();
    let weights = sizes.map_or_else(Weights::equal, |sizes| Weights::by_bytes(&sizes.bytes));
    let moves: Vec<Move> = balance::plan(&layout, &targets, &weights)
        .into_iter()
        .filter_map(|step| {
            let (from, to) = (*ids.get(&step.from)?, *ids.get(&step.to)?);
            Some(Move { slots: step.slots, from, to, from_shard: step.from, to_shard: step.to })
        })
        .collect();
    let moved: SlotRanges = moves.iter().flat_map(|step| step.slots.iter()).collect();
    let sum = |of: &BTreeMap<Slot, u64>| moved.iter().filter_map(|slot| of.get(&slot)).sum();
    Operation {
        // The document counts on with every operation, so no two have the same number.
        id: document.version.0.saturating_add(1),
        from_shards: u32::try_from(layout.values().filter(|slots| !slots.is_empty()).count()).unwrap_or(u32::MAX),
        to_shards: wanted,
        moves,
        keys_total: sizes.map(|sizes| sum(&sizes.keys)),
        bytes_total: sizes.map(|sizes| sum(&sizes.bytes)),
    }
}

/// What slots hold, as their nodes told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSizes {
    /// Keys of each slot.
    pub keys: BTreeMap<Slot, u64>,
    /// Bytes of each slot.
    pub bytes: BTreeMap<Slot, u64>,
}
