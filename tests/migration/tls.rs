//! Slots on the move between nodes that speak TLS, and know each other by their certificates.

use std::path::Path;

use anyhow::{Context as _, ensure};
use sluice_tests::{
    certificates::{Authority, Files},
    load::{Lines, Session, Target},
    proxy::{Proxy, Way},
    resp::{Answer, Connection},
    store::{LocalCluster, StoreProcess, wait_for},
};
use sluice_topology::{Slot, SlotRanges, admin::MigrationState};

use super::{LOADED, ranges};

/// Both show certificates and look at the other's. Clients speak in the clear here: that is another test's.
const MUTUAL: [(&str, &str); 4] =
    [("tls-cluster", "yes"), ("tls-auth-clients", "yes"), ("tls-reload-interval-ms", "50"), ("migrate-backoff-ms-max", "100")];

/// Two nodes with files of their own; all slots are at the first.
async fn mutual(root: &Path, authority: &Authority, more: &[(&str, &str)]) -> anyhow::Result<(LocalCluster, [Files; 2])> {
    let folder = |number: usize| Files::of(&root.join(format!("tls-{number}")), authority);
    let files = [folder(0)?, folder(1)?];
    let settings = files.each_ref().map(|files| [files.settings(&MUTUAL).as_slice(), more].concat());
    let settings: Vec<&[(&str, &str)]> = settings.iter().map(Vec::as_slice).collect();
    Ok((LocalCluster::start_each(None, root, 1, &settings).await?, files))
}

/// A string larger than a batch, a hash, a list and a sorted set, all in one slot.
const ELEMENTS: usize = 20_000;
const LARGE: usize = 9 << 20;

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

async fn fill(node: &StoreProcess) -> anyhow::Result<()> {
    let mut connection = Connection::open(&node.address()).await?;
    connection.ask_bytes(&[b"SET", b"{tls}large", &large()]).await?;
    for first in (0..ELEMENTS).step_by(500) {
        let numbers = first..first + 500;
        let command = |name: &str, key: &str| vec![name.to_owned(), format!("{{tls}}{key}")];
        let mut commands = [command("HSET", "hash"), command("RPUSH", "list"), command("ZADD", "scores")];
        for number in numbers {
            commands[0].extend([format!("field {number}"), format!("value {number}")]);
            commands[1].push(format!("element {number}"));
            commands[2].extend([number.to_string(), format!("member {number}")]);
        }
        let answers = connection.ask_all(&commands).await?;
        ensure!(answers.iter().all(|answer| matches!(answer, Answer::Integer(_))), "{answers:?}");
    }
    Ok(())
}

