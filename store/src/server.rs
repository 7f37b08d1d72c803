//! Listeners, connections, the admin plane, shutdown.

mod admin;
mod apart;
mod connection;
mod data;
mod listen;
mod pieces;
mod process;
mod profiles;
mod slow;
mod stopped;
mod traced;
mod turns;
mod waiting;

pub use process::serve;
