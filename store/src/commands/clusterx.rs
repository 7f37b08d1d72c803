//! CLUSTERX: what operator, peers and Kvrocks' tools say, on the admin plane alone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sluice_topology::{
    JobId, LeaderEpoch, NodeId, SlotRanges, TopologyDocument, TopologyVersion,
    admin::{MigrationState, SlotStats},
    parse_setnodes,
};

use super::{CommandError, Later, LaterReply, run::ok_later as ok, scan::offload, scripting::libraries};
use crate::{
    migration::{BeginRequest, Sent, Started},
    node::Node,
    protocol::{ReplyWriter, Request},
    types::parse_integer,
};

/// Clients that are told a message before others of the admin plane have a turn.
const TOLD_AT_ONCE: u64 = 1024;

/// Begins a subcommand. Its arguments are read before anything changes.
pub(super) fn clusterx(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    let node = node.clone();
    let rest = &request[2..];
    match (request[1].to_ascii_lowercase().as_slice(), rest) {
        (b"status", []) => Ok(Box::pin(async move { json(&node.status()) })),
        (b"version", []) => {
            let version = node.cluster.known().version.0;
            Ok(Box::pin(async move { Ok(unsigned(version)) }))
        }
        (b"myid", []) => {
            let id = node.cluster.me().to_string();
            Ok(Box::pin(async move { Ok(text(id)) }))
        }
        (b"settopology", [document]) => {
            let document = TopologyDocument::from_json(document).map_err(|error| CommandError::new(format!("ERR {error}")))?;
            Ok(Box::pin(async move { json(&apply(&node, document).await?) }))
        }
        (b"setnodeid", [id]) => {
            let id: NodeId = word(id)?;
            Ok(Box::pin(async move {
                offload(move || Ok(node.cluster.set_node_id(id)?)).await?;
                Ok(ok())
            }))
        }
        (b"setnodes", [nodes, version, options @ ..]) => set_nodes(node, nodes, word(version)?, options),
        (b"setslot", [slots, keyword, id, version]) if keyword.eq_ignore_ascii_case(b"node") => {
            set_slot(node, word(slots)?, word(id)?, word(version)?)
        }
        (b"migrate", [slots, target, options @ ..]) => migrate(node, word(slots)?, word(target)?, options),
        (b"cancel", [job, options @ ..]) => {
            let (job, options) = (word::<JobId>(job)?, Options::parse(options)?);
            options.check_leader(&node)?;
            Ok(Box::pin(async move {
                node.migrations.cancel(job)?;
                Ok(ok())
            }))
        }
        (b"limit", words) => limit(node, words),
        (b"migrations", []) => Ok(Box::pin(async move { Ok(migrations(&node)) })),
        (b"slotstats", [slots]) => slot_stats(node, word(slots)?),
        (b"publisher", [source]) => {
            let link = node.cluster.bus().incoming().open(word(source)?);
            Ok(Box::pin(async move { Ok(unsigned(link)) }))
        }
        (b"publish", [source, link, _, _, ..]) => publish(node, word(source)?, word(link)?, &rest[2..]),
        (b"outcome", [source, attempt]) => outcome(node, word(source)?, word(attempt)?),
        (b"import", [verb, arguments @ ..]) => import(node, verb, arguments),
        _ => Err(CommandError::subcommand("CLUSTERX", &request[1])),
    }
}

/// Reads an argument in its text form.
fn word<T: std::str::FromStr<Err: std::fmt::Display>>(word: &Bytes) -> Result<T, CommandError> {
    let text = std::str::from_utf8(word).map_err(|_| CommandError::new("ERR an argument is not UTF-8"))?;
    text.parse().map_err(|error| CommandError::new(format!("ERR {error}")))
}

fn text(text: String) -> LaterReply {
    Box::new(move |reply| reply.bulk(text.as_bytes()))
}

fn unsigned(value: u64) -> LaterReply {
    Box::new(move |reply| reply.unsigned(value))
}

fn json(value: &impl serde::Serialize) -> Result<LaterReply, CommandError> {
    Ok(text(serde_json::to_string(value).map_err(|error| CommandError::new(format!("ERR {error}")))?))
}

