//! One RESP connection: read, execute what is there, make it durable as promised, answer.

use std::{
    collections::VecDeque,
    future::poll_fn,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, BytesMut};
use sluice_topology::tls::Stream;
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::{
    stopped::{End, Stopped, bytes_of},
    traced::Traced,
    turns::{Turn, Turns},
};
use crate::{
    blocked::TurnEnd,
    clients,
    cluster::BATCH_WORDS_MAX,
    commands::{
        Context, Later, Plane, Serving, Session, Step, check_length, claim, note_later_time, prefetch, pushes, run, serve,
    },
    engine::SyncPolicy,
    node::Node,
    protocol::{ProtocolError, ReplyWriter, Request, RequestLimits, RequestReader, Version},
    traces,
};

/// Replies are sent when this much has gathered, or nothing is left to execute.
const SEND_AT: usize = 64 << 10;
/// Read at once, and reserved at once for a large argument.
pub(super) const READ_MIN: usize = 16 << 10;
const READ_MAX: usize = 4 << 20;
/// Read in one call of the system: while it copies, some kernels give the processor to nobody else.
const READ_PART: usize = 256 << 10;
/// For a client to take its replies.
const SEND_TIMEOUT: Duration = Duration::from_mins(1);

/// Most requests of one connection before others of the thread have a turn, and most bytes of them.
const RUN_REQUESTS_MAX: usize = 256;
const RUN_BYTES_MAX: usize = 1 << 20;
/// A turn that gathered this much is committed.
const TURN_BYTES_MAX: usize = 1 << 20;

