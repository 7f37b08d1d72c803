//! Another number of shards.

use serde_json::json;
use sluice_topology::admin::MigrationState;

use crate::world::World;

async fn settled(shards: i32) -> World {
    let world = World::new(shards);
    world.until("a settled cluster", World::is_settled).await;
    world
}

/// Rounds with slots moving until the cluster has settled on so many shards.
async fn scale(world: &World, shards: i32, step: usize) {
    world.change(|spec| spec["shards"] = json!(shards));
    finish(world, shards, step).await;
}

async fn finish(world: &World, shards: i32, step: usize) {
    for _ in 0..200 {
        world.round().await.unwrap();
        world.nodes.advance(step);
        let sizes = world.owned();
        let settled = world.is_settled() && world.condition("Scaling").1 == "Settled";
        if settled && i32::try_from(sizes.len()) == Ok(shards) && world.status()["replicas"] == json!(shards) {
            assert_eq!(sizes.values().sum::<usize>(), 16384);
            assert!(sizes.values().max().unwrap() - sizes.values().min().unwrap() <= 1, "{sizes:?}");
            return;
        }
    }
    panic!("{:#}\n{:?}", world.status(), world.owned());
}

#[tokio::test]
async fn out_and_in_again_moves_every_slot_and_keeps_the_volume() {
    let world = settled(2).await;
    scale(&world, 3, 1500).await;
    assert_eq!(world.document()["nodes"].as_array().unwrap().len(), 3);
    scale(&world, 2, 1500).await;
    let retired = world.document()["retired"].as_array().unwrap().len();
    assert_eq!((world.document()["nodes"].as_array().unwrap().len(), retired), (2, 1));
    assert!(world.api.lock().get("statefulsets", "demo-2").is_none());
    {
        let api = world.api.lock();
        let volume = api.get("persistentvolumeclaims", "data-demo-2-0").expect("the volume is kept");
        assert!(volume["metadata"]["annotations"]["sluice.dev/retired-node"].is_string());
    }
    // Out once more: the shard's next life has a volume of its own.
    scale(&world, 3, 5000).await;
    assert!(world.api.lock().get("persistentvolumeclaims", "data-2-demo-2-0").is_some());
    let deletions = world.deletions("persistentvolumeclaims");
    assert!(deletions.is_empty(), "{deletions:?}");
}

#[tokio::test]
async fn scale_in_is_refused_while_keys_remain() {
    let world = settled(3).await;
    world.nodes.lock().by_claim.get_mut("data-demo-2-0").unwrap().keys = 7;
    world.change(|spec| spec["shards"] = json!(2));
    for _ in 0..40 {
        world.round().await.unwrap();
        world.nodes.advance(5000);
    }
    assert_eq!(world.owned()[&2], 0, "its slots are elsewhere");
    assert!(world.api.lock().get("statefulsets", "demo-2").is_some(), "and it stays");
    assert!(world.document()["retired"].as_array().unwrap().is_empty());
    assert!(world.condition("Scaling").2.contains("7 keys"), "{:?}", world.condition("Scaling"));
    world.nodes.lock().by_claim.get_mut("data-demo-2-0").unwrap().keys = 0;
    finish(&world, 2, 5000).await;
}

