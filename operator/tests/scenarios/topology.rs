//! Making a cluster once, and the document afterwards.

use serde_json::json;
use sluice_operator::error::Error;
use sluice_topology::LeaderEpoch;

use crate::world::World;

async fn settled(shards: i32) -> World {
    let world = World::new(shards);
    world.until("a settled cluster", World::is_settled).await;
    world
}

#[tokio::test]
async fn a_cluster_is_made_once_and_a_steady_one_is_not_written_to() {
    let mut world = settled(3).await;
    assert_eq!(world.owned().values().copied().collect::<Vec<_>>(), [5462, 5461, 5461]);
    let id = world.document()["cluster_id"].clone();
    assert_eq!(world.status()["topology"]["clusterId"], id);
    assert_eq!(world.status()["readyShards"], 3);
    assert_eq!(world.status()["selector"], "app.kubernetes.io/name=sluice,sluice.dev/cluster=demo");

    world.clear_journal();
    for _ in 0..3 {
        world.round().await.unwrap();
    }
    world.restart_operator();
    world.round().await.unwrap();
    assert!(world.writes().is_empty(), "a reconcile of a steady cluster wrote {:?}", world.writes());
    assert_eq!(world.document()["cluster_id"], id);
}

#[tokio::test]
async fn the_document_is_written_down_before_any_node_hears_of_it() {
    let world = World::new(2);
    while world.document().is_null() {
        let told = world
            .nodes
            .lock()
            .by_claim
            .values()
            .any(|disk| disk.commands.iter().any(|command| command == "CLUSTERX SETTOPOLOGY"));
        assert!(!told);
        world.round().await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_document_is_rebuilt_from_the_nodes_and_never_made_anew() {
    let mut world = settled(2).await;
    let before = world.document();
    world.api.lock().remove("configmaps", "demo-topology");
    world.restart_operator();
    world.until("the document", |world| !world.document().is_null() && world.is_settled()).await;
    let after = world.document();
    assert_eq!(after["cluster_id"], before["cluster_id"]);
    assert_eq!(after["slots"], before["slots"]);
    assert!(after["leader_epoch"].as_u64() > before["leader_epoch"].as_u64());
}

#[tokio::test]
async fn a_lost_document_is_not_rebuilt_while_a_known_shard_is_silent() {
    let world = settled(2).await;
    world.api.lock().remove("configmaps", "demo-topology");
    world.nodes.lock().mounted.remove(&World::host(1));
    for _ in 0..3 {
        world.reconcile().await.unwrap();
    }
    assert!(world.document().is_null());
    let (status, reason, message) = world.condition("Degraded");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "TopologyLost"), "{message}");
}

#[tokio::test]
async fn volumes_of_a_deleted_cluster_are_found_again_with_their_slots() {
    let mut world = settled(2).await;
    let before = world.document();
    let spec = world.api.lock().get("sluiceclusters", "demo").unwrap()["spec"].clone();
    for (resource, name) in
        [("configmaps", "demo-topology"), ("secrets", "demo-admin"), ("statefulsets", "demo-0"), ("statefulsets", "demo-1")]
    {
        world.api.lock().remove(resource, name);
    }
    for resource in ["services", "serviceaccounts", "poddisruptionbudgets", "configmaps", "pods"] {
        let names = world.api.lock().names(resource);
        for name in names {
            world.api.lock().remove(resource, &name);
        }
    }
    world.api.lock().remove("sluiceclusters", "demo");
    world.api.lock().create(
        "sluiceclusters",
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "SluiceCluster", "metadata": {"name": "demo"}, "spec": spec}),
    );
    world.restart_operator();
    world.until("a settled cluster", World::is_settled).await;
    assert_eq!(world.document()["cluster_id"], before["cluster_id"]);
    assert_eq!(world.document()["slots"], before["slots"]);
}

#[tokio::test]
async fn a_lost_volume_is_a_condition_and_never_an_empty_shard() {
    let world = settled(2).await;
    let before = world.document();
    world.nodes.lock().by_claim.remove("data-demo-1-0");
    world.api.lock().remove("pods", "demo-1-0");
    world.until("VolumeLost", |world| world.is("VolumeLost")).await;
    world.change(|spec| spec["shards"] = json!(3));
    world.change(|spec| spec["rollout"]["restartedAt"] = json!("now"));
    world.clear_journal();
    for _ in 0..5 {
        world.round().await.unwrap();
    }
    assert!(!world.is("Available"));
    assert_eq!(world.condition("Progressing").1, "VolumeLost");
    assert_eq!(world.document()["slots"], before["slots"]);
    assert_eq!(world.document()["nodes"].as_array().unwrap().len(), 2 + 1, "a new shard may join; nothing is moved");
    assert_eq!(world.owned()[&1], 0, "the new node was given nothing");
    assert!(world.deletions("pods").is_empty(), "nothing is restarted");
    assert!(world.api.lock().names("slotmigrations").is_empty(), "nothing is moved");
}