async fn apply(node: &Arc<Node>, document: TopologyDocument) -> Result<sluice_topology::merge::MergeReport, CommandError> {
    let (for_worker, pushed) = (node.clone(), document.clone());
    let report = offload(move || Ok(for_worker.cluster.apply(&pushed)?)).await?;
    if !report.conflicts.is_empty() {
        tracing::warn!(slots = %report.conflicts, "a topology document contradicts this node's own rows");
        // Only the claimed owners' own word counts.
        let me = node.cluster.me();
        let claimed = document.slots.iter().filter(|entry| entry.owner != me);
        let mut owners: Vec<NodeId> =
            claimed.filter(|entry| !entry.slots.intersection(&report.conflicts).is_empty()).map(|entry| entry.owner).collect();
        owners.dedup();
        let cluster = node.cluster.clone();
        tokio::spawn(async move { cluster.ask_owners(owners).await });
    }
    Ok(report)
}

/// The topology that Kvrocks' tools push: it may assign slots that nobody ever owned, or repeat what is so already.
fn set_nodes(node: Arc<Node>, nodes: &Bytes, version: TopologyVersion, options: &[Bytes]) -> Result<Later, CommandError> {
    if options.iter().any(|option| !option.eq_ignore_ascii_case(b"force")) {
        return Err(CommandError::syntax());
    }
    let lines = std::str::from_utf8(nodes).map_err(|_| CommandError::new("ERR the nodes are not UTF-8"))?;
    let (entries, slots) =
        parse_setnodes(lines, node.settings.admin_port).map_err(|error| CommandError::new(format!("ERR {error}")))?;
    let known = node.cluster.known();
    // Kvrocks' tools know no cluster id; theirs is one fixed one.
    let cluster_id = known.cluster_id.unwrap_or(sluice_topology::ClusterId::from_bytes(*b"clusterx-setnode"));
    let mut document = TopologyDocument::new(cluster_id, known.leader_epoch, version);
    document.nodes = entries;
    document.slots = slots;
    // A slot whose owner they repeat keeps its epoch.
    let mut repeated = Vec::new();
    for entry in &mut document.slots {
        let same = entry.slots.iter().filter(|slot| node.cluster.row(*slot).owner == Some(entry.owner)).collect();
        entry.slots = entry.slots.difference(&same);
        for slot in same.iter() {
            let epoch = node.cluster.row(slot).epoch;
            repeated.push(sluice_topology::SlotEntry { slots: slot.into(), owner: entry.owner, epoch });
        }
    }
    document.slots.extend(repeated);
    let document = document.normalised();
    Ok(Box::pin(async move {
        let report = apply(&node, document).await?;
        if report.conflicts.is_empty() {
            return Ok(ok());
        }
        Err(CommandError::new(format!("ERR slots {} have an owner and are moved by CLUSTERX MIGRATE only", report.conflicts)))
    }))
}

fn set_slot(node: Arc<Node>, slots: SlotRanges, id: NodeId, version: TopologyVersion) -> Result<Later, CommandError> {
    let known = node.cluster.known();
    if version != TopologyVersion(known.version.0 + 1) {
        return Err(CommandError::new(format!("ERR version {version} does not follow this node's {}", known.version)));
    }
    if node.cluster.node(id).is_none() {
        return Err(CommandError::new(format!("ERR there is no node {id} in the topology")));
    }
    if let Some(owned) = slots.iter().find(|slot| node.cluster.row(*slot).owner.is_some_and(|owner| owner != id)) {
        return Err(CommandError::new(format!("ERR slot {owned} has an owner and is moved by CLUSTERX MIGRATE only")));
    }
    let cluster_id = known.cluster_id.ok_or_else(|| CommandError::new("ERR this node is not part of a cluster yet"))?;
    let mut document = TopologyDocument::new(cluster_id, known.leader_epoch, version);
    document.nodes.clone_from(&known.nodes);
    document.retired.clone_from(&known.retired);
    let fresh = slots.iter().filter(|slot| node.cluster.row(*slot).owner.is_none()).collect();
    document.slots = vec![sluice_topology::SlotEntry { slots: fresh, owner: id, epoch: sluice_topology::SlotEpoch(1) }];
    Ok(Box::pin(async move {
        apply(&node, document).await?;
        Ok(ok())
    }))
}

/// Whether a call waits for the job's end.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wait {
    #[default]
    No,
    Bounded(Duration),
    ToTheEnd,
}

#[derive(Default)]
struct Options {
    wait: Wait,
    leader: Option<LeaderEpoch>,
}

impl Options {
    fn parse(words: &[Bytes]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = words.iter().peekable();
        while let Some(option) = words.next() {
            match option.to_ascii_lowercase().as_slice() {
                b"async" if options.wait == Wait::No => {}
                b"sync" if options.wait == Wait::No => {
                    let limit = words.next_if(|next| next.iter().all(u8::is_ascii_digit));
                    options.wait = match limit.map(|limit| parse_integer(limit)).transpose()? {
                        None | Some(0) => Wait::ToTheEnd,
                        Some(limit_ms) => Wait::Bounded(Duration::from_millis(limit_ms.unsigned_abs())),
                    };
                }
                b"leader" => options.leader = Some(word(words.next().ok_or_else(CommandError::syntax)?)?),
                _ => return Err(CommandError::syntax()),
            }
        }
        Ok(options)
    }

