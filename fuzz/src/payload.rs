//! RESTORE of any bytes: refused and nothing changed, or a value that every command of its type can read and that comes back the same
//! through DUMP and RESTORE.

use std::sync::{Mutex, PoisonError};

use redis_protocol::resp2::types::OwnedFrame;

use crate::node::{Node, bulk, error, length};

static NODE: Mutex<Option<Node>> = Mutex::new(None);

/// What a key held before.
const BEFORE: &[u8] = b"what was there before";
/// A hash whose fields expire, in Redis' form.
const EXPIRING: [u8; 2] = [24, 25];

/// Bytes as a payload without its end, and as a whole one.
pub fn payload(bytes: &[u8]) {
    let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = node.get_or_insert_with(|| Node::start(&[]).expect("a store"));
    // Version 11 of the form, and a sum of zero, which is none.
    let ended = [bytes, &[11, 0], &[0; 8]].concat();
    for payload in [bytes, &ended] {
        restore(node, payload);
    }
}

fn restore(node: &mut Node, payload: &[u8]) {
    let answers = node.ask_all(&[&[b"SET", b"k", BEFORE], &[b"RESTORE", b"k", b"0", payload, b"REPLACE"]]);
    if let Some(text) = error(&answers[1]) {
        assert!(text.contains("DUMP payload") || text.contains("Bad data"), "refused for another reason: {text}");
        assert_eq!(bulk(node.ask(&[b"GET", b"k"])).as_deref(), Some(BEFORE), "a refusal changes nothing");
        return;
    }
    let OwnedFrame::SimpleString(kind) = node.ask(&[b"TYPE", b"k"]) else { panic!("TYPE answers with a text") };
    let expiring = payload.first().is_some_and(|kind| EXPIRING.contains(kind));
    if kind == b"none" {
        assert!(expiring, "a payload that was taken left nothing");
        return;
    }
    look(node, &kind, expiring);
    if let Some(dumped) = bulk(node.ask(&[b"DUMP", b"k"])) {
        let restored = node.ask(&[b"RESTORE", b"again", b"0", &dumped, b"REPLACE"]);
        assert_eq!(error(&restored), None, "what DUMP wrote is refused");
        // Fields that expire do so at any time.
        if !expiring {
            assert_eq!(bulk(node.ask(&[b"DUMP", b"again"])).as_ref(), Some(&dumped), "another value came back");
        }
    }
    change(node, &kind);
    let gone = node.ask_all(&[&[b"DEL", b"k", b"again"], &[b"EXISTS", b"k", b"again"]]);
    assert_eq!(gone[1], OwnedFrame::Integer(0));
}

/// Reads all of it: as many elements as it says it has.
fn look(node: &mut Node, kind: &[u8], expiring: bool) {
    let (count, all, each): (&[&[u8]], &[&[u8]], i64) = match kind {
        b"string" => (&[b"STRLEN", b"k"], &[b"GET", b"k"], 0),
        b"list" => (&[b"LLEN", b"k"], &[b"LRANGE", b"k", b"0", b"-1"], 1),
        b"set" => (&[b"SCARD", b"k"], &[b"SMEMBERS", b"k"], 1),
        b"zset" => (&[b"ZCARD", b"k"], &[b"ZRANGE", b"k", b"-inf", b"+inf", b"BYSCORE", b"WITHSCORES"], 2),
        b"hash" => (&[b"HLEN", b"k"], &[b"HGETALL", b"k"], 2),
        b"stream" => (&[b"XLEN", b"k"], &[b"XRANGE", b"k", b"-", b"+"], 1),
        other => panic!("a key is {}", String::from_utf8_lossy(other)),
    };
    let answers = node.ask_all(&[count, all, &[b"OBJECT", b"ENCODING", b"k"], &[b"MEMORY", b"USAGE", b"k"]]);
    assert!(answers.iter().all(|answer| error(answer).is_none()), "{answers:?}");
    let OwnedFrame::Integer(counted) = answers[0] else { panic!("{:?}", answers[0]) };
    let found = match &answers[1] {
        OwnedFrame::BulkString(text) => text.len() as i64,
        many => length(many).expect("elements") / each,
    };
    assert!(found == counted || expiring, "{counted} elements are counted, {found} are there");
    assert!(counted > 0 || kind == b"string" || kind == b"stream" || expiring, "an empty collection");
    if kind == b"stream" {
        let full = node.ask(&[b"XINFO", b"STREAM", b"k", b"FULL", b"COUNT", b"0"]);
        assert_eq!(error(&full), None);
        groups(node);
    }
}

