//! The topology as it is written down: one ConfigMap a cluster, with the document and the topology operation that runs. Every write
//! names the resource version it was decided on, so it is also where a leader takes its epoch by compare-and-set.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, api::PostParams};
use serde::{Deserialize, Serialize};
use sluice_topology::{DocumentError, NodeId, SlotRanges, TopologyDocument};

use crate::{error::Error, names::Names};

/// Key of the document.
const DOCUMENT_KEY: &str = "topology.json";
/// Key of the running operation.
const OPERATION_KEY: &str = "operation.json";

/// Slots that go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The slots.
    pub slots: SlotRanges,
    /// The node they leave.
    pub from: NodeId,
    /// The node they go to.
    pub to: NodeId,
    /// The shard they leave.
    pub from_shard: u32,
    /// The shard they go to.
    pub to_shard: u32,
}

/// A change of the number of shards: planned once, from what the nodes said then, and carried out move by move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its number: the version the document had when it was planned.
    pub id: u64,
    /// Shards that had slots before.
    pub from_shards: u32,
    /// Shards that shall have slots after.
    pub to_shards: u32,
    /// The moves.
    pub moves: Vec<Move>,
    /// Keys to move, when the nodes could tell.
    #[serde(default)]
    pub keys_total: Option<u64>,
    /// Bytes to move, when the nodes could tell.
    #[serde(default)]
    pub bytes_total: Option<u64>,
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyRecord {
    /// The document.
    pub document: TopologyDocument,
    /// The operation that runs.
    pub operation: Option<Operation>,
    /// The version of the ConfigMap this was read from; `None` for one not written yet.
    pub resource_version: Option<String>,
}

/// Why a ConfigMap is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The document's key is missing.
    #[error("it has no key {DOCUMENT_KEY}")]
    Empty,
    /// The document cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The operation cannot be read.
    #[error("key {OPERATION_KEY} cannot be read: {0}")]
    Operation(#[from] serde_json::Error),
}

impl TopologyRecord {
    /// Reads a record.
    pub fn from_config_map(map: &ConfigMap) -> Result<Self, RecordError> {
        let data = map.data.as_ref().ok_or(RecordError::Empty)?;
        let document = TopologyDocument::from_json(data.get(DOCUMENT_KEY).ok_or(RecordError::Empty)?.as_bytes())?;
        let operation = data.get(OPERATION_KEY).map(|text| serde_json::from_str(text)).transpose()?;
        Ok(Self { document, operation, resource_version: map.metadata.resource_version.clone() })
    }

    /// Writes a record.
    pub fn to_config_map(&self, names: &Names, owner: &OwnerReference) -> Result<ConfigMap, Error> {
        self.document.validate()?;
        let mut data = BTreeMap::from([(DOCUMENT_KEY.to_owned(), self.document.to_json()?)]);
        if let Some(operation) = &self.operation {
            data.insert(OPERATION_KEY.into(), serde_json::to_string(operation)?);
        }
        Ok(ConfigMap {
            metadata: ObjectMeta {
                name: Some(names.topology()),
                namespace: Some(names.namespace.clone()),
                labels: Some(names.labels()),
                owner_references: Some(vec![owner.clone()]),
                resource_version: self.resource_version.clone(),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        })
    }

    /// Creates the record, or replaces exactly the version it was read from. A conflict is an error: somebody else has written.
    pub async fn write(&mut self, api: &Api<ConfigMap>, names: &Names, owner: &OwnerReference) -> Result<(), Error> {
        let map = self.to_config_map(names, owner)?;
        let what = format!("writing ConfigMap {}", names.topology());
        let written = match self.resource_version {
            None => api.create(&PostParams::default(), &map).await,
            Some(_) => api.replace(&names.topology(), &PostParams::default(), &map).await,
        };
        self.resource_version = written.map_err(Error::api(what))?.metadata.resource_version;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluice_topology::{ClusterId, LeaderEpoch, TopologyVersion};

    use super::*;

    #[test]
    fn a_record_round_trips_and_nonsense_is_refused() {
        let names = Names { cluster: "demo".into(), namespace: "ns".into(), domain: "cluster.local".into() };
        let document = TopologyDocument::new(ClusterId::from_bytes([1; 16]), LeaderEpoch(1), TopologyVersion(1));
        let move_ = Move {
            slots: "0-9".parse().unwrap(),
            from: NodeId::from_bytes([1; 20]),
            to: NodeId::from_bytes([2; 20]),
            from_shard: 0,
            to_shard: 1,
        };
        let operation =
            Operation { id: 1, from_shards: 1, to_shards: 2, moves: vec![move_], keys_total: None, bytes_total: Some(5) };
        let record = TopologyRecord { document, operation: Some(operation), resource_version: Some("5".into()) };
        let mut map = record.to_config_map(&names, &OwnerReference::default()).unwrap();
        assert_eq!(TopologyRecord::from_config_map(&map).unwrap(), record);
        assert!(TopologyRecord::from_config_map(&ConfigMap::default()).is_err());
        map.data.as_mut().unwrap().insert(DOCUMENT_KEY.into(), "{}".into());
        assert!(TopologyRecord::from_config_map(&map).is_err());
    }
}
