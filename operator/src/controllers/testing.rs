//! Small values for tests of the planners.

use sluice_topology::{
    ClusterId, InstanceId, JobId, LeaderEpoch, NodeId, SlotEntry, SlotEpoch, SlotRanges, TopologyVersion,
    admin::{MigrationState, MigrationStatus, NodeStatus, PersistenceStatus},
};

/// The cluster every status here speaks of.
pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// Node id number n.
pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 20])
}

/// A node that owns those slots at epoch 1.
pub(crate) fn status(n: u8, owned: &str) -> NodeStatus {
    let slots: SlotRanges = owned.parse().unwrap();
    let entries = if slots.is_empty() { vec![] } else { vec![SlotEntry { slots, owner: node_id(n), epoch: SlotEpoch(1) }] };
    NodeStatus {
        node_id: node_id(n),
        instance: InstanceId::from_bytes([n; 16]),
        cluster_id: Some(CLUSTER),
        leader_epoch: LeaderEpoch(1),
        topology_version: TopologyVersion(1),
        software_version: "test".into(),
        retired: false,
        ready: true,
        nodes: Vec::new(),
        slots: entries,
        fenced: SlotRanges::empty(),
        persistence: PersistenceStatus {
            wal: true,
            last_flush_round: 1,
            recovered_round: 1,
            clean_shutdown: true,
            latest_sequence: 1,
        },
        migrations: Vec::new(),
    }
}

/// A node that was never in a cluster.
pub(crate) fn fresh(n: u8) -> NodeStatus {
    NodeStatus { cluster_id: None, leader_epoch: LeaderEpoch(0), topology_version: TopologyVersion(0), ..status(n, "") }
}

/// A migration job.
pub(crate) fn job(number: u64, source: u8, target: u8, slots: &str, state: MigrationState) -> MigrationStatus {
    let fresh = MigrationStatus::new(JobId(number), node_id(source), node_id(target), slots.parse().unwrap());
    MigrationStatus { state, attempts: 1, ..fresh }
}
