//! Bits of strings.

commands! {
    "bitmap";
}
