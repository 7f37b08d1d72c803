//! How many distinct things there are, estimated.

commands! {
    "hyperloglog";
}
