//! The source's end of a link: frames in flight up to a window, acknowledged in order, sent again after the link broke.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt as _;
use sluice_topology::{
    NodeEntry,
    admin::{AdminClient, AdminError, Reply},
};

use super::{
    MigrationError, Migrations,
    buffers::Held,
    jobs::Job,
    pace::Fit,
    wire::{self, FrameKind, Piece},
};

/// Pauses between attempts to reach the peer again.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// What the answers belong to, where one fails.
const DATA: [&[u8]; 2] = [b"CLUSTERX", b"IMPORT"];

struct InFlight {
    sequence: u64,
    frame: Bytes,
    _held: Held,
}

/// What was sent in all, for the target to compare.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) records: u64,
    pub(super) digest: crc32fast::Hasher,
}

impl Tally {
    /// Counts a frame. Its sum stands for its bytes.
    pub(super) fn add(&mut self, records: u32, sum: u32) {
        self.frames += 1;
        self.records += u64::from(records);
        self.digest.update(&sum.to_be_bytes());
    }
}

/// See the module's text.
pub(super) struct Link {
    migrations: Arc<Migrations>,
    job: Arc<Job>,
    node: NodeEntry,
    attempt: u64,
    /// `None`: it broke; the next use makes another.
    client: Option<AdminClient>,
    /// The target counts the links of an attempt: what still comes by an older one is refused.
    number: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    tally: Tally,
    fit: Fit,
}

impl Link {
    /// Connects, and says BEGIN.
    pub(super) async fn open(
        migrations: Arc<Migrations>,
        job: Arc<Job>,
        node: NodeEntry,
        attempt: u64,
        begin: &str,
    ) -> Result<Self, MigrationError> {
        let mut client = migrations.cluster.dial(&node).await?;
        client.call(&[b"CLUSTERX", b"IMPORT", b"BEGIN", begin.as_bytes()]).await?;
        let fit = Fit::new(migrations.limits.batch_bytes, Instant::now());
        let (in_flight, tally) = (VecDeque::new(), Tally::default());
        Ok(Self { migrations, job, node, attempt, client: Some(client), number: 0, in_flight, in_flight_bytes: 0, tally, fit })
    }

    /// Bytes that the next piece may have, for whoever fills it.
    pub(super) fn batch(&self) -> Arc<AtomicUsize> {
        self.fit.batch()
    }

    /// Forgets the connection: something was given up in its middle. What was in flight goes with the next.
    pub(super) fn renew(&mut self) {
        self.client = None;
    }