#[tokio::test]
async fn a_shard_that_cannot_be_asked_is_not_removed() {
    let world = settled(3).await;
    world.change(|spec| spec["shards"] = json!(2));
    for _ in 0..20 {
        world.round().await.unwrap();
        world.nodes.advance(5000);
        if world.owned()[&2] == 0 {
            break;
        }
    }
    world.nodes.lock().mounted.remove(&World::host(2));
    for _ in 0..10 {
        world.reconcile().await.unwrap();
        world.reconcile_migrations().await;
    }
    assert!(world.api.lock().get("statefulsets", "demo-2").is_some());
    assert!(world.document()["retired"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_label_taken_away_hides_no_shard() {
    let world = settled(3).await;
    for (resource, name) in [("statefulsets", "demo-2"), ("pods", "demo-2-0")] {
        let mut api = world.api.lock();
        api.get_mut(resource, name).unwrap()["metadata"]["labels"] = json!({});
    }
    world.change(|spec| spec["shards"] = json!(2));
    world.reconcile().await.unwrap();
    assert!(world.api.lock().get("statefulsets", "demo-2").is_some());
    assert_eq!(world.owned()[&2], 5461, "nothing was removed before its slots were moved");
    finish(&world, 2, 5000).await;
}

#[tokio::test]
async fn a_scale_reversed_half_way_is_a_new_plan() {
    let world = settled(2).await;
    world.change(|spec| spec["shards"] = json!(4));
    for _ in 0..8 {
        world.round().await.unwrap();
        world.nodes.advance(700);
    }
    assert!(world.owned().values().any(|slots| (1..8192).contains(slots)), "half-way: {:?}", world.owned());
    scale(&world, 2, 700).await;
    scale(&world, 3, 2000).await;
}

#[tokio::test]
async fn no_node_is_sent_slots_before_its_name_leads_to_it() {
    let world = settled(2).await;
    world.unresolved.lock().unwrap().push(World::host(2));
    world.change(|spec| spec["shards"] = json!(3));
    for _ in 0..6 {
        world.round().await.unwrap();
    }
    assert_eq!(world.document()["nodes"].as_array().unwrap().len(), 2);
    assert!(world.api.lock().names("slotmigrations").is_empty());
    assert!(world.condition("Scaling").2.contains("name"), "{:?}", world.condition("Scaling"));
    world.unresolved.lock().unwrap().clear();
    finish(&world, 3, 3000).await;
}

#[tokio::test]
async fn an_operator_that_dies_mid_scale_is_followed_by_one_that_watches_the_same_jobs() {
    let mut world = settled(2).await;
    world.change(|spec| spec["shards"] = json!(3));
    for _ in 0..200 {
        world.restart_operator();
        // One that has just started has not taken the lead; that is no error.
        world.round().await.unwrap();
        world.nodes.advance(400);
        if world.is_settled() && world.owned().len() == 3 && world.condition("Scaling").1 == "Settled" {
            break;
        }
    }
    assert!(world.owned().values().all(|slots| *slots > 5000), "{:?}", world.owned());
    let jobs: usize = world.nodes.lock().by_claim.values().map(|disk| disk.jobs.len()).sum();
    assert_eq!(jobs, 2, "one job a move, whoever watches it");
}

#[tokio::test]
async fn a_job_that_fails_is_shown_and_tried_again() {
    let world = settled(2).await;
    world.change(|spec| spec["shards"] = json!(3));
    world.until("a job", |world| world.nodes.lock().by_claim.values().any(|disk| !disk.jobs.is_empty())).await;
    for disk in world.nodes.lock().by_claim.values_mut() {
        for job in &mut disk.jobs {
            (job.state, job.last_error) = (MigrationState::Failed, "the target is out of disk".into());
        }
    }
    world.reconcile_migrations().await;
    world.reconcile().await.unwrap();
    let shown = world.api.lock().objects.iter().any(|((resource, _), object)| {
        resource == "slotmigrations" && object["status"]["lastError"] == "the target is out of disk"
    });
    assert!(shown);
    assert!(world.condition("Scaling").2.contains("out of disk"), "{:?}", world.condition("Scaling"));
}

#[tokio::test]
async fn a_migration_made_by_hand_runs_pauses_and_cancels() {
    let world = settled(2).await;
    let migration = |name: &str, slots: &str, target: i32| {
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "SlotMigration", "metadata": {"name": name},
               "spec": {"clusterRef": {"name": "demo"}, "slots": slots, "target": {"shard": target}, "paused": false, "cancel": false}})
    };
    world.api.lock().create("slotmigrations", migration("mine", "0-99", 1));
    world.api.lock().create("slotmigrations", migration("nowhere", "0-99", 9));
    world.api.lock().create("slotmigrations", migration("nonsense", "9-5", 1));
    for _ in 0..6 {
        world.round().await.unwrap();
        world.nodes.advance(30);
    }
    let get = |name: &str| world.api.lock().get("slotmigrations", name).unwrap().clone();
    assert_eq!(get("nowhere")["status"]["state"], "Invalid");
    assert_eq!(get("nonsense")["status"]["state"], "Invalid");
    for _ in 0..6 {
        world.round().await.unwrap();
        world.nodes.advance(100);
    }
    assert_eq!(get("mine")["status"]["state"], "Complete");
    assert_eq!(get("mine")["status"]["percent"], 100);
    assert!(get("mine")["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(world.owned()[&1], 8192 + 100);
    world
        .until("the document follows", |world| {
            world.document()["slots"].as_array().unwrap().iter().any(|entry| entry["epoch"] == json!(2))
        })
        .await;
    // Nobody asked for another number of shards: what people move stays where they moved it.
    for _ in 0..5 {
        world.round().await.unwrap();
    }
    assert_eq!(world.owned()[&1], 8192 + 100);

    world.api.lock().create("slotmigrations", migration("cancelled", "200-299", 1));
    world.round().await.unwrap();
    world.round().await.unwrap();
    world.nodes.advance(10);
    world.api.lock().get_mut("slotmigrations", "cancelled").unwrap()["spec"]["cancel"] = json!(true);
    for _ in 0..4 {
        world.round().await.unwrap();
        world.nodes.advance(10);
    }
    assert_eq!(get("cancelled")["status"]["state"], "Cancelled");
    assert_eq!(world.owned()[&1], 8192 + 110, "slots already moved stay");
}

#[tokio::test]
async fn a_migration_goes_with_its_cluster_and_a_deleted_one_stops_its_job() {
    let world = settled(2).await;
    world.change(|spec| spec["shards"] = json!(3));
    world.until("a running job", |world| world.nodes.lock().by_claim.values().any(|disk| !disk.jobs.is_empty())).await;
    let names = world.api.lock().names("slotmigrations");
    let deleted = json!("2026-01-01T00:00:01Z");
    // One is deleted: its job is stopped before it goes.
    world.api.lock().get_mut("slotmigrations", &names[0]).unwrap()["metadata"]["deletionTimestamp"] = deleted.clone();
    for _ in 0..3 {
        world.reconcile_migrations().await;
    }
    let running = || {
        let disks = world.nodes.lock();
        disks.by_claim.values().flat_map(|disk| disk.jobs.clone()).filter(|job| job.state == MigrationState::Running).count()
    };
    assert_eq!(running(), 1);
    let finalizers = |name: &str| {
        world.api.lock().get("slotmigrations", name).unwrap()["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((finalizers(&names[0]), finalizers(&names[1])), (0, 1));
    // The cluster is deleted, and waits for what belongs to it: nothing of it waits for the cluster.
    world.api.lock().get_mut("sluiceclusters", "demo").unwrap()["metadata"]["deletionTimestamp"] = deleted.clone();
    world.api.lock().get_mut("slotmigrations", &names[1]).unwrap()["metadata"]["deletionTimestamp"] = deleted;
    world.reconcile().await.unwrap();
    world.reconcile_migrations().await;
    assert_eq!(finalizers(&names[1]), 0);
}
