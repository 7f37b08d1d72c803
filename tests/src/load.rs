//! A load that knows what it wrote: keys of real input, live writers with an account of every acknowledged write, and the reading back.

mod client;
mod input;
mod live;
mod probe;
mod session;
mod stats;

pub use client::Target;
pub use input::Lines;
pub use live::LiveReport;
pub use probe::Probe;
pub use session::{Report, Session, Status};
pub use stats::PhaseReport;
