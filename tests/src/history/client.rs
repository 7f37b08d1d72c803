//! A client that asks again only where an answer proves that nothing was executed.

use std::{collections::BTreeMap, time::Duration};

use sluice_topology::Slot;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Operation, Reply};
use crate::resp::{Answer, Connection};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With a reply.
    Reply(Reply),
    /// With nothing that says whether it was executed.
    Open,
    /// With an error that the model does not know: its text. Whether it was executed is not said.
    Error(String),
    /// It was given up, and was never executed: no node would take it for as long as a client waits.
    Never,
}

/// Every such operation of a pipeline is sent to whichever node.
const ASTRAY: usize = 5;

/// What an answer says of what becomes of the call.
enum Verdict {
    Answered(Answered),
    /// It was not executed: another attempt, at once at that address, or after a pause.
    Again(Option<(String, bool)>),
}

/// A client of a cluster; one call at a time.
pub(super) struct Client {
    addresses: Vec<String>,
    connections: BTreeMap<String, Connection>,
    /// Where a slot was last.
    places: BTreeMap<Slot, String>,
    /// Which of the addresses is asked about a slot that nothing is known of.
    turn: usize,
    patience: Duration,
}

impl Client {
    pub(super) fn new(addresses: Vec<String>, first: usize, patience: Duration) -> Self {
        Self { addresses, connections: BTreeMap::new(), places: BTreeMap::new(), turn: first, patience }
    }

    /// Sends several operations in pipelines, one to each node, and those that were not executed once more, one by one. Calls `each` with
    /// the place of an operation as soon as it is answered.
    pub(super) async fn call_all(&mut self, calls: &[(String, Operation)], mut each: impl FnMut(usize, Answered)) {
        let deadline = Instant::now() + self.patience;
        let mut nodes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, (key, _)) in calls.iter().enumerate() {
            // Now and then to whichever node: what is sent astray is refused, whatever else happens to the slot meanwhile.
            let known = self.places.get(&Slot::of_key(key.as_bytes())).filter(|_| !(number + self.turn).is_multiple_of(ASTRAY));
            let address = known.unwrap_or(&self.addresses[(number + self.turn) % self.addresses.len()]).clone();
            nodes.entry(address).or_default().push(number);
        }
        self.turn += 1;
        let mut again = Vec::new();
        for (address, numbers) in nodes {
            let connection = match self.connections.remove(&address) {
                Some(connection) => Some(connection),
                None => timeout_at(deadline, Connection::open(&address)).await.ok().and_then(Result::ok),
            };
            let Some(mut connection) = connection else {
                again.extend(numbers);
                continue;
            };
            let words = |number: &usize| calls[*number].1.words(&calls[*number].0).into_iter().map(str::to_owned).collect();
            let commands: Vec<Vec<String>> = numbers.iter().map(words).collect();
            let mut whole = matches!(timeout_at(deadline, connection.send(&commands)).await, Ok(Ok(())));
            for number in numbers {
                let answer = if whole { timeout_at(deadline, connection.answer()).await.ok().and_then(Result::ok) } else { None };
                match answer.map(|answer| verdict(&calls[number].1, answer)) {
                    Some(Verdict::Answered(answered)) => each(number, answered),
                    Some(Verdict::Again(_)) => again.push(number),
                    None => {
                        whole = false;
                        each(number, Answered::Open);
                    }
                }
            }
            if whole {
                self.connections.insert(address, connection);
            }
        }
        for number in again {
            let (key, operation) = &calls[number];
            each(number, self.call(key, operation).await);
        }
    }

    /// Sends an operation until it is executed, or until nobody can say whether it was.
    pub(super) async fn call(&mut self, key: &str, operation: &Operation) -> Answered {
        let slot = Slot::of_key(key.as_bytes());
        let deadline = Instant::now() + self.patience;
        let mut asked_to: Option<String> = None;
        while Instant::now() < deadline {
            let asking = asked_to.take();
            let address = match (&asking, self.places.get(&slot)) {
                (Some(address), _) | (None, Some(address)) => address.clone(),
                (None, None) => self.addresses[self.turn % self.addresses.len()].clone(),
            };
            if !self.connections.contains_key(&address) {
                // What was never connected was never asked.
                let Ok(Ok(connection)) = timeout_at(deadline, Connection::open(&address)).await else {
                    self.forget(slot);
                    sleep(PAUSE).await;
                    continue;
                };
                self.connections.insert(address.clone(), connection);
            }
            let Some(mut connection) = self.connections.remove(&address) else { continue };
            let answer = timeout_at(deadline, exchange(&mut connection, key, operation, asking.is_some())).await;
            // A connection that broke, or whose answer did not come, is never used again: that answer may still come on it.
            let Ok(Ok(answer)) = answer else {
                self.forget(slot);
                return Answered::Open;
            };
            self.connections.insert(address, connection);
            match verdict(operation, answer) {
                Verdict::Answered(answered) => return answered,
                Verdict::Again(Some((address, true))) => asked_to = Some(address),
                Verdict::Again(Some((address, false))) => drop(self.places.insert(slot, address)),
                Verdict::Again(None) => sleep(PAUSE).await,
            }
        }
        Answered::Never
    }

    /// Another node is asked where the slot is.
    fn forget(&mut self, slot: Slot) {
        self.places.remove(&slot);
        self.turn += 1;
    }
}

