//! What real clients expect: the replies of a real redis-server, real client libraries, and refusals that close nobody else's door.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

mod acknowledged;
mod blocking;
mod broadcast;
mod clients;
mod clients_by_flag;
mod connections;
mod databases;
mod differential;
mod family;
mod field_expiry;
mod geo;
mod hashes;
mod hostile;
mod kvrocks;
mod large_replies;
mod lists;
mod one_moment;
mod pubsub;
mod reference;
mod scripting;
mod serialized;
mod sets;
mod slow_scripts;
mod sorting;
mod streams;
mod strings;
mod tls;
mod transactions;
mod waiting;
mod zsets;
