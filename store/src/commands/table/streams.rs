//! Streams.

commands! {
    "stream";
}