    fn check_leader(&self, node: &Node) -> Result<(), CommandError> {
        Ok(self.leader.map_or(Ok(()), |leader| node.cluster.check_leader(leader))?)
    }
}

fn migrate(node: Arc<Node>, slots: SlotRanges, target: NodeId, options: &[Bytes]) -> Result<Later, CommandError> {
    let options = Options::parse(options)?;
    options.check_leader(&node)?;
    Ok(Box::pin(async move {
        let started = node.migrations.migrate(slots, target).await?;
        match options.wait {
            Wait::ToTheEnd => ended(started, None).await,
            Wait::Bounded(limit) => ended(started, Some(limit)).await,
            Wait::No if options.leader.is_some() => Ok(unsigned(started.id.0)),
            Wait::No => Ok(ok()),
        }
    }))
}

async fn ended(started: Started, limit: Option<Duration>) -> Result<LaterReply, CommandError> {
    let id = started.id;
    let status = match limit {
        None => started.ended().await,
        Some(limit) => tokio::time::timeout(limit, started.ended()).await.map_err(|_| {
            CommandError::new(format!("TIMEOUT job {id} did not end within {} ms; it goes on", limit.as_millis()))
        })?,
    };
    match status.state {
        MigrationState::Done => Ok(ok()),
        state => Err(CommandError::new(format!("ERR job {id} ended as {state:?}: {}", status.last_error))),
    }
}

/// How fast migrations go: `[RATE bytes-a-second] [UNITS at-once]`, both settings as well; without arguments what is in force.
fn limit(node: Arc<Node>, words: &[Bytes]) -> Result<Later, CommandError> {
    let mut pairs = Vec::new();
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(CommandError::syntax()) };
        let setting = match name.to_ascii_lowercase().as_slice() {
            b"rate" => "migrate-rate",
            b"units" => "migrate-units-at-once",
            _ => return Err(CommandError::syntax()),
        };
        pairs.push((setting.to_owned(), String::from_utf8_lossy(value).into_owned()));
    }
    Ok(Box::pin(async move {
        if !pairs.is_empty() {
            super::config::set(&node, pairs).await?;
        }
        let now = node.live.current();
        Ok(Box::new(move |reply: &mut ReplyWriter<'_>| {
            reply.map(2);
            for (name, value) in [("rate", now.migrate_rate.0), ("units", u64::from(now.migrate_units_at_once))] {
                reply.bulk(name.as_bytes());
                reply.unsigned(value);
            }
        }) as LaterReply)
    }))
}

