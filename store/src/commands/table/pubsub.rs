//! Publishing and subscribing.

commands! {
    "pubsub";
}
