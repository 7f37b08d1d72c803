//! Memory under control: the limit, profiles on demand, dashboard and alerts.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

mod dashboards;
mod limits;
mod looking;
mod owners;
mod profiles;
mod traces;
