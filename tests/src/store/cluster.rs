//! Several stores as a cluster: the operator's part is played here, as thinly as possible.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sluice_topology::{
    ClusterId, JobId, LeaderEpoch, NodeEntry, NodeId, Slot, SlotEntry, SlotEpoch, SlotRanges, TopologyDocument, TopologyVersion,
    admin::{MigrationState, MigrationStatus, NodeStatus},
};

use super::process::{Setup, StoreProcess, wait_for};

/// Stores on loopback that know each other.
pub struct LocalCluster {
    /// The stores, by their place in the topology. One that was killed is `None` until it is started again.
    pub nodes: Vec<Option<StoreProcess>>,
    setups: Vec<Setup>,
    ids: Vec<NodeId>,
    version: u64,
    /// Where the document says that a node's admin plane is.
    admin_ports: Vec<u16>,
}

impl LocalCluster {
    /// Starts `count` nodes and assigns all slots, in equal runs, to the first `owners` of them.
    pub async fn start(root: &Path, count: usize, owners: usize, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_of(None, root, count, owners, settings).await
    }

    /// The same with a certain build of the store.
    pub async fn start_of(
        binary: Option<PathBuf>,
        root: &Path,
        count: usize,
        owners: usize,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_each(binary, root, owners, &vec![settings; count]).await
    }

    /// The same of nodes with settings of their own.
    pub async fn start_each(
        binary: Option<PathBuf>,
        root: &Path,
        owners: usize,
        settings: &[&[(&str, &str)]],
    ) -> anyhow::Result<Self> {
        let mut cluster = Self { nodes: Vec::new(), setups: Vec::new(), ids: Vec::new(), version: 0, admin_ports: Vec::new() };
        for (number, settings) in settings.iter().enumerate() {
            let settings: Vec<(&str, &str)> = [("cluster-enabled", "yes")].into_iter().chain(settings.iter().copied()).collect();
            let mut setup = Setup::new(root.join(format!("node-{number}")), &settings)?;
            setup.binary.clone_from(&binary);
            let node = setup.start().await?;
            cluster.ids.push(node.admin().await?.status().await?.node_id);
            cluster.nodes.push(Some(node));
            cluster.admin_ports.push(setup.admin_port);
            cluster.setups.push(setup);
        }
        let runs = SlotRanges::full().split(SlotRanges::full().len().div_ceil(owners));
        let slots = runs.into_iter().zip(&cluster.ids);
        let slots = slots.map(|(slots, owner)| SlotEntry { slots, owner: *owner, epoch: SlotEpoch(1) }).collect();
        cluster.push(slots).await?;
        Ok(cluster)
    }

    /// A node that is running.
    pub fn node(&self, number: usize) -> &StoreProcess {
        match &self.nodes[number] {
            Some(node) => node,
            None => panic!("the test has killed node {number}"),
        }
    }

    /// The id of a node.
    pub fn id(&self, number: usize) -> NodeId {
        self.ids[number]
    }