/// A connection and its buffers.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Its place among the clients.
    registered: clients::Registered,
    pub(super) node: Arc<Node>,
    pub(super) turns: Arc<Turns>,
    pub(super) session: Session,
    pub(super) reader: RequestReader,
    /// Requests that have arrived whole, oldest first.
    pub(super) run: VecDeque<Request>,
    /// What came after them and is no request.
    broken: Option<ProtocolError>,
    pub(super) out: BytesMut,
    /// Where in `out` the replies of this turn begin, and whether each has to be taken back when the turn is not committed.
    pub(super) replies: Vec<(usize, bool)>,
    limits: RequestLimits,
    /// Which of its commands get spans.
    pub(super) traced: Traced,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: SocketAddr, node: Arc<Node>, turns: Arc<Turns>, plane: Plane) -> Self {
        let settings = &node.settings;
        // A migration's batch may hold one value of the largest size, and its frame around it; one of messages has its own number of words.
        let (frame, words) = if plane == Plane::Admin { (2 << 20, BATCH_WORDS_MAX) } else { (0, 0) };
        let limits = RequestLimits {
            args_max: (settings.request_args_max as usize).max(words),
            bulk_len_max: settings.proto_max_bulk_len.0 as usize + frame,
            request_len_max: (settings.client_query_buffer_limit.0 as usize)
                .max(settings.proto_max_bulk_len.0 as usize + 2 * frame),
        };
        let limits = if plane == Plane::Data { limits.at_most(node.live.request_len_max()) } else { limits };
        let socket = stream.socket();
        let registered = node.clients.register(Some(peer), socket.local_addr().ok(), socket.as_raw_fd(), plane == Plane::Data);
        registered.client().active_ms.set(node.engine.now_ms());
        let session = Session::new(registered.client().clone(), plane, plane.password(settings).is_empty());
        Self {
            traced: Traced::new(session.id()),
            stream,
            registered,
            node,
            turns,
            session,
            reader: RequestReader::new(),
            run: VecDeque::new(),
            broken: None,
            out: BytesMut::new(),
            replies: Vec::new(),
            limits,
        }
    }

    /// Serves until the client goes.
    pub(super) async fn serve(mut self) {
        let client = self.registered.client().clone();
        let mut executed = None;
        loop {
            let end = {
                let mut exchange = pin!(self.exchange(executed.take()));
                // Whatever it is at, it is woken when it is sent something, and ends when it is told to.
                poll_fn(|cx| {
                    client.register(cx.waker());
                    if client.is_ending() && !client.is_held() { Poll::Ready(End::Closed) } else { exchange.as_mut().poll(cx) }
                })
                .await
            };
            let End::Slow(request) = end else { break };
            let Some((back, outcome)) = self.execute_slow(request).await else {
                return tracing::debug!(client = client.id, "connection ended with its thread");
            };
            (self, executed) = (back, Some(outcome));
        }
        self.stream.end().await;
        tracing::debug!(client = client.id, "connection ended");
    }

    /// Goes on with what was executed on another thread, then answers until the client goes.
    async fn exchange(&mut self, executed: Option<(Stopped, Arc<TurnEnd>)>) -> End {
        if let Some(executed) = executed {
            if let Err(end) = self.finish(executed).await {
                return end;
            }
            self.traced.ended();
        }
        loop {
            match self.answer_all().await {
                Ok(()) => {}
                Err(end) => return end,
            }
            if self.session.closing {
                return End::Closed;
            }
            if let Err(end) = self.read_or_wake().await {
                return end;
            }
        }
    }

    /// Reads, or returns when something waits to be sent: [`Connection::serve`] has its task woken then.
    async fn read_or_wake(&mut self) -> Result<(), End> {
        let client = self.registered.client().clone();
        let mut read = pin!(self.read());
        poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Pending if client.has_mail() => Poll::Ready(Ok(())),
            other => other,
        })
        .await
    }

    async fn read(&mut self) -> Result<(), End> {
        self.reader.buffer.reserve(self.reader.needed().clamp(READ_MIN, READ_MAX));
        // Who waits for messages is not idle.
        let idle = if self.session.subscribed { 0 } else { u64::from(self.node.live.timeout()) };
        let mut part = (&mut self.reader.buffer).limit(READ_PART);
        let read = self.stream.read_buf(&mut part);
        let count = match (idle, self.session.plane) {
            (0, _) | (_, Plane::Admin) => read.await?,
            (seconds, Plane::Data) => timeout(Duration::from_secs(seconds), read).await.map_err(|_| End::Closed)??,
        };
        if count == 0 {
            return Err(End::Closed);
        }
        // A long request is seen while it arrives.
        if self.reader.buffer.len() > SEND_AT {
            self.show();
        }
        Ok(())
    }

    /// Executes every whole request that has arrived.
    async fn answer_all(&mut self) -> Result<(), End> {
        while !self.session.closing {
            // What was sent to it before it asked comes first.
            self.take_mail();
            self.gather();
            if self.run.is_empty() {
                self.session.client.buffers[3].set(0);
                if let Some(error) = self.broken.take() {
                    tracing::debug!(client = self.session.id(), %error, "a client sent what is no request");
                    self.reply().error(&format!("ERR {error}"));
                    self.session.closing = true;
                }
                break;
            }
            let stopped = self.execute(None);
            self.finish(stopped).await?;
            self.traced.ended();
        }
        self.take_mail();
        self.send().await
    }

    /// Writes what was sent to it behind the replies of what it asked.
    fn take_mail(&mut self) {
        let client = self.registered.client();
        if !client.has_mail() {
            return;
        }
        // Its bound is the mailbox's.
        let mut reply = ReplyWriter::new(&mut self.out, self.session.version, usize::MAX);
        for push in client.take_mail() {
            push.write(&mut reply);
        }
        self.session.subscribed = client.subscription_counts().iter().any(|count| *count > 0);
    }

    /// Takes whole requests out of what was received. One at a time before authentication, whose outcome changes the limits.
    fn gather(&mut self) {
        let mut bytes = 0;
        while self.broken.is_none() && self.run.len() < RUN_REQUESTS_MAX && bytes < RUN_BYTES_MAX {
            let known = self.session.authenticated;
            let limits = if known { self.limits } else { self.limits.unauthenticated() };
            match self.reader.next(limits) {
                Ok(Some(request)) => {
                    bytes += bytes_of([&request]);
                    self.run.push_back(request);
                }
                Ok(None) => return,
                Err(error) => self.broken = Some(error),
            }
            if !known {
                return;
            }
        }
    }

    /// Executes requests of the run in the thread's turn, `first` before all, and waits for nothing but `first`'s keys.
    pub(super) fn execute(&mut self, first: Option<Request>) -> (Stopped, Arc<TurnEnd>) {
        let turns = self.turns.clone();
        let mut turn = turns.turn();
        if let Some(request) = &first {
            // What others of the thread have gathered may hold the very keys it waits for.
            if turn.writer.borrow().is_inside() {
                turns.commit(&mut turn);
            }
            claim(&self.node, &self.session, &mut turn.writer.borrow_mut(), request);
        }
        let stopped = self.execute_in(&turn, first);
        self.show();
        self.session.client.buffers[3].set((bytes_of(&self.run) + stopped.bytes()) as u64);
        if turn.writer.borrow().gathered_bytes() >= TURN_BYTES_MAX || matches!(stopped, Stopped::Busy(_) | Stopped::Slow(_)) {
            let end = turn.end();
            turns.commit(&mut turn);
            return (stopped, end);
        }
        (stopped, turns.leave(turn))
    }

    /// Lets others see how it stands: a few stores a run.
    fn show(&self) {
        let client = &self.session.client;
        client.database.set(u64::from(self.session.database));
        client.protocol.set(if self.session.version == Version::Resp3 { 3 } else { 2 });
        let unread = &self.reader.buffer;
        for (place, bytes) in client.buffers.iter().zip([unread.len(), unread.capacity() - unread.len(), self.out.capacity()]) {
            place.set(bytes as u64);
        }
        client.buffers[4].set(self.session.transaction.as_ref().map_or(0, |transaction| transaction.bytes) as u64);
    }

    fn execute_in(&mut self, turn: &Turn, first: Option<Request>) -> Stopped {
        let writer = &turn.writer;
        let node = self.node.clone();
        self.session.client.active_ms.set(node.engine.now_ms());
        // Inside MULTI nothing is read before EXEC. Nor behind a request that had to wait: it may be the very MULTI or WATCH that what
        // comes after it must not be read before.
        let at_once = self.session.transaction.is_some() || first.is_some();
        let ahead = if at_once { &mut [] } else { self.run.make_contiguous() };
        let prefetch = prefetch(&node, &mut writer.borrow_mut(), &self.session, ahead);
        let mut clock = node.clients.slow.measures().then(Instant::now);
        let traces = traces::commands().filter(|_| self.session.plane == Plane::Data);
        let (mut next, now_ms, out_len_max) = (first, node.engine.now_ms(), node.live.reply_len_max());
        loop {
            let again = next.take();
            let fresh = again.is_none();
            let Some(request) = again.or_else(|| self.run.pop_front()) else { break };
            if let Some(commands) = traces.filter(|_| fresh) {
                self.traced.begin(commands, &self.session, &request);
            }
            let (mark, gathered) = (self.out.len(), writer.borrow().gathered());
            let mut reply = ReplyWriter::new(&mut self.out, self.session.version, out_len_max);
            let mut context = Context {
                node: &node,
                session: &mut self.session,
                reply: &mut reply,
                writer,
                outbox: &turn.outbox,
                now_ms,
                prefetch: prefetch.as_ref(),
                clock,
                moment: None,
            };
            let step = run(&mut context, &request);
            clock = context.clock;
            let waited = self.session.waited.take();
            if writer.borrow().has_ready() {
                serve(&Serving { node: &node, writer, outbox: &turn.outbox, now_ms, end: &turn.end() });
            }
            match step {
                Step::Done => {
                    // What confirms a subscription is a push, and is sent all the same.
                    if self.session.replies.leaves_out() && !pushes(&request) {
                        self.out.truncate(mark);
                    }
                    // What it published may come to itself, behind this reply.
                    let hears_itself = self.session.subscribed && !turn.outbox.borrow().is_empty();
                    let writer = writer.borrow();
                    let changed = writer.gathered() != gathered || writer.take_observed();
                    self.replies.push((mark, changed));
                    if traces.is_some() {
                        self.traced.replied(&self.session, &self.out[mark..]);
                        self.traced.answered(changed);
                    }
                    if hears_itself
                        || self.out.len() >= SEND_AT
                        || writer.gathered_bytes() >= TURN_BYTES_MAX
                        || self.session.closing
                    {
                        break;
                    }
                }
                Step::Apart => return Stopped::Apart,
                Step::Wait | Step::Paused | Step::Busy | Step::Slow => {
                    // It is executed again, and if it has waited it has still.
                    self.session.waited = waited;
                    return match step {
                        Step::Wait => Stopped::Wait(request),
                        Step::Paused => Stopped::Paused(request),
                        Step::Slow => Stopped::Slow(request),
                        _ => Stopped::Busy(request),
                    };
                }
                Step::Later(later) => return Stopped::Later(later, request),
                Step::Large(reply) => return Stopped::Large(reply, request),
                Step::Blocked(mut wait) => {
                    // In the turn in which it looked, whose writer holds its keys.
                    let Session { client, database, version, .. } = &self.session;
                    wait.deadline = waited.map_or(wait.deadline, |waited| waited.deadline);
                    let ticket = waited.map(|waited| waited.ticket);
                    let registered = node.blocked.register(client.clone(), *database, *version, wait, ticket);
                    return Stopped::Blocked(Box::new(registered));
                }
            }
        }
        Stopped::Turn
    }

    /// Waits for the turn's end, answers what was executed in it, and goes on with what stopped the run.
    async fn finish(&mut self, (mut stopped, mut end): (Stopped, Arc<TurnEnd>)) -> Result<(), End> {
        loop {
            self.settle(&end).await?;
            match stopped {
                Stopped::Turn if self.out.len() < SEND_AT => return Ok(()),
                Stopped::Turn => return self.send().await,
                Stopped::Busy(request) => (stopped, end) = self.execute(Some(request)),
                Stopped::Later(later, request) => {
                    // What was answered before does not wait for this one.
                    self.send().await?;
                    return self.answer_later(later, &request).await;
                }
                Stopped::Large(reply, request) => {
                    self.send().await?;
                    return self.answer_in_pieces(*reply, &request).await;
                }
                Stopped::Blocked(registered) => {
                    self.traced.waits_for("keys");
                    self.send().await?;
                    (stopped, end) = self.wait_for_keys(*registered).await?;
                }
                Stopped::Paused(request) => {
                    self.traced.waits_for("pause");
                    self.send().await?;
                    self.node.clients.pause.wait().await;
                    (stopped, end) = self.execute(Some(request));
                }
                Stopped::Slow(request) => {
                    self.send().await?;
                    return Err(End::Slow(request));
                }
                Stopped::Apart => {
                    self.send().await?;
                    return self.execute_apart().await;
                }
                Stopped::Wait(request) => {
                    self.traced.waits_for("slot");
                    self.send().await?;
                    (stopped, end) = self.wait_and_execute(request).await?;
                }
            }
        }
    }

    /// Waits until the turn's changes are applied, and durable if a reply says so; takes the replies back if they were not.
    pub(super) async fn settle(&mut self, end: &TurnEnd) -> Result<(), End> {
        let changed = self.replies.iter().filter(|(_, changed)| *changed).count() as u64;
        if let Err(text) = end.committed().await {
            self.take_back(&text);
        } else if changed > 0 {
            // A failed fsync acknowledges nobody.
            end.durable().await.map_err(|_| End::Closed)?;
            self.node.stats.acks.fetch_add(changed, Ordering::Relaxed);
            if self.node.engine.options().wal && self.node.engine.sync_policy() == SyncPolicy::Always {
                self.node.stats.synced_acks.fetch_add(changed, Ordering::Relaxed);
            }
        }
        self.replies.clear();
        self.traced.settled();
        Ok(())
    }

    /// Puts an error in the place of every reply of this turn that rests on its changes.
    fn take_back(&mut self, text: &str) {
        let Some((first, _)) = self.replies.first() else { return };
        self.traced.taken_back(text);
        let old = self.out.split_off(*first);
        let ends = self.replies.iter().skip(1).map(|(start, _)| *start).chain([*first + old.len()]);
        let parts: Vec<(bool, std::ops::Range<usize>)> =
            self.replies.iter().zip(ends).map(|((start, changed), end)| (*changed, start - first..end - first)).collect();
        for (changed, part) in parts {
            if changed && part.is_empty() {
                // It gets no replies.
            } else if changed {
                self.node.stats.count_error(text);
                self.reply().error(text);
            } else {
                self.out.extend_from_slice(&old[part]);
            }
        }
    }

    pub(super) async fn answer_later(&mut self, later: Later, request: &Request) -> Result<(), End> {
        let begun = Instant::now();
        let outcome = later.await;
        if self.node.clients.slow.measures() {
            note_later_time(&self.node, &self.session, request, begun.elapsed());
        }
        let (node, mark) = (self.node.clone(), self.out.len());
        let mut reply = self.reply();
        match outcome {
            Ok(write) => {
                let mark = reply.mark();
                write(&mut reply);
                check_length(&node, &mut reply, mark);
            }
            Err(error) => {
                let text = error.to_string();
                node.stats.count_error(&text);
                reply.error(&text);
            }
        }
        if self.session.replies.leaves_out() {
            self.out.truncate(mark);
        }
        self.traced.replied(&self.session, &self.out[mark..]);
        Ok(())
    }

    pub(super) fn reply(&mut self) -> ReplyWriter<'_> {
        ReplyWriter::new(&mut self.out, self.session.version, self.node.live.reply_len_max())
    }

    async fn send(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        // Mostly the socket takes it at once, and no timer is needed.
        let sent = match self.stream.try_write(&self.out) {
            Ok(sent) => sent,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if sent < self.out.len() {
            let out = std::mem::take(&mut self.out);
            self.deliver(&out[sent..], SEND_TIMEOUT).await?;
            self.out = out;
        }
        self.out.clear();
        if self.out.capacity() > READ_MAX {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}
