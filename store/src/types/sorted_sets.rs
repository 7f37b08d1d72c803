//! Sorted sets: each member is a subkey in `data` whose value is its score; in `score`, the index, a key sorts by score and then by
//! member. Both are written in one batch with the record.

mod algebra;
mod change;
mod edges;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod ranges;
mod reads;
mod score;

pub use algebra::{Aggregate, Combination};
pub use change::{AddOptions, Added, Extreme, Popped};
pub use ranges::{LexBound, LexRange, ScoreRange};
pub use reads::{Selection, SortedSet};
pub(super) use score::{SCORE_LEN, index_key_of_stored};
