//! Publishing and subscribing.

use bytes::Bytes;

use super::{CommandError, Context, subcommands};
use crate::{clients::Subscription, protocol::Request};

type Outcome = Result<(), CommandError>;

pub(super) fn subscribe(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    add(cx, Subscription::Channel, "subscribe", &request[1..])
}

pub(super) fn psubscribe(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    add(cx, Subscription::Pattern, "psubscribe", &request[1..])
}

pub(super) fn ssubscribe(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    add(cx, Subscription::Shard, "ssubscribe", &request[1..])
}

pub(super) fn unsubscribe(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    remove(cx, Subscription::Channel, "unsubscribe", &request[1..])
}

pub(super) fn punsubscribe(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    remove(cx, Subscription::Pattern, "punsubscribe", &request[1..])
}

pub(super) fn sunsubscribe(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    remove(cx, Subscription::Shard, "sunsubscribe", &request[1..])
}

/// Subscriptions as replies count them: channels and patterns together, shard channels by themselves.
fn count(cx: &Context<'_, '_>, of: Subscription) -> u64 {
    let [channels, patterns, shards] = cx.session.client.subscription_counts();
    if of == Subscription::Shard { shards } else { channels + patterns }
}

fn confirm(cx: &mut Context<'_, '_>, of: Subscription, kind: &str, name: Option<&Bytes>) {
    let count = count(cx, of);
    cx.reply.push(3);
    cx.reply.bulk(kind.as_bytes());
    cx.reply.bulk_or_null(name.map(Bytes::as_ref));
    cx.reply.unsigned(count);
}

fn add(cx: &mut Context<'_, '_>, of: Subscription, kind: &str, names: &[Bytes]) -> Outcome {
    let client = cx.session.client.clone();
    for name in names {
        // Confirmed before anything of it can arrive: what arrives is written between commands.
        cx.node.clients.channels.subscribe(of, name, &client);
        client.note_subscription(of, name);
        confirm(cx, of, kind, Some(name));
    }
    cx.session.subscribed = true;
    Ok(())
}

fn remove(cx: &mut Context<'_, '_>, of: Subscription, kind: &str, names: &[Bytes]) -> Outcome {
    let client = cx.session.client.clone();
    let all;
    let names = if names.is_empty() {
        all = client.subscribed_to(of);
        all.as_slice()
    } else {
        names
    };
    let mut left = Vec::with_capacity(names.len());
    for name in names {
        cx.node.clients.channels.unsubscribe(of, name, &client);
        client.forget_subscription(of, name);
        left.push(count(cx, of));
    }
    // What was sent before comes before the confirmation, and nothing of it comes after.
    for push in client.take_mail() {
        push.write(cx.reply);
    }
    if names.is_empty() {
        confirm(cx, of, kind, None);
    }
    for (name, left) in names.iter().zip(left) {
        cx.reply.push(3);
        cx.reply.bulk(kind.as_bytes());
        cx.reply.bulk(name);
        cx.reply.unsigned(left);
    }
    cx.session.subscribed = client.subscription_counts().iter().any(|count| *count > 0);
    Ok(())
}

/// Ends every subscription without a word: RESET.
pub(super) fn forget_all(cx: &mut Context<'_, '_>) {
    let client = cx.session.client.clone();
    for of in [Subscription::Channel, Subscription::Pattern, Subscription::Shard] {
        for name in client.subscribed_to(of) {
            cx.node.clients.channels.unsubscribe(of, &name, &client);
            client.forget_subscription(of, &name);
        }
    }
    for push in client.take_mail() {
        push.write(cx.reply);
    }
    cx.session.subscribed = false;
}

pub(super) fn publish(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    // Of this node's alone, as in Redis: who is subscribed elsewhere is not known here.
    let receivers = cx.node.clients.channels.receivers(&request[1]);
    if receivers > 0 || cx.node.cluster.bus().has_peers() {
        cx.outbox.borrow_mut().message(request[1].clone(), request[2].clone());
    }
    cx.reply.unsigned(receivers as u64);
    Ok(())
}

pub(super) fn spublish(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let receivers = cx.node.clients.channels.subscribers(Subscription::Shard, &request[1]);
    if receivers > 0 {
        cx.outbox.borrow_mut().shard_message(request[1].clone(), request[2].clone());
    }
    cx.reply.unsigned(receivers as u64);
    Ok(())
}

pub(super) fn pubsub(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let channels = &cx.node.clients.channels;
    match (request[1].to_ascii_lowercase().as_slice(), &request[2..]) {
        (b"channels", [] | [_]) => names(cx, Subscription::Channel, request.get(2)),
        (b"shardchannels", [] | [_]) => names(cx, Subscription::Shard, request.get(2)),
        (b"channels" | b"shardchannels", _) => return Err(CommandError::subcommand("PUBSUB", &request[1])),
        (b"numpat", _) => cx.reply.unsigned(channels.count(Subscription::Pattern) as u64),
        (b"numsub", names) => subscribers(cx, Subscription::Channel, names),
        (b"shardnumsub", names) => subscribers(cx, Subscription::Shard, names),
        _ => subcommands::help(cx.reply, "pubsub"),
    }
    Ok(())
}

fn names(cx: &mut Context<'_, '_>, of: Subscription, pattern: Option<&Bytes>) {
    let names = cx.node.clients.channels.names(of, pattern.map(AsRef::as_ref));
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name));
}

fn subscribers(cx: &mut Context<'_, '_>, of: Subscription, names: &[Bytes]) {
    // In pairs, and in RESP3 as well: that is what Redis answers.
    cx.reply.array(2 * names.len());
    for name in names {
        let count = cx.node.clients.channels.subscribers(of, name);
        cx.reply.bulk(name);
        cx.reply.unsigned(count as u64);
    }
}
