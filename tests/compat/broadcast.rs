//! PUBLISH on any node of a cluster, heard on all of them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use sluice_tests::{
    certificates::{Authority, Files},
    proxy::{Proxy, Way},
    resp::{Answer, Connection},
    store::{LocalCluster, wait_for},
};
use sluice_topology::{admin::MigrationState, admin::Reply};

use crate::family::words;

/// For a message that has to come. Generous: the machine may be busy; no test measures it.
const PATIENCE: Duration = Duration::from_mins(1);
/// The channel of most tests, and what its patterns are subscribed to.
const CHANNEL: &str = "news";
const PATTERN: &str = "n?ws";
/// What each publisher says last.
const END: &str = "end";

/// A connection of that protocol that has subscribed.
async fn hearer(cluster: &LocalCluster, node: usize, protocol: &str, command: &str, channel: &str) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(&cluster.node(node).address()).await?;
    connection.ask(&["HELLO", protocol]).await?;
    connection.ask(&[command, channel]).await?;
    Ok(connection)
}

/// The next message: who published it, and which of its messages it is.
async fn heard(hearer: &mut Connection) -> anyhow::Result<(String, String)> {
    let message = tokio::time::timeout(PATIENCE, hearer.answer()).await.context("a message does not come")??;
    let (who, what) =
        message.elements().last().and_then(Answer::text).and_then(|text| text.split_once(':')).context("no message")?;
    Ok((who.to_owned(), what.to_owned()))
}

/// What a hearer hears of each publisher, up to the end of all of them.
async fn heard_of_all(hearer: &mut Connection, publishers: usize) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let (mut all, mut ended) = (BTreeMap::<String, Vec<String>>::new(), 0);
    while ended < publishers {
        let (who, what) = heard(hearer).await?;
        ended += usize::from(what == END);
        all.entry(who).or_default().push(what);
    }
    Ok(all)
}

/// PUBLISH of that message, as a client sends it.
fn publish(who: &str, what: &str) -> Vec<String> {
    vec!["PUBLISH".into(), CHANNEL.into(), format!("{who}:{what}")]
}

/// Says a number of messages by a node, in one of several ways, and the end; `hear`: how many clients of the node hear each.
async fn say(cluster: &LocalCluster, node: usize, way: &str, count: usize, hear: i64) -> anyhow::Result<()> {
    let mut client = Connection::open(&cluster.node(node).address()).await?;
    let who = format!("{node}-{way}");
    let looped = format!("for i = 0, {} do redis.call('publish', '{CHANNEL}', '{who}:' .. i) end return 'said'", count - 1);
    match way {
        "one by one" => {
            for number in 0..count {
                let told = client.ask_all(&[publish(&who, &number.to_string())]).await?;
                ensure!(told == [Answer::Integer(hear)], "{told:?}");
            }
        }
        "pipelined" => {
            let commands: Vec<_> = (0..count).map(|number| publish(&who, &number.to_string())).collect();
            let told = client.ask_all(&commands).await?;
            ensure!(told.iter().all(|told| *told == Answer::Integer(hear)), "{told:?}");
        }
        "transaction" => {
            let commands = (0..count).map(|number| publish(&who, &number.to_string()));
            let commands: Vec<_> = [words("MULTI")].into_iter().chain(commands).chain([words("EXEC")]).collect();
            let told = client.ask_all(&commands).await?;
            ensure!(told.last() == Some(&Answer::Array(vec![Answer::Integer(hear); count])), "{told:?}");
        }
        "script" => {
            let said = client.ask(&["EVAL", &looped, "0"]).await?;
            ensure!(said.text() == Some("said"), "{said:?}");
        }
        _ => {
            let library = format!("#!lua name=says\nredis.register_function('say', function() {looped} end)");
            client.ask(&["FUNCTION", "LOAD", &library]).await?;
            let said = client.ask(&["FCALL", "say", "0"]).await?;
            ensure!(said.text() == Some("said"), "{said:?}");
        }
    }
    client.ask_all(&[publish(&who, END)]).await?;
    Ok(())
}

