//! Rolling restarts.

use serde_json::json;

use crate::world::World;

async fn settled(shards: i32) -> World {
    let world = World::new(shards);
    world.until("a settled cluster", World::is_settled).await;
    world
}

fn restart(world: &World, text: &str) {
    world.change(|spec| spec["rollout"]["restartedAt"] = json!(text));
}

fn rolled(world: &World) -> bool {
    world.is_settled() && world.status()["rollout"].is_null() && world.condition("RollingRestart").1 == "UpToDate"
}

#[tokio::test]
async fn every_pod_is_flushed_then_deleted_by_uid_and_checked_one_at_a_time() {
    let world = settled(3).await;
    let uids: Vec<String> = (0..3)
        .map(|shard| {
            world.api.lock().get("pods", &format!("demo-{shard}-0")).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
        })
        .collect();
    world.clear_journal();
    restart(&world, "now");
    let mut rounds = 0;
    while rounds < 3 || !rolled(&world) {
        world.reconcile().await.unwrap();
        let gone = (0..3).filter(|shard| world.api.lock().get("pods", &format!("demo-{shard}-0")).is_none()).count();
        assert!(gone <= 1, "more than one pod at a time");
        world.kubelet().await;
        rounds += 1;
        assert!(rounds < 60, "{:#}", world.status());
    }
    let deletions = world.deletions("pods");
    assert_eq!(deletions.len(), 3);
    for (shard, deletion) in deletions.iter().enumerate() {
        assert_eq!(deletion.name, format!("demo-{shard}-0"));
        assert_eq!(deletion.body["preconditions"]["uid"], json!(uids[shard]));
    }
    // The receipt was in the status before the pod went.
    let journal = world.writes();
    for deletion in 0..3 {
        let at = journal
            .iter()
            .position(|write| write.method == http::Method::DELETE && write.name == format!("demo-{deletion}-0"))
            .unwrap();
        let receipt = journal[..at].iter().rev().find(|write| write.subresource.as_deref() == Some("status")).unwrap();
        assert_eq!(receipt.body["status"]["rollout"]["current"]["receipt"]["round"], json!(1));
        assert_eq!(receipt.body["status"]["shards"][deletion]["lastReceipt"]["round"], json!(1));
    }
    for shard in 0..3 {
        assert_eq!(world.status()["shards"][shard]["recoveredRound"], json!(1));
    }
}

#[tokio::test]
async fn a_lower_recovered_round_halts_the_roll() {
    let world = settled(3).await;
    restart(&world, "now");
    world.until("the first deletion", |world| !world.deletions("pods").is_empty()).await;
    // The pod is back, with a volume that has not what the receipt says.
    world.nodes.lock().by_claim.get_mut("data-demo-0-0").unwrap().recovered = 0;
    world.until("a halt", |world| !world.status()["rollout"]["halted"].is_null()).await;
    assert_eq!(world.status()["rollout"]["halted"]["reason"], "WritesLost");
    assert_eq!(world.condition("Degraded").1, "RolloutHalted");
    for _ in 0..5 {
        world.round().await.unwrap();
    }
    assert_eq!(world.deletions("pods").len(), 1, "nothing else is restarted");
    restart(&world, "a person has looked");
    world.until("the roll goes on", rolled).await;
}

#[tokio::test]
async fn another_instance_or_an_unclean_end_halts_the_roll() {
    for (reason, spoil) in [
        (
            "InstanceChanged",
            (|disk| disk.instance = sluice_topology::InstanceId::from_bytes([99; 16])) as fn(&mut crate::node::Disk),
        ),
        ("UncleanShutdown", |disk| disk.clean = false),
    ] {
        let world = settled(2).await;
        restart(&world, "now");
        world.until("the first deletion", |world| !world.deletions("pods").is_empty()).await;
        spoil(world.nodes.lock().by_claim.get_mut("data-demo-0-0").unwrap());
        world.until("a halt", |world| !world.status()["rollout"]["halted"].is_null()).await;
        assert_eq!(world.status()["rollout"]["halted"]["reason"], reason);
        assert_eq!(world.deletions("pods").len(), 1);
    }
}