async fn check(node: &StoreProcess) -> anyhow::Result<()> {
    let mut connection = Connection::open(&node.address()).await?;
    ensure!(connection.ask(&["GET", "{tls}large"]).await? == Answer::Bulk(Some(large())), "the large string is another");
    let hash = connection.ask(&["HGETALL", "{tls}hash"]).await?;
    let mut found: Vec<(&str, &str)> =
        hash.elements().chunks(2).filter_map(|pair| Some((pair[0].text()?, pair[1].text()?))).collect();
    found.sort_unstable();
    let mut expected: Vec<(String, String)> =
        (0..ELEMENTS).map(|number| (format!("field {number}"), format!("value {number}"))).collect();
    expected.sort_unstable();
    ensure!(
        found.len() == ELEMENTS
            && found.iter().zip(&expected).all(|(found, (field, value))| found == &(field.as_str(), value.as_str()))
    );
    for (command, prefix) in [(["LRANGE", "{tls}list", "0", "-1"], "element"), (["ZRANGE", "{tls}scores", "0", "-1"], "member")] {
        let answer = connection.ask(&command).await?;
        let found: Vec<&str> = answer.elements().iter().filter_map(Answer::text).collect();
        let expected: Vec<String> = (0..ELEMENTS).map(|number| format!("{prefix} {number}")).collect();
        ensure!(found == expected, "{} of {ELEMENTS} {prefix}s", found.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_element_arrives_over_links_by_tls_that_are_cut_and_spoilt() -> anyhow::Result<()> {
    const MIB: u64 = 1 << 20;
    let root = tempfile::tempdir()?;
    let (mut cluster, _files) = mutual(root.path(), &Authority::new("the cluster's")?, &[("migrate-timeout-ms", "1500")]).await?;
    let proxies = [Proxy::start(cluster.admin_address(0)).await?, Proxy::start(cluster.admin_address(1)).await?];
    (0..2).for_each(|number| cluster.reach(number, proxies[number].port()));
    cluster.push_truth().await?;
    fill(cluster.node(0)).await?;
    let slot: SlotRanges = Slot::of_key(b"{tls}").into();
    let (mut from, mut to, mut resent) = (0, 1, 0);
    for fault in 0..4 {
        let proxy = &proxies[to];
        match fault {
            0 => proxy.cut_after(Way::There, 5 * MIB + 13),
            1 => proxy.spoil_after(Way::There, 7 * MIB + 1),
            2 => proxy.cut_after(Way::Back, 6000),
            _ => {}
        }
        let carried = proxy.carried(Way::There);
        let job = cluster.migrate(from, to, &slot).await?;
        let status = cluster.ended(from, job).await?;
        ensure!(status.state == MigrationState::Done, "fault {fault}: {status:?}");
        ensure!(proxy.carried(Way::There) > carried + LARGE as u64, "it did not go by the proxy");
        resent += status.bytes_resent;
        cluster.settled().await?;
        cluster.push_truth().await?;
        check(cluster.node(to)).await.with_context(|| format!("after fault {fault}"))?;
        (from, to) = (to, from);
    }
    ensure!(resent > 0, "no link was taken up again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_by_tls_follow_slots_that_move_by_tls() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let authority = Authority::new("the cluster's")?;
    let files = Files::of(&root.path().join("tls"), &authority)?;
    let settings = files.settings(&[("port", "0"), ("tls-cluster", "yes"), ("tls-auth-clients", "optional")]);
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &settings).await?;
    let target = Target { authorities: Some(authority.pem().into_bytes()), ..Target::new(cluster.addresses()) };
    let session = Session::start(target, Lines::numbered(LOADED), 2000).await?;
    session.load(LOADED).await?;
    session.start_live().await?;
    for (from, to) in [(0, 1), (1, 0)] {
        let job = cluster.migrate(from, to, &ranges("0-4000")).await?;
        let status = cluster.ended(from, job).await?;
        ensure!(status.state == MigrationState::Done, "{status:?}");
        cluster.push_truth().await?;
    }
    session.stop_live().await?;
    let (report, figures) = (session.verify().await?, session.next_phase("end"));
    ensure!(report.is_whole() && figures.failed == 0, "{report:?}, {:?}", figures.failures);
    Ok(())
}

/// Waits until a node shows a certificate that is good until that year begins. By its clients' port: its admin plane may be nobody's to enter.
async fn shown_until(node: &StoreProcess, seconds: &str) -> anyhow::Result<()> {
    wait_for("the certificate to be shown", || async { Ok(node.info("tls_certificate_not_after").await? == seconds) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_certificate_nobody_should_trust_is_sent_nothing() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let authority = Authority::new("the cluster's")?;
    let (mut cluster, files) = mutual(root.path(), &authority, &[("migrate-attempts-max", "2")]).await?;
    fill(cluster.node(0)).await?;
    let slot: SlotRanges = Slot::of_key(b"{tls}").into();
    let cases = [
        // Seconds of the years' beginnings: 2081, 2021, 2082.
        (Authority::new("somebody's")?.sign(&["127.0.0.1"], 2081)?, "3502915200", "UnknownIssuer"),
        (authority.sign(&["127.0.0.1"], 2021)?, "1609459200", "expired"),
        (authority.sign(&["another.example"], 2082)?, "3534451200", "not valid for name"),
    ];
    for (pair, until, why) in cases {
        files[1].replace(&pair, &authority.pem())?;
        shown_until(cluster.node(1), until).await?;
        let job = cluster.migrate(0, 1, &slot).await?;
        let status = cluster.ended(0, job).await?;
        ensure!(status.state == MigrationState::Failed, "{why}: {status:?}");
        ensure!(status.last_error.contains("no TLS with 127.0.0.1") && status.last_error.contains(why), "{why}: {status:?}");
        check(cluster.node(0)).await?;
    }
    // A source that trusts the target, and shows a certificate that the target does not trust.
    files[1].replace(&authority.sign(&["127.0.0.1"], 2083)?, &authority.pem())?;
    shown_until(cluster.node(1), "3565987200").await?;
    let somebody = Authority::new("somebody's")?;
    files[0].replace(&somebody.sign(&["127.0.0.1"], 2084)?, &(authority.pem() + &somebody.pem()))?;
    shown_until(cluster.node(0), "3597523200").await?;
    let before: u64 = cluster.node(1).info("tls_handshakes_failed").await?.parse()?;
    let job = cluster.migrate(0, 1, &slot).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Failed, "{status:?}");
    ensure!(cluster.node(1).info("tls_handshakes_failed").await?.parse::<u64>()? > before, "it was let in: {status:?}");
    check(cluster.node(0)).await?;
    files[0].replace(&authority.sign(&["127.0.0.1"], 2085)?, &authority.pem())?;
    shown_until(cluster.node(0), "3629145600").await?;
    // With good ones again on both sides it goes through: by connections made from then on.
    let job = cluster.migrate(0, 1, &slot).await?;
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    cluster.settled().await?;
    cluster.push_truth().await?;
    check(cluster.node(1)).await
}
