//! A TCP proxy that spoils what it carries, as a test says: latency, bandwidth, a connection cut, a byte changed, silence, no connection.
//!
//! It stands between two nodes when the topology document names its port as a node's admin port (`LocalCluster::reach`).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// Bytes read at once, and pieces that may be under way in a direction: what a slow link holds.
const PIECE: usize = 16 << 10;
const PIECES_UNDER_WAY: usize = 64;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected.
    There,
    /// To who connected.
    Back,
}

/// How a link is, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Each byte is so late.
    pub latency: Duration,
    /// So many bytes pass in a second; `None`: all that come.
    pub bytes_per_second: Option<u64>,
    /// Nothing passes, and nobody is told: connections stay open. One that was silent once is so until it is closed.
    pub silent: bool,
}

/// A place in the stream of one direction, over all connections, at which something happens.
#[derive(Default)]
struct Marks {
    spoil: Option<u64>,
    cut: Option<u64>,
}

#[derive(Default)]
struct Direction {
    carried: AtomicU64,
    marks: Mutex<Marks>,
}

struct Shared {
    target: String,
    link: watch::Sender<Link>,
    cuts: watch::Sender<u64>,
    /// How often the link fell silent.
    silences: AtomicU64,
    directions: [Direction; 2],
    connections: AtomicU64,
}

/// See the module's text. Dropped, it cuts whatever is open.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port and carries connections to `target`, a `host:port`.
    pub async fn start(target: impl Into<String>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Shared {
            target: target.into(),
            link: watch::Sender::new(Link::default()),
            cuts: watch::Sender::new(0),
            silences: AtomicU64::new(0),
            directions: Default::default(),
            connections: AtomicU64::new(0),
        };
        let mut proxy = Self { port: listener.local_addr()?.port(), shared: Arc::new(shared), accepting: None };
        proxy.accept(listener);
        Ok(proxy)
    }

    fn accept(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().carry(stream));
            }
        }));
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How the link is from now on.
    pub fn set(&self, link: Link) {
        if link.silent {
            self.shared.silences.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.link.send_replace(link);
    }

    /// Closes whatever is open, now. New connections are taken.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Closes whatever is open once that many more bytes have gone that way.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        let direction = &self.shared.directions[way as usize];
        direction.marks().cut = Some(direction.carried.load(Ordering::SeqCst) + bytes);
    }

    /// Changes one byte: the one behind that many more that go that way.
    pub fn spoil_after(&self, way: Way, bytes: u64) {
        let direction = &self.shared.directions[way as usize];
        direction.marks().spoil = Some(direction.carried.load(Ordering::SeqCst) + bytes);
    }

    /// Closes whatever is open and refuses connections, until [`Proxy::listen`].
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The port is free once the task is gone.
            let _ = accepting.await;
        }
        self.cut();
    }

    /// Takes connections again.
    pub async fn listen(&mut self) -> anyhow::Result<()> {
        if self.accepting.is_none() {
            self.accept(TcpListener::bind(("127.0.0.1", self.port)).await?);
        }
        Ok(())
    }

    /// Bytes that have gone that way.
    pub fn carried(&self, way: Way) -> u64 {
        self.shared.directions[way as usize].carried.load(Ordering::SeqCst)
    }

    /// Connections that were taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.cut();
    }
}

impl Direction {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a piece that goes that way, and spoils it where it is to be. How much of it still goes before everything is cut.
    fn pass(&self, piece: &mut [u8]) -> Option<usize> {
        let mut marks = self.marks();
        let from = self.carried.load(Ordering::SeqCst);
        let here = |mark: &mut Option<u64>| {
            let at = mark.filter(|at| (from..from + piece.len() as u64).contains(at))?;
            *mark = None;
            Some((at - from) as usize)
        };
        let (spoil, cut) = { (here(&mut marks.spoil), here(&mut marks.cut)) };
        if let Some(byte) = spoil.and_then(|at| piece.get_mut(at)) {
            *byte ^= 0x20;
        }
        self.carried.fetch_add(cut.unwrap_or(piece.len()) as u64, Ordering::SeqCst);
        cut
    }
}

impl Shared {
    /// One connection, until an end closes it or it is cut.
    async fn carry(self: Arc<Self>, near: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut cuts = self.cuts.subscribe();
        // A connection that was there when the link fell silent, or that began in silence, hears nothing any more.
        let silences = if self.link.borrow().silent { u64::MAX } else { self.silences.load(Ordering::SeqCst) };
        let Ok(far) = TcpStream::connect(&self.target).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
        let mut ways = JoinSet::new();
        for (way, from, to) in [(Way::There, from_near, to_far), (Way::Back, from_far, to_near)] {
            let (sender, receiver) = mpsc::channel(PIECES_UNDER_WAY);
            ways.spawn(self.clone().take(from, sender));
            ways.spawn(self.clone().give(way, silences, receiver, to));
        }
        tokio::select! {
            _ = cuts.changed() => {}
            () = async { while ways.join_next().await.is_some() {} } => {}
        }
    }

