//! What reaches a client besides its replies: bounded, in order, written when the client's own replies have been.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::protocol::ReplyWriter;

/// Something that was not asked for.
#[derive(Clone, Debug)]
pub enum Push {
    /// A message of a channel.
    Message {
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// A message of a channel whose name matches a pattern.
    PatternMessage {
        /// The pattern.
        pattern: Bytes,
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// A message of a shard channel.
    ShardMessage {
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// The shard channel's slot is another node's now.
    ShardDropped {
        /// The channel.
        channel: Bytes,
        /// Shard channels the client is still subscribed to.
        left: u64,
    },
    /// A line of MONITOR.
    Line(String),
}

impl Push {
    /// Bytes it is counted as.
    fn cost(&self) -> u64 {
        let payload = match self {
            Self::Message { channel, payload } | Self::ShardMessage { channel, payload } => channel.len() + payload.len(),
            Self::PatternMessage { pattern, channel, payload } => pattern.len() + channel.len() + payload.len(),
            Self::ShardDropped { channel, .. } => channel.len(),
            Self::Line(line) => line.len(),
        };
        (payload + size_of::<Self>()) as u64
    }

    /// Writes it in the protocol of its receiver.
    pub fn write(&self, reply: &mut ReplyWriter<'_>) {
        let mut message = |kind: &str, words: &[&Bytes]| {
            reply.push(1 + words.len());
            reply.bulk(kind.as_bytes());
            words.iter().for_each(|word| reply.bulk(word));
        };
        match self {
            Self::Message { channel, payload } => message("message", &[channel, payload]),
            Self::PatternMessage { pattern, channel, payload } => message("pmessage", &[pattern, channel, payload]),
            Self::ShardMessage { channel, payload } => message("smessage", &[channel, payload]),
            Self::ShardDropped { channel, left } => {
                reply.push(3);
                reply.bulk(b"sunsubscribe");
                reply.bulk(channel);
                reply.unsigned(*left);
            }
            Self::Line(line) => reply.simple(line),
        }
    }
}

/// How much may wait for a client that does not take it; 0: without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushLimits {
    /// More than that ends the client at once.
    pub hard_bytes: u64,
    /// More than that ends it when it lasts.
    pub soft_bytes: u64,
    /// For so long.
    pub soft_seconds: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    waiting: VecDeque<Push>,
    bytes: u64,
    over_soft_since: Option<Instant>,
}

impl Mailbox {
    /// Takes something in; false when the client is past its limits.
    pub(super) fn put(&mut self, push: Push, limits: PushLimits, now: Instant) -> bool {
        self.bytes += push.cost();
        self.waiting.push_back(push);
        if limits.soft_bytes == 0 || self.bytes <= limits.soft_bytes {
            self.over_soft_since = None;
        } else {
            let since = *self.over_soft_since.get_or_insert(now);
            if now.duration_since(since) > Duration::from_secs(limits.soft_seconds) {
                return false;
            }
        }
        limits.hard_bytes == 0 || self.bytes <= limits.hard_bytes
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> VecDeque<Push> {
        self.bytes = 0;
        self.over_soft_since = None;
        std::mem::take(&mut self.waiting)
    }

    /// How much waits, and its bytes.
    pub(super) fn held(&self) -> (usize, u64) {
        (self.waiting.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(bytes: usize) -> Push {
        Push::Message { channel: Bytes::new(), payload: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_slow_reader_is_over_its_limit_at_once_or_when_it_lasts() {
        let limits = PushLimits { hard_bytes: 10_000, soft_bytes: 5000, soft_seconds: 2 };
        let (mut mailbox, start) = (Mailbox::default(), Instant::now());
        assert!(mailbox.put(push(4000), limits, start));
        assert!(mailbox.put(push(2000), limits, start));
        assert!(mailbox.put(push(1), limits, start + Duration::from_secs(2)));
        assert!(!mailbox.put(push(1), limits, start + Duration::from_secs(3)), "too long over the soft limit");
        assert_eq!(mailbox.take().len(), 4);
        assert!(mailbox.put(push(6000), limits, start + Duration::from_secs(9)), "it has caught up");
        assert!(!mailbox.put(push(6000), limits, start + Duration::from_secs(9)), "over the hard limit");
        assert!(mailbox.put(push(1 << 20), PushLimits::default(), start), "no limits");
    }
}
