//! What a key does, one operation after the other.

use std::collections::BTreeMap;

/// What a client asks of a key. All texts are short and, where it matters, unlike any other of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET
    Get,
    /// SET
    Set(String),
    /// APPEND
    Append(String),
    /// INCR
    Incr,
    /// HSET of one field.
    HSet(String, String),
    /// HGET
    HGet(String),
    /// DEL
    Del,
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Ok,
    /// A number: a length, a count, the new value.
    Integer(i64),
    /// A text, or that there is none.
    Text(Option<String>),
    /// WRONGTYPE
    WrongType,
    /// The value is no number, or past the largest.
    NotInteger,
}

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing.
    #[default]
    Absent,
    /// A string.
    Text(String),
    /// A hash.
    Hash(BTreeMap<String, String>),
}

impl Operation {
    /// Words of the command.
    pub fn words<'a>(&'a self, key: &'a str) -> Vec<&'a str> {
        match self {
            Self::Get => vec!["GET", key],
            Self::Set(value) => vec!["SET", key, value],
            Self::Append(value) => vec!["APPEND", key, value],
            Self::Incr => vec!["INCR", key],
            Self::HSet(field, value) => vec!["HSET", key, field, value],
            Self::HGet(field) => vec!["HGET", key, field],
            Self::Del => vec!["DEL", key],
        }
    }

    /// Whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Get | Self::HGet(_))
    }

    /// What it answers in a state, and the state it leaves; `None`: the same.
    pub fn apply(&self, state: &State) -> (Reply, Option<State>) {
        match (self, state) {
            (Self::Set(value), _) => (Reply::Ok, Some(State::Text(value.clone()))),
            (Self::Del, State::Absent) => (Reply::Integer(0), None),
            (Self::Del, _) => (Reply::Integer(1), Some(State::Absent)),
            (Self::Get | Self::HGet(_), State::Absent) => (Reply::Text(None), None),
            (Self::Get, State::Text(text)) => (Reply::Text(Some(text.clone())), None),
            (Self::Append(more), State::Absent) => (Reply::Integer(more.len() as i64), Some(State::Text(more.clone()))),
            (Self::Append(more), State::Text(text)) => {
                let whole = format!("{text}{more}");
                (Reply::Integer(whole.len() as i64), Some(State::Text(whole)))
            }
            (Self::Incr, State::Absent) => (Reply::Integer(1), Some(State::Text("1".into()))),
            (Self::Incr, State::Text(text)) => match text.parse::<i64>().ok().and_then(|number| number.checked_add(1)) {
                Some(number) => (Reply::Integer(number), Some(State::Text(number.to_string()))),
                None => (Reply::NotInteger, None),
            },
            (Self::HSet(field, value), State::Absent) => {
                (Reply::Integer(1), Some(State::Hash(BTreeMap::from([(field.clone(), value.clone())]))))
            }
            (Self::HSet(field, value), State::Hash(fields)) => {
                let mut fields = fields.clone();
                let old = fields.insert(field.clone(), value.clone());
                (Reply::Integer(i64::from(old.is_none())), Some(State::Hash(fields)))
            }
            (Self::HGet(field), State::Hash(fields)) => (Reply::Text(fields.get(field).cloned()), None),
            (Self::Get | Self::Append(_) | Self::Incr, State::Hash(_)) => (Reply::WrongType, None),
            (Self::HSet(..) | Self::HGet(_), State::Text(_)) => (Reply::WrongType, None),
        }
    }
}
