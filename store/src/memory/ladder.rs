//! How near the process is to its limit, as steps: each has its measure, and the measures of those below it go on.

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    None,
    /// Caches are made smaller, and freed memory goes back to the system at once.
    Shrink,
    /// Memtables are flushed.
    Flush,
    /// Writers are slowed down.
    Slow,
    /// Writes that need memory are refused.
    Refuse,
}

impl Pressure {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Shrink, Self::Flush, Self::Slow, Self::Refuse];

    /// Its name in INFO and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Shrink => "shrink_caches",
            Self::Flush => "flush_memtables",
            Self::Slow => "slow_writers",
            Self::Refuse => "refuse_writes",
        }
    }
}

/// Percents of the limit at which the steps begin, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks(pub [u32; 4]);

impl Default for Watermarks {
    fn default() -> Self {
        Self([70, 78, 85, 92])
    }
}

/// Percents of its mark at which a step ends, so that nothing goes to and fro.
const ENDS_AT: u128 = 96;

impl Watermarks {
    /// The step at so many bytes of a limit, after that one.
    pub(super) fn pressure(self, used: u64, limit: u64, before: Pressure) -> Pressure {
        let reached = |mark: u32, step: Pressure| {
            let share = if step <= before { ENDS_AT } else { 100 };
            u128::from(used) * 100 * 100 >= u128::from(limit) * u128::from(mark) * share
        };
        let steps = self.0.into_iter().zip(&Pressure::ALL[1..]);
        let highest = steps.filter(|(mark, step)| reached(*mark, **step)).map(|(_, step)| *step).max();
        highest.unwrap_or(Pressure::None)
    }

    /// How far it is from where writers are slowed down to where writes are refused: 0 to 1.
    pub(super) fn beyond_slow(self, used: u64, limit: u64) -> f64 {
        let [.., slow, refuse] = self.0;
        let percent = used as f64 * 100.0 / limit as f64;
        ((percent - f64::from(slow)) / f64::from(refuse.saturating_sub(slow).max(1))).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_at_their_marks_and_end_below_them() {
        let marks = Watermarks::default();
        let cases = [
            (69, Pressure::None, Pressure::None),
            (70, Pressure::None, Pressure::Shrink),
            (68, Pressure::Shrink, Pressure::Shrink),
            (66, Pressure::Shrink, Pressure::None),
            (80, Pressure::None, Pressure::Flush),
            (92, Pressure::Shrink, Pressure::Refuse),
            (90, Pressure::Refuse, Pressure::Refuse),
            (88, Pressure::Refuse, Pressure::Slow),
            (150, Pressure::None, Pressure::Refuse),
            (10, Pressure::Refuse, Pressure::None),
        ];
        for (used, before, expected) in cases {
            assert_eq!(marks.pressure(used, 100, before), expected, "{used} after {before:?}");
        }
        assert_eq!(marks.pressure(u64::MAX, u64::MAX, Pressure::None), Pressure::Refuse, "no overflow");
    }

    #[test]
    fn writers_are_slowed_more_the_nearer_it_is() {
        let shares = [80, 85, 88, 92, 99].map(|used| Watermarks::default().beyond_slow(used, 100));
        assert!(shares[..2] == [0.0; 2] && (0.4..0.5).contains(&shares[2]) && shares[3..] == [1.0; 2], "{shares:?}");
    }
}
