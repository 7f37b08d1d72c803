//! What a turn has to tell others, in order. It is told once the turn's changes are applied: whoever hears of a change sees it.

use bytes::Bytes;

/// Something to tell.
#[derive(Debug)]
pub(super) enum Post {
    /// An event of a key: told only if the turn's changes are applied.
    Event { database: u8, name: &'static str, key: Bytes },
    /// PUBLISH.
    Message { channel: Bytes, payload: Bytes },
    /// SPUBLISH.
    ShardMessage { channel: Bytes, payload: Bytes },
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Outbox(pub(super) Vec<Post>);

impl Outbox {
    /// An event of a key.
    pub fn event(&mut self, database: u8, name: &'static str, key: &[u8]) {
        self.0.push(Post::Event { database, name, key: Bytes::copy_from_slice(key) });
    }

    /// An event of a key, told before what came after the first `at`.
    pub fn event_at(&mut self, at: usize, database: u8, name: &'static str, key: &[u8]) {
        self.0.insert(at.min(self.0.len()), Post::Event { database, name, key: Bytes::copy_from_slice(key) });
    }

    /// A message to a channel.
    pub fn message(&mut self, channel: Bytes, payload: Bytes) {
        self.0.push(Post::Message { channel, payload });
    }

    /// A message to a shard channel.
    pub fn shard_message(&mut self, channel: Bytes, payload: Bytes) {
        self.0.push(Post::ShardMessage { channel, payload });
    }

    /// How much there is to tell.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what came after the first `len`: the command failed.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}