fn migrations(node: &Node) -> LaterReply {
    let jobs = node.migrations.jobs();
    Box::new(move |reply| {
        reply.array(jobs.len());
        for job in &jobs {
            let state = format!("{:?}", job.state).to_lowercase();
            let texts = [
                ("source", job.source.to_string()),
                ("target", job.target.to_string()),
                ("slots", job.slots.to_string()),
                ("state", state),
                ("step", job.step.clone()),
                ("last_error", job.last_error.clone()),
            ];
            let numbers = [
                ("job", job.job.0),
                ("slots_done", u64::from(job.slots_done)),
                ("slots_total", u64::from(job.slots_total)),
                ("keys_done", job.keys_done),
                ("bytes_done", job.bytes_done),
                ("bytes_total", job.bytes_total),
                ("bytes_sent", job.bytes_sent),
                ("bytes_resent", job.bytes_resent),
                ("bytes_per_second", job.bytes_per_second),
                ("eta_ms", job.eta_ms),
                ("batches", job.batches),
                ("batch_bytes", job.batch_bytes),
                ("attempts", job.attempts),
                ("switch_pause_ms_max", job.switch_pause_ms_max),
            ];
            reply.map(texts.len() + numbers.len());
            for (name, value) in numbers {
                reply.bulk(name.as_bytes());
                reply.unsigned(value);
            }
            for (name, value) in texts {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
    })
}

fn slot_stats(node: Arc<Node>, slots: SlotRanges) -> Result<Later, CommandError> {
    Ok(Box::pin(async move {
        let stats = offload(move || {
            let (mut keys, mut bytes, now) = (Vec::new(), Vec::new(), node.engine.now_ms());
            for slot in slots.iter() {
                let _inside = node.engine.enter();
                let usage = node.engine.slot_usage(slot, now)?;
                keys.push(usage.keys);
                bytes.push(usage.bytes);
            }
            Ok(SlotStats { slots, keys, bytes })
        })
        .await?;
        json(&stats)
    }))
}

/// Messages that clients of another node published: channels and payloads in turn. They are told here and go no further.
fn publish(node: Arc<Node>, source: NodeId, link: u64, words: &[Bytes]) -> Result<Later, CommandError> {
    if !words.len().is_multiple_of(2) {
        return Err(CommandError::syntax());
    }
    let words = words.to_vec();
    Ok(Box::pin(async move {
        let (bus, mut messages, mut all) = (node.cluster.bus(), words.chunks_exact(2), 0);
        while messages.len() > 0 {
            let tell = || {
                let (mut told, waiting) = (0, messages.len());
                while told < TOLD_AT_ONCE
                    && let Some(message) = messages.next()
                {
                    told += node.clients.tell(&message[0], &message[1]);
                }
                bus.count_received((waiting - messages.len()) as u64);
                told
            };
            let stale = || CommandError::new(format!("STALE node {source} has a newer link than {link}"));
            all += bus.incoming().tell(source, link, tell).ok_or_else(stale)?;
            tokio::task::yield_now().await;
        }
        Ok(unsigned(all))
    }))
}

fn outcome(node: Arc<Node>, source: NodeId, attempt: u64) -> Result<Later, CommandError> {
    if source != node.cluster.me() {
        return Err(CommandError::new(format!(
            "ERR this is node {}, not {source}: it knows nothing of its attempts",
            node.cluster.me()
        )));
    }
    Ok(Box::pin(async move { Ok(text(node.migrations.outcome(attempt).await?.as_str().into())) }))
}

/// What a source says to its target.
fn import(node: Arc<Node>, verb: &Bytes, arguments: &[Bytes]) -> Result<Later, CommandError> {
    let migrations = node.migrations.clone();
    let id = |source: &Bytes, attempt: &Bytes| Ok::<_, CommandError>((word::<NodeId>(source)?, word::<u64>(attempt)?));
    match (verb.to_ascii_lowercase().as_slice(), arguments) {
        (b"begin", [claim]) => {
            let claim: BeginRequest = serde_json::from_slice(claim).map_err(|error| CommandError::new(format!("ERR {error}")))?;
            Ok(Box::pin(async move { migrations.import_begin(claim).await.map(|()| ok()).map_err(Into::into) }))
        }
        (b"data", [source, link, frame]) => {
            let (source, link, frame) = (word(source)?, word(link)?, frame.clone());
            Ok(Box::pin(async move { Ok(unsigned(migrations.import_data(source, link, frame).await?.as_micros() as u64)) }))
        }
        (b"library", [source, attempt, code]) => {
            migrations.imports_unit(id(source, attempt)?)?;
            let code = code.clone();
            Ok(Box::pin(async move {
                offload(move || libraries::adopt(&node, &code)).await?;
                Ok(ok())
            }))
        }
        (b"resume", [source, attempt]) => {
            let id = id(source, attempt)?;
            Ok(Box::pin(async move {
                let (next, link) = migrations.import_resume(id).await?;
                Ok(Box::new(move |reply: &mut ReplyWriter<'_>| {
                    reply.array(2);
                    reply.unsigned(next);
                    reply.unsigned(link);
                }) as LaterReply)
            }))
        }
        (b"prepare", [source, attempt, sent]) => {
            let id = id(source, attempt)?;
            let sent: Sent = serde_json::from_slice(sent).map_err(|error| CommandError::new(format!("ERR {error}")))?;
            Ok(Box::pin(async move { migrations.import_prepare(id, sent).await.map(|()| ok()).map_err(Into::into) }))
        }
        (b"commit", [source, attempt]) => {
            let id = id(source, attempt)?;
            Ok(Box::pin(async move { migrations.import_commit(id).await.map(|()| ok()).map_err(Into::into) }))
        }
        (b"abort", [source, attempt]) => {
            let id = id(source, attempt)?;
            Ok(Box::pin(async move { migrations.import_abort(id).await.map(|()| ok()).map_err(Into::into) }))
        }
        (b"forget", [source, attempt]) => {
            let id = id(source, attempt)?;
            Ok(Box::pin(async move { migrations.import_forget(id).await.map(|()| ok()).map_err(Into::into) }))
        }
        _ => Err(CommandError::subcommand("CLUSTERX IMPORT", verb)),
    }
}
