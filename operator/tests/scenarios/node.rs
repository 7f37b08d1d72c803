//! Store nodes in memory, speaking the typed admin protocol over loopback: as much of a store as an operator can see.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use rustls::ServerConfig;
use serde_json::Value;
use sluice_topology::{
    ClusterId, InstanceId, JobId, LeaderEpoch, NodeId, Slot, SlotEntry, SlotEpoch, SlotRanges, TopologyDocument, TopologyVersion,
    admin::{MigrationState, MigrationStatus, NodeStatus, PersistenceStatus},
    merge::{MergeReport, SlotRow, Verdict, judge},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What is on a volume, and what the process over it knows.
#[derive(Clone, Debug)]
pub struct Disk {
    pub id: NodeId,
    pub instance: InstanceId,
    pub cluster: Option<ClusterId>,
    pub leader: LeaderEpoch,
    pub version: TopologyVersion,
    pub retired: bool,
    pub nodes: Vec<sluice_topology::NodeEntry>,
    pub rows: BTreeMap<Slot, SlotRow>,
    pub round: u64,
    pub recovered: u64,
    pub clean: bool,
    pub keys: u64,
    pub jobs: Vec<MigrationStatus>,
    pub commands: Vec<String>,
}

/// Every volume by its claim's name, and which pod has which.
#[derive(Default)]
pub struct Disks {
    pub by_claim: BTreeMap<String, Disk>,
    /// DNS name of a pod to the claim it has mounted; absent while it does not run.
    pub mounted: BTreeMap<String, String>,
    /// DNS name of a pod to the port its node listens on.
    pub ports: BTreeMap<String, u16>,
    /// What nodes speak with who connects from now on; `None`: they speak in the clear.
    pub tls: Option<Arc<ServerConfig>>,
    made: u8,
}

/// Shared by nodes and test.
#[derive(Clone, Default)]
pub struct FakeNodes(Arc<Mutex<Disks>>);

impl FakeNodes {
    pub fn lock(&self) -> MutexGuard<'_, Disks> {
        self.0.lock().unwrap()
    }

    /// Starts what listens for a pod, once.
    pub async fn listen(&self, host: &str) {
        if self.lock().ports.contains_key(host) {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        self.lock().ports.insert(host.to_owned(), port);
        let (nodes, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (nodes, host) = (nodes.clone(), host.clone());
                let tls = nodes.lock().tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => serve(nodes, host, stream).await,
                        // Who is not let in sees the end of the connection.
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(nodes, host, stream).await;
                            }
                        }
                    }
                });
            }
        });
    }

    /// Mounts a claim's volume at a pod and starts its node over it, making both if they are new.
    pub fn start(&self, host: &str, claim: &str) {
        let mut disks = self.lock();
        if !disks.by_claim.contains_key(claim) {
            disks.made += 1;
            let number = disks.made;
            disks.by_claim.insert(claim.to_owned(), Disk::new(number));
        }
        let disk = disks.by_claim.get_mut(claim).unwrap();
        disk.recovered = disk.round;
        disks.mounted.insert(host.to_owned(), claim.to_owned());
    }

    /// Moves slots of running jobs, at most so many in all, as switches do.
    pub fn advance(&self, mut budget: usize) {
        let mut disks = self.lock();
        let sources: Vec<String> = disks.by_claim.keys().cloned().collect();
        for claim in sources {
            let running: Vec<MigrationStatus> =
                disks.by_claim[&claim].jobs.iter().filter(|job| job.state == MigrationState::Running).cloned().collect();
            for job in running {
                let left: Vec<Slot> = job.slots.iter().filter(|slot| disks.by_claim[&claim].owns(*slot)).take(budget).collect();
                budget -= left.len();
                for slot in left {
                    let epoch = disks.by_claim[&claim].rows[&slot].epoch.next().unwrap();
                    let row = SlotRow { owner: Some(job.target), epoch };
                    for disk in disks.by_claim.values_mut().filter(|disk| disk.id == job.source || disk.id == job.target) {
                        disk.rows.insert(slot, row);
                    }
                }
                let disk = disks.by_claim.get_mut(&claim).unwrap();
                let left = job.slots.iter().filter(|slot| disk.owns(*slot)).count();
                let entry = disk.jobs.iter_mut().find(|entry| entry.job == job.job).unwrap();
                entry.slots_done = u32::try_from(job.slots.len() - left).unwrap();
                if left == 0 {
                    entry.state = MigrationState::Done;
                }
            }
        }
    }

    pub fn disk_of(&self, host: &str) -> Disk {
        let disks = self.lock();
        disks.by_claim[&disks.mounted[host]].clone()
    }
}

