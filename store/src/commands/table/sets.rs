//! Sets.

commands! {
    "set";
}
