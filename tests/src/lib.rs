//! What the tests share.

pub mod kubernetes;
pub mod load;
pub mod store;
