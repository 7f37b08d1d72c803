//! Fields of hashes that expire, against a model: the server compared with elsewhere (7.0) does not have them.

use std::collections::BTreeMap;

use anyhow::ensure;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sluice_tests::{
    resp::{Answer, Connection},
    store::{Setup, wait_for},
};

/// Far enough that no test lives to see it.
const FAR_MS: u64 = 4_000_000_000_000;

/// A hash as it should be: values, and when they expire.
type Model = BTreeMap<String, (String, Option<u64>)>;

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<(String, String)>),
    SetIfMissing(String, String),
    Delete(Vec<String>),
    Add(String, i64),
    Expire(Vec<String>, u64, &'static str),
    Persist(Vec<String>),
    DeleteKey,
    RenameThereAndBack,
    CopyThereAndBack,
    Restart(bool),
}

fn field() -> impl Strategy<Value = String> {
    "[a-f]"
}

fn fields() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(field(), 1..4).prop_map(|fields| fields.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    // Times that have passed, and times that will not come.
    let at = prop_oneof![1 => Just(1u64), 5 => (0u64..5).prop_map(|step| FAR_MS + step)];
    prop_oneof![
        8 => prop::collection::vec((field(), "[1-9][0-9]?"), 1..4).prop_map(Step::Set),
        2 => (field(), "[0-9]").prop_map(|(field, value)| Step::SetIfMissing(field, value)),
        4 => fields().prop_map(Step::Delete),
        3 => (field(), -5i64..5).prop_map(|(field, by)| Step::Add(field, by)),
        12 => (fields(), at, prop::sample::select(vec!["", "", "NX", "XX", "GT", "LT"])).prop_map(|(fields, at, condition)| Step::Expire(fields, at, condition)),
        4 => fields().prop_map(Step::Persist),
        1 => Just(Step::DeleteKey),
        1 => Just(Step::RenameThereAndBack),
        1 => Just(Step::CopyThereAndBack),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

fn integers(numbers: impl IntoIterator<Item = i64>) -> Answer {
    Answer::Array(numbers.into_iter().map(Answer::Integer).collect())
}

fn words(head: &[&str], tail: &[String]) -> Vec<String> {
    head.iter().map(|word| (*word).to_owned()).chain(tail.iter().cloned()).collect()
}

/// The command of a step, and what it answers; the model is changed.
fn expected(model: &mut Model, step: &Step) -> Option<(Vec<String>, Answer)> {
    Some(match step {
        Step::Set(pairs) => {
            let mut new = 0;
            for (field, value) in pairs {
                new += i64::from(model.insert(field.clone(), (value.clone(), None)).is_none());
            }
            let flat: Vec<String> = pairs.iter().flat_map(|(field, value)| [field.clone(), value.clone()]).collect();
            (words(&["HSET", "h"], &flat), Answer::Integer(new))
        }
        Step::SetIfMissing(field, value) => {
            let missing = !model.contains_key(field);
            if missing {
                model.insert(field.clone(), (value.clone(), None));
            }
            (words(&["HSETNX", "h"], &[field.clone(), value.clone()]), Answer::Integer(i64::from(missing)))
        }
        Step::Delete(fields) => {
            let count = fields.iter().filter(|field| model.remove(*field).is_some()).count();
            (words(&["HDEL", "h"], fields), Answer::Integer(count as i64))
        }
        Step::Add(field, by) => {
            let entry = model.entry(field.clone()).or_insert_with(|| ("0".to_owned(), None));
            let sum = entry.0.parse::<i64>().unwrap_or(0) + by;
            entry.0 = sum.to_string();
            (words(&["HINCRBY", "h"], &[field.clone(), by.to_string()]), Answer::Integer(sum))
        }
        Step::Expire(fields, at, condition) => {
            let mut outcomes = Vec::new();
            for field in fields {
                let Some((_, expiry)) = model.get_mut(field) else {
                    outcomes.push(-2);
                    continue;
                };
                let holds = match *condition {
                    "NX" => expiry.is_none(),
                    "XX" => expiry.is_some(),
                    "GT" => expiry.is_some_and(|current| *at > current),
                    "LT" => expiry.is_none_or(|current| *at < current),
                    _ => true,
                };
                if !holds {
                    outcomes.push(0);
                } else if *at < FAR_MS {
                    model.remove(field);
                    outcomes.push(2);
                } else {
                    *expiry = Some(*at);
                    outcomes.push(1);
                }
            }
            let at = at.to_string();
            let mut command = words(&["HPEXPIREAT", "h", &at], &[]);
            command.extend((!condition.is_empty()).then(|| (*condition).to_owned()));
            command.extend(["FIELDS".to_owned(), fields.len().to_string()]);
            command.extend(fields.iter().cloned());
            (command, integers(outcomes))
        }
        Step::Persist(fields) => {
            let outcomes: Vec<i64> = fields
                .iter()
                .map(|field| match model.get_mut(field) {
                    None => -2,
                    Some((_, expiry)) => expiry.take().map_or(-1, |_| 1),
                })
                .collect();
            (words(&["HPERSIST", "h", "FIELDS", &fields.len().to_string()], fields), integers(outcomes))
        }
        Step::DeleteKey => {
            let there = i64::from(!model.is_empty());
            model.clear();
            (words(&["DEL", "h"], &[]), Answer::Integer(there))
        }
        Step::RenameThereAndBack | Step::CopyThereAndBack | Step::Restart(_) => return None,
    })
}

async fn look(connection: &mut Connection, model: &Model) -> anyhow::Result<()> {
    let found = connection.ask(&["HGETALL", "h"]).await?;
    let found: BTreeMap<_, _> = found.elements().chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let bulk = |text: &String| Answer::Bulk(Some(text.clone().into_bytes()));
    let expected: BTreeMap<_, _> = model.iter().map(|(field, (value, _))| (bulk(field), bulk(value))).collect();
    ensure!(found == expected, "HGETALL {found:?}, should be {expected:?}");
    ensure!(connection.ask(&["HLEN", "h"]).await? == Answer::Integer(model.len() as i64), "HLEN");
    ensure!(connection.ask(&["EXISTS", "h"]).await? == Answer::Integer(i64::from(!model.is_empty())), "EXISTS");
    for field in ["a", "b", "c", "d", "e", "f"] {
        let time = connection.ask(&["HPEXPIRETIME", "h", "FIELDS", "1", field]).await?;
        let expected = model.get(field).map_or(-2, |(_, expiry)| expiry.map_or(-1, |at| at as i64));
        ensure!(time == integers([expected]), "{field} expires {time:?}, should be {expected}");
        let left = connection.ask(&["HTTL", "h", "FIELDS", "1", field]).await?;
        ensure!((expected > 0) == matches!(left.elements(), [Answer::Integer(1..)]), "{field}: HTTL {left:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_expire_as_a_model_of_them_does() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let setup = Setup::new(root.path().join("data"), &[])?;
    let mut store = setup.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let (mut model, mut history) = (Model::new(), Vec::new());
    for round in 0..1500 {
        let step = step().new_tree(&mut runner).map_err(|error| anyhow::anyhow!("{error}"))?.current();
        history.push(format!("{step:?}"));
        let recent = history[history.len().saturating_sub(12)..].join("\n");
        match (expected(&mut model, &step), &step) {
            (Some((command, answer)), _) => {
                let found = connection.ask_all(std::slice::from_ref(&command)).await?;
                ensure!(found == [answer.clone()], "{command:?}: {found:?}, should be {answer:?}; before:\n{recent}");
            }
            (None, Step::RenameThereAndBack | Step::CopyThereAndBack) if model.is_empty() => {}
            (None, Step::RenameThereAndBack) => {
                connection.ask(&["RENAME", "h", "{h}other"]).await?;
                connection.ask(&["RENAME", "{h}other", "far"]).await?;
                connection.ask(&["RENAME", "far", "h"]).await?;
            }
            (None, Step::CopyThereAndBack) => {
                connection.ask(&["COPY", "h", "copied"]).await?;
                connection.ask(&["DEL", "h"]).await?;
                connection.ask(&["COPY", "copied", "h"]).await?;
                connection.ask(&["DEL", "copied"]).await?;
            }
            (None, Step::Restart(kill)) if round % 4 == 0 => {
                if *kill {
                    store.kill()?;
                } else {
                    store.terminate().await?;
                }
                store = setup.start().await?;
                connection = Connection::open(&store.address()).await?;
            }
            (None, _) => {}
        }
        look(&mut connection, &model).await.map_err(|error| error.context(format!("after:\n{recent}")))?;
    }
    Ok(())
}

/// The bounds and texts of Redis 8.0.2, which were asked for there.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_no_field_can_have_is_refused_before_anything_else_is_looked_at() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    connection.ask(&["HSET", "k", "f", "v"]).await?;
    for (command, last, refused) in [
        ("HPEXPIREAT", "70368744177663", "70368744177664"),
        ("HEXPIREAT", "70368744177", "70368744178"),
        ("HPEXPIRE", "60000000000000", "70368744177663"),
        ("HEXPIRE", "60000000000", "9223372036854775807"),
    ] {
        let answer = connection.ask(&[command, "k", refused, "BAD", "FIELDS", "1", "f"]).await?;
        let expected = format!("ERR invalid expire time in '{}' command", command.to_lowercase());
        ensure!(answer == Answer::Error(expected.clone()), "{command} {refused}: {answer:?}");
        ensure!(connection.ask(&["HTTL", "k", "FIELDS", "1", "f"]).await? == integers([-1]), "{command} changed something");
        ensure!(connection.ask(&[command, "k", last, "FIELDS", "1", "f"]).await? == integers([1]), "{command} {last}");
        ensure!(connection.ask(&["HPERSIST", "k", "FIELDS", "1", "f"]).await? == integers([1]));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_gone_at_once_and_taken_away_by_itself() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let store = Setup::new(root.path().join("data"), &[])?.start().await?;
    let mut connection = Connection::open(&store.address()).await?;
    let fields: Vec<String> = (0..500).map(|number| format!("f{number}")).collect();
    for key in ["some", "all"] {
        let pairs: Vec<String> = fields.iter().flat_map(|field| [field.clone(), "v".to_owned()]).collect();
        connection.ask_all(&[words(&["HSET", key], &pairs)]).await?;
    }
    connection.ask(&["HSET", "some", "stays", "1"]).await?;
    // The background is told to leave them, so that it is the commands that see what has expired.
    connection.ask(&["CONFIG", "SET", "expire-sweep-keys-per-second", "0"]).await?;
    for key in ["some", "all"] {
        connection.ask_all(&[words(&["HPEXPIRE", key, "1", "FIELDS", "500"], &fields)]).await?;
    }
    wait_for("the fields' time", || async {
        let mut asked = Connection::open(&store.address()).await?;
        Ok(asked.ask(&["HLEN", "some"]).await? == Answer::Integer(1))
    })
    .await?;
    ensure!(connection.ask(&["HGETALL", "some"]).await?.elements().len() == 2);
    ensure!(connection.ask(&["HGET", "some", "f7"]).await? == Answer::Bulk(None));
    ensure!(connection.ask(&["HMGET", "some", "f7", "stays"]).await?.elements()[0] == Answer::Bulk(None));
    ensure!(connection.ask(&["HEXISTS", "some", "f7"]).await? == Answer::Integer(0));
    ensure!(connection.ask(&["HDEL", "some", "f7"]).await? == Answer::Integer(0));
    ensure!(connection.ask(&["HKEYS", "all"]).await?.elements().is_empty());
    ensure!(connection.ask(&["HRANDFIELD", "some"]).await? == Answer::Bulk(Some(b"stays".to_vec())));
    ensure!(connection.ask(&["HRANDFIELD", "some", "-3"]).await?.elements().len() == 3);
    ensure!(connection.ask(&["HSETNX", "some", "f8", "new"]).await? == Answer::Integer(1));
    ensure!(connection.ask(&["HSET", "some", "f9", "new", "f9", "newer"]).await? == Answer::Integer(1));
    ensure!(connection.ask(&["HINCRBY", "some", "f10", "5"]).await? == Answer::Integer(5));
    ensure!(connection.ask(&["HLEN", "some"]).await? == Answer::Integer(4));
    ensure!(connection.ask(&["HTTL", "some", "FIELDS", "2", "f9", "f11"]).await? == integers([-1, -2]));
    connection.ask(&["CONFIG", "SET", "expire-sweep-keys-per-second", "50000"]).await?;
    wait_for("a hash of which every field has expired to go", || async {
        let mut asked = Connection::open(&store.address()).await?;
        Ok(asked.ask(&["EXISTS", "all"]).await? == Answer::Integer(0))
    })
    .await?;
    ensure!(connection.ask(&["HLEN", "some"]).await? == Answer::Integer(4));
    Ok(())
}
