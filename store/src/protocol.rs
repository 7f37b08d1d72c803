//! Bytes to requests, values to replies. Knows nothing of commands or storage.

mod reply;
mod request;

pub use reply::{Aggregate, ReplyWriter, Sink, Version};
pub use request::{ProtocolError, Request, RequestLimits, RequestReader};
