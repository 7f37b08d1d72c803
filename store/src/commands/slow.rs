//! SLOWLOG and LATENCY.

use std::fmt::Write as _;

use super::{CommandError, Context, find, subcommands, table};
use crate::{protocol::Request, types::parse_integer};

type Outcome = Result<(), CommandError>;

pub(super) fn slowlog(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let slow = &cx.node.clients.slow;
    match request[1].to_ascii_lowercase().as_slice() {
        b"len" => cx.reply.unsigned(slow.len() as u64),
        b"reset" => {
            slow.reset();
            cx.reply.ok();
        }
        b"get" => {
            let count = match request.get(2) {
                None => 10,
                Some(word) => parse_integer(word)
                    .ok()
                    .filter(|count| *count >= -1)
                    .ok_or_else(|| CommandError::new("ERR count should be greater than or equal to -1"))?,
            };
            let entries = slow.entries(usize::try_from(count).unwrap_or(usize::MAX));
            cx.reply.array(entries.len());
            for entry in entries {
                cx.reply.array(6);
                cx.reply.unsigned(entry.id);
                cx.reply.unsigned(entry.at_seconds);
                cx.reply.unsigned(entry.micros);
                cx.reply.array(entry.words.len());
                entry.words.iter().for_each(|word| cx.reply.bulk(word));
                cx.reply.bulk(entry.peer.as_bytes());
                cx.reply.bulk(&entry.name);
            }
        }
        _ => subcommands::help(cx.reply, "slowlog"),
    }
    Ok(())
}

pub(super) fn latency(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let slow = &cx.node.clients.slow;
    match request[1].to_ascii_lowercase().as_slice() {
        b"latest" => {
            let events = slow.spikes();
            cx.reply.array(events.len());
            for (name, spikes) in events {
                let (at, ms) = spikes.history.back().copied().unwrap_or_default();
                cx.reply.array(4);
                cx.reply.bulk(name.as_bytes());
                [at, ms, spikes.worst_ms].into_iter().for_each(|number| cx.reply.unsigned(number));
            }
        }
        b"history" => {
            let events = slow.spikes();
            let found = events.iter().find(|(name, _)| request[2].eq_ignore_ascii_case(name.as_bytes()));
            let history = found.map(|(_, spikes)| spikes.history.clone()).unwrap_or_default();
            cx.reply.array(history.len());
            for (at, ms) in history {
                cx.reply.array(2);
                cx.reply.unsigned(at);
                cx.reply.unsigned(ms);
            }
        }
        b"reset" => {
            let names = &request[2..];
            let forgotten = slow
                .forget_spikes(|name| names.is_empty() || names.iter().any(|given| given.eq_ignore_ascii_case(name.as_bytes())));
            cx.reply.unsigned(forgotten as u64);
        }
        b"doctor" => {
            let text = doctor(cx);
            cx.reply.verbatim(&text);
        }
        b"histogram" => histogram(cx, request),
        _ => subcommands::help(cx.reply, "latency"),
    }
    Ok(())
}

/// What was seen, in words.
fn doctor(cx: &Context<'_, '_>) -> String {
    let threshold = cx.node.live.current().latency_monitor_threshold;
    if threshold == 0 {
        return "The latency monitor is off: CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n".into();
    }
    let events = cx.node.clients.slow.spikes();
    if events.is_empty() {
        return format!("No command has taken {threshold} ms or longer since the latency monitor was turned on or reset.\n");
    }
    let mut text = String::new();
    for (name, spikes) in events {
        let count = spikes.history.len();
        let sum: u64 = spikes.history.iter().map(|(_, ms)| ms).sum();
        let _ = writeln!(
            text,
            "{name}: {count} seconds with a latency of {threshold} ms or more, {} ms on average, {} ms at worst. SLOWLOG GET names the commands.",
            sum / count.max(1) as u64,
            spikes.worst_ms,
        );
    }
    text
}

fn histogram(cx: &mut Context<'_, '_>, request: &Request) {
    let wanted: Vec<_> =
        if request.len() == 2 { table().collect() } else { request[2..].iter().filter_map(|name| find(name)).collect() };
    let counted: Vec<_> = wanted
        .into_iter()
        .map(|spec| (spec.name, spec.calls.latency.cumulative()))
        .filter(|(_, (calls, _))| *calls > 0)
        .collect();
    cx.reply.map(counted.len());
    for (name, (calls, bounds)) in counted {
        cx.reply.bulk(name.as_bytes());
        cx.reply.map(2);
        cx.reply.bulk(b"calls");
        cx.reply.unsigned(calls);
        cx.reply.bulk(b"histogram_usec");
        cx.reply.map(bounds.len());
        for (micros, count) in bounds {
            cx.reply.unsigned(micros);
            cx.reply.unsigned(count);
        }
    }
}
