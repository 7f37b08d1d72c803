//! Keyspace notifications: which classes of events are told, and on which channels.

use bytes::Bytes;

/// A class of events, by its letter in `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// `g`: commands of keys whatever they hold: del, expire, rename.
    Generic = 1,
    /// `$`: strings, bitmaps, HyperLogLogs.
    String = 1 << 1,
    /// `l`
    List = 1 << 2,
    /// `s`
    Set = 1 << 3,
    /// `h`
    Hash = 1 << 4,
    /// `z`
    SortedSet = 1 << 5,
    /// `t`
    Stream = 1 << 6,
    /// `x`: a key was deleted because it had expired.
    Expired = 1 << 7,
    /// `e`: never happens here, nothing is evicted.
    Evicted = 1 << 8,
    /// `m`: a key that was asked for is not there.
    Missed = 1 << 9,
    /// `n`: there is a key that was not there before.
    New = 1 << 10,
    /// `d`: events of modules; there are none.
    Module = 1 << 11,
}

/// `K`: events are told on `__keyspace@<db>__:<key>`.
const KEYSPACE: u32 = 1 << 16;
/// `E`: events are told on `__keyevent@<db>__:<event>`.
const KEYEVENT: u32 = 1 << 17;

const LETTERS: [(char, u32); 12] = [
    ('g', Class::Generic as u32),
    ('$', Class::String as u32),
    ('l', Class::List as u32),
    ('s', Class::Set as u32),
    ('h', Class::Hash as u32),
    ('z', Class::SortedSet as u32),
    ('x', Class::Expired as u32),
    ('e', Class::Evicted as u32),
    ('t', Class::Stream as u32),
    ('d', Class::Module as u32),
    ('n', Class::New as u32),
    ('m', Class::Missed as u32),
];
/// `A`: all but `m` and `n`, which are of reads and of every write.
const ALL: u32 = (1 << 12) - 1 - Class::Missed as u32 - Class::New as u32;

/// What `notify-keyspace-events` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify(u32);

impl Notify {
    /// Reads the letters of the setting; `None` when one of them stands for nothing.
    pub fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self(0), |Self(bits), letter| {
            let more = match letter {
                'A' => ALL,
                'K' => KEYSPACE,
                'E' => KEYEVENT,
                _ => LETTERS.iter().find(|(known, _)| *known == letter)?.1,
            };
            Some(Self(bits | more))
        })
    }

    /// The letters, in Redis' order.
    pub fn render(self) -> String {
        let all = self.0 & ALL == ALL;
        let classes = LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0 && !(all && ALL & bit != 0));
        let classes: String = all.then_some('A').into_iter().chain(classes.map(|(letter, _)| *letter)).collect();
        let (missed, classes): (Vec<char>, Vec<char>) = classes.chars().partition(|letter| *letter == 'm');
        let kinds = [('K', KEYSPACE), ('E', KEYEVENT)].into_iter().filter(|(_, bit)| self.0 & bit != 0).map(|(letter, _)| letter);
        classes.into_iter().chain(kinds).chain(missed).collect()
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether an event of that class is told at all.
    pub fn wants(self, class: Class) -> bool {
        self.0 & class as u32 != 0 && self.0 & (KEYSPACE | KEYEVENT) != 0
    }

    /// Channels and payloads of an event.
    pub(super) fn messages(self, database: u8, name: &'static str, key: &Bytes) -> impl Iterator<Item = (Bytes, Bytes)> {
        let keyspace = (self.0 & KEYSPACE != 0).then(|| {
            let mut channel = format!("__keyspace@{database}__:").into_bytes();
            channel.extend_from_slice(key);
            (Bytes::from(channel), Bytes::from_static(name.as_bytes()))
        });
        let keyevent = (self.0 & KEYEVENT != 0).then(|| (Bytes::from(format!("__keyevent@{database}__:{name}")), key.clone()));
        keyspace.into_iter().chain(keyevent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_and_written_as_redis_does() {
        for (given, shown) in
            [("", ""), ("KEA", "AKE"), ("g$lshzxetdKE", "AKE"), ("EKx", "xKE"), ("Km", "Km"), ("AnmE", "AnEm"), ("lK", "lK")]
        {
            assert_eq!(Notify::parse(given).unwrap().render(), shown, "{given}");
        }
        assert_eq!(Notify::parse("Kq"), None);
    }

    #[test]
    fn a_class_without_a_channel_is_not_told() {
        let wants = |text| Notify::parse(text).unwrap().wants(Class::List);
        assert!(wants("Kl") && wants("EA") && !wants("l") && !wants("K$") && !wants(""));
    }
}
