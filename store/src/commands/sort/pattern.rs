//! Patterns of SORT: a key's name with a star for the element, with `->field` of a hash; `#` is the element itself.

use sluice_topology::Slot;

use crate::types::{Keyspace, TypeError};

/// See the module's text.
pub(super) struct Pattern<'q> {
    word: &'q [u8],
    /// What is before and behind the star.
    around: Option<(&'q [u8], &'q [u8])>,
    field: Option<&'q [u8]>,
}

impl<'q> Pattern<'q> {
    pub(super) fn new(word: &'q [u8]) -> Self {
        let Some(star) = word.iter().position(|byte| *byte == b'*') else { return Self { word, around: None, field: None } };
        let (before, behind) = (&word[..star], &word[star + 1..]);
        // An arrow with nothing behind it is part of the name.
        let arrow = behind.windows(2).position(|two| two == b"->").filter(|at| at + 2 < behind.len());
        match arrow {
            Some(at) => Self { word, around: Some((before, &behind[..at])), field: Some(&behind[at + 2..]) },
            None => Self { word, around: Some((before, behind)), field: None },
        }
    }

    pub(super) fn has_star(&self) -> bool {
        self.around.is_some()
    }

    /// Whether it stands for the element itself.
    pub(super) fn is_element(&self) -> bool {
        self.word == b"#"
    }

    /// What it stands for with that element: a string, or a field; `None` when there is no such thing, or of another type. Two point
    /// reads at most.
    pub(super) fn look_up(&self, keys: &Keyspace<'_>, element: &[u8]) -> Result<Option<Vec<u8>>, TypeError> {
        if self.is_element() {
            return Ok(Some(element.to_vec()));
        }
        let Some((before, behind)) = self.around else { return Ok(None) };
        let key = [before, element, behind].concat();
        let found = match self.field {
            Some(field) => keys.hash(&key).and_then(|hash| match hash {
                Some(hash) => hash.get(field, |value| value.map(<[u8]>::to_vec)),
                None => Ok(None),
            }),
            None => keys.get(&key, |value| value.map(<[u8]>::to_vec)),
        };
        match found {
            Err(TypeError::WrongType) => Ok(None),
            found => found,
        }
    }
}

/// The slot of every key that a pattern may match, if it is one: that of a hash tag before anything that stands for something else, or of
/// the one key it is.
pub(super) fn slot(pattern: &[u8]) -> Option<Slot> {
    let (mut open, mut at) = (None, 0);
    while at < pattern.len() {
        match pattern[at] {
            b'*' | b'?' | b'[' => return None,
            b'\\' => at += 1,
            b'{' if open.is_none() => open = Some(at),
            b'}' if open.is_some_and(|open| at > open + 1) => return open.map(|open| Slot::of_key(&pattern[open + 1..at])),
            _ => {}
        }
        at += 1;
    }
    Some(Slot::of_key(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_taken_apart_as_redis_does() {
        let apart = |word: &'static str| {
            let pattern = Pattern::new(word.as_bytes());
            (pattern.around, pattern.field)
        };
        assert_eq!(apart("w_*"), (Some((&b"w_"[..], &b""[..])), None));
        assert_eq!(apart("*_w->f"), (Some((&b""[..], &b"_w"[..])), Some(&b"f"[..])));
        assert_eq!(apart("w->*"), (Some((&b"w->"[..], &b""[..])), None));
        assert_eq!(apart("w*->"), (Some((&b"w"[..], &b"->"[..])), None));
        assert_eq!(apart("nosort"), (None, None));
    }

    #[test]
    fn a_pattern_has_a_slot_when_all_its_keys_do() {
        assert_eq!(slot(b"{a}_*"), Some(Slot::of_key(b"a")));
        assert_eq!(slot(b"x{a}*->f"), Some(Slot::of_key(b"a")));
        assert_eq!(slot(b"*{a}"), None);
        assert_eq!(slot(b"{*}"), None);
        assert_eq!(slot(b"plain"), Some(Slot::of_key(b"plain")));
    }
}
