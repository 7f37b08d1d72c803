//! What the tests share.

pub mod kubernetes;
