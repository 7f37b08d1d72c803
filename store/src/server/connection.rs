//! One RESP connection: read, execute what is there, make it durable as promised, answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    commands::{Plane, Session, Step, check_length, run},
    engine::SyncPolicy,
    node::Node,
    protocol::{ReplyWriter, Request, RequestLimits, RequestReader},
};

/// Replies are sent when this much has gathered, or nothing is left to execute.
const SEND_AT: usize = 64 << 10;
/// Read at once, and reserved at once for a large argument.
const READ_MIN: usize = 16 << 10;
const READ_MAX: usize = 4 << 20;
/// Requests of one connection before others of the thread have a turn.
const TURN: u32 = 256;
/// For a client to take its replies.
const SEND_TIMEOUT: Duration = Duration::from_mins(1);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A connection and its buffers.
pub(super) struct Connection {
    stream: TcpStream,
    node: Arc<Node>,
    session: Session,
    reader: RequestReader,
    out: BytesMut,
    out_len_max: usize,
    limits: RequestLimits,
}

/// Why a connection ends.
enum End {
    /// The client is gone, or too slow, or said so.
    Closed,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, node: Arc<Node>, plane: Plane) -> Self {
        let settings = &node.settings;
        // A migration's batch may hold one value of the largest size, and its frame around it.
        let frame = if plane == Plane::Admin { 2 << 20 } else { 0 };
        let limits = RequestLimits {
            args_max: settings.request_args_max as usize,
            bulk_len_max: settings.proto_max_bulk_len.0 as usize + frame,
            request_len_max: (settings.client_query_buffer_limit.0 as usize)
                .max(settings.proto_max_bulk_len.0 as usize + 2 * frame),
        };
        let out_len_max = settings.client_output_buffer_limit.0 as usize;
        let session = Session::new(NEXT_ID.fetch_add(1, Ordering::Relaxed), plane, plane.password(settings).is_empty());
        Self { stream, node, session, reader: RequestReader::new(), out: BytesMut::new(), out_len_max, limits }
    }

    /// Serves until the client goes.
    pub(super) async fn serve(mut self) {
        let id = self.session.id;
        let End::Closed = self.exchange().await;
        tracing::debug!(connection = id, "connection ended");
    }

    async fn exchange(&mut self) -> End {
        loop {
            match self.answer_all().await {
                Ok(()) => {}
                Err(end) => return end,
            }
            if self.session.closing {
                return End::Closed;
            }
            if let Err(end) = self.read().await {
                return end;
            }
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        self.reader.buffer.reserve(self.reader.needed().clamp(READ_MIN, READ_MAX));
        let idle = u64::from(self.node.settings.timeout);
        let read = self.stream.read_buf(&mut self.reader.buffer);
        let count = match (idle, self.session.plane) {
            (0, _) | (_, Plane::Admin) => read.await?,
            (seconds, Plane::Data) => timeout(Duration::from_secs(seconds), read).await.map_err(|_| End::Closed)??,
        };
        if count == 0 { Err(End::Closed) } else { Ok(()) }
    }

    /// Executes every whole request that has arrived.
    async fn answer_all(&mut self) -> Result<(), End> {
        let mut turn = 0;
        while !self.session.closing {
            let limits = if self.session.authenticated { self.limits } else { self.limits.unauthenticated() };
            match self.reader.next(limits) {
                Ok(Some(request)) => self.answer(request).await?,
                Ok(None) => break,
                Err(error) => {
                    self.reply().error(&format!("ERR {error}"));
                    self.session.closing = true;
                }
            }
            if self.out.len() >= SEND_AT {
                self.send().await?;
            }
            turn += 1;
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        self.send().await
    }

    async fn answer(&mut self, request: Request) -> Result<(), End> {
        self.node.stats.commands.fetch_add(1, Ordering::Relaxed);
        match self.run(&request) {
            Step::Done => Ok(()),
            Step::Wait => self.wait_and_run(&request).await,
            Step::Later(later) => self.finish(later).await,
        }
    }

    fn run(&mut self, request: &Request) -> Step {
        let mut reply = ReplyWriter::new(&mut self.out, self.session.version, self.out_len_max);
        run(&self.node, &mut self.session, request, &mut reply)
    }

    /// The request's slot is being switched: what was executed before is answered, then the request waits its bounded time.
    async fn wait_and_run(&mut self, request: &Request) -> Result<(), End> {
        self.send().await?;
        self.node.stats.parked.fetch_add(1, Ordering::Relaxed);
        let limit = Duration::from_millis(self.node.settings.park_timeout_ms);
        let deadline = tokio::time::Instant::now() + limit;
        let mut changes = self.node.cluster.changes();
        loop {
            // Seen before the try: a change after it is not missed.
            changes.borrow_and_update();
            match self.run(request) {
                Step::Done => return Ok(()),
                Step::Later(later) => return self.finish(later).await,
                Step::Wait => {}
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                let text = format!("TRYAGAIN the slot is being moved and was not free within {} ms", limit.as_millis());
                self.reply().error(&text);
                return Ok(());
            }
        }
    }

    async fn finish(&mut self, later: crate::commands::Later) -> Result<(), End> {
        // What was answered before does not wait for this one.
        self.send().await?;
        let outcome = later.await;
        let node = self.node.clone();
        let mut reply = self.reply();
        match outcome {
            Ok(write) => {
                let mark = reply.mark();
                write(&mut reply);
                check_length(&node, &mut reply, mark);
            }
            Err(error) => {
                node.stats.errors.fetch_add(1, Ordering::Relaxed);
                reply.error(&error.to_string());
            }
        }
        Ok(())
    }

    fn reply(&mut self) -> ReplyWriter<'_> {
        ReplyWriter::new(&mut self.out, self.session.version, self.out_len_max)
    }

    /// Sends the replies, once the writes they acknowledge are as durable as the sync policy promises.
    async fn send(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        if let Some(written) = self.session.written.take()
            && self.node.engine.options().wal
            && self.node.engine.sync_policy() == SyncPolicy::Always
        {
            // A failed fsync acknowledges nobody.
            self.node.engine.durable(written.sequence).await.map_err(|_| End::Closed)?;
        }
        timeout(SEND_TIMEOUT, self.stream.write_all(&self.out)).await.map_err(|_| End::Closed)??;
        self.out.clear();
        if self.out.capacity() > READ_MAX {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}
