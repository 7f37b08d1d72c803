//! Choosing at random among things that are met one after another.

use crate::dice::Dice;

/// Takes some of a number of things, none twice; asked once for each of them, in whatever order they come.
pub(super) struct Choice {
    dice: Dice,
    wanted: u64,
    left: u64,
}

impl Choice {
    pub(super) fn new(wanted: u64, there_are: u64) -> Self {
        Self { dice: Dice::random(), wanted: wanted.min(there_are), left: there_are }
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
}
