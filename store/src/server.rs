//! Listeners, connections, the admin plane, shutdown.

mod admin;
mod connection;
mod data;
mod listen;
mod process;
mod turns;

pub use process::serve;
