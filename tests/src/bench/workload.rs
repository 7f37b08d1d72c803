//! What is asked of the servers: one row a test.

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;

use super::{options::Common, server::Server};

/// Commands of one pipeline while data is filled in.
const FILL_PIPELINE: u32 = 500;
/// Pipelines under way at once while data is filled in.
const FILL_CONCURRENT: usize = 4;

/// A test: a command in the words of redis-benchmark, whose `__rand_int__` is a number of 12 digits below the number of keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// The command. `{value}` is a value of the size asked for.
    words: &'static [&'static str],
    /// How often the last words, as many as the second number says, are repeated.
    repeat: (usize, usize),
    /// What there is before: this command for each key, `__rand_int__` being its number. Empty: nothing.
    pub(super) fill: &'static [&'static str],
}

const SET: &[&str] = &["SET", "key:__rand_int__", "{value}"];
const HSET: &[&str] = &["HSET", "hash:__rand_int__", "field", "{value}"];
const HSET1: &[&str] = &["HSET", "myhash", "element:__rand_int__", "{value}"];
const ZADD1: &[&str] = &["ZADD", "myzset", "__rand_int__", "element:__rand_int__"];
const ZADD: &[&str] = &["ZADD", "zset:__rand_int__", "1", "member:__rand_int__"];

/// Every test there is. One whose command a server does not have is skipped, and that is said.
pub(super) const WORKLOADS: &[Workload] = &[
    Workload { name: "SET", words: SET, repeat: (1, 0), fill: SET },
    Workload { name: "GET", words: &["GET", "key:__rand_int__"], repeat: (1, 0), fill: SET },
    Workload { name: "INCR", words: &["INCR", "counter:__rand_int__"], repeat: (1, 0), fill: &[] },
    Workload { name: "MSET", words: &["MSET", "key:__rand_int__", "{value}"], repeat: (10, 2), fill: SET },
    Workload { name: "MGET", words: &["MGET", "key:__rand_int__"], repeat: (10, 1), fill: SET },
    Workload { name: "EXPIRE", words: &["EXPIRE", "key:__rand_int__", "100000"], repeat: (1, 0), fill: SET },
    Workload { name: "HSET", words: HSET, repeat: (1, 0), fill: HSET },
    Workload { name: "HGET", words: &["HGET", "hash:__rand_int__", "field"], repeat: (1, 0), fill: HSET },
    Workload { name: "SADD", words: &["SADD", "set:__rand_int__", "member:__rand_int__"], repeat: (1, 0), fill: &[] },
    Workload { name: "ZADD", words: ZADD, repeat: (1, 0), fill: &[] },
    Workload { name: "LPUSH", words: &["LPUSH", "list:__rand_int__", "{value}"], repeat: (1, 0), fill: &[] },
    // As `redis-benchmark -t …` has them: one collection that every connection writes to, with up to as many members as there are keys.
    Workload { name: "HSET1", words: HSET1, repeat: (1, 0), fill: &[] },
    Workload { name: "HGET1", words: &["HGET", "myhash", "element:__rand_int__"], repeat: (1, 0), fill: HSET1 },
    Workload { name: "SADD1", words: &["SADD", "myset", "element:__rand_int__"], repeat: (1, 0), fill: &[] },
    Workload { name: "ZADD1", words: ZADD1, repeat: (1, 0), fill: &[] },
    Workload { name: "ZRANGE1", words: &["ZRANGE", "myzset", "0", "9"], repeat: (1, 0), fill: ZADD1 },
    Workload { name: "ZRANK1", words: &["ZRANK", "myzset", "element:__rand_int__"], repeat: (1, 0), fill: ZADD1 },
    Workload { name: "LPUSH1", words: &["LPUSH", "mylist", "{value}"], repeat: (1, 0), fill: &[] },
    Workload { name: "XADD1", words: &["XADD", "mystream", "*", "field", "{value}"], repeat: (1, 0), fill: &[] },
];

/// The tests of that name, in any case; an error names what there is.
pub(super) fn find(name: &str) -> anyhow::Result<Workload> {
    let known = || WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
    let found = WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(name));
    found.copied().with_context(|| format!("there is no test `{name}`; there are {}", known()))
}

impl Workload {
    /// The words for redis-benchmark.
    pub(super) fn command(&self, value: &str) -> Vec<String> {
        let (times, tail) = self.repeat;
        let (head, tail) = self.words.split_at(self.words.len() - tail);
        let words = head.iter().chain(tail.iter().cycle().take(tail.len() * times));
        words.map(|word| if *word == "{value}" { value.to_owned() } else { (*word).to_owned() }).collect()
    }

    /// Whether the server has the command: asked once for real. Any other error is one.
    pub(super) async fn is_known_to(&self, server: &Server, value: &str) -> anyhow::Result<bool> {
        let words: Vec<String> = self.command(value).iter().map(|word| numbered(word, 0)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match server.ask(&words).await {
            Ok(_) => Ok(true),
            Err(error) if format!("{error:#}").contains("unknown command") => Ok(false),
            Err(error) => Err(error.context(format!("{} as asked of {}", self.name, server.name))),
        }
    }

    /// Fills in what the test needs to be there.
    pub(super) async fn fill(&self, server: &Server, common: &Common, value: &str) -> anyhow::Result<()> {
        if self.fill.is_empty() {
            return Ok(());
        }
        let connection = server.connect().await?;
        let starts = (0..common.keys).step_by(FILL_PIPELINE as usize);
        let mut pipelines = futures::stream::iter(starts.map(|start| {
            let mut pipeline = redis::pipe();
            for number in start..common.keys.min(start + FILL_PIPELINE) {
                let words = self.fill.iter().map(|word| numbered(&word.replace("{value}", value), number));
                let words: Vec<String> = words.collect();
                pipeline.cmd(&words[0]).arg(&words[1..]).ignore();
            }
            let mut connection = connection.clone();
            async move { pipeline.query_async::<()>(&mut connection).await }
        }))
        .buffer_unordered(FILL_CONCURRENT);
        while let Some(outcome) = pipelines.next().await {
            outcome.with_context(|| format!("filling {} for {}", server.name, self.name))?;
        }
        Ok(())
    }
}

/// The word with its number put in, as redis-benchmark does it.
fn numbered(word: &str, number: u32) -> String {
    word.replace("__rand_int__", &format!("{number:012}"))
}

/// The tests named in a list; all names have to be known.
pub(super) fn chosen(names: &[String]) -> anyhow::Result<Vec<Workload>> {
    ensure!(!names.is_empty(), "no test is named");
    names.iter().map(|name| find(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_repeated_and_filled_in() {
        let mset = find("mset").unwrap().command("v");
        assert_eq!((mset.len(), mset[0].as_str(), mset[20].as_str()), (21, "MSET", "v"));
        assert_eq!(find("GET").unwrap().command("v"), ["GET", "key:__rand_int__"]);
        assert_eq!(find("MGET").unwrap().command("v").len(), 11);
        assert_eq!(numbered("key:__rand_int__", 7), "key:000000000007");
        assert!(find("nosuch").unwrap_err().to_string().contains("there are SET, GET"));
    }
}
