//! Which slots go where for another number of shards: no more of them than needed, in runs as long as can be, balanced by weight.

use std::collections::{BTreeMap, HashSet};

use sluice_topology::{SLOT_COUNT, Slot, SlotRanges};

/// Slots by the shard that has them.
pub type Layout = BTreeMap<u32, SlotRanges>;

/// Slots that go from a shard to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMove {
    /// The shard they leave.
    pub from: u32,
    /// The shard they go to.
    pub to: u32,
    /// The slots.
    pub slots: SlotRanges,
}

/// Weights of slots: what moving one costs and what having one means. Bytes where they are known, with a share for the slot itself, so
/// that empty slots are spread as well.
#[derive(Clone, Debug)]
pub struct Weights(Vec<u64>);

impl Weights {
    /// Every slot weighs the same.
    pub fn equal() -> Self {
        Self(vec![1; usize::from(SLOT_COUNT)])
    }

    /// By bytes; slots not named hold nothing.
    pub fn by_bytes(bytes: &BTreeMap<Slot, u64>) -> Self {
        let total: u64 = bytes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes));
        let share = (total / u64::from(SLOT_COUNT)).max(1);
        Self(Slot::all().map(|slot| bytes.get(&slot).copied().unwrap_or(0).saturating_add(share)).collect())
    }

    fn of(&self, slot: Slot) -> u128 {
        u128::from(self.0.get(slot.index()).copied().unwrap_or(1))
    }

    fn sum(&self, slots: &SlotRanges) -> u128 {
        slots.iter().map(|slot| self.of(slot)).sum()
    }
}

/// Moves that bring the slots of `layout` onto `targets`, evenly. Shards that are no target give everything away.
pub fn plan(layout: &Layout, targets: &[u32], weights: &Weights) -> Vec<ShardMove> {
    let Some(count) = u128::try_from(targets.len()).ok().filter(|count| *count > 0) else { return Vec::new() };
    let total: u128 = layout.values().map(|slots| weights.sum(slots)).sum();
    let ideal = total / count;
    let owned = |shard: u32| layout.get(&shard).cloned().unwrap_or_default();
    let mut loads: BTreeMap<u32, u128> = targets.iter().map(|shard| (*shard, weights.sum(&owned(*shard)))).collect();
    // What is to be given away, in order, so that runs stay together: all of those that leave, the top of those that have too much.
    let mut pool: Vec<(u32, Slot)> = Vec::new();
    for (shard, slots) in layout {
        let Some(load) = loads.get_mut(shard) else {
            pool.extend(slots.iter().map(|slot| (*shard, slot)));
            continue;
        };
        let mut surplus: Vec<(u32, Slot)> = Vec::new();
        let mut left = slots.len();
        for slot in slots.iter().collect::<Vec<_>>().into_iter().rev() {
            if left <= 1 || *load < ideal + weights.of(slot) {
                break;
            }
            *load -= weights.of(slot);
            left -= 1;
            surplus.push((*shard, slot));
        }
        pool.extend(surplus.into_iter().rev());
    }
    let mut given: BTreeMap<u32, Vec<(u32, Slot)>> = BTreeMap::new();
    let mut pool = pool.into_iter().peekable();
    let mut receivers: Vec<u32> = targets.to_vec();
    receivers.sort_by_key(|shard| (loads.get(shard).copied(), *shard));
    for receiver in &receivers {
        let Some(load) = loads.get_mut(receiver) else { continue };
        while let Some((_, slot)) = pool.peek() {
            // Past the ideal by less than half a slot is nearer to it than short of it.
            if *load + weights.of(*slot) > ideal + weights.of(*slot) / 2 {
                break;
            }
            *load += weights.of(*slot);
            given.entry(*receiver).or_default().extend(pool.next());
        }
    }
    for (from, slot) in pool {
        // Of equals, the one that has the slot already.
        let Some((shard, load)) = loads.iter_mut().min_by_key(|(shard, load)| (**load, **shard != from, **shard)) else { break };
        *load += weights.of(slot);
        given.entry(*shard).or_default().push((from, slot));
    }
    seed_empty(layout, targets, &mut given);
    let mut moves: BTreeMap<(u32, u32), Vec<Slot>> = BTreeMap::new();
    for (to, slots) in given {
        for (from, slot) in slots {
            if from != to {
                moves.entry((from, to)).or_default().push(slot);
            }
        }
    }
    moves.into_iter().map(|((from, to), slots)| ShardMove { from, to, slots: slots.into_iter().collect() }).collect()
}

