//! The world of a schedule: nodes, what is on the way between them, and what may happen next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sluice_topology::{
    SlotEpoch,
    merge::{SlotRow, Verdict, judge},
};

use super::{
    AtStart, ImportStep, Obeyed, Order, Rules,
    parts::{Attempt, Given, Keys, Message, NODES, Node, SLOTS, Taken, Transfer, id_of, node_of},
};
use crate::{cluster::SlotState, dice::Dice};

pub(super) struct World {
    rules: Rules,
    dice: Dice,
    nodes: Vec<Node>,
    /// By the sender and the receiver: what is sent over one connection comes in its order, if it comes.
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    acknowledged: [Keys; SLOTS],
    keys: u32,
    faults: bool,
    pub(super) switched: usize,
}

impl World {
    pub(super) fn new(seed: u64, rules: Rules) -> Self {
        let row = |slot: usize| SlotRow { owner: Some(id_of(slot % NODES)), epoch: SlotEpoch(1) };
        let node = |at: usize| Node {
            rows: std::array::from_fn(row),
            live: Default::default(),
            given: BTreeMap::new(),
            taken: BTreeMap::new(),
            attempts: 0,
            up: true,
            confirmed: true,
            states: std::array::from_fn(|slot| if slot % NODES == at { SlotState::Open } else { SlotState::Elsewhere }),
            active: BTreeSet::new(),
            transfers: BTreeMap::new(),
        };
        Self {
            rules,
            dice: Dice::seeded(seed),
            nodes: (0..NODES).map(node).collect(),
            links: BTreeMap::new(),
            acknowledged: Default::default(),
            keys: 0,
            faults: true,
            switched: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.dice.below(end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.links.entry((from, to)).or_default().push_back(message);
    }

    /// A client adds a key, or deletes one, wherever the slot takes writes.
    fn write(&mut self) {
        let (slot, at) = (self.below(SLOTS), self.below(NODES));
        let deletes = self.one_in(3);
        self.keys += 1;
        let node = &mut self.nodes[at];
        if !node.up || node.states[slot] != SlotState::Open {
            return;
        }
        let key = if deletes { node.live[slot].first().copied() } else { Some(self.keys) };
        let Some(key) = key else { return };
        for acknowledged in [&mut node.live[slot], &mut self.acknowledged[slot]] {
            if deletes {
                acknowledged.remove(&key)
            } else {
                acknowledged.insert(key)
            };
        }
        for (number, transfer) in &mut node.transfers {
            let places = node.given[number].slots.iter().zip(&mut transfer.changed);
            places.filter(|((other, _), _)| *other == slot).for_each(|(_, changed)| {
                changed.insert(key);
            });
        }
    }

    fn begin(&mut self) {
        let at = self.below(NODES);
        let target = (at + 1 + self.below(NODES - 1)) % NODES;
        let wanted = self.below(SLOTS + 1);
        let node = &mut self.nodes[at];
        let moving = |slot| node.given.values().any(|unit| unit.slots.iter().any(|(other, _)| *other == slot));
        let slots: Vec<(usize, SlotEpoch)> = (0..SLOTS)
            .filter(|slot| (wanted == SLOTS || wanted == *slot) && node.rows[*slot].owner == Some(id_of(at)) && !moving(*slot))
            .map(|slot| (slot, node.rows[slot].epoch))
            .collect();
        if !node.up || !node.confirmed || slots.is_empty() {
            return;
        }
        node.attempts += 1;
        let number = node.attempts;
        node.given.insert(number, Given { target, slots: slots.clone(), committed: false });
        node.active.insert(number);
        // The snapshot: what is there now; everything later is a change.
        let snapshot = slots.iter().enumerate();
        let keys = snapshot.flat_map(|(place, (slot, _))| node.live[*slot].iter().map(move |key| (place, *key, true))).collect();
        node.transfers.insert(number, Transfer { sent: 1, changed: vec![Keys::new(); slots.len()], parked: false });
        self.send(at, target, Message::Begin { id: (at, number), target, slots });
        self.send(at, target, Message::Batch { id: (at, number), sequence: 0, keys });
    }

    /// A source goes on with one of its attempts: a round of changes, the last round with writes parked, PREPARE.
    fn go_on(&mut self) {
        let at = self.below(NODES);
        let last = self.one_in(2);
        let node = &mut self.nodes[at];
        let count = node.transfers.len();
        if !node.up || count == 0 {
            return;
        }
        let chosen = self.dice.below(count as u64) as usize;
        let Some((number, transfer)) = node.transfers.iter_mut().nth(chosen) else { return };
        if transfer.parked {
            return;
        }
        let unit = &node.given[number];
        let (id, target, sequence) = ((at, *number), unit.target, transfer.sent);
        if last {
            transfer.parked = true;
            for (slot, _) in &unit.slots {
                if node.states[*slot] == SlotState::Open {
                    node.states[*slot] = SlotState::WritesParked;
                }
            }
        }
        let places = unit.slots.iter().zip(&mut transfer.changed).enumerate();
        let keys = places
            .flat_map(|(place, ((slot, _), changed))| {
                let live = &node.live[*slot];
                std::mem::take(changed).into_iter().map(move |key| (place, key, live.contains(&key)))
            })
            .collect();
        transfer.sent += 1;
        let sent = transfer.sent;
        self.send(at, target, Message::Batch { id, sequence, keys });
        if last {
            self.send(at, target, Message::Prepare { id, sent });
        }
    }

    /// A source gives up what is not decided, and repeats what is.
    fn hurry(&mut self, give_up: bool) {
        let at = self.below(NODES);
        if !self.nodes[at].up {
            return;
        }
        let decided = self.nodes[at].given.iter().filter(|(_, unit)| unit.committed).map(|(number, unit)| (*number, unit.target));
        for (number, target) in decided.collect::<Vec<_>>() {
            self.send(at, target, Message::Order(Order::Commit, (at, number)));
        }
        let chosen = self.nodes[at].transfers.keys().next().copied();
        if let Some(number) = chosen.filter(|_| give_up) {
            self.abort(at, number);
        }
    }

    fn abort(&mut self, at: usize, number: u64) {
        let node = &mut self.nodes[at];
        node.transfers.remove(&number);
        node.active.remove(&number);
        let Some(unit) = node.given.remove(&number) else { return };
        for (slot, _) in unit.slots {
            if node.rows[slot].owner == Some(id_of(at)) {
                node.states[slot] = SlotState::Open;
            }
        }
        self.send(at, unit.target, Message::Order(Order::Abort, (at, number)));
    }

    fn kill(&mut self) {
        let at = self.below(NODES);
        let node = &mut self.nodes[at];
        (node.up, node.confirmed) = (false, false);
        (node.active, node.transfers) = (BTreeSet::new(), BTreeMap::new());
        node.states = [SlotState::Elsewhere; SLOTS];
        node.taken.values_mut().for_each(|unit| unit.came = None);
    }

    /// A node starts, and asks those of its peers that are reached for their word.
    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.up {
            return;
        }
        node.up = true;
        for slot in 0..SLOTS {
            if node.rows[slot].owner == Some(id_of(at)) {
                node.states[slot] = SlotState::Parked;
            }
        }
        let at_start = self.rules.at_start;
        node.given.retain(|_, unit| at_start(unit.committed) == AtStart::Fence);
        for peer in 0..NODES {
            if peer != at && self.nodes[peer].up && !(self.faults && self.one_in(3)) {
                let rows = self.nodes[peer].rows;
                self.send(peer, at, Message::Status { of: peer, rows });
            }
        }
    }

    /// The peers have answered, or not in time: what still is this node's by its own rows is opened.
    fn confirm(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.up || node.confirmed {
            return;
        }
        for slot in 0..SLOTS {
            // As `Cluster::confirm` does: what the start fenced is not opened here.
            if node.rows[slot].owner == Some(id_of(at)) && !node.fenced(slot) {
                node.states[slot] = SlotState::Open;
            }
        }
        node.confirmed = true;
    }

    fn ask(&mut self, at: usize) {
        if !self.nodes[at].up {
            return;
        }
        for id in self.nodes[at].taken.keys().copied().collect::<Vec<_>>() {
            self.send(at, id.0, Message::Ask { id, by: at });
        }
    }

    /// The operator pushes what it has gathered, each owner's own word, to one node.
    fn push(&mut self) {
        let mut rows = [SlotRow::default(); SLOTS];
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            for (slot, row) in node.rows.iter().enumerate() {
                if row.owner == Some(id_of(at)) && row.epoch > rows[slot].epoch {
                    rows[slot] = *row;
                }
            }
        }
        let to = self.below(NODES);
        self.send(to, to, Message::Document(rows));
    }