#[tokio::test]
async fn every_volume_lost_makes_no_second_cluster() {
    let mut world = settled(2).await;
    world.nodes.lock().by_claim.clear();
    world.api.lock().remove("configmaps", "demo-topology");
    for pod in ["demo-0-0", "demo-1-0"] {
        world.api.lock().remove("pods", pod);
    }
    world.restart_operator();
    for _ in 0..6 {
        world.round().await.unwrap();
    }
    assert!(world.document().is_null());
    assert!(world.owned().values().all(|slots| *slots == 0));
    assert!(world.is("Degraded"));
}

#[tokio::test]
async fn an_older_leader_stands_back() {
    let world = settled(2).await;
    // Another operator has taken the cluster since.
    for disk in world.nodes.lock().by_claim.values_mut() {
        disk.leader = LeaderEpoch(9);
    }
    world.change(|spec| spec["shards"] = json!(3));
    let error = loop {
        if let Err(error) = world.round().await {
            break error;
        }
    };
    assert!(matches!(error, Error::Superseded { theirs: 9, .. }), "{error}");
    // What the older one writes is refused; a newer one, which knows of the other, is not.
    world.until("a lead above the other's", |world| world.document()["leader_epoch"].as_u64() > Some(9)).await;
}

#[tokio::test]
async fn a_document_is_only_written_over_the_version_that_was_read() {
    let world = settled(2).await;
    world.clear_journal();
    world.change(|spec| spec["shards"] = json!(3));
    world
        .until("three shards", |world| {
            world.owned().len() == 3 && world.is_settled() || {
                world.nodes.advance(4000);
                false
            }
        })
        .await;
    let written: Vec<_> = world.writes().into_iter().filter(|write| write.name == "demo-topology").collect();
    assert!(!written.is_empty());
    for write in written {
        assert_eq!(write.method, http::Method::PUT);
        assert!(write.body["metadata"]["resourceVersion"].is_string());
    }
}

#[tokio::test]
async fn objects_of_others_are_left_alone() {
    let world = World::new(1);
    world.api.lock().create("services", json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo"}, "spec": {}}));
    let error = world.round().await.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    assert_eq!(world.condition("Degraded").1, "ReconcileFailed");
    assert_eq!(world.api.lock().get("services", "demo").unwrap()["spec"], json!({}));
}

#[tokio::test]
async fn a_spec_that_came_past_the_schema_is_refused_and_changes_nothing() {
    let world = settled(1).await;
    world.clear_journal();
    for (what, change) in [
        ("shrunk volume", json!({"storage": {"size": "500Mi"}})),
        ("bad quantity", json!({"storage": {"size": "much"}})),
        ("owned setting", json!({"config": {"requirepass": "x"}})),
        ("no shards", json!({"shards": 0})),
        ("too many shards", json!({"shards": 1025})),
    ] {
        let before = world.api.lock().get("sluiceclusters", "demo").unwrap()["spec"].clone();
        world.change(|spec| spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
        world.round().await.unwrap();
        assert_eq!(world.condition("Degraded").1, "InvalidSpec", "{what}");
        assert!(
            world.writes().iter().all(|write| write.subresource.as_deref() == Some("status")),
            "{what}: {:?}",
            world.writes()
        );
        world.change(|spec| *spec = before);
        world.round().await.unwrap();
        assert!(!world.is("Degraded"), "{what}");
    }
}

#[tokio::test]
async fn no_secret_is_written_anywhere_but_to_its_secret() {
    let world = settled(1).await;
    let password = {
        let api = world.api.lock();
        api.get("secrets", "demo-admin").unwrap()["data"]["password"].as_str().unwrap().to_owned()
    };
    let api = world.api.lock();
    for ((resource, name), object) in api.objects.iter().filter(|((resource, _), _)| resource != "secrets") {
        assert!(!object.to_string().contains(&password), "{resource}/{name}");
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_left_alone_and_breaks_nothing() {
    let world = settled(1).await;
    world.clear_journal();
    world.change(|spec| spec["shards"] = json!("many"));
    world.round().await.unwrap();
    assert!(world.writes().is_empty());
    world.change(|spec| spec["shards"] = json!(1));
    world.round().await.unwrap();
    assert!(world.is_settled());
}