async fn exchange(connection: &mut Connection, key: &str, operation: &Operation, asking: bool) -> anyhow::Result<Answer> {
    if asking {
        connection.ask(&["ASKING"]).await?;
    }
    connection.ask(&operation.words(key)).await
}

fn verdict(operation: &Operation, answer: Answer) -> Verdict {
    let reply = match answer {
        Answer::Error(text) => return refused(text),
        Answer::Simple(text) if text == "OK" => Reply::Ok,
        Answer::Integer(number) => Reply::Integer(number),
        Answer::Bulk(None) => Reply::Text(None),
        Answer::Bulk(Some(bytes)) => Reply::Text(Some(String::from_utf8_lossy(&bytes).into_owned())),
        other => return Verdict::Answered(Answered::Error(format!("{operation:?} was answered {other:?}"))),
    };
    Verdict::Answered(Answered::Reply(reply))
}

fn refused(text: String) -> Verdict {
    let mut words = text.split(' ');
    let code = words.next().unwrap_or_default();
    match code {
        "MOVED" | "ASK" => match words.nth(1) {
            Some(address) => Verdict::Again(Some((address.to_owned(), code == "ASK"))),
            None => Verdict::Answered(Answered::Error(text)),
        },
        "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" => Verdict::Again(None),
        "WRONGTYPE" => Verdict::Answered(Answered::Reply(Reply::WrongType)),
        "ERR" if text.contains("not an integer") || text.contains("overflow") => {
            Verdict::Answered(Answered::Reply(Reply::NotInteger))
        }
        _ => Verdict::Answered(Answered::Error(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_proves_that_nothing_was_executed_is_asked_again() {
        let verdict = |text: &str| verdict(&Operation::Incr, Answer::Error(text.into()));
        for text in ["TRYAGAIN the slot is being switched", "CLUSTERDOWN Hash slot not served", "LOADING it is being read"] {
            assert!(matches!(verdict(text), Verdict::Again(None)), "{text}");
        }
        for (text, asks) in [("MOVED 5 127.0.0.1:7", false), ("ASK 5 127.0.0.1:7", true)] {
            let Verdict::Again(Some((address, asking))) = verdict(text) else { panic!("{text}") };
            assert_eq!((address.as_str(), asking), ("127.0.0.1:7", asks));
        }
        for text in ["ERR something else", "MISCONF the disk is full", "MOVED", "READONLY of no use here", ""] {
            assert!(matches!(verdict(text), Verdict::Answered(Answered::Error(_))), "{text}");
        }
    }
}