    /// A message comes, is lost, comes twice or out of its turn.
    fn deliver(&mut self) {
        let full: Vec<(usize, usize)> = self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
        if full.is_empty() {
            return;
        }
        let link = full[self.below(full.len())];
        let (late, lost, twice) = (self.one_in(12), self.one_in(20), self.one_in(20));
        let queue = self.links.entry(link).or_default();
        let place = if self.faults && late { self.dice.below(queue.len() as u64) as usize } else { 0 };
        let Some(message) = (if self.faults && twice { queue.get(place).cloned() } else { queue.remove(place) }) else { return };
        if self.nodes[link.1].up && !(self.faults && lost) {
            self.take(link.1, message);
        }
    }

    fn take(&mut self, at: usize, message: Message) {
        let rules = self.rules;
        match message {
            Message::Begin { id, target, slots } => {
                let node = &mut self.nodes[at];
                let free = |slot: usize| (rules.may_take_back)(node.fenced(slot));
                let staged = |(slot, epoch): &(usize, SlotEpoch)| {
                    (rules.may_stage)(id_of(at), node.rows[*slot], id_of(id.0), *epoch) && free(*slot)
                };
                if target == at && !node.taken.contains_key(&id) && slots.iter().all(staged) {
                    let staged = vec![Keys::new(); slots.len()];
                    node.taken.insert(id, Taken { step: ImportStep::Staged, slots, staged, came: Some(0) });
                }
            }
            Message::Batch { id, sequence, keys } => {
                let Some(unit) = self.nodes[at].taken.get_mut(&id) else { return };
                if unit.step == ImportStep::Staged && unit.came == Some(sequence) {
                    unit.came = Some(sequence + 1);
                    for (place, key, there) in keys {
                        if there {
                            unit.staged[place].insert(key)
                        } else {
                            unit.staged[place].remove(&key)
                        };
                    }
                }
            }
            Message::Prepare { id, sent } => {
                let Some(unit) = self.nodes[at].taken.get_mut(&id) else { return };
                match (rules.obey)(Order::Prepare, unit.step, unit.came == Some(sent)) {
                    Obeyed::Do => unit.step = ImportStep::Prepared,
                    Obeyed::Done => {}
                    Obeyed::Refuse => return,
                }
                self.send(at, id.0, Message::Prepared { number: id.1 });
            }
            Message::Prepared { number } => self.decide(at, number),
            Message::Order(order, id) => self.obey(at, order, id),
            Message::Confirmed { number } => self.done(at, number),
            Message::Ask { id, by } => {
                let node = &self.nodes[at];
                let decided = node.given.get(&id.1).map(|unit| unit.committed);
                let outcome = (rules.outcome)(decided, node.active.contains(&id.1));
                self.send(at, by, Message::Word { id, outcome });
            }
            Message::Word { id, outcome } => {
                let step = self.nodes[at].taken.get(&id).map(|unit| unit.step);
                if let Some(order) = step.and_then(|step| (rules.learned)(outcome, step)) {
                    self.obey(at, order, id);
                }
            }
            Message::Document(rows) => {
                for (slot, row) in rows.iter().enumerate() {
                    let Some(owner) = row.owner else { continue };
                    match judge(id_of(at), self.nodes[at].rows[slot], owner, row.epoch, |_| false) {
                        Verdict::Learn => self.nodes[at].rows[slot] = *row,
                        Verdict::AskOwner if self.nodes[node_of(owner)].up => {
                            let of = node_of(owner);
                            let rows = self.nodes[of].rows;
                            self.send(of, at, Message::Status { of, rows });
                        }
                        verdict => {
                            assert!(!matches!(verdict, Verdict::Assign | Verdict::TakeOver), "a document gives away {slot}");
                        }
                    }
                }
            }
            Message::Status { of, rows } => {
                let node = &mut self.nodes[at];
                for (slot, row) in rows.iter().enumerate() {
                    if row.owner == Some(id_of(of)) && row.epoch > node.rows[slot].epoch {
                        node.rows[slot] = *row;
                        node.states[slot] = SlotState::Elsewhere;
                    }
                }
            }
        }
    }

