//! A profile in the form of `pprof`: gzipped protocol buffers (`profile.proto`), with the names in it, so that no binary is needed to
//! read it.

use std::{
    collections::HashMap,
    io::{self, Write as _},
};

use flate2::{Compression, write::GzEncoder};

use super::{profile::Profile, symbols::Symbols};

/// A message under way. Field numbers are those of `profile.proto`.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn packed(&mut self, field: u64, values: impl IntoIterator<Item = u64>) {
        let mut packed = Self::default();
        values.into_iter().for_each(|value| packed.varint(value));
        self.bytes(field, &packed.0);
    }
}

/// Strings by their places in the table; the first is empty.
struct Strings(HashMap<String, u64>, Vec<String>);

impl Strings {
    fn place(&mut self, text: &str) -> u64 {
        if let Some(place) = self.0.get(text) {
            return *place;
        }
        let place = self.1.len() as u64;
        self.0.insert(text.to_owned(), place);
        self.1.push(text.to_owned());
        place
    }
}

impl Profile {
    /// The profile as `pprof` reads it.
    pub fn to_pprof(&self) -> io::Result<Vec<u8>> {
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(&self.encode(&mut Symbols::default()))?;
        zipped.finish()
    }

    fn encode(&self, symbols: &mut Symbols) -> Vec<u8> {
        let mut profile = Message::default();
        let mut strings = Strings(HashMap::from([(String::new(), 0)]), vec![String::new()]);
        let kind = |strings: &mut Strings, (kind, unit): (&str, &str)| {
            let mut message = Message::default();
            message.number(1, strings.place(kind));
            message.number(2, strings.place(unit));
            message.0
        };
        for known in self.kinds {
            profile.bytes(1, &kind(&mut strings, known));
        }
        let (mut locations, mut functions) = (HashMap::new(), HashMap::new());
        let mut tables = Message::default();
        for sample in &self.samples {
            let stack = symbols.outside_allocator(&sample.stack);
            let ids: Vec<u64> = stack
                .iter()
                .map(|address| {
                    let next = locations.len() as u64 + 1;
                    *locations.entry(*address).or_insert_with(|| {
                        let mut location = Message::default();
                        location.number(1, next);
                        location.number(2, 1);
                        location.number(3, *address as u64);
                        let mut line = Message::default();
                        line.number(1, function(&mut functions, &mut strings, &mut tables, symbols.at(*address)));
                        location.bytes(4, &line.0);
                        tables.bytes(4, &location.0);
                        next
                    })
                })
                .collect();
            let mut message = Message::default();
            message.packed(1, ids);
            message.packed(2, sample.values);
            profile.bytes(2, &message.0);
        }
        let mut mapping = Message::default();
        mapping.number(1, 1);
        mapping.number(3, u64::MAX >> 1);
        mapping.number(5, strings.place("sluice-store"));
        // Functions are named: nothing is to be looked up.
        mapping.number(7, 1);
        profile.bytes(3, &mapping.0);
        let period = kind(&mut strings, (self.period.0, self.period.1));
        profile.0.extend_from_slice(&tables.0);
        strings.1.iter().for_each(|text| profile.bytes(6, text.as_bytes()));
        profile.number(10, self.duration_ns);
        profile.bytes(11, &period);
        profile.number(12, self.period.2);
        profile.0
    }
}

/// The number of a function, which is described in `tables` when it is new.
fn function(functions: &mut HashMap<u64, u64>, strings: &mut Strings, tables: &mut Message, name: &str) -> u64 {
    let (name, next) = (strings.place(name), functions.len() as u64 + 1);
    *functions.entry(name).or_insert_with(|| {
        let mut message = Message::default();
        message.number(1, next);
        message.number(2, name);
        message.number(3, name);
        tables.bytes(5, &message.0);
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::profile::Sample;

    #[test]
    fn numbers_are_written_as_protocol_buffers_have_them() {
        let mut message = Message::default();
        message.number(1, 300);
        message.number(2, 0);
        message.packed(3, [1, 128]);
        assert_eq!(message.0, [0x08, 0xac, 0x02, 0x1a, 0x03, 0x01, 0x80, 0x01]);
    }

    #[test]
    fn a_stack_is_described_once_however_often_it_is_there() {
        let sample = |value| Sample { stack: vec![0x10, 0x20], values: [1, value] };
        let profile = |samples| Profile {
            kinds: [("inuse_objects", "count"), ("inuse_space", "bytes")],
            period: ("space", "bytes", 512),
            duration_ns: 0,
            samples,
        };
        let one = profile(vec![sample(5)]).encode(&mut Symbols::default());
        let two = profile(vec![sample(5), sample(6)]).encode(&mut Symbols::default());
        // A sample is ten bytes here: two locations and two values, each packed, and the sample's own head.
        assert_eq!(two.len() - one.len(), 10);
        let unzipped = profile(vec![sample(5)]).to_pprof().unwrap();
        assert_eq!(unzipped[..2], [0x1f, 0x8b]);
    }
}
