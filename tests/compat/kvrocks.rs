//! A cluster formed with CLUSTERX as Kvrocks' tools speak it.

use anyhow::ensure;
use sluice_tests::store::Setup;
use sluice_topology::admin::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn kvrocks_tools_form_a_cluster_and_break_none() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let settings = [("cluster-enabled", "yes")];
    let (first, second) = (Setup::new(root.path().join("a"), &settings)?, Setup::new(root.path().join("b"), &settings)?);
    let (a, b) = (first.start().await?, second.start().await?);
    let (id_a, id_b) = ("a".repeat(40), "b".repeat(40));
    let ok = Ok(Reply::Simple("OK".into()));
    ensure!(a.ask_admin(&["CLUSTERX", "SETNODEID", &id_a]).await == ok);
    ensure!(b.ask_admin(&["CLUSTERX", "SETNODEID", &id_b]).await == ok);
    let nodes = format!("{id_a} 127.0.0.1 {} master - 0-100\n{id_b} 127.0.0.1 {} master - 101-16383", first.port, second.port);
    for store in [&a, &b] {
        ensure!(store.ask_admin(&["CLUSTERX", "SETNODES", &nodes, "1"]).await == ok);
        ensure!(store.ask_admin(&["CLUSTERX", "VERSION"]).await == Ok(Reply::Integer(1)));
        // The same again changes nothing.
        ensure!(store.ask_admin(&["CLUSTERX", "SETNODES", &nodes, "1"]).await == ok);
    }
    let renamed = a.ask_admin(&["CLUSTERX", "SETNODEID", &id_b]).await;
    ensure!(renamed.as_ref().is_err_and(|error| error.contains("the node id stays")), "{renamed:?}");
    // A pushed topology never takes a slot from its owner.
    let stolen = format!("{id_a} 127.0.0.1 {} master - 0-200\n{id_b} 127.0.0.1 {} master - 201-16383", first.port, second.port);
    let refused = b.ask_admin(&["CLUSTERX", "SETNODES", &stolen, "2"]).await;
    ensure!(refused.as_ref().is_err_and(|error| error.contains("moved by CLUSTERX MIGRATE only")), "{refused:?}");
    let refused = b.ask_admin(&["CLUSTERX", "SETSLOT", "150", "NODE", &id_a, "3"]).await;
    ensure!(refused.as_ref().is_err_and(|error| error.contains("moved by CLUSTERX MIGRATE only")), "{refused:?}");
    let old = a.ask_admin(&["CLUSTERX", "SETNODES", &nodes, "0"]).await;
    ensure!(old.as_ref().is_err_and(|error| error.starts_with("STALE")), "{old:?}");
    // Redirects follow.
    let mut client = a.client().await?;
    let moved = redis::cmd("GET").arg("foo").query_async::<Option<String>>(&mut client).await;
    let text = format!("{:?}", moved.expect_err("slot 12182 is the other node's"));
    ensure!(text.contains(&format!("127.0.0.1:{}", second.port)), "{text}");
    Ok(())
}
