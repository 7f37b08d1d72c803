//! Choosing at random among things that are met one after another.

use std::hash::{BuildHasher as _, RandomState};

/// Numbers that nobody can tell the next of without trying; not for secrets.
pub(crate) struct Dice(u64);

impl Dice {
    pub(super) fn new() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }

    /// The same numbers for the same seed.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below that bound, which is above 0, each as likely as any (splitmix64, scaled).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64) as u64
    }
}

/// A number below that bound, which is above 0.
pub fn random_below(bound: u64) -> u64 {
    Dice::new().below(bound)
}

/// Takes some of a number of things, none twice; asked once for each of them, in whatever order they come.
pub(super) struct Choice {
    dice: Dice,
    wanted: u64,
    left: u64,
}

impl Choice {
    pub(super) fn new(wanted: u64, there_are: u64) -> Self {
        Self { dice: Dice::new(), wanted: wanted.min(there_are), left: there_are }
    }

    /// Whether the next one is taken.
    pub(super) fn takes_next(&mut self) -> bool {
        if self.left == 0 || self.wanted == 0 {
            return false;
        }
        let takes = self.dice.below(self.left) < self.wanted;
        self.left -= 1;
        self.wanted -= u64::from(takes);
        takes
    }

    /// Whether it has all it wanted.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_takes_as_many_as_wanted_and_each_as_often_as_any() {
        let mut taken = [0u32; 10];
        for _ in 0..20_000 {
            let mut choice = Choice::new(3, 10);
            let before: u32 = taken.iter().sum();
            taken.iter_mut().for_each(|count| *count += u32::from(choice.takes_next()));
            assert_eq!(taken.iter().sum::<u32>(), before + 3);
            assert!(choice.is_complete() && !choice.takes_next());
        }
        // 6000 each on average; 500 is more than seven standard deviations.
        assert!(taken.iter().all(|count| count.abs_diff(6000) < 500), "{taken:?}");
        let mut all = Choice::new(9, 4);
        assert_eq!((0..6).filter(|_| all.takes_next()).count(), 4);
    }

    #[test]
    fn every_number_below_the_bound_comes() {
        let mut dice = Dice::new();
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[dice.below(7) as usize] = true);
        assert_eq!(seen, [true; 7]);
    }
}