const WAYS: [&str; 5] = ["one by one", "pipelined", "transaction", "script", "function"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_on_any_node_is_heard_on_all_once_and_in_order() -> anyhow::Result<()> {
    const COUNT: usize = 3000;
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 3, 3, &[]).await?;
    let mut hearers = Vec::new();
    for node in 0..3 {
        for (protocol, command, channel) in
            [("2", "SUBSCRIBE", CHANNEL), ("3", "SUBSCRIBE", CHANNEL), ("2", "PSUBSCRIBE", PATTERN), ("3", "PSUBSCRIBE", PATTERN)]
        {
            hearers.push(hearer(&cluster, node, protocol, command, channel).await?);
        }
    }
    let said = (0..3).flat_map(|node| WAYS.map(|way| say(&cluster, node, way, COUNT, 4)));
    let hearing = hearers.iter_mut().map(|hearer| heard_of_all(hearer, 3 * WAYS.len()));
    let (said, all) = futures::join!(futures::future::join_all(said), futures::future::join_all(hearing));
    said.into_iter().collect::<anyhow::Result<Vec<()>>>()?;
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).chain([END.to_owned()]).collect();
    for (number, all) in all.into_iter().enumerate() {
        let all = all.with_context(|| format!("hearer {number}"))?;
        ensure!(all.len() == 3 * WAYS.len(), "hearer {number} heard of {:?}", all.keys());
        for (who, what) in all {
            ensure!(what == expected, "hearer {number} heard of {who}: {what:?}");
        }
    }
    // Each was taken to two nodes, and by name: links, counters.
    let messages = (WAYS.len() * (COUNT + 1) * 2).to_string();
    for node in 0..3 {
        wait_for("every message to be acknowledged", || async {
            Ok(cluster.node(node).info("cluster_messages_sent").await? == messages)
        })
        .await?;
        for (field, expected) in [("cluster_messages_received", messages.as_str()), ("cluster_messages_lost", "0")] {
            ensure!(cluster.node(node).info(field).await? == expected, "{field} of node {node}");
        }
        let links = Connection::open(&cluster.node(node).address()).await?.ask(&["CLUSTER", "LINKS"]).await?;
        ensure!(links.elements().len() == 2, "{links:?}");
        ensure!(cluster.node(node).metrics()?.contains(&format!("sluice_cluster_messages_total{{outcome=\"sent\"}} {messages}")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_one_node_stays_there() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 2, &[("notify-keyspace-events", "KEA")]).await?;
    // `here` is a key and a shard channel of the first node's slots; PUBSUB knows of clients of its own node alone.
    let mut elsewhere = hearer(&cluster, 1, "3", "PSUBSCRIBE", "*").await?;
    let mut client = Connection::open(&cluster.node(0).address()).await?;
    let here = (0..u32::MAX)
        .map(|number| format!("here{number}"))
        .find(|key| sluice_topology::Slot::of_key(key.as_bytes()).get() < 8192);
    let here = here.context("a key")?;
    for (command, expected) in [
        (vec!["SET", &here, "1"], Answer::Simple("OK".into())),
        (vec!["SPUBLISH", &here, "by shard"], Answer::Integer(0)),
        (vec!["PUBSUB", "NUMPAT"], Answer::Integer(0)),
        (vec!["PUBSUB", "CHANNELS"], Answer::Array(Vec::new())),
        (vec!["PUBLISH", CHANNEL, "0:0"], Answer::Integer(0)),
    ] {
        let answer = client.ask(&command).await?;
        ensure!(answer == expected, "{command:?}: {answer:?}");
    }
    ensure!(heard(&mut elsewhere).await? == ("0".into(), "0".into()), "something else came first");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_publishes_too_much_is_ended_and_nobody_hears_of_it() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 1, &[("script-write-limit", "1mb")]).await?;
    let mut hearer = hearer(&cluster, 1, "2", "SUBSCRIBE", CHANNEL).await?;
    let mut client = Connection::open(&cluster.node(0).address()).await?;
    let much = format!("for i = 1, 20 do redis.call('publish', '{CHANNEL}', '0:' .. string.rep('x', 65536)) end");
    let refused = client.ask(&["EVAL", &much, "0"]).await?;
    ensure!(matches!(&refused, Answer::Error(text) if text.contains("script-write-limit")), "{refused:?}");
    client.ask_all(&[publish("0", END)]).await?;
    ensure!(heard(&mut hearer).await?.1 == END, "a part of it was published");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_for_other_nodes_is_of_the_admin_plane_and_goes_no_further() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 2, 2, &[]).await?;
    let (mut here, mut there) =
        (hearer(&cluster, 0, "2", "SUBSCRIBE", CHANNEL).await?, hearer(&cluster, 1, "2", "SUBSCRIBE", CHANNEL).await?);
    let source = cluster.id(1).to_string();
    let words = ["CLUSTERX", "PUBLISH", &source, "1", CHANNEL, "0:0"];
    let refused = Connection::open(&cluster.node(0).address()).await?.ask(&words).await?;
    ensure!(matches!(&refused, Answer::Error(text) if text.contains("admin plane")), "{refused:?}");
    let refused = Connection::open(&cluster.admin_address(0)).await?.ask(&words).await?;
    ensure!(matches!(&refused, Answer::Error(text) if text.starts_with("NOAUTH")), "{refused:?}");
    let odd = [&words[..], &[CHANNEL]].concat();
    for (wrong, expected) in
        [(&words[..2], "ERR"), (&words[..4], "ERR"), (&words[..5], "ERR"), (&odd, "ERR syntax error"), (&words, "STALE")]
    {
        let refused = cluster.node(0).ask_admin(wrong).await;
        ensure!(refused.as_ref().is_err_and(|text| text.starts_with(expected)), "{wrong:?}: {refused:?}");
    }
    // What comes by an older link would come behind what came by the newer one.
    for number in 1..=2 {
        ensure!(cluster.node(0).ask_admin(&["CLUSTERX", "PUBLISHER", &source]).await == Ok(Reply::Integer(number)));
    }
    let refused = cluster.node(0).ask_admin(&words).await;
    ensure!(refused.as_ref().is_err_and(|text| text.starts_with("STALE")), "{refused:?}");
    let told = ["CLUSTERX", "PUBLISH", &source, "2", CHANNEL, "0:1", "nobody's", "0:2", CHANNEL, "0:3"];
    let told = cluster.node(0).ask_admin(&told).await;
    ensure!(told == Ok(Reply::Integer(2)), "{told:?}");
    Connection::open(&cluster.node(0).address()).await?.ask_all(&[publish("0", END)]).await?;
    for expected in ["1", "3", END] {
        ensure!(heard(&mut here).await?.1 == expected);
    }
    ensure!(heard(&mut there).await?.1 == END, "what came from a node was sent on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_hears_again_and_what_it_missed_is_counted() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[("cluster-peer-timeout-ms", "1000")]).await?;
    let mut client = Connection::open(&cluster.node(0).address()).await?;
    let mut before = hearer(&cluster, 1, "2", "SUBSCRIBE", CHANNEL).await?;
    client.ask_all(&[publish("0", "before")]).await?;
    ensure!(heard(&mut before).await?.1 == "before");
    // One that is not acknowledged would be in doubt.
    wait_for("it to be acknowledged", || async { Ok(cluster.node(0).info("cluster_messages_sent").await? == "1") }).await?;
    cluster.kill(1)?;
    for _ in 0..100 {
        client.ask_all(&[publish("0", "meanwhile")]).await?;
    }
    wait_for("lost messages to be counted", || async { Ok(cluster.node(0).info("cluster_messages_lost").await? == "100") })
        .await?;
    ensure!(cluster.node(0).log().contains("messages of channels did not reach the clients of a node"));
    cluster.restart(1).await?;
    let mut after = hearer(&cluster, 1, "2", "SUBSCRIBE", CHANNEL).await?;
    wait_for("the link to be there again", || async {
        let links = Connection::open(&cluster.node(0).address()).await?.ask(&["CLUSTER", "LINKS"]).await?;
        Ok(links.elements().len() == 1)
    })
    .await?;
    client.ask_all(&[publish("0", "after")]).await?;
    ensure!(heard(&mut after).await?.1 == "after", "what was published while it was away was kept for it");
    ensure!(cluster.node(0).log().contains("messages of channels go to a node again"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reads_nothing_holds_nobody_up_and_takes_no_more_than_its_bound() -> anyhow::Result<()> {
    node_that_reads_nothing("60000", "more wait for it than cluster-link-sendbuf-limit").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_given_up_while_it_read_nothing_hears_in_order_by_its_new_link() -> anyhow::Result<()> {
    node_that_reads_nothing("3000", "messages of channels did not reach").await
}

/// `patience`: milliseconds after which it is given up; `said`: what the log says of what is lost.
async fn node_that_reads_nothing(patience: &str, said: &str) -> anyhow::Result<()> {
    // Of both other nodes.
    const LIMIT: u64 = 2 << 20;
    const COUNT: usize = 1500;
    let root = tempfile::tempdir()?;
    let settings = [("cluster-link-sendbuf-limit", "1mb"), ("migrate-timeout-ms", patience)];
    let cluster = LocalCluster::start(root.path(), 3, 1, &settings).await?;
    let mut client = Connection::open(&cluster.node(0).address()).await?;
    let (mut stopped, mut running) =
        (hearer(&cluster, 1, "2", "SUBSCRIBE", CHANNEL).await?, hearer(&cluster, 2, "2", "SUBSCRIBE", CHANNEL).await?);
    client.ask_all(&[publish("0", "first")]).await?;
    for hearer in [&mut stopped, &mut running] {
        ensure!(heard(hearer).await?.1 == "first");
    }
    cluster.node(1).signal("STOP")?;
    let text = "x".repeat(64 << 10);
    for number in 0..COUNT {
        client.ask_all(&[publish("0", &format!("{number}:{text}"))]).await?;
        // One by one: the bound is for all peers, and this one is not to fall behind.
        ensure!(heard(&mut running).await?.1.starts_with(&format!("{number}:")), "{number} is missing where nothing is wrong");
        let held: u64 = cluster.node(0).info("messages_used").await?.parse()?;
        ensure!(held <= LIMIT, "{held} bytes are held");
    }
    ensure!(cluster.node(0).info("messages_limit").await? == LIMIT.to_string());
    let lost = || async { Ok::<u64, anyhow::Error>(cluster.node(0).info("cluster_messages_lost").await?.parse()?) };
    ensure!(lost().await? > 0, "{} MiB found room", COUNT / 16);
    ensure!(cluster.node(0).log().contains(said));
    cluster.node(1).signal("CONT")?;
    // Said until it is heard: what is said before the link is good again is lost. What it hears is in order, once each, whatever is missing.
    let said = async {
        loop {
            client_says(&cluster, END).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let hears = async {
        let mut next = 0;
        loop {
            let (_, what) = heard(&mut stopped).await?;
            match what.split_once(':').map(|(number, _)| number.parse::<usize>()) {
                Some(number) => {
                    let number = number?;
                    ensure!(number >= next, "{number} came behind {next}");
                    next = number + 1;
                }
                None => break Ok(next),
            }
        }
    };
    let next = tokio::select! {
        failed = said => failed,
        next = hears => next,
    }?;
    ensure!(next > 0, "nothing of it was heard");
    Ok(())
}

/// One message by a connection of its own.
async fn client_says(cluster: &LocalCluster, what: &str) -> anyhow::Result<()> {
    Connection::open(&cluster.node(0).address()).await?.ask_all(&[publish("0", what)]).await?;
    Ok(())
}

/// What one node says is heard on the other, in order and once, while the slots of the first move to the other.
async fn heard_while_slots_move(cluster: &LocalCluster) -> anyhow::Result<()> {
    const COUNT: usize = 2000;
    let mut hearer = hearer(cluster, 1, "3", "SUBSCRIBE", CHANNEL).await?;
    let job = cluster.migrate(0, 1, &"0-500".parse()?).await?;
    let (said, all) = futures::join!(say(cluster, 0, "one by one", COUNT, 0), heard_of_all(&mut hearer, 1));
    said?;
    let all = all?.into_values().next().unwrap_or_default();
    ensure!(
        all.len() == COUNT + 1 && all[..COUNT].iter().enumerate().all(|(number, what)| *what == number.to_string()),
        "{all:?}"
    );
    let status = cluster.ended(0, job).await?;
    ensure!(status.state == MigrationState::Done, "{status:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_on_while_slots_move_and_go_where_the_topology_says() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(root.path(), 2, 1, &[]).await?;
    heard_while_slots_move(&cluster).await?;
    let proxy = Proxy::start(cluster.admin_address(1)).await?;
    cluster.reach(1, proxy.port());
    cluster.push_truth().await?;
    let mut hearer = hearer(&cluster, 1, "2", "SUBSCRIBE", CHANNEL).await?;
    client_says(&cluster, END).await?;
    ensure!(heard(&mut hearer).await?.1 == END);
    ensure!(proxy.carried(Way::There) > 0, "it went by the old address");
    Ok(())
}

async fn mutual(root: &Path) -> anyhow::Result<(LocalCluster, Vec<Files>)> {
    let authority = Authority::new("the cluster's")?;
    let files = (0..2).map(|node| Files::of(&root.join(format!("tls-{node}")), &authority));
    let files: Vec<Files> = files.collect::<anyhow::Result<_>>()?;
    let settings: Vec<_> =
        files.iter().map(|files| files.settings(&[("tls-cluster", "yes"), ("tls-auth-clients", "yes")])).collect();
    let settings: Vec<&[(&str, &str)]> = settings.iter().map(Vec::as_slice).collect();
    Ok((LocalCluster::start_each(None, root, 1, &settings).await?, files))
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_by_tls_with_the_certificates_of_both_nodes() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (cluster, _files) = mutual(root.path()).await?;
    heard_while_slots_move(&cluster).await
}
