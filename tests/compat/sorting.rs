//! SORT beside that of a real redis-server; and that a cluster refuses patterns of keys that may be elsewhere.

use anyhow::ensure;
use proptest::prelude::*;
use sluice_tests::{
    resp::{Answer, Connection},
    store::LocalCluster,
};

use crate::family::{self, Family, Words, key, on_key, tail, words};

struct Sorting;

fn element() -> impl Strategy<Value = String> {
    prop_oneof![8 => "-?[0-9]{1,2}", 2 => "[0-9]\\.[0-9]", 2 => "[a-d]{1,2}", 1 => Just(String::new()), 1 => Just(" 7".to_owned())]
}

/// Numbers alone, so that sorting them succeeds.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![8 => "-?[0-9]{1,2}", 1 => Just("1e2".to_owned())]
}

fn options() -> impl Strategy<Value = Words> {
    let one = tail(&[
        "ASC",
        "DESC",
        "ALPHA",
        "ALPHA",
        "LIMIT 0 3",
        "LIMIT 1 2",
        "LIMIT -1 -1",
        "LIMIT 2 0",
        "LIMIT 99 5",
        "LIMIT x 1",
        "LIMIT 1",
        "BY nosort",
        "BY w_*",
        "BY w_*",
        "BY o_*->n",
        "BY x*->y",
        "GET #",
        "GET w_*",
        "GET o_*->n",
        "GET o_*->",
        "GET nothing",
        "GET t_* GET #",
        "WHAT",
        "STORE sorted",
    ]);
    prop::collection::vec(one, 0..4).prop_map(|options| options.concat())
}

impl Family for Sorting {
    const GROUPS: &'static [&'static str] = &["generic"];
    const ON_PURPOSE: &'static [&'static str] = &["in a cluster SORT takes patterns inside the key's slot, as 7.4"];
    const KEYS: &'static [&'static str] = &["numbers", "l1", "set", "zset", "sorted"];

    fn command() -> BoxedStrategy<Words> {
        let elements = || prop::collection::vec(element(), 1..8);
        let data = prop_oneof![
            6 => prop::collection::vec(number(), 1..8).prop_map(|elements| [words("RPUSH numbers"), elements].concat()),
            3 => on_key::<Self>("RPUSH", elements()),
            3 => on_key::<Self>("SADD", elements()),
            3 => on_key::<Self>("ZADD", prop::collection::vec(("-?[0-9]", element()), 1..6)
                .prop_map(|pairs| pairs.into_iter().flat_map(|(score, element)| [score, element]).collect())),
            3 => ("-?[0-9]{1,2}", number()).prop_map(|(element, weight)| vec!["SET".to_owned(), format!("w_{element}"), weight]),
            1 => (element(), element()).prop_map(|(element, text)| vec!["SET".to_owned(), format!("t_{element}"), text]),
            2 => ("-?[0-9]{1,2}", number()).prop_map(|(element, weight)| vec!["HSET".to_owned(), format!("o_{element}"), "n".to_owned(), weight]),
            1 => ("-?[0-9]{1,2}", element()).prop_map(|(element, text)| vec!["SADD".to_owned(), format!("w_{element}"), text]),
        ];
        let sorts = prop_oneof![
            4 => options().prop_map(|options| [words("SORT numbers"), options].concat()),
            4 => on_key::<Self>("SORT", options()),
            2 => on_key::<Self>("SORT_RO", options()),
            1 => (key::<Self>(), tail(&["BY nosort", "BY nosort DESC", "BY nosort LIMIT 1 2", "BY nosort DESC LIMIT 0 2 GET #"]))
                .prop_map(|(key, options)| [vec!["SORT".to_owned(), key], options].concat()),
            2 => Just(words("LRANGE sorted 0 -1")),
        ];
        prop_oneof![2 => data, 3 => sorts].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        let has = |word: &str| command.iter().any(|found| found == word);
        match command[0].as_str() {
            // Texts that are alike, and sets without an order, come as they lie.
            "SORT" | "SORT_RO" if has("nosort") || has("ALPHA") && has("BY") => family::shape(answer),
            "SMEMBERS" => family::sorted(answer, 1),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![["LRANGE", key, "0", "-1"].map(str::to_owned).to_vec(), ["ZRANGE", key, "0", "-1"].map(str::to_owned).to_vec()]
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let mut natural = connection.ask(&["SORT_RO", key, "BY", "nosort"]).await?.elements().to_vec();
        let sorted = connection.ask(&["SORT_RO", key, "ALPHA"]).await?;
        let mut backwards = connection.ask(&["SORT_RO", key, "ALPHA", "DESC"]).await?.elements().to_vec();
        natural.sort();
        backwards.reverse();
        ensure!(sorted.elements() == natural && sorted.elements() == backwards, "{key}: {sorted:?}, {natural:?}, {backwards:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sort_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Sorting>(5000).await
}

/// As of 7.4: a pattern is taken where all keys it may match are in the key's own slot; 7.0 refuses every pattern.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_sorts_by_keys_of_one_slot_alone() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let cluster = LocalCluster::start(root.path(), 1, 1, &[]).await?;
    let mut connection = Connection::open(&cluster.node(0).address()).await?;
    for (options, option) in [("BY w_*", "BY"), ("BY {b}w_*", "BY"), ("GET w_*", "GET"), ("BY nosort GET *{a}", "GET")] {
        let refused = connection.ask_all(&[[words("SORT {a}list"), words(options)].concat()]).await?;
        let text = format!(
            "ERR {option} option of SORT denied in cluster mode when keys formed by the pattern may be in different slots."
        );
        ensure!(refused == [Answer::Error(text)], "{options}: {refused:?}");
    }
    let commands =
        ["RPUSH {a}list 1 2 3", "MSET {a}w_1 9 {a}w_2 8 {a}w_3 7", "SORT {a}list BY {a}w_* GET # GET {a}w_* LIMIT 0 2"]
            .map(words);
    let answers = connection.ask_all(&commands).await?;
    let texts: Vec<&str> = answers[2].elements().iter().filter_map(Answer::text).collect();
    ensure!(texts == ["3", "7", "2", "8"], "{answers:?}");
    let crossed = connection.ask_all(&[words("SORT {a}list STORE elsewhere")]).await?;
    ensure!(matches!(&crossed[0], Answer::Error(text) if text.starts_with("CROSSSLOT")), "{crossed:?}");
    Ok(())
}
