//! Sorted sets.

commands! {
    "sorted-set";
}