    /// Reads what an end sends, and notes when it is due at the other.
    async fn take(self: Arc<Self>, mut from: OwnedReadHalf, sender: mpsc::Sender<(Instant, Vec<u8>)>) {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(count) if count > 0 => piece.truncate(count),
                _ => return,
            }
            let due = Instant::now() + self.link.borrow().latency;
            if sender.send((due, piece)).await.is_err() {
                return;
            }
        }
    }

    /// Passes on what is due.
    async fn give(
        self: Arc<Self>,
        way: Way,
        silences: u64,
        mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
        mut to: OwnedWriteHalf,
    ) {
        let silent = || self.silences.load(Ordering::SeqCst) != silences;
        while let Some((due, mut piece)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if silent() {
                continue;
            }
            let link = *self.link.borrow();
            let cut = self.directions[way as usize].pass(&mut piece);
            piece.truncate(cut.unwrap_or(piece.len()));
            if to.write_all(&piece).await.is_err() {
                return;
            }
            if cut.is_some() {
                self.cuts.send_modify(|cuts| *cuts += 1);
                return;
            }
            if let Some(rate) = link.bytes_per_second {
                tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / rate.max(1) as f64)).await;
            }
        }
        if silent() {
            // The end of what was not passed on is not passed on either.
            std::future::pending::<()>().await;
        }
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back what it is sent.
    async fn echo() -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        Ok(address)
    }

    async fn through(proxy: &Proxy) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(("127.0.0.1", proxy.port())).await?)
    }

    fn numbers() -> Vec<u8> {
        (0..50_000u32).flat_map(u32::to_le_bytes).collect()
    }

    /// Sends everything while it reads, closes, and returns what came back until the end.
    async fn exchange(stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
        let (mut from, mut to) = stream.into_split();
        let send = async {
            let _ = to.write_all(bytes).await;
            let _ = to.shutdown().await;
        };
        let mut back = Vec::new();
        let receive = async {
            let mut piece = vec![0; PIECE];
            while let Ok(count) = from.read(&mut piece).await {
                if count == 0 {
                    break;
                }
                back.extend_from_slice(&piece[..count]);
            }
        };
        tokio::join!(send, receive);
        back
    }

    #[tokio::test]
    async fn everything_arrives_in_order_on_a_fast_link_and_on_a_slow_one() -> anyhow::Result<()> {
        let proxy = Proxy::start(echo().await?).await?;
        let slow = Link { latency: Duration::from_millis(20), bytes_per_second: Some(4_000_000), silent: false };
        for link in [Link::default(), slow] {
            proxy.set(link);
            assert!(exchange(through(&proxy).await?, &numbers()).await == numbers(), "{link:?}");
        }
        assert_eq!((proxy.carried(Way::There), proxy.carried(Way::Back), proxy.connections()), (400_000, 400_000, 2));
        Ok(())
    }

    #[tokio::test]
    async fn one_byte_is_changed_where_it_was_said() -> anyhow::Result<()> {
        let proxy = Proxy::start(echo().await?).await?;
        for (way, place) in [(Way::There, 0), (Way::Back, 123_456)] {
            proxy.spoil_after(way, place);
            let (sent, back) = (numbers(), exchange(through(&proxy).await?, &numbers()).await);
            let changed: Vec<usize> = (0..sent.len()).filter(|at| sent[*at] != back[*at]).collect();
            assert_eq!((back.len(), changed), (sent.len(), vec![place as usize]));
        }
        assert!(exchange(through(&proxy).await?, &numbers()).await == numbers(), "once");
        Ok(())
    }

    #[tokio::test]
    async fn a_connection_is_cut_behind_that_many_bytes_and_the_next_one_is_whole() -> anyhow::Result<()> {
        let proxy = Proxy::start(echo().await?).await?;
        proxy.cut_after(Way::Back, 1000);
        let back = exchange(through(&proxy).await?, &numbers()).await;
        assert!(back.len() <= 1000 && numbers().starts_with(&back), "{} bytes", back.len());
        assert!(exchange(through(&proxy).await?, b"whole").await == b"whole");
        Ok(())
    }

    #[tokio::test]
    async fn a_silent_connection_stays_open_and_says_nothing_until_it_is_cut() -> anyhow::Result<()> {
        let proxy = Proxy::start(echo().await?).await?;
        let mut stream = through(&proxy).await?;
        stream.write_all(b"before").await?;
        let mut back = [0; 6];
        stream.read_exact(&mut back).await?;
        proxy.set(Link { silent: true, ..Link::default() });
        stream.write_all(b"lost").await?;
        // The other one's answer passes behind what was lost, if anything does.
        let mut other = through(&proxy).await?;
        other.write_all(b"lost as well").await?;
        proxy.set(Link::default());
        assert!(exchange(through(&proxy).await?, b"after").await == b"after");
        let nothing = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut back)).await;
        assert!(nothing.is_err(), "{nothing:?}");
        proxy.cut();
        assert!(matches!(stream.read(&mut back).await, Ok(0) | Err(_)));
        Ok(())
    }

    #[tokio::test]
    async fn connections_are_refused_and_taken_again_on_the_same_port() -> anyhow::Result<()> {
        let mut proxy = Proxy::start(echo().await?).await?;
        let mut stream = through(&proxy).await?;
        proxy.refuse().await;
        assert!(through(&proxy).await.is_err());
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        proxy.listen().await?;
        assert!(exchange(through(&proxy).await?, b"again").await == b"again");
        Ok(())
    }
}