impl Disk {
    fn new(number: u8) -> Self {
        Self {
            id: NodeId::from_bytes([number; 20]),
            instance: InstanceId::from_bytes([number; 16]),
            cluster: None,
            leader: LeaderEpoch(0),
            version: TopologyVersion(0),
            retired: false,
            nodes: Vec::new(),
            rows: BTreeMap::new(),
            round: 0,
            recovered: 0,
            clean: true,
            keys: 0,
            jobs: Vec::new(),
            commands: Vec::new(),
        }
    }

    pub fn owns(&self, slot: Slot) -> bool {
        self.rows.get(&slot).is_some_and(|row| row.owner == Some(self.id))
    }

    pub fn owned(&self) -> SlotRanges {
        self.rows.keys().copied().filter(|slot| self.owns(*slot)).collect()
    }

    fn status(&self) -> NodeStatus {
        let mut groups: BTreeMap<(NodeId, SlotEpoch), Vec<Slot>> = BTreeMap::new();
        let rows: Vec<(Slot, SlotRow)> = self.rows.iter().map(|(slot, row)| (*slot, *row)).collect();
        for run in rows.chunk_by(|(_, left), (_, right)| left == right) {
            let row = run[0].1;
            groups.entry((row.owner.unwrap(), row.epoch)).or_default().extend(run.iter().map(|(slot, _)| *slot));
        }
        NodeStatus {
            node_id: self.id,
            instance: self.instance,
            cluster_id: self.cluster,
            leader_epoch: self.leader,
            topology_version: self.version,
            software_version: "fake".into(),
            retired: self.retired,
            ready: true,
            nodes: self.nodes.clone(),
            slots: groups
                .into_iter()
                .map(|((owner, epoch), slots)| SlotEntry { slots: slots.into_iter().collect(), owner, epoch })
                .collect(),
            fenced: SlotRanges::empty(),
            persistence: PersistenceStatus {
                wal: true,
                last_flush_round: self.round,
                recovered_round: self.recovered,
                clean_shutdown: self.clean,
                latest_sequence: self.round,
            },
            migrations: self.jobs.clone(),
        }
    }

    fn take(&mut self, document: &TopologyDocument) -> Result<MergeReport, String> {
        if (document.leader_epoch, document.version) < (self.leader, self.version) {
            return Err(format!("ERR the document of leader {} is older than {}", document.leader_epoch, self.leader));
        }
        if self.cluster.is_some_and(|id| id != document.cluster_id) {
            return Err("ERR another cluster".into());
        }
        self.cluster = Some(document.cluster_id);
        (self.leader, self.version, self.nodes) = (document.leader_epoch, document.version, document.nodes.clone());
        self.retired |= document.is_retired(self.id);
        let (mut stale, mut conflicts, mut assigned) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (slot, (owner, epoch)) in document.by_slot() {
            let row = self.rows.get(&slot).copied().unwrap_or_default();
            match judge(self.id, row, owner, epoch, |id| document.is_retired(id)) {
                Verdict::Same => {}
                Verdict::Stale => _ = stale.insert(slot),
                Verdict::Conflict | Verdict::AskOwner => _ = conflicts.insert(slot),
                verdict @ (Verdict::Learn | Verdict::Assign | Verdict::TakeOver) => {
                    self.rows.insert(slot, SlotRow { owner: Some(owner), epoch });
                    if verdict != Verdict::Learn {
                        assigned.insert(slot);
                    }
                }
            }
        }
        let ranges = |slots: BTreeSet<Slot>| slots.into_iter().collect();
        Ok(MergeReport {
            version: self.version,
            stale: ranges(stale),
            conflicts: ranges(conflicts),
            assigned: ranges(assigned),
            retired: self.retired,
        })
    }

