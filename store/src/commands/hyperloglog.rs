//! Commands of `HyperLogLogs`.

use super::{CommandError, Context};
use crate::{
    clients::Class,
    protocol::Request,
    types::{HllEncoding, HyperLogLog},
};

type Outcome = Result<(), CommandError>;

pub(super) fn pfadd(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let sparse_max = cx.node.settings.hll_sparse_max.0 as usize;
    let changed = cx.keyspace().hll_add(&request[1], request[2..].iter().map(AsRef::as_ref), sparse_max)?;
    if changed {
        cx.event(Class::String, "pfadd", &request[1]);
    }
    cx.reply.integer(i64::from(changed));
    Ok(())
}

pub(super) fn pfcount(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let moment = cx.moment(request.len() - 1);
    let keys = cx.keyspace().as_of(moment.as_deref());
    let mut merged: Option<HyperLogLog> = None;
    for key in &request[1..] {
        match (keys.hll(key)?, &mut merged) {
            (Some(other), Some(merged)) => merged.merge(&other),
            (Some(first), none) => *none = Some(first),
            (None, _) => {}
        }
    }
    cx.reply.unsigned(merged.map_or(0, |merged| merged.count()));
    Ok(())
}

pub(super) fn pfmerge(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let sparse_max = cx.node.settings.hll_sparse_max.0 as usize;
    cx.keyspace().hll_merge(&request[1], request[2..].iter().map(AsRef::as_ref), sparse_max)?;
    cx.event(Class::String, "pfadd", &request[1]);
    cx.reply.ok();
    Ok(())
}

/// Counts known numbers of things in both encodings. Costs a hundred thousand hashes.
pub(super) fn pfselftest(cx: &mut Context<'_, '_>, _: &Request) -> Outcome {
    match HyperLogLog::self_test() {
        Ok(()) => cx.reply.ok(),
        Err(why) => return Err(CommandError::new(format!("ERR TESTFAILED {why}"))),
    }
    Ok(())
}

pub(super) fn pfdebug(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let key = &request[2];
    let missing = || CommandError::new("ERR The specified key does not exist");
    let mut counted = cx.keyspace().hll(key)?.ok_or_else(missing)?;
    match request[1].to_ascii_lowercase().as_slice() {
        b"encoding" => cx.reply.simple(match counted.encoding() {
            HllEncoding::Sparse => "sparse",
            HllEncoding::Dense => "dense",
        }),
        b"getreg" => {
            cx.reply.array(counted.registers().len());
            counted.registers().iter().for_each(|value| cx.reply.integer(i64::from(*value)));
        }
        b"todense" => {
            let changes = counted.encoding() == HllEncoding::Sparse;
            counted.make_dense();
            cx.keyspace().set_keeping_expiry(key, &counted.encode(0))?;
            cx.reply.integer(i64::from(changes));
        }
        _ => {
            let shown = String::from_utf8_lossy(&request[1]);
            return Err(CommandError::new(format!("ERR Unknown PFDEBUG subcommand '{shown}'")));
        }
    }
    Ok(())
}
