//! Lists: each element is a subkey, its place a number. The record says the place of the first element and how many there are, so that
//! an element is found by its index with one point read, and both ends grow and shrink by one write an element.
//!
//! What is inserted or removed in the middle moves the elements on the shorter side of it by one place each.

mod places;

use std::ops::ControlFlow;

use super::{
    collection::{Members, MembersChange},
    keyspace::{Keyspace, TypeError},
};
use crate::engine::{EngineError, Kind, Span, Subkeys};
use places::Places;
pub use places::{End, offsets_of_range};

/// So many elements are deleted one by one; of more than that the list lets go at once, and its reclaiming is the background's.
const REMOVED_ONE_BY_ONE: u64 = 64;
/// So few neighbours are read one by one; more of them by going over them.
const READ_ONE_BY_ONE: u64 = 4;

/// A list that is there.
pub struct List<'e> {
    members: Members<'e>,
    places: Places,
}

impl<'e> Keyspace<'e> {
    /// The list of that key; `None` when there is no such key. At most one point read.
    pub fn list(&self, key: &[u8]) -> Result<Option<List<'e>>, TypeError> {
        self.members(key, Kind::List)?.map(List::of).transpose()
    }

    /// LPUSH and RPUSH, LPUSHX and RPUSHX: adds elements one after the other at an end; returns how many there are then. Without a list
    /// one is made, or with `if_there` nothing is, and 0 returned. One point read, one write an element.
    pub fn list_push<'v>(
        &self,
        key: &[u8],
        end: End,
        values: impl ExactSizeIterator<Item = &'v [u8]>,
        if_there: bool,
    ) -> Result<u64, TypeError> {
        let mut change = ListChange::begin(*self, key)?;
        if if_there && change.is_fresh() {
            return Ok(0);
        }
        for value in values {
            change.push(end, value)?;
        }
        Ok(change.finish())
    }

    /// LPOP and RPOP: takes up to `count` elements off an end, tells `begin` how many, and gives each to `each`. How many are left, `None` when
    /// there is no list. One point read an element, or a step of a scan.
    pub fn list_pop<R>(
        &self,
        key: &[u8],
        end: End,
        count: u64,
        reply: &mut R,
        begin: impl FnOnce(&mut R, u64),
        each: impl Fn(&mut R, &[u8]),
    ) -> Result<Option<u64>, TypeError> {
        let change = ListChange::begin(*self, key)?;
        if change.is_fresh() {
            return Ok(None);
        }
        let count = count.min(change.places.size);
        let keep = change.places.size - count;
        let (popped, kept) = match end {
            End::Front => (0..count, count..change.places.size),
            End::Back => (keep..change.places.size, 0..keep),
        };
        begin(reply, count);
        change.list()?.each(popped, end == End::Back, |_, value| {
            each(reply, value);
            ControlFlow::Continue(())
        })?;
        change.keep(kept).map(Some)
    }

    /// LSET: gives the element at an index another value; false when there is none, `None` when there is no list. One write.
    pub fn list_set(&self, key: &[u8], index: i64, value: &[u8]) -> Result<Option<bool>, TypeError> {
        let mut change = ListChange::begin(*self, key)?;
        if change.is_fresh() {
            return Ok(None);
        }
        let Some(offset) = change.places.offset_of_index(index) else { return Ok(Some(false)) };
        change.put(offset, value);
        change.finish();
        Ok(Some(true))
    }

    /// LTRIM: keeps the elements between two indexes; how many they are, `None` when there is no list. Costs the smaller of what is kept and
    /// what goes.
    pub fn list_trim(&self, key: &[u8], start: i64, stop: i64) -> Result<Option<u64>, TypeError> {
        let change = ListChange::begin(*self, key)?;
        if change.is_fresh() {
            return Ok(None);
        }
        let kept = offsets_of_range(start, stop, change.places.size);
        change.keep(kept).map(Some)
    }

    /// LREM: removes the first `count` elements of that value, with a negative count the last ones, with 0 all; returns how many, and
    /// how many are left. Costs a scan up to the last of them, and one write for each element on the shorter side of those that go.
    pub fn list_remove(&self, key: &[u8], count: i64, value: &[u8]) -> Result<(u64, u64), TypeError> {
        let mut change = ListChange::begin(*self, key)?;
        if change.is_fresh() {
            return Ok((0, 0));
        }
        let most = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let mut found = Vec::new();
        change.list()?.each(0..change.places.size, count < 0, |offset, element| {
            if element == value {
                found.push(offset);
            }
            if found.len() as u64 >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if count < 0 {
            found.reverse();
        }
        let (removed, left) = (found.len() as u64, change.places.size - found.len() as u64);
        if left == 0 {
            change.keep(0..0)?;
        } else if removed > 0 {
            change.close_gaps(&found)?;
            change.finish();
        }
        Ok((removed, left))
    }

    /// LINSERT: puts an element before or behind the first one that is `pivot`; how many there are then, `None` when there is no list,
    /// `Some(None)` when no element is `pivot`. Costs a scan up to it, and one write for each element on its shorter side.
    pub fn list_insert(&self, key: &[u8], pivot: &[u8], before: bool, value: &[u8]) -> Result<Option<Option<u64>>, TypeError> {
        let mut change = ListChange::begin(*self, key)?;
        if change.is_fresh() {
            return Ok(None);
        }
        let mut found = None;
        change.list()?.each(0..change.places.size, false, |offset, element| {
            if element != pivot {
                return ControlFlow::Continue(());
            }
            found = Some(offset);
            ControlFlow::Break(())
        })?;
        let Some(offset) = found else { return Ok(Some(None)) };
        change.insert(if before { offset } else { offset + 1 }, value)?;
        Ok(Some(Some(change.finish())))
    }

    /// LMOVE: takes an element off an end of one list and adds it at an end of another, or of the same. The element, and how many the
    /// first list has left; `None` when there is nothing to take. Three point reads and four writes at most.
    pub fn list_move(&self, from: (&[u8], End), to: (&[u8], End)) -> Result<Option<(Vec<u8>, u64)>, TypeError> {
        let ((from, off), (to, onto)) = (from, to);
        let mut source = ListChange::begin(*self, from)?;
        if source.is_fresh() {
            return Ok(None);
        }
        let place = source.places.at_end(off);
        let taken = source.list()?.members.get(Subkeys::Data, &place.to_be_bytes(), |value| value.map(<[u8]>::to_vec))?;
        let value = taken.ok_or_else(gap)?;
        if from == to {
            let size = source.places.size;
            if off != onto {
                source.take(off);
                source.push(onto, &value)?;
                source.finish();
            }
            return Ok(Some((value, size)));
        }
        // Before anything is changed: a destination of another type refuses the whole.
        let mut destination = ListChange::begin(*self, to)?;
        source.take(off);
        let left = source.finish();
        destination.push(onto, &value)?;
        destination.finish();
        Ok(Some((value, left)))
    }

    /// A list of those elements in the place of whatever the key holds; of none, no key. Returns how many there are.
    pub fn list_replace<'v>(&self, key: &[u8], values: impl Iterator<Item = &'v [u8]>) -> Result<u64, TypeError> {
        let mut list = ListChange { change: self.replace_collection(key, Kind::List)?, places: Places::EMPTY };
        for value in values {
            list.push(End::Back, value)?;
        }
        Ok(list.finish())
    }
}