/// Gives every target at least one slot: one that had none would ask for a plan for ever. Happens when a few slots hold nearly everything.
fn seed_empty(layout: &Layout, targets: &[u32], given: &mut BTreeMap<u32, Vec<(u32, Slot)>>) {
    let mut sizes: BTreeMap<u32, usize> = layout.iter().map(|(shard, slots)| (*shard, slots.len())).collect();
    let mut gone: HashSet<Slot> = HashSet::new();
    for (to, slots) in given.iter() {
        for (from, slot) in slots {
            gone.insert(*slot);
            sizes.entry(*from).and_modify(|size| *size = size.saturating_sub(1));
            *sizes.entry(*to).or_default() += 1;
        }
    }
    for target in targets {
        if sizes.get(target).is_some_and(|size| *size > 0) {
            continue;
        }
        let size = |shard: &u32| sizes.get(shard).copied().unwrap_or(0);
        let Some(richest) = targets.iter().copied().filter(|shard| size(shard) > 1).max_by_key(size) else { continue };
        let slot = match given.get_mut(&richest).and_then(Vec::pop) {
            Some(moved) => Some(moved),
            None => layout
                .get(&richest)
                .and_then(|slots| slots.iter().find(|slot| !gone.contains(slot)))
                .inspect(|slot| _ = gone.insert(*slot))
                .map(|slot| (richest, slot)),
        };
        if let Some(slot) = slot {
            given.entry(*target).or_default().push(slot);
            sizes.entry(richest).and_modify(|size| *size = size.saturating_sub(1));
            sizes.insert(*target, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(parts: &[(u32, &str)]) -> Layout {
        parts.iter().map(|(shard, slots)| (*shard, slots.parse().unwrap())).collect()
    }

    fn after(layout: &Layout, moves: &[ShardMove]) -> Layout {
        let mut result = layout.clone();
        for step in moves {
            let from = result.entry(step.from).or_default();
            assert_eq!(from.intersection(&step.slots), step.slots, "only what a shard has is taken from it");
            *from = from.difference(&step.slots);
            let to = result.entry(step.to).or_default();
            *to = to.union(&step.slots);
        }
        result
    }

    fn sizes(layout: &Layout) -> Vec<usize> {
        layout.values().map(SlotRanges::len).collect()
    }

    #[test]
    fn every_plan_is_even_and_moves_no_more_than_needed() {
        let two = layout(&[(0, "0-8191"), (1, "8192-16383")]);
        let three = layout(&[(0, "0-5461"), (1, "5462-10922"), (2, "10923-16383")]);
        let one = layout(&[(0, "0-16383")]);
        for (name, start, targets, moved_max) in [
            ("two to three", &two, vec![0, 1, 2], 5462),
            ("three to two", &three, vec![0, 1], 5462),
            ("one to four", &one, vec![0, 1, 2, 3], 12288),
            ("three to one", &three, vec![0], 10923),
            ("nothing to do", &two, vec![0, 1], 0),
            ("half-way back", &layout(&[(0, "0-8191"), (1, "8192-12000"), (2, "12001-16383")]), vec![0, 1], 4383),
        ] {
            let moves = plan(start, &targets, &Weights::equal());
            let result = after(start, &moves);
            let sizes = sizes(&result.into_iter().filter(|(shard, _)| targets.contains(shard)).collect());
            let (low, high) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(high - low <= 1, "{name}: {sizes:?}");
            assert_eq!(sizes.iter().sum::<usize>(), 16384, "{name}");
            let moved: usize = moves.iter().map(|step| step.slots.len()).sum();
            assert!(moved <= moved_max, "{name}: {moved} moved");
            assert!(moves.iter().all(|step| step.slots.bounds().len() <= 2), "{name}: runs stay together: {moves:?}");
        }
    }

    #[test]
    fn many_shards_come_out_even() {
        let mut start = layout(&[(0, "0-16383")]);
        for count in [7u32, 100, 1024, 33, 1] {
            let targets: Vec<u32> = (0..count).collect();
            let moves = plan(&start, &targets, &Weights::equal());
            start = after(&start, &moves).into_iter().filter(|(_, slots)| !slots.is_empty()).collect();
            let sizes = sizes(&start);
            assert_eq!(sizes.len(), count as usize);
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{count}: {sizes:?}");
        }
    }

    #[test]
    fn weight_counts_not_the_number_of_slots() {
        let start = layout(&[(0, "0-8191"), (1, "8192-16383")]);
        // All data is in the first thousand slots.
        let bytes = (0..1000).filter_map(Slot::new).map(|slot| (slot, 1_000_000)).collect();
        let weights = Weights::by_bytes(&bytes);
        let result = after(&start, &plan(&start, &[0, 1], &weights));
        let loads: Vec<u128> = result.values().map(|slots| weights.sum(slots)).collect();
        assert!(loads[0].abs_diff(loads[1]) <= 2_000_000, "{loads:?}");
    }

    #[test]
    fn one_giant_slot_leaves_no_shard_without_any() {
        let start = layout(&[(0, "0-16383")]);
        let weights = Weights::by_bytes(&[(Slot::new(16383).unwrap(), 1 << 40)].into());
        for targets in [vec![0, 1], vec![0, 1, 2, 3]] {
            let result = after(&start, &plan(&start, &targets, &weights));
            assert!(targets.iter().all(|shard| result.get(shard).is_some_and(|slots| !slots.is_empty())), "{targets:?}");
        }
        let skewed = layout(&[(0, "0"), (1, "1-16383")]);
        let weights = Weights::by_bytes(&[(Slot::new(0).unwrap(), 1 << 40)].into());
        let result = after(&skewed, &plan(&skewed, &[0, 1, 2], &weights));
        assert!(sizes(&result).iter().all(|size| *size > 0));
    }
}
