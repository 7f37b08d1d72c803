//! Leader election over an API that checks versions.

use std::time::Duration;

use serde_json::json;
use sluice_operator::leader_election::{Candidate, Election, Leadership, Outcome, Timing};

use crate::api::FakeApi;

fn candidate(api: &FakeApi, name: &str) -> (Election, Leadership) {
    let timing =
        Timing { duration: Duration::from_secs(1), deadline: Duration::from_millis(600), retry: Duration::from_millis(100) };
    let candidate = Candidate { identity: name.into(), namespace: "ns".into(), lease: "sluice".into(), timing };
    let leadership = Leadership::none();
    (Election::new(api.client(), candidate, leadership.clone()), leadership)
}

#[tokio::test]
async fn one_leads_and_the_next_takes_over_only_when_it_has_seen_a_whole_term_of_silence() {
    let api = FakeApi::default();
    let ((mut first, first_leads), (mut second, second_leads)) = (candidate(&api, "first"), candidate(&api, "second"));
    assert_eq!(first.round().await.unwrap(), Outcome::Leading);
    assert_eq!(second.round().await.unwrap(), Outcome::Standby);
    assert!(first_leads.is_current() && !second_leads.is_current());
    // Renewals keep it, however long it lasts.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(first.round().await.unwrap(), Outcome::Leading);
        assert_eq!(second.round().await.unwrap(), Outcome::Standby);
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(!first_leads.is_current(), "a holder that did not renew stops acting by itself, before anybody takes over");
    assert_eq!(second.round().await.unwrap(), Outcome::Leading);
    assert_eq!(first.round().await.unwrap(), Outcome::Standby);
    let lease = api.lock().get("leases", "sluice").unwrap().clone();
    assert_eq!((lease["spec"]["holderIdentity"].clone(), lease["spec"]["leaseTransitions"].clone()), (json!("second"), json!(2)));
}

#[tokio::test]
async fn of_two_that_decide_on_the_same_lease_one_wins() {
    let api = FakeApi::default();
    let ((mut first, _), (mut second, _)) = (candidate(&api, "first"), candidate(&api, "second"));
    // Given back: free for whoever comes first.
    api.lock()
        .create("leases", json!({"metadata": {"name": "sluice"}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
    let (one, two) = tokio::join!(first.round(), second.round());
    let leading = [one.unwrap(), two.unwrap()].iter().filter(|outcome| **outcome == Outcome::Leading).count();
    assert_eq!(leading, 1);
}

#[tokio::test]
async fn a_lease_is_given_back_at_the_end() {
    let api = FakeApi::default();
    let (election, leadership) = candidate(&api, "first");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (leading, mut is_leading) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(election.run(leading, stopped));
    sluice_operator::signals::until(&mut is_leading, true).await;
    stop.send_replace(true);
    running.await.unwrap();
    assert!(!leadership.is_current());
    assert_eq!(api.lock().get("leases", "sluice").unwrap()["spec"]["holderIdentity"], "");
}