    fn command(&mut self, words: &[String]) -> String {
        let word = |n: usize| words.get(n).map(String::as_str).unwrap_or_default();
        let bulk = |text: String| format!("${}\r\n{text}\r\n", text.len());
        let json = |value: Value| bulk(value.to_string());
        let name = if word(0) == "CLUSTERX" { format!("CLUSTERX {}", word(1)) } else { word(0).to_owned() };
        self.commands.push(name.clone());
        match name.as_str() {
            "AUTH" => "+OK\r\n".into(),
            "CLUSTERX STATUS" => json(serde_json::to_value(self.status()).unwrap()),
            "CLUSTERX SETTOPOLOGY" => match self.take(&TopologyDocument::from_json(word(2).as_bytes()).unwrap()) {
                Ok(report) => json(serde_json::to_value(report).unwrap()),
                Err(why) => format!("-{why}\r\n"),
            },
            "CLUSTERX MIGRATE" => {
                let epoch = LeaderEpoch(word(6).parse().unwrap());
                if epoch < self.leader {
                    return format!("-ERR leader {epoch} is older than {}\r\n", self.leader);
                }
                let slots: SlotRanges = word(2).parse().unwrap();
                if slots.iter().any(|slot| !self.owns(slot)) {
                    return "-ERR not all of these slots are mine\r\n".into();
                }
                let job = JobId(self.jobs.len() as u64 + 1);
                let fresh = MigrationStatus::new(job, self.id, word(3).parse().unwrap(), slots);
                self.jobs.push(MigrationStatus { attempts: 1, switch_pause_ms_max: 3, ..fresh });
                format!(":{job}\r\n")
            }
            "CLUSTERX CANCEL" => {
                let job = JobId(word(2).parse().unwrap());
                match self.jobs.iter_mut().find(|entry| entry.job == job && entry.state == MigrationState::Running) {
                    Some(entry) => {
                        entry.state = MigrationState::Cancelled;
                        "+OK\r\n".into()
                    }
                    None => "-ERR no such job\r\n".into(),
                }
            }
            "CLUSTERX SLOTSTATS" => {
                let slots: SlotRanges = word(2).parse().unwrap();
                let mut keys = vec![0; slots.len()];
                keys[0] = self.keys;
                json(serde_json::json!({"slots": slots.to_string(), "keys": keys, "bytes": vec![0; slots.len()]}))
            }
            "FLUSHMEMTABLE" => {
                self.round += 1;
                let fields = [
                    ("instance", bulk(self.instance.to_string())),
                    ("round", format!(":{}\r\n", self.round)),
                    ("sequence", format!(":{}\r\n", self.round)),
                    ("durable_at_ms", ":1\r\n".into()),
                    ("bytes", ":4096\r\n".into()),
                    ("duration_ms", ":2\r\n".into()),
                    ("waiters", ":1\r\n".into()),
                ];
                let body: String = fields.iter().map(|(key, value)| format!("{}{value}", bulk((*key).to_owned()))).collect();
                format!("*{}\r\n{body}", 2 * fields.len())
            }
            other => format!("-ERR unknown command {other}\r\n"),
        }
    }
}

async fn serve(nodes: FakeNodes, host: String, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut stream = BufReader::new(stream);
    while let Some(words) = request(&mut stream).await {
        let answer = {
            let mut disks = nodes.lock();
            let Some(claim) = disks.mounted.get(&host).cloned() else { return };
            disks.by_claim.get_mut(&claim).unwrap().command(&words)
        };
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() || stream.get_mut().flush().await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<String>> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let count: usize = line.trim().strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let length: usize = line.trim().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(length);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}
