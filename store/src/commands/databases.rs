//! Databases: SELECT, SWAPDB, MOVE, COPY. In cluster mode there is number 0 alone.

use std::sync::Arc;

use bytes::Bytes;

use super::{Class, CommandError, Context, Later, Session, run::ok_later, scan::offload};
use crate::{node::Node, protocol::Request, types::parse_integer};

type Outcome = Result<(), CommandError>;

pub(super) fn select(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let number = parse_integer(&request[1])?;
    if number != 0 && cx.node.cluster.enabled() {
        return Err(CommandError::new("ERR SELECT is not allowed in cluster mode"));
    }
    let database = find(cx.node, number).ok_or_else(out_of_range)?;
    cx.node.engine.open_database(database)?;
    cx.session.database = database;
    cx.reply.ok();
    Ok(())
}

/// The database of that number; `None`: there is none.
fn find(node: &Node, number: i64) -> Option<u8> {
    u8::try_from(number).ok().filter(|number| u32::from(*number) < node.settings.databases)
}

fn out_of_range() -> CommandError {
    CommandError::new("ERR DB index is out of range")
}

pub(super) fn swapdb(node: &Arc<Node>, _: &Session, request: &Request) -> Result<Later, CommandError> {
    if node.cluster.enabled() {
        return Err(CommandError::new("ERR SWAPDB is not allowed in cluster mode"));
    }
    let number =
        |word: &Bytes, which: &str| parse_integer(word).map_err(|_| CommandError::new(format!("ERR invalid {which} DB index")));
    let (one, other) = (number(&request[1], "first")?, number(&request[2], "second")?);
    let (one, other) = (find(node, one).ok_or_else(out_of_range)?, find(node, other).ok_or_else(out_of_range)?);
    let node = node.clone();
    Ok(Box::pin(async move {
        let engine = node.engine.clone();
        offload(move || Ok(engine.swap_databases(one, other, || true)?)).await?;
        [one, other].into_iter().for_each(|database| node.blocked.retry(database));
        Ok(ok_later())
    }))
}

pub(super) fn move_key(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    if cx.node.cluster.enabled() {
        return Err(CommandError::new("ERR MOVE is not allowed in cluster mode"));
    }
    let database = find(cx.node, parse_integer(&request[2])?).ok_or_else(out_of_range)?;
    if database == cx.session.database {
        return Err(same());
    }
    cx.node.engine.open_database(database)?;
    let keys = cx.keyspace();
    let moved = keys.move_to(&request[1], &keys.in_database(database))?;
    if moved {
        cx.event(Class::Generic, "move_from", &request[1]);
        cx.event_in(database, Class::Generic, "move_to", &request[1]);
        cx.node.clients.touch(database, &request[1]);
    }
    cx.reply.integer(i64::from(moved));
    Ok(())
}

fn same() -> CommandError {
    CommandError::new("ERR source and destination objects are the same")
}

pub(super) fn copy(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let (mut database, mut replace) = (cx.session.database, false);
    let mut words = request[3..].iter();
    while let Some(word) = words.next() {
        match (word.to_ascii_lowercase().as_slice(), words.len()) {
            (b"replace", _) => replace = true,
            (b"db", 1..) => {
                let number = words.next().map(|word| parse_integer(word)).ok_or_else(CommandError::syntax)??;
                database = find(cx.node, number).ok_or_else(out_of_range)?;
            }
            _ => return Err(CommandError::syntax()),
        }
    }
    if cx.node.cluster.enabled() && database != 0 {
        return Err(CommandError::new("ERR Copying to another database is not allowed in cluster mode"));
    }
    if database == cx.session.database && request[1] == request[2] {
        return Err(same());
    }
    cx.node.engine.open_database(database)?;
    let keys = cx.keyspace();
    let copied = keys.copy(&request[1], &keys.in_database(database), &request[2], replace)?;
    if copied == Some(true) {
        cx.event_in(database, Class::Generic, "copy_to", &request[2]);
        cx.node.clients.touch(database, &request[2]);
    }
    cx.reply.integer(i64::from(copied == Some(true)));
    Ok(())
}
