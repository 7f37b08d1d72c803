//! Numbers at random, for choices that nobody gains by guessing: not for secrets.

use std::hash::{BuildHasher as _, RandomState};

/// Numbers that nobody can tell the next of without trying.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Others each time.
    pub fn random() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below that bound, which is above 0, each as likely as any (splitmix64, scaled).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes() {
        let mut dice = Dice::random();
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[dice.below(7) as usize] = true);
        assert_eq!(seen, [true; 7]);
    }
}