/// Groups hold what they say they hold.
fn groups(node: &mut Node) {
    let OwnedFrame::Array(groups) = node.ask(&[b"XINFO", b"GROUPS", b"k"]) else { panic!("XINFO GROUPS answers with groups") };
    for group in groups {
        let OwnedFrame::Array(facts) = group else { panic!("a group is facts") };
        let fact = |at: usize| facts.get(at).cloned().expect("a fact");
        let (name, consumers, pending) = (bulk(fact(1)).expect("a name"), fact(3), fact(5));
        let answers =
            node.ask_all(&[&[b"XINFO", b"CONSUMERS", b"k", &name], &[b"XPENDING", b"k", &name, b"-", b"+", b"1000000"]]);
        assert_eq!(length(&answers[0]).map(OwnedFrame::Integer), Some(consumers), "consumers of a group");
        assert_eq!(length(&answers[1]).map(OwnedFrame::Integer), Some(pending), "pending entries of a group");
        let claim: &[&[u8]] = &[b"XAUTOCLAIM", b"k", &name, b"thief", b"0", b"0", b"COUNT", b"5"];
        let read: &[&[u8]] = &[b"XREADGROUP", b"GROUP", &name, b"thief", b"COUNT", b"5", b"STREAMS", b"k", b">"];
        for answer in node.ask_all(&[claim, read, &[b"XGROUP", b"DESTROY", b"k", &name]]) {
            assert_eq!(error(&answer), None);
        }
    }
}

/// Changes it: nothing that was restored makes a later command fail but by name.
fn change(node: &mut Node, kind: &[u8]) {
    let commands: &[&[&[u8]]] = match kind {
        b"string" => &[&[b"APPEND", b"k", b"x"], &[b"SETBIT", b"k", b"7", b"1"], &[b"PFADD", b"k", b"x"], &[b"INCR", b"k"]],
        b"list" => &[
            &[b"LPUSH", b"k", b"x"],
            &[b"LINSERT", b"k", b"BEFORE", b"x", b"y"],
            &[b"RPOP", b"k", b"2"],
            &[b"LTRIM", b"k", b"0", b"1"],
        ],
        b"set" => &[&[b"SADD", b"k", b"x"], &[b"SPOP", b"k", b"2"], &[b"SUNIONSTORE", b"k", b"k", b"again"]],
        b"zset" => {
            &[&[b"ZADD", b"k", b"1", b"x"], &[b"ZINCRBY", b"k", b"1", b"x"], &[b"ZPOPMIN", b"k", b"2"], &[b"ZRANK", b"k", b"x"]]
        }
        b"hash" => &[
            &[b"HSET", b"k", b"f", b"x"],
            &[b"HPEXPIRE", b"k", b"100000", b"FIELDS", b"1", b"f"],
            &[b"HRANDFIELD", b"k", b"3"],
            &[b"HDEL", b"k", b"f"],
        ],
        _ => &[
            &[b"XADD", b"k", b"*", b"f", b"v"],
            &[b"XTRIM", b"k", b"MAXLEN", b"1"],
            &[b"XGROUP", b"CREATE", b"k", b"g", b"0"],
            &[b"XDEL", b"k", b"0-1"],
        ],
    };
    for (command, answer) in commands.iter().zip(node.ask_all(commands)) {
        // What a value cannot be used for is said by name; a bug in a command has a text of its own.
        let broken = error(&answer).is_some_and(|text| text.contains("bug") || text.contains("damaged"));
        assert!(!broken, "{:?}: {answer:?}", String::from_utf8_lossy(command[0]));
    }
}
