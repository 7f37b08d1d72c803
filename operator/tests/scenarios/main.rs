//! The operator against an API server and store nodes in memory: what it promises, one promise a test.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

mod api;
mod election;
mod node;
mod restart;
mod scale;
mod tls;
mod topology;
mod world;
