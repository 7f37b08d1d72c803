//! Lists.

commands! {
    "list";
}
