//! Runs of entries of an index, in order, and how many are in each.

/// Entries of a block at first.
const BLOCK: u32 = 512;
/// Entries of a block that is taken apart when it is met.
const BLOCK_MAX: u32 = 4 * BLOCK;
/// Memory of a block besides the bytes it begins with.
const BLOCK_COST: usize = 32;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    /// The least key of each; that of the first is empty.
    pub(super) starts: Vec<Vec<u8>>,
    pub(super) counts: Vec<u32>,
}

impl Blocks {
    pub(super) fn of(&self, key: &[u8]) -> usize {
        self.starts.partition_point(|start| start.as_slice() <= key).saturating_sub(1)
    }

    pub(super) fn before(&self, block: usize) -> u64 {
        self.counts[..block].iter().map(|count| u64::from(*count)).sum()
    }

    pub(super) fn count(&mut self, key: &[u8], put: bool) {
        let block = self.of(key);
        let count = &mut self.counts[block];
        *count = if put { count.saturating_add(1) } else { count.saturating_sub(1) };
        if *count == 0 && block > 0 {
            self.starts.remove(block);
            self.counts.remove(block);
        }
    }

    /// One more entry at the end; `last` is the one before it.
    pub(super) fn push(&mut self, key: &[u8], last: &[u8]) {
        match self.counts.last_mut() {
            Some(count) if *count < BLOCK => *count += 1,
            Some(_) => {
                // As much of the key as tells it from the one before it.
                let shared = key.iter().zip(last).take_while(|(one, other)| one == other).count();
                self.starts.push(key[..(shared + 1).min(key.len())].to_vec());
                self.counts.push(1);
            }
            None => {
                self.starts.push(Vec::new());
                self.counts.push(1);
            }
        }
    }

    /// Others in the place of one.
    pub(super) fn replace(&mut self, block: usize, mut others: Self) {
        if others.starts.is_empty() {
            return;
        }
        others.starts[0].clone_from(&self.starts[block]);
        self.starts.splice(block..=block, others.starts);
        self.counts.splice(block..=block, others.counts);
    }

    /// The ends of a block, if it is too large.
    pub(super) fn oversized(&self, block: usize) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        (self.counts[block] > BLOCK_MAX).then(|| (self.starts[block].clone(), self.starts.get(block + 1).cloned()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.starts.iter().map(|start| start.len() + BLOCK_COST).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u32) -> Vec<u8> {
        format!("key:{number:05}").into_bytes()
    }

    proptest! {
        #[test]
        fn blocks_count_what_is_put_and_deleted(there in 0u32..3000, changes in proptest::collection::vec((0u32..6000, any::<bool>()), 0..200)) {
            let (mut blocks, mut last) = (Blocks::default(), Vec::new());
            let mut model: std::collections::BTreeSet<Vec<u8>> = (0..there).map(|number| key(2 * number)).collect();
            for key in &model {
                blocks.push(key, &last);
                last.clone_from(key);
            }
            if blocks.counts.is_empty() {
                blocks.push(&key(0), &[]);
                blocks.count(&key(0), false);
            }
            for (number, put) in changes {
                let key = key(number);
                // A put is of one that is not there, a deletion of one that is.
                let changes = if put { model.insert(key.clone()) } else { model.remove(&key) };
                if changes {
                    blocks.count(&key, put);
                }
            }
            prop_assert_eq!(blocks.before(blocks.counts.len()), model.len() as u64);
            prop_assert!(blocks.starts.is_sorted());
            for (block, start) in blocks.starts.iter().enumerate() {
                let before = model.range::<Vec<u8>, _>(..start).count() as u64;
                prop_assert_eq!(blocks.before(block), before, "block {}", block);
            }
        }
    }
}
