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

impl Post {
    /// Bytes that were published.
    fn published(&self) -> usize {
        match self {
            Self::Event { .. } => 0,
            Self::Message { channel, payload } | Self::ShardMessage { channel, payload } => channel.len() + payload.len(),
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Outbox {
    posts: Vec<Post>,
    published: usize,
}

impl Outbox {
    /// An event of a key.
    pub fn event(&mut self, database: u8, name: &'static str, key: &[u8]) {
        self.posts.push(Post::Event { database, name, key: Bytes::copy_from_slice(key) });
    }

    /// An event of a key, told before what came after the first `at`.
    pub fn event_at(&mut self, at: usize, database: u8, name: &'static str, key: &[u8]) {
        self.posts.insert(at.min(self.posts.len()), Post::Event { database, name, key: Bytes::copy_from_slice(key) });
    }

    /// A message to a channel.
    pub fn message(&mut self, channel: Bytes, payload: Bytes) {
        self.publish(Post::Message { channel, payload });
    }

    /// A message to a shard channel.
    pub fn shard_message(&mut self, channel: Bytes, payload: Bytes) {
        self.publish(Post::ShardMessage { channel, payload });
    }

    fn publish(&mut self, post: Post) {
        self.published += post.published();
        self.posts.push(post);
    }

    /// Bytes that were published, of channels and messages.
    pub fn published_bytes(&self) -> usize {
        self.published
    }

    /// Everything there is to tell, taken out.
    pub(super) fn take(&mut self) -> std::vec::Drain<'_, Post> {
        self.published = 0;
        self.posts.drain(..)
    }

    /// What was published to channels, in order: channels and payloads.
    pub fn messages(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.posts.iter().filter_map(|post| match post {
            Post::Message { channel, payload } => Some((channel, payload)),
            Post::Event { .. } | Post::ShardMessage { .. } => None,
        })
    }

    /// How much there is to tell.
    pub fn len(&self) -> usize {
        self.posts.len()
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Forgets what came after the first `len`: the command failed.
    pub fn truncate(&mut self, len: usize) {
        let gone = self.posts.drain(len.min(self.posts.len())..);
        self.published -= gone.map(|post| post.published()).sum::<usize>();
    }
}
