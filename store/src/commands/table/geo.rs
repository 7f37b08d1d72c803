//! Places on the earth, in sorted sets.

commands! {
    "geo";
}
