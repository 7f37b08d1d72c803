//! Replies that are sent in pieces, at the pace at which the client takes them.
//!
//! A thread of its own reads what the reply is of, as of one moment, and waits while a few pieces are ready: neither the threads that serve
//! clients nor memory have to do with how long the whole is. A client that does not take a piece in time is disconnected, so that what its
//! reply keeps (a snapshot, a dropped generation) is kept for a bounded time.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt as _, sync::mpsc, time::timeout};

use super::{connection::Connection, stopped::End};
use crate::{
    commands::{LargeReply, PIECE_LEN, note_later_time},
    protocol::Request,
};

/// Pieces that are ready before they are sent.
const AHEAD: usize = 4;

impl Connection {
    /// Sends a large reply.
    pub(super) async fn answer_in_pieces(&mut self, reply: LargeReply, request: &Request) -> Result<(), End> {
        let node = self.node.clone();
        let limit = node.live.reply_stream_timeout();
        let Ok(Ok(place)) = timeout(limit, node.large_replies.clone().acquire_owned()).await else {
            let text = format!(
                "TRYAGAIN {} large replies are being sent already, and none ended within {} ms (reply-streams-max)",
                node.settings.reply_streams_max,
                limit.as_millis()
            );
            node.stats.count_error(&text);
            self.reply().error(&text);
            return Ok(());
        };
        node.stats.large_replies.fetch_add(1, Ordering::Relaxed);
        let (sender, mut pieces) = mpsc::channel::<Bytes>(AHEAD);
        let writer = tokio::task::spawn_blocking({
            let node = node.clone();
            move || {
                let (begun, mut waited) = (Instant::now(), Duration::ZERO);
                let outcome = reply.write(&node, &mut |piece| {
                    let ready = Instant::now();
                    let wanted = sender.blocking_send(piece).is_ok();
                    waited += ready.elapsed();
                    wanted
                });
                drop(place);
                (outcome, begun.elapsed().saturating_sub(waited))
            }
        });
        while let Some(piece) = pieces.recv().await {
            self.session.client.buffers[2].set(((1 + pieces.len()) * PIECE_LEN) as u64);
            self.deliver(&piece, limit).await?;
            self.traced.replied(&self.session, &piece);
        }
        self.session.client.buffers[2].set(0);
        let client = &self.session.client;
        let why = match writer.await {
            Ok((Ok(()), took)) => {
                if node.clients.slow.measures() {
                    note_later_time(&node, &self.session, request, took);
                }
                return Ok(());
            }
            Ok((Err(torn), _)) => torn.to_string(),
            Err(error) => error.to_string(),
        };
        // Part of it is sent: there is no place for an error any more.
        let (peer, name) = (client.peer.map(|peer| peer.to_string()).unwrap_or_default(), client.described().name);
        tracing::error!(client = client.id, %peer, ?name, why, "a client was disconnected: the rest of its reply cannot be read");
        Err(End::Closed)
    }

    /// Sends bytes. A client that does not take them within `limit` is disconnected, counted, and named in the log.
    pub(super) async fn deliver(&mut self, bytes: &[u8], limit: Duration) -> Result<(), End> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        if let Ok(sent) = timeout(limit, sending).await {
            return Ok(sent?);
        }
        let client = &self.session.client;
        self.node.clients.dropped.fetch_add(1, Ordering::Relaxed);
        let (peer, name) = (client.peer.map(|peer| peer.to_string()).unwrap_or_default(), client.described().name);
        let ms = limit.as_millis() as u64;
        tracing::warn!(client = client.id, %peer, ?name, ms, "a client was disconnected: it did not take its replies in time");
        Err(End::Closed)
    }
}
