//! Replies that may be too large to be built whole: all of a hash, a set, a list, a sorted set, a stream.
//!
//! Most are small, and written into the connection's buffer like any other. One that does not fit `reply-stream-from` is taken back, and
//! what is live at its key's place is held; once the turn is committed, the connection has it written anew as of one moment, piece by
//! piece, at the pace at which the client takes the pieces. Inside EXEC and scripts it is built whole, up to
//! `client-output-buffer-limit`: what they answer is one reply.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use super::{CommandError, Context, Replies, session::Unanswered};
use crate::{
    engine::{Held, View, Writer},
    node::Node,
    protocol::{Aggregate, ReplyWriter, Version},
    types::Keyspace,
};

/// About so long are the pieces of a large reply.
pub const PIECE_LEN: usize = 256 << 10;

/// Least bytes of a text in a reply: its header, its two line ends.
pub(super) const TEXT_LEN_MIN: u64 = 6;

/// A reply that may be large: an aggregate whose elements are written one by one.
pub(super) trait Large: Send + 'static {
    /// Of which key.
    fn key(&self) -> &[u8];

    /// What it is.
    fn aggregate(&self) -> Aggregate {
        Aggregate::Array
    }

    /// Writes its elements and stops when the reply is full; returns how many they are, as the header counts them.
    fn write(&self, keys: Keyspace<'_>, reply: &mut ReplyWriter<'_>) -> Result<usize, CommandError>;

    /// How many elements [`Large::write`] writes in a view, if the key's record says that; else they are gone over twice.
    fn count(&self, keys: Keyspace<'_>, version: Version) -> Result<Option<usize>, CommandError>;
}

/// A large reply that is to be sent in pieces.
pub struct LargeReply {
    held: Held,
    of: Box<dyn Large>,
    version: Version,
}

/// Why a large reply ended in its middle.
#[derive(Debug, thiserror::Error)]
pub enum Torn {
    /// Its client has gone.
    #[error("nobody takes it any more")]
    Unwanted,
    /// Storage failed.
    #[error("{0}")]
    Failed(CommandError),
    /// There are fewer or more elements than the key's record says.
    #[error("it has {written} elements, and its header says {counted}")]
    Miscounted {
        /// What the header says.
        counted: usize,
        /// How many there are.
        written: usize,
    },
}

impl Context<'_, '_> {
    /// Answers with all of what is at a key, now or in pieces.
    pub(super) fn answer_large(&mut self, large: impl Large) -> Result<(), CommandError> {
        let (keys, begin) = (self.keyspace(), self.reply.mark());
        let whole_max =
            self.node.live.reply_stream_from().filter(|_| !self.session.executing && self.session.replies == Replies::Sent);
        let len_max = self.reply.len_max();
        self.reply.set_len_max(whole_max.map_or(len_max, |whole_max| len_max.min(begin.saturating_add(whole_max))));
        let outcome = self.reply.counted(large.aggregate(), |reply| large.write(keys, reply));
        self.reply.set_len_max(len_max);
        outcome?;
        if whole_max.is_some() && self.reply.overflowed() {
            self.reply.rewind(begin);
            let held = self.node.engine.hold(keys.home(large.key()), "large reply");
            let reply = LargeReply { held, of: Box::new(large), version: self.reply.version() };
            self.session.unanswered = Some(Unanswered::Large(Box::new(reply)));
        }
        Ok(())
    }
}

impl LargeReply {
    /// Writes it as of now, and gives `sink` its pieces; an error before the first of them is what is answered.
    pub fn write(self, node: &Node, sink: &mut impl FnMut(Bytes) -> bool) -> Result<(), Torn> {
        let (database, view) = (self.held.database(), node.engine.view(self.held));
        let mut out = BytesMut::with_capacity(PIECE_LEN);
        let mut reply = ReplyWriter::in_pieces(&mut out, self.version, PIECE_LEN, sink);
        let outcome = write(node, database, &view, &*self.of, &mut reply);
        reply.flush();
        outcome
    }
}

fn write(node: &Node, database: u8, view: &View<'_>, of: &dyn Large, reply: &mut ReplyWriter<'_>) -> Result<(), Torn> {
    let engine = &node.engine;
    let writer = RefCell::new(Writer::new(engine.clone()));
    let keys = Keyspace::new(engine, &writer, database, engine.now_ms()).as_of(Some(view));
    let counted = match count(of, keys, reply.version()) {
        Ok(counted) => counted,
        Err(error) => {
            let text = error.to_string();
            reply.error(&text);
            node.stats.count_error(&text);
            return Ok(());
        }
    };
    reply.aggregate(of.aggregate(), counted);
    let written = of.write(keys, reply).map_err(Torn::Failed)?;
    match reply.overflowed() {
        true => Err(Torn::Unwanted),
        false if written != counted => Err(Torn::Miscounted { counted, written }),
        false => Ok(()),
    }
}

fn count(of: &dyn Large, keys: Keyspace<'_>, version: Version) -> Result<usize, CommandError> {
    if let Some(count) = of.count(keys, version)? {
        return Ok(count);
    }
    let (mut out, mut nowhere) = (BytesMut::new(), |_| true);
    of.write(keys, &mut ReplyWriter::in_pieces(&mut out, version, PIECE_LEN, &mut nowhere))
}
