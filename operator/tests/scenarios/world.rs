//! A small Kubernetes: the API in memory, a kubelet that does what it is told when it is told, and nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::Method;
use kube::core::DeserializeGuard;
use serde_json::{Value, json};
use sluice_operator::{
    api::{SlotMigration, SluiceCluster},
    context::{Context, StoreDefaults},
    controllers::{cluster, slot_migration},
    error::Error,
    leader_election::Leadership,
    metrics::Metrics,
    network::{Network, NodeAddress},
};

use crate::{
    api::{FakeApi, Write},
    node::FakeNodes,
};

/// Names lead to nodes on loopback.
struct Loopback {
    nodes: FakeNodes,
    unresolved: Arc<Mutex<Vec<String>>>,
}

impl Network for Loopback {
    fn admin_endpoint(&self, node: &NodeAddress) -> (String, u16) {
        ("127.0.0.1".into(), self.nodes.lock().ports.get(&node.host).copied().unwrap_or(1))
    }

    fn name_leads_to(&self, node: NodeAddress) -> BoxFuture<'static, bool> {
        let found = !self.unresolved.lock().unwrap().contains(&node.host);
        async move { found }.boxed()
    }
}

pub struct World {
    pub api: FakeApi,
    pub nodes: FakeNodes,
    pub unresolved: Arc<Mutex<Vec<String>>>,
    pub ctx: Arc<Context>,
    /// Pods made from now on do not become ready when their image is this.
    pub bad_image: Option<String>,
}