impl<'e> List<'e> {
    fn of(members: Members<'e>) -> Result<Self, TypeError> {
        let places = Places::of(&members)?;
        Ok(Self { members, places })
    }

    /// How many elements there are; never 0.
    pub fn size(&self) -> u64 {
        self.places.size
    }

    /// Calls `with` with the element at an index, from the end if it is negative; `None` when there is none. One point read, no copy.
    pub fn at<R>(&self, index: i64, with: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TypeError> {
        let Some(offset) = self.places.offset_of_index(index) else { return Ok(with(None)) };
        self.members.get(Subkeys::Data, &self.places.place(offset).to_be_bytes(), with)
    }

    /// Calls `each` for elements and their distance from the first one, from the lower to the higher or in `reverse`; until it breaks. All
    /// as of one moment. One seek and a step an element.
    pub fn each(
        &self,
        offsets: std::ops::Range<u64>,
        reverse: bool,
        mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TypeError> {
        if offsets.is_empty() {
            return Ok(());
        }
        if offsets.end - offsets.start <= READ_ONE_BY_ONE {
            // All of them before any is passed on: `each` may write where the next one is.
            let mut read = Vec::with_capacity(READ_ONE_BY_ONE as usize);
            for offset in offsets {
                let place = self.places.place(offset).to_be_bytes();
                let value = self.members.get(Subkeys::Data, &place, |value| value.map(<[u8]>::to_vec))?;
                read.push((offset, value.ok_or_else(gap)?));
            }
            if reverse {
                read.reverse();
            }
            let _ = read.into_iter().try_for_each(|(offset, value)| each(offset, &value));
            return Ok(());
        }
        let (from, to) = (self.places.place(offsets.start).to_be_bytes(), self.places.place(offsets.end - 1).to_be_bytes());
        let span = Span { from: std::ops::Bound::Included(&from), to: std::ops::Bound::Included(&to), reverse };
        let mut damaged = false;
        self.members.each(Subkeys::Data, span, |place, value| match self.places.offset_of_place(place) {
            Some(offset) => each(offset, value),
            None => {
                damaged = true;
                ControlFlow::Break(())
            }
        })?;
        if damaged { Err(gap()) } else { Ok(()) }
    }
}

/// A list that is being changed: its key is claimed.
struct ListChange<'e, 'k> {
    change: MembersChange<'e, 'k>,
    places: Places,
}

impl<'e, 'k> ListChange<'e, 'k> {
    /// The list of that key, or a new one. One point read.
    fn begin(keys: Keyspace<'e>, key: &'k [u8]) -> Result<Self, TypeError> {
        let change = MembersChange::begin(keys, key, Kind::List)?;
        let places = if change.is_fresh() { Places::EMPTY } else { Places::of(change.members())? };
        Ok(Self { change, places })
    }

    fn is_fresh(&self) -> bool {
        self.change.is_fresh()
    }

    /// The list as it is so far.
    fn list(&self) -> Result<List<'e>, TypeError> {
        Ok(List { members: self.change.members().clone(), places: self.places })
    }

    fn push(&mut self, end: End, value: &[u8]) -> Result<(), TypeError> {
        self.places = self.places.longer(end).ok_or(TypeError::ListEnd)?;
        let place = self.places.at_end(end);
        self.change.put(Subkeys::Data, &place.to_be_bytes(), value);
        Ok(())
    }

    fn take(&mut self, end: End) {
        let place = self.places.at_end(end);
        self.change.remove(Subkeys::Data, &place.to_be_bytes());
        self.places = self.places.shorter(end);
    }

    fn put(&mut self, offset: u64, value: &[u8]) {
        self.change.put(Subkeys::Data, &self.places.place(offset).to_be_bytes(), value);
    }

    /// Keeps those elements alone, and gathers the record. How many they are.
    fn keep(mut self, kept: std::ops::Range<u64>) -> Result<u64, TypeError> {
        let (size, kept_size) = (self.places.size, kept.end.saturating_sub(kept.start));
        let removed = size - kept_size;
        if removed > REMOVED_ONE_BY_ONE && kept_size == 0 {
            self.change.discard();
            return Ok(0);
        }
        if removed > REMOVED_ONE_BY_ONE && kept_size < removed {
            let old = List { places: self.places, members: self.change.renew()? };
            self.places = Places::EMPTY;
            let mut outcome = Ok(());
            old.each(kept, false, |_, value| {
                outcome = self.push(End::Back, value);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome?;
        } else {
            let front = if kept_size == 0 { size } else { kept.start };
            (0..front).for_each(|_| self.take(End::Front));
            (0..removed - front).for_each(|_| self.take(End::Back));
        }
        Ok(self.finish())
    }

    /// Removes the elements at those offsets, in order, by moving those on the shorter side.
    fn close_gaps(&mut self, removed: &[u64]) -> Result<(), TypeError> {
        let (Some(lowest), Some(highest)) = (removed.first(), removed.last()) else { return Ok(()) };
        let (list, size, count) = (self.list()?, self.places.size, removed.len() as u64);
        if size - lowest <= highest + 1 {
            let (mut gone, mut target) = (removed.iter().copied().peekable(), *lowest);
            list.each(*lowest..size, false, |offset, value| {
                if gone.next_if_eq(&offset).is_none() {
                    self.put(target, value);
                    target += 1;
                }
                ControlFlow::Continue(())
            })?;
            (0..count).for_each(|_| self.take(End::Back));
        } else {
            let (mut gone, mut target) = (removed.iter().rev().copied().peekable(), *highest);
            list.each(0..highest + 1, true, |offset, value| {
                if gone.next_if_eq(&offset).is_none() {
                    self.put(target, value);
                    target = target.saturating_sub(1);
                }
                ControlFlow::Continue(())
            })?;
            (0..count).for_each(|_| self.take(End::Front));
        }
        Ok(())
    }

    /// Puts an element at that offset, by moving those on the shorter side.
    fn insert(&mut self, offset: u64, value: &[u8]) -> Result<(), TypeError> {
        let list = self.list()?;
        let size = self.places.size;
        let end = if offset <= size / 2 { End::Front } else { End::Back };
        self.places = self.places.longer(end).ok_or(TypeError::ListEnd)?;
        // Offsets below are those of before; at the front, an element that keeps its offset has moved by one place.
        let (moved, by) = if end == End::Front { (0..offset, 0) } else { (offset..size, 1) };
        list.each(moved, false, |offset, value| {
            self.put(offset + by, value);
            ControlFlow::Continue(())
        })?;
        self.put(offset, value);
        Ok(())
    }

    /// Gathers the record; without elements the key goes. How many there are.
    fn finish(mut self) -> u64 {
        let (was, now) = (self.change.members().size(), self.places.size);
        if now > was {
            self.change.grow(now - was);
        } else {
            self.change.shrink(was - now);
        }
        self.change.set_extra(self.places.encode().to_vec());
        self.change.finish();
        now
    }
}

/// Between the first and the last place of a list there is an element at every one.
fn gap() -> TypeError {
    EngineError::Damaged("an element of a list is missing".into()).into()
}