#[tokio::test]
async fn an_operator_that_dies_between_any_two_steps_is_followed_by_one_that_goes_on() {
    let mut world = settled(3).await;
    restart(&world, "now");
    for _ in 0..60 {
        world.restart_operator();
        world.round().await.unwrap();
        if rolled(&world) && world.deletions("pods").len() == 3 {
            return;
        }
    }
    panic!("{:#}", world.status());
}

#[tokio::test]
async fn a_bad_image_stops_at_one_pod_and_can_be_corrected() {
    let mut world = settled(3).await;
    world.bad_image = Some("store:broken".into());
    world.change(|spec| spec["image"] = json!("store:broken"));
    for _ in 0..8 {
        world.round().await.unwrap();
    }
    assert_eq!(world.deletions("pods").len(), 1, "the others go on serving");
    assert!(world.condition("Available").2.contains("ImagePullBackOff"), "{:?}", world.condition("Available"));
    world.change(|spec| spec["image"] = json!("store:2"));
    world.until("the corrected image everywhere", rolled).await;
    for shard in 0..3 {
        let image = world.api.lock().get("pods", &format!("demo-{shard}-0")).unwrap()["spec"]["containers"][0]["image"].clone();
        assert_eq!(image, "store:2");
    }
}

#[tokio::test]
async fn a_new_cluster_with_a_bad_image_can_be_corrected() {
    let mut world = World::new(2);
    world.bad_image = Some("store:1".into());
    for _ in 0..4 {
        world.round().await.unwrap();
    }
    assert!(!world.is("Available"));
    world.change(|spec| spec["image"] = json!("store:2"));
    world.until("a settled cluster", World::is_settled).await;
}

#[tokio::test]
async fn a_sick_cluster_is_not_restarted_and_a_paused_roll_waits() {
    let world = settled(3).await;
    world.nodes.lock().mounted.remove(&World::host(2));
    restart(&world, "now");
    for _ in 0..4 {
        world.reconcile().await.unwrap();
    }
    assert!(world.deletions("pods").is_empty());
    assert_eq!(world.condition("RollingRestart").1, "AwaitingHealth");
    world.nodes.start(&World::host(2), "data-demo-2-0");
    world.change(|spec| spec["rollout"]["paused"] = json!(true));
    for _ in 0..4 {
        world.round().await.unwrap();
    }
    assert_eq!(world.condition("RollingRestart").1, "Paused");
    assert!(world.deletions("pods").is_empty());
    world.change(|spec| spec["rollout"]["paused"] = json!(false));
    world.until("the roll", rolled).await;
}

#[tokio::test]
async fn migrations_of_a_pod_come_to_a_halt_before_it_is_flushed_and_go_on_after() {
    let world = settled(2).await;
    world.change(|spec| spec["shards"] = json!(3));
    world.until("a running job", |world| world.nodes.lock().by_claim.values().any(|disk| !disk.jobs.is_empty())).await;
    restart(&world, "now");
    for _ in 0..80 {
        world.round().await.unwrap();
        // No flush, and so no restart, while a job of that node runs.
        let flushing = world.nodes.lock().by_claim.values().any(|disk| {
            let last = disk.commands.iter().rev().find(|command| *command != "AUTH" && *command != "CLUSTERX STATUS");
            last.is_some_and(|command| command == "FLUSHMEMTABLE")
                && disk.jobs.iter().any(|job| job.state == sluice_topology::admin::MigrationState::Running)
                && world.deletions("pods").is_empty()
        });
        assert!(!flushing);
        world.nodes.advance(300);
        let sizes = world.owned();
        if rolled(&world) && sizes.len() == 3 && sizes.values().all(|slots| *slots > 5000) {
            return;
        }
    }
    panic!("{:#}", world.status());
}