impl World {
    /// A world with one cluster `demo` of so many shards.
    pub fn new(shards: i32) -> Self {
        let (api, nodes, unresolved) = (FakeApi::default(), FakeNodes::default(), Arc::default());
        let ctx = operator(&api, &nodes, &unresolved);
        let world = Self { api, nodes, unresolved, ctx, bad_image: None };
        let manifest = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "SluiceCluster", "metadata": {"name": "demo"},
            "spec": {"shards": shards, "storage": {"size": "1Gi"}},
        });
        let cluster: SluiceCluster = serde_json::from_value(manifest).unwrap();
        world.api.lock().create("sluiceclusters", serde_json::to_value(cluster).unwrap());
        world
    }

    /// Another operator process: it remembers nothing.
    pub fn restart_operator(&mut self) {
        self.ctx = operator(&self.api, &self.nodes, &self.unresolved);
    }

    pub fn host(shard: u32) -> String {
        format!("demo-{shard}-0.demo-nodes.ns.svc.cluster.local")
    }

    pub async fn reconcile(&self) -> Result<(), Error> {
        let Some(object) = self.api.lock().get("sluiceclusters", "demo").cloned() else { return Ok(()) };
        let object: DeserializeGuard<SluiceCluster> = serde_json::from_value(object).unwrap();
        cluster::reconcile(Arc::new(object), Arc::clone(&self.ctx)).await.map(|_| ())
    }

    pub async fn reconcile_migrations(&self) {
        let all: Vec<Value> = {
            let api = self.api.lock();
            api.names("slotmigrations").iter().filter_map(|name| api.get("slotmigrations", name).cloned()).collect()
        };
        for object in all {
            let object: DeserializeGuard<SlotMigration> = serde_json::from_value(object).unwrap();
            slot_migration::reconcile(Arc::new(object), Arc::clone(&self.ctx)).await.unwrap();
        }
    }

    /// Does what StatefulSet controller, volume provisioner and kubelet do.
    pub async fn kubelet(&self) {
        let sets: Vec<Value> = {
            let api = self.api.lock();
            api.names("statefulsets").iter().filter_map(|name| api.get("statefulsets", name).cloned()).collect()
        };
        let orphans: Vec<String> = {
            let api = self.api.lock();
            let names = api.names("pods");
            names.into_iter().filter(|pod| api.get("statefulsets", pod.strip_suffix("-0").unwrap()).is_none()).collect()
        };
        for pod in orphans {
            self.api.lock().remove("pods", &pod);
            self.nodes.lock().mounted.retain(|host, _| !host.starts_with(&format!("{pod}.")));
        }
        for set in sets {
            let name = set["metadata"]["name"].as_str().unwrap().to_owned();
            let pod = format!("{name}-0");
            let host = format!("{pod}.demo-nodes.ns.svc.cluster.local");
            self.api.lock().get_mut("statefulsets", &name).unwrap()["status"] =
                json!({"observedGeneration": set["metadata"]["generation"]});
            if self.api.lock().get("pods", &pod).is_some() {
                continue;
            }
            let template = &set["spec"]["template"];
            let claim = format!("{}-{pod}", set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"].as_str().unwrap());
            let labels = set["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"].clone();
            let good = self.bad_image.as_deref() != template["spec"]["containers"][0]["image"].as_str();
            {
                let mut api = self.api.lock();
                if api.get("persistentvolumeclaims", &claim).is_none() {
                    let spec = set["spec"]["volumeClaimTemplates"][0]["spec"].clone();
                    api.create("persistentvolumeclaims", json!({"metadata": {"name": claim, "labels": labels}, "spec": spec}));
                }
                let state = if good {
                    json!({"running": {}})
                } else {
                    json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
                };
                let ready = if good { "True" } else { "False" };
                api.create(
                    "pods",
                    json!({
                        "metadata": {"name": pod, "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"]},
                        "spec": template["spec"],
                        "status": {
                            "podIP": "10.0.0.1",
                            "conditions": [{"type": "Ready", "status": ready}],
                            "containerStatuses": [{"name": "store", "image": "x", "imageID": "", "ready": good, "restartCount": 0, "state": state}],
                        },
                    }),
                );
            }
            if good {
                self.nodes.listen(&host).await;
                self.nodes.start(&host, &claim);
            } else {
                self.nodes.lock().mounted.remove(&host);
            }
        }
    }

    /// One round of everybody.
    pub async fn round(&self) -> Result<(), Error> {
        self.reconcile().await?;
        self.reconcile_migrations().await;
        self.kubelet().await;
        Ok(())
    }

    /// Rounds until that is so.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..60 {
            if done(self) {
                return;
            }
            self.round().await.unwrap();
        }
        panic!("{what} never happened; status: {:#}", self.status());
    }

    pub fn status(&self) -> Value {
        self.api.lock().get("sluiceclusters", "demo").map(|object| object["status"].clone()).unwrap_or_default()
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.status();
        let found = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == type_).cloned();
        let text = |key: &str| found.as_ref().and_then(|found| found[key].as_str()).unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    pub fn is(&self, type_: &str) -> bool {
        self.condition(type_).0 == "True"
    }

    /// Available, and nothing on its way.
    pub fn is_settled(&self) -> bool {
        self.is("Available") && !self.is("Progressing") && self.is("TopologyConverged")
    }

    /// Changes the spec as a user does.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut api = self.api.lock();
        let before = api.get("sluiceclusters", "demo").cloned().unwrap();
        change(&mut api.get_mut("sluiceclusters", "demo").unwrap()["spec"]);
        api.touch("sluiceclusters", "demo", &before);
    }

    /// Forgets what was written so far.
    pub fn clear_journal(&self) {
        self.api.lock().journal.clear();
    }

    /// Writes since, Events left out.
    pub fn writes(&self) -> Vec<Write> {
        self.api.lock().journal.iter().filter(|write| write.resource != "events").cloned().collect()
    }

    pub fn deletions(&self, resource: &str) -> Vec<Write> {
        self.writes().into_iter().filter(|write| write.method == Method::DELETE && write.resource == resource).collect()
    }

    pub fn document(&self) -> Value {
        let api = self.api.lock();
        let text =
            api.get("configmaps", "demo-topology").and_then(|map| map["data"]["topology.json"].as_str().map(str::to_owned));
        serde_json::from_str(&text.unwrap_or_else(|| "null".into())).unwrap()
    }

    /// Slots each running node owns, by shard.
    pub fn owned(&self) -> BTreeMap<u32, usize> {
        let hosts: Vec<String> = self.nodes.lock().mounted.keys().cloned().collect();
        hosts
            .iter()
            .map(|host| {
                let shard =
                    host.split('.').next().unwrap().strip_suffix("-0").unwrap().strip_prefix("demo-").unwrap().parse().unwrap();
                (shard, self.nodes.disk_of(host).owned().len())
            })
            .collect()
    }
}

fn operator(api: &FakeApi, nodes: &FakeNodes, unresolved: &Arc<Mutex<Vec<String>>>) -> Arc<Context> {
    let network = Loopback { nodes: nodes.clone(), unresolved: Arc::clone(unresolved) };
    Arc::new(Context::new(
        api.client(),
        Arc::new(network),
        StoreDefaults { image: "store:1".into(), ..StoreDefaults::default() },
        Leadership::unconditional(),
        Arc::new(Metrics::new()),
    ))
}