    /// What was sent so far.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Sends a piece of the stream, once there is room in the window. May be given up: the frame then goes with the next use.
    pub(super) async fn send(&mut self, kind: FrameKind, piece: Piece) -> Result<(), MigrationError> {
        let records = piece.records;
        let pack = self.fit.packs(|| piece.sample());
        let frame = piece.frame(kind, self.attempt, self.tally.frames, pack);
        let held = self.migrations.buffers.hold(frame.len());
        while self.in_flight_bytes > 0
            && (self.in_flight_bytes + frame.len() > self.migrations.limits.window_bytes || self.migrations.buffers.is_full())
        {
            self.await_one().await?;
        }
        self.migrations.pace.take(frame.len()).await;
        let sequence = self.tally.frames;
        self.tally.add(records, wire::frame_sum(&frame));
        self.job.update(|status| {
            status.batches += 1;
            status.bytes_sent += frame.len() as u64;
            status.batch_bytes = self.fit.batch().load(Ordering::Relaxed) as u64;
        });
        // Noted before it is sent: whatever happens, it is sent again.
        self.in_flight_bytes += frame.len();
        self.in_flight.push_back(InFlight { sequence, frame: frame.clone(), _held: held });
        match self.client.take() {
            // All that is in flight goes with a new link, this one included.
            None => self.resume().await?,
            Some(mut client) => match self.put(&mut client, &frame).await {
                Ok(()) => self.client = Some(client),
                Err(error) => self.broken(error).await?,
            },
        }
        // What has come by now is taken without waiting.
        while !self.in_flight.is_empty() {
            match self.receive().now_or_never() {
                Some(outcome) => self.taken(outcome, Duration::ZERO).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// Waits until everything that was sent is acknowledged.
    pub(super) async fn settle(&mut self) -> Result<(), MigrationError> {
        while !self.in_flight.is_empty() {
            self.await_one().await?;
        }
        Ok(())
    }

    /// Says a word of the switch, behind everything that was sent. Not said again when the link breaks.
    pub(super) async fn call(&mut self, words: &[&[u8]]) -> Result<(), MigrationError> {
        self.settle().await?;
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        client.call(words).await?;
        self.client = Some(client);
        Ok(())
    }

    async fn put(&self, client: &mut AdminClient, frame: &Bytes) -> Result<(), AdminError> {
        let (me, link) = (self.migrations.cluster.me().to_string(), self.number.to_string());
        client.send(&[b"CLUSTERX", b"IMPORT", b"DATA", me.as_bytes(), link.as_bytes(), frame]).await
    }

    async fn await_one(&mut self) -> Result<(), MigrationError> {
        if self.client.is_none() {
            self.resume().await?;
        }
        let started = Instant::now();
        let outcome = self.receive().await;
        let waited = started.elapsed();
        self.migrations.stages.sender.add(waited);
        self.taken(outcome, waited).await
    }

    /// The next acknowledgement. May be given up.
    async fn receive(&mut self) -> Result<Reply, AdminError> {
        match &mut self.client {
            Some(client) => client.receive(&DATA).await,
            // Never waited for.
            None => std::future::pending().await,
        }
    }

    async fn taken(&mut self, outcome: Result<Reply, AdminError>, waited: Duration) -> Result<(), MigrationError> {
        match outcome {
            Ok(Reply::Integer(peer_waited_us)) => {
                if let Some(done) = self.in_flight.pop_front() {
                    let peer_waited = Duration::from_micros(peer_waited_us.unsigned_abs());
                    self.in_flight_bytes -= done.frame.len();
                    self.fit.acknowledged(done.frame.len(), waited, peer_waited, Instant::now());
                }
                Ok(())
            }
            Ok(other) => Err(MigrationError::Wire(format!("the answer to a batch is {other:?}"))),
            Err(error) => self.broken(error).await,
        }
    }

    /// A link that broke is made anew; what the target refused is an error.
    async fn broken(&mut self, error: AdminError) -> Result<(), MigrationError> {
        self.client = None;
        if matches!(error, AdminError::Refused { .. }) {
            return Err(error.into());
        }
        tracing::info!(attempt = self.attempt, %error, "the link of a migration broke; it is made anew");
        self.job.update(|status| status.last_error = error.to_string());
        self.resume().await
    }

    /// Connects again and sends what the target has not received.
    async fn resume(&mut self) -> Result<(), MigrationError> {
        let deadline = Instant::now() + self.migrations.limits.resume_timeout;
        let mut pause = RETRY_FIRST;
        loop {
            match self.try_resume().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline || self.job.cancelled() || !passing(&error) => return Err(error),
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn try_resume(&mut self) -> Result<(), MigrationError> {
        let mut client = self.connect().await?;
        let (me, number) = (self.migrations.cluster.me().to_string(), self.attempt.to_string());
        let words: [&[u8]; 5] = [b"CLUSTERX", b"IMPORT", b"RESUME", me.as_bytes(), number.as_bytes()];
        let Reply::Array(found) = client.call(&words).await? else {
            return Err(MigrationError::Wire("the answer to RESUME is no list".into()));
        };
        let [Reply::Integer(next), Reply::Integer(link)] = found[..] else {
            return Err(MigrationError::Wire("the answer to RESUME is not two numbers".into()));
        };
        self.number = link.unsigned_abs();
        while let Some(done) = self.in_flight.pop_front_if(|frame| frame.sequence < next.unsigned_abs()) {
            self.in_flight_bytes -= done.frame.len();
        }
        let expected = self.in_flight.front().map_or(self.tally.frames, |frame| frame.sequence);
        if next.unsigned_abs() != expected {
            return Err(MigrationError::Wire(format!(
                "the target wants batch {next} next and {expected} is the oldest there is"
            )));
        }
        let again: Vec<Bytes> = self.in_flight.iter().map(|frame| frame.frame.clone()).collect();
        for frame in again {
            self.put(&mut client, &frame).await?;
            self.job.update(|status| status.bytes_resent += frame.len() as u64);
        }
        self.client = Some(client);
        Ok(())
    }

    async fn connect(&self) -> Result<AdminClient, MigrationError> {
        Ok(self.migrations.cluster.dial(&self.node).await?)
    }
}

/// Whether it may be over in a moment.
fn passing(error: &MigrationError) -> bool {
    match error {
        MigrationError::Peer(AdminError::Refused { message, .. }) => message.starts_with("LOADING"),
        MigrationError::Peer(_) => true,
        _ => false,
    }
}