    /// Addresses of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.setups.iter().map(|setup| format!("127.0.0.1:{}", setup.port)).collect()
    }

    /// Where a node's admin plane is.
    pub fn admin_address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.setups[number].admin_port)
    }

    /// From the next document on the nodes reach that one's admin plane at another port: that of a proxy.
    pub fn reach(&mut self, number: usize, admin_port: u16) {
        self.admin_ports[number] = admin_port;
    }

    /// kill -9.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].take().context("the node is killed already")?.kill()
    }

    /// Starts a killed node again, on its own data, and waits until it has asked its peers.
    pub async fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.nodes[number] = Some(self.setups[number].start().await?);
        wait_for("a restarted node to be ready", || async { Ok(self.status(number).await?.ready) }).await
    }

    /// A node's account of itself.
    pub async fn status(&self, number: usize) -> anyhow::Result<NodeStatus> {
        Ok(self.node(number).admin().await?.status().await?)
    }

    /// Pushes a document of those slots to every running node.
    pub async fn push(&mut self, slots: Vec<SlotEntry>) -> anyhow::Result<()> {
        self.version += 1;
        let mut document = TopologyDocument::new(ClusterId::from_bytes([7; 16]), LeaderEpoch(1), TopologyVersion(self.version));
        document.slots = slots;
        for (number, (setup, id)) in self.setups.iter().zip(&self.ids).enumerate() {
            let (host, shard, admin_port) = ("127.0.0.1".to_owned(), number as u32, self.admin_ports[number]);
            document.nodes.push(NodeEntry { id: *id, shard, host, port: setup.port, admin_port });
        }
        for node in self.nodes.iter().flatten() {
            node.admin().await?.set_topology(&document).await?;
        }
        Ok(())
    }

    /// Pushes what the nodes themselves say, as the operator does after a scale.
    pub async fn push_truth(&mut self) -> anyhow::Result<()> {
        let mut slots = Vec::new();
        for number in 0..self.nodes.len() {
            let status = self.status(number).await?;
            slots.extend(status.slots.iter().filter(|entry| entry.owner == status.node_id).cloned());
        }
        self.push(slots).await
    }

    /// Starts a migration.
    pub async fn migrate(&self, from: usize, to: usize, slots: &SlotRanges) -> anyhow::Result<JobId> {
        Ok(self.node(from).admin().await?.migrate(slots, self.ids[to], LeaderEpoch(1)).await?)
    }

    /// Waits for the end of a migration.
    pub async fn ended(&self, from: usize, job: JobId) -> anyhow::Result<MigrationStatus> {
        let find = || async move {
            let jobs = self.status(from).await?.migrations;
            jobs.into_iter().find(|status| status.job == job).with_context(|| format!("job {job} is forgotten"))
        };
        wait_for("the end of a migration", || async { Ok(find().await?.state != MigrationState::Running) }).await?;
        find().await
    }

    /// The same when nodes were killed since it began: a source goes on with its jobs, and has forgotten one that had ended before.
    pub async fn ended_if_known(&self, from: usize, job: JobId) -> anyhow::Result<Option<MigrationStatus>> {
        let known = self.status(from).await?.migrations.iter().any(|status| status.job == job);
        if known { Ok(Some(self.ended(from, job).await?)) } else { Ok(None) }
    }

    /// Waits until every slot has exactly one owner that says so of itself, and none is fenced. At no time may two nodes serve a slot.
    pub async fn settled(&self) -> anyhow::Result<()> {
        wait_for("one owner for every slot", || async {
            let (before, after) = (self.all().await?, self.all().await?);
            assert_exclusive(&before, &after);
            ensure!(after.iter().all(|status| status.fenced.is_empty()), "slots are fenced");
            let mut owners = vec![0u32; Slot::all().len()];
            after.iter().for_each(|status| status.owned().iter().for_each(|slot| owners[slot.index()] += 1));
            ensure!(owners.iter().all(|count| *count == 1), "a slot has no owner, or is being switched");
            Ok(true)
        })
        .await
    }

    async fn all(&self) -> anyhow::Result<Vec<NodeStatus>> {
        let mut all = Vec::new();
        for number in 0..self.nodes.len() {
            all.push(self.status(number).await?);
        }
        Ok(all)
    }
}

/// A node that served a slot at one epoch both before and after another was asked served it at that moment, too.
fn assert_exclusive(before: &[NodeStatus], after: &[NodeStatus]) {
    let serves = |status: &NodeStatus, slot: Slot| {
        let entry = status.slots.iter().find(|entry| entry.owner == status.node_id && entry.slots.contains(slot));
        entry.filter(|_| !status.fenced.contains(slot)).map(|entry| entry.epoch)
    };
    for (earlier, first) in before.iter().enumerate() {
        for (later, second) in before.iter().enumerate().skip(earlier + 1) {
            for slot in first.owned().intersection(&second.owned()).iter() {
                let epoch = serves(first, slot);
                let twice = epoch.is_some() && serves(&after[earlier], slot) == epoch && serves(second, slot).is_some();
                assert!(!twice, "slot {slot} is served by nodes {earlier} and {later} at once");
            }
        }
    }
}
