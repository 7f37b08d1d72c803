//! What a key holds, as a store answers it, compared with what the store says of it elsewhere: a key of which half came back is an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use sluice_tests::resp::{Answer, Connection};

use crate::{
    account::{Entry, Stream, Value},
    groups::Group,
};

/// Reads a key; its name says of which kind it is. `None`: it is not there.
pub(crate) async fn read(connection: &mut Connection, key: &str) -> anyhow::Result<Option<Entry>> {
    let kind = key.split(':').next().unwrap_or_default();
    let (all, size) = match kind {
        "hash" => ("HGETALL", "HLEN"),
        "list" => ("LRANGE 0 -1", "LLEN"),
        "stream" => ("XRANGE - +", "XLEN"),
        "set" => ("SMEMBERS", "SCARD"),
        "zset" => ("ZRANGE 0 -1 WITHSCORES", "ZCARD"),
        _ => ("GET", "STRLEN"),
    };
    let command = |text: &str| {
        let mut words = text.split(' ').map(str::to_owned);
        words.next().into_iter().chain([key.to_owned()]).chain(words).collect::<Vec<_>>()
    };
    let answers = connection.ask_all(&[command(all), command("PEXPIRETIME"), command(size)]).await?;
    let Answer::Integer(size) = answers[2] else { anyhow::bail!("{key}: {:?}", answers[2]) };
    let (value, count) = match kind {
        "hash" => {
            let fields: BTreeMap<String, String> = pairs(&answers[0])?.into_iter().collect();
            (Some(Value::Hash(fields.clone())).filter(|_| !fields.is_empty()), fields.len())
        }
        "list" => {
            let elements = texts(&answers[0])?;
            let count = elements.len();
            (Some(Value::List(elements)).filter(|_| count > 0), count)
        }
        "set" => {
            let members: BTreeSet<String> = texts(&answers[0])?.into_iter().collect();
            let count = members.len();
            (Some(Value::Set(members)).filter(|_| count > 0), count)
        }
        "zset" => {
            let scores = scores(connection, key, &answers[0]).await?;
            let count = scores.len();
            (Some(Value::SortedSet(scores)).filter(|_| count > 0), count)
        }
        "stream" => {
            let entries = entries(&answers[0])?;
            let (count, there) = (entries.len(), answers[1] != Answer::Integer(-2));
            let groups = if there { groups(connection, key).await? } else { BTreeMap::new() };
            (there.then_some(Value::Stream(Stream { entries, groups })), count)
        }
        _ => match &answers[0] {
            Answer::Bulk(None) => (None, 0),
            text_of => {
                let text = text(text_of)?;
                let length = text.len();
                (Some(Value::String(text)), length)
            }
        },
    };
    // A key may expire between two answers.
    let Answer::Integer(expires) = answers[1] else { anyhow::bail!("{key}: PEXPIRETIME {:?}", answers[1]) };
    let Some(value) = value.filter(|_| expires != -2) else { return Ok(None) };
    ensure!(kind == "short" || size == count as i64, "{key} is torn: it says that it has {size}, there are {count}: {value:?}");
    Ok(Some(Entry { value, expires_at_ms: u64::try_from(expires).ok() }))
}

/// Scores in the order in which they are indexed, which has to be that of what is stored by member.
async fn scores(connection: &mut Connection, key: &str, indexed: &Answer) -> anyhow::Result<BTreeMap<String, i64>> {
    let indexed: Vec<(i64, String)> =
        pairs(indexed)?.into_iter().map(|(member, score)| Ok((score.parse()?, member))).collect::<anyhow::Result<_>>()?;
    let found: BTreeMap<String, i64> = indexed.iter().map(|(score, member)| (member.clone(), *score)).collect();
    ensure!(indexed.is_sorted() && found.len() == indexed.len(), "{key} is torn: its index is {indexed:?}");
    if !found.is_empty() {
        let members = found.keys().cloned();
        let asked: Vec<String> = ["ZMSCORE".to_owned(), key.to_owned()].into_iter().chain(members).collect();
        let stored = connection.ask_all(&[asked]).await?.pop().context("an answer")?;
        let stored = texts(&stored)?;
        let alike = stored.iter().zip(found.values()).all(|(stored, score)| stored.parse() == Ok(*score));
        ensure!(alike, "{key} is torn: scores {stored:?}, the index {indexed:?}");
    }
    Ok(found)
}

fn entries(answer: &Answer) -> anyhow::Result<BTreeMap<u64, String>> {
    let entry = |entry: &Answer| {
        let [id, fields] = entry.elements() else { anyhow::bail!("{entry:?}") };
        Ok((number(id)?, text(fields.elements().get(1).context("a value")?)?))
    };
    answer.elements().iter().map(entry).collect()
}

/// The groups of a stream that is there.
async fn groups(connection: &mut Connection, key: &str) -> anyhow::Result<BTreeMap<String, Group>> {
    let mut groups = BTreeMap::new();
    for described in connection.ask(&["XINFO", "GROUPS", key]).await?.elements() {
        let name = text(field(described, "name")?)?;
        let last = number(field(described, "last-delivered-id")?)?;
        let pending = connection.ask(&["XPENDING", key, &name, "-", "+", "1000000"]).await?;
        let entry = |entry: &Answer| {
            let [id, owner, _, Answer::Integer(deliveries)] = entry.elements() else { anyhow::bail!("{entry:?}") };
            Ok((number(id)?, (text(owner)?, deliveries.unsigned_abs())))
        };
        let pending: BTreeMap<u64, (String, u64)> = pending.elements().iter().map(entry).collect::<anyhow::Result<_>>()?;
        // The group's count, and those of its consumers.
        let counted = Answer::Integer(pending.len() as i64);
        ensure!(*field(described, "pending")? == counted, "{key} is torn: {described:?}, pending {pending:?}");
        for consumer in connection.ask(&["XINFO", "CONSUMERS", key, &name]).await?.elements() {
            let owner = text(field(consumer, "name")?)?;
            let its = Answer::Integer(pending.values().filter(|(name, _)| *name == owner).count() as i64);
            ensure!(*field(consumer, "pending")? == its, "{key} is torn: {consumer:?}, pending {pending:?}");
        }
        groups.insert(name, Group { last, pending });
    }
    Ok(groups)
}

/// A field of an answer that is a map, as RESP2 has it.
fn field<'a>(answer: &'a Answer, name: &str) -> anyhow::Result<&'a Answer> {
    let pair = answer.elements().chunks_exact(2).find(|pair| pair[0].text() == Some(name));
    pair.map(|pair| &pair[1]).with_context(|| format!("no {name} in {answer:?}"))
}

fn pairs(answer: &Answer) -> anyhow::Result<Vec<(String, String)>> {
    answer.elements().chunks_exact(2).map(|pair| Ok((text(&pair[0])?, text(&pair[1])?))).collect()
}

fn texts(answer: &Answer) -> anyhow::Result<Vec<String>> {
    answer.elements().iter().map(text).collect()
}

/// The number of an entry, which is the first half of its id.
fn number(id: &Answer) -> anyhow::Result<u64> {
    Ok(text(id)?.split_once('-').context("an id")?.0.parse()?)
}

fn text(answer: &Answer) -> anyhow::Result<String> {
    answer.text().map(str::to_owned).with_context(|| format!("no text: {answer:?}"))
}
