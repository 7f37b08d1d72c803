//! What is gone gives its space back, what is not never goes: dead generations, collections, expiry, key versions, the stored format.

#![allow(clippy::expect_used, reason = "in a test it is how a failure is said")]

mod collections;
mod disk;
mod engine;
mod expiry;
mod filter;
mod format;
mod versions;