    /// COMMITTED(n).
    fn decide(&mut self, at: usize, number: u64) {
        let node = &mut self.nodes[at];
        if !node.transfers.remove(&number).is_some_and(|transfer| transfer.parked) {
            return;
        }
        let Some(unit) = node.given.get_mut(&number) else { return };
        unit.committed = true;
        let target = unit.target;
        for (slot, _) in &unit.slots {
            if node.states[*slot] != SlotState::Elsewhere {
                node.states[*slot] = SlotState::Parked;
            }
        }
        self.send(at, target, Message::Order(Order::Commit, (at, number)));
    }

    fn obey(&mut self, at: usize, order: Order, id: Attempt) {
        let node = &mut self.nodes[at];
        let Some(unit) = node.taken.get_mut(&id) else { return };
        match (order, (self.rules.obey)(order, unit.step, false)) {
            (_, Obeyed::Refuse) => return,
            (Order::Commit, Obeyed::Do) => {
                unit.step = ImportStep::Live;
                for ((slot, epoch), keys) in unit.slots.iter().zip(&mut unit.staged) {
                    node.rows[*slot] = SlotRow { owner: Some(id_of(at)), epoch: SlotEpoch(epoch.0 + 1) };
                    node.states[*slot] = SlotState::Open;
                    node.live[*slot] = std::mem::take(keys);
                }
                self.switched += 1;
            }
            (Order::Abort | Order::Forget, _) => drop(node.taken.remove(&id)),
            _ => {}
        }
        if order == Order::Commit {
            self.send(at, id.0, Message::Confirmed { number: id.1 });
        }
    }

