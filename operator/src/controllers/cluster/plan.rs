//! What to do, decided from facts alone: no clock, no network, no API.

pub mod balance;
pub mod ownership;
pub mod rollout;
pub mod scaling;
#[cfg(test)]
mod tests;
pub mod topology;