    /// DONE(n).
    fn done(&mut self, at: usize, number: u64) {
        let records = self.rules.records;
        let node = &mut self.nodes[at];
        let Some(unit) = node.given.remove(&number) else { return };
        node.active.remove(&number);
        for (slot, epoch) in unit.slots {
            let row = SlotRow { owner: Some(id_of(unit.target)), epoch: SlotEpoch(epoch.0 + 1) };
            if records(node.rows[slot], row) {
                node.rows[slot] = row;
                node.states[slot] = SlotState::Elsewhere;
            }
            node.live[slot].clear();
        }
        self.send(at, unit.target, Message::Order(Order::Forget, (at, number)));
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for slot in 0..SLOTS {
            let serving: Vec<usize> = (0..NODES).filter(|at| self.nodes[*at].serves(slot)).collect();
            if serving.len() > 1 {
                return Err(format!("slot {slot} is served by {serving:?}"));
            }
            if let Some(at) = serving.first()
                && self.nodes[*at].live[slot] != self.acknowledged[slot]
            {
                return Err(format!("node {at} serves slot {slot} with other keys than were acknowledged"));
            }
        }
        Ok(())
    }

    pub(super) fn step(&mut self) {
        match self.below(100) {
            0..25 => self.write(),
            25..30 => self.begin(),
            30..42 => self.go_on(),
            42..46 => {
                let give_up = self.one_in(4);
                self.hurry(give_up);
            }
            46 => self.kill(),
            47..53 => {
                let at = self.below(NODES);
                self.start(at);
            }
            53..60 => {
                let at = self.below(NODES);
                self.confirm(at);
            }
            60..63 => {
                let at = self.below(NODES);
                self.ask(at);
            }
            63..66 => self.push(),
            _ => self.deliver(),
        }
    }

    /// Everything is up and reached again: what is left over is brought to its end.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        for _ in 0..8 {
            for at in 0..NODES {
                self.start(at);
            }
            self.drain()?;
            for at in 0..NODES {
                self.confirm(at);
                self.ask(at);
                for number in self.nodes[at].transfers.keys().copied().collect::<Vec<_>>() {
                    self.abort(at, number);
                }
                let given = self.nodes[at].given.iter().filter(|(_, unit)| unit.committed);
                for (number, target) in given.map(|(number, unit)| (*number, unit.target)).collect::<Vec<_>>() {
                    self.send(at, target, Message::Order(Order::Commit, (at, number)));
                }
            }
            self.drain()?;
        }
        for slot in 0..SLOTS {
            if !self.nodes.iter().any(|node| node.states[slot] == SlotState::Open) {
                return Err(format!("nobody serves slot {slot} after all"));
            }
        }
        let left_over = self.nodes.iter().any(|node| !node.given.is_empty() || !node.taken.is_empty());
        if left_over { Err("an attempt is left over".into()) } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<(), String> {
        while self.links.values().any(|queue| !queue.is_empty()) {
            self.deliver();
            self.check()?;
        }
        Ok(())
    }
}
