//! Commands of bits.

use bytes::Bytes;

use super::{CommandError, Context};
use crate::{
    clients::Class,
    protocol::Request,
    types::{BitOperation, BitSet, FieldStep, FieldType, OverflowRule, count_bits, find_bit, parse_integer, read_field},
};

type Outcome = Result<(), CommandError>;

/// A bit's place; with `times`, a `#` before it multiplies it by the width of a field.
fn offset(cx: &Context<'_, '_>, word: &[u8], times: Option<u32>) -> Result<u64, CommandError> {
    let wrong = || CommandError::new("ERR bit offset is not an integer or out of range");
    let (word, factor) = match (word.strip_prefix(b"#"), times) {
        (Some(rest), Some(bits)) => (rest, u64::from(bits)),
        _ => (word, 1),
    };
    let number = parse_integer(word).ok().and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong)?;
    let number = number.checked_mul(factor).ok_or_else(wrong)?;
    if number / 8 >= cx.node.settings.proto_max_bulk_len.0 { Err(wrong()) } else { Ok(number) }
}

fn bit(word: &[u8]) -> Option<bool> {
    match word {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

pub(super) fn setbit(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let at = offset(cx, &request[2], None)?;
    let on = bit(&request[3]).ok_or_else(|| CommandError::new("ERR bit is not an integer or out of range"))?;
    let BitSet { was, changed } = cx.keyspace().set_bit(&request[1], at, on)?;
    if changed {
        cx.event(Class::String, "setbit", &request[1]);
    }
    cx.reply.integer(i64::from(was));
    Ok(())
}

pub(super) fn getbit(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let at = offset(cx, &request[2], None)?;
    let is = cx.keyspace().get(&request[1], |value| {
        let byte = value.and_then(|value| value.get((at / 8) as usize)).copied().unwrap_or(0);
        byte & (0x80 >> (at % 8)) != 0
    })?;
    cx.reply.integer(i64::from(is));
    Ok(())
}

/// A range of bits given as bytes or bits, negative ones counted from the end; `None`: nothing is in it.
#[derive(Clone, Copy)]
struct BitRange {
    start: i64,
    end: i64,
    of_bits: bool,
}

impl BitRange {
    fn of(self, length: usize) -> Option<(u64, u64)> {
        let total = length as i64 * if self.of_bits { 8 } else { 1 };
        if self.start < 0 && self.end < 0 && self.start > self.end {
            return None;
        }
        let from_end = |at: i64| if at < 0 { (total + at).max(0) } else { at };
        let (start, end) = (from_end(self.start), from_end(self.end).min(total - 1));
        if start > end {
            return None;
        }
        let (start, end) = (start as u64, end as u64);
        Some(if self.of_bits { (start, end) } else { (start * 8, end * 8 + 7) })
    }
}

fn unit(word: Option<&Bytes>) -> Result<bool, CommandError> {
    match word {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case(b"bit") => Ok(true),
        Some(word) if word.eq_ignore_ascii_case(b"byte") => Ok(false),
        Some(_) => Err(CommandError::syntax()),
    }
}

pub(super) fn bitcount(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let wanted = match &request[2..] {
        [] => BitRange { start: 0, end: -1, of_bits: false },
        [start, end, rest @ ..] if rest.len() < 2 => {
            let (start, end) = (parse_integer(start)?, parse_integer(end)?);
            BitRange { start, end, of_bits: unit(rest.first())? }
        }
        _ => return Err(CommandError::syntax()),
    };
    let count = cx.keyspace().get(&request[1], |value| {
        let value = value.unwrap_or_default();
        wanted.of(value.len()).map_or(0, |(start, end)| count_bits(value, start, end))
    })?;
    cx.reply.unsigned(count);
    Ok(())
}

pub(super) fn bitpos(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    // As Redis reads it: a whole number first, then whether it is a bit.
    parse_integer(&request[2])?;
    let on = bit(&request[2]).ok_or_else(|| CommandError::new("ERR The bit argument must be 1 or 0."))?;
    let (wanted, end_given) = match &request[3..] {
        [] => (BitRange { start: 0, end: -1, of_bits: false }, false),
        [start] => (BitRange { start: parse_integer(start)?, end: -1, of_bits: false }, false),
        [start, end, rest @ ..] if rest.len() < 2 => {
            let of_bits = unit(rest.first())?;
            let (start, end) = (parse_integer(start)?, parse_integer(end)?);
            (BitRange { start, end, of_bits }, true)
        }
        _ => return Err(CommandError::syntax()),
    };
    let found = cx.keyspace().get(&request[1], |value| {
        // What is not there is zeros without an end.
        let Some(value) = value else { return if on { -1 } else { 0 } };
        let Some((start, end)) = wanted.of(value.len()) else { return -1 };
        match find_bit(value, on, start, end) {
            Some(at) => at as i64,
            // Behind the string everything is zero, unless the range ends.
            None if !on && !end_given => value.len() as i64 * 8,
            None => -1,
        }
    })?;
    cx.reply.integer(found);
    Ok(())
}

pub(super) fn bitop(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let operation = match request[1].to_ascii_lowercase().as_slice() {
        b"and" => BitOperation::And,
        b"or" => BitOperation::Or,
        b"xor" => BitOperation::Xor,
        b"not" => BitOperation::Not,
        _ => return Err(CommandError::syntax()),
    };
    if operation == BitOperation::Not && request.len() != 4 {
        return Err(CommandError::new("ERR BITOP NOT must be called with a single source key."));
    }
    let keys: Vec<&[u8]> = request[3..].iter().map(AsRef::as_ref).collect();
    let length = cx.keyspace().bit_operation(operation, &request[2], &keys)?;
    if length > 0 {
        cx.event(Class::String, "set", &request[2]);
    } else {
        cx.event(Class::Generic, "del", &request[2]);
    }
    cx.reply.unsigned(length as u64);
    Ok(())
}

pub(super) fn bitfield(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let steps = steps(cx, &request[2..], false)?;
    if !steps.iter().any(|step| step.writes()) {
        return read_fields(cx, &request[1], &steps);
    }
    let (answers, changed) = cx.keyspace().bit_field(&request[1], &steps)?;
    if changed {
        cx.event(Class::String, "setbit", &request[1]);
    }
    cx.reply.array(answers.len());
    for answer in answers {
        match answer {
            Some(number) => cx.reply.integer(number),
            None => cx.reply.null(),
        }
    }
    Ok(())
}

pub(super) fn bitfield_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let steps = steps(cx, &request[2..], true)?;
    read_fields(cx, &request[1], &steps)
}

fn read_fields(cx: &mut Context<'_, '_>, key: &[u8], steps: &[FieldStep]) -> Outcome {
    let keys = cx.keyspace();
    keys.get(key, |value| {
        let value = value.unwrap_or_default();
        cx.reply.array(steps.len());
        for step in steps {
            let (FieldStep::Get(kind, at) | FieldStep::Set(kind, at, ..) | FieldStep::Add(kind, at, ..)) = *step;
            cx.reply.integer(read_field(value, kind, at));
        }
    })?;
    Ok(())
}

fn field_type(word: &[u8]) -> Result<FieldType, CommandError> {
    let wrong =
        || CommandError::new("ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.");
    let (signed, digits) = match word {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(wrong()),
    };
    let bits = parse_integer(digits).ok().and_then(|bits| u32::try_from(bits).ok()).ok_or_else(wrong)?;
    let most = if signed { 64 } else { 63 };
    if (1..=most).contains(&bits) { Ok(FieldType { signed, bits }) } else { Err(wrong()) }
}

fn steps(cx: &Context<'_, '_>, words: &[Bytes], read_only: bool) -> Result<Vec<FieldStep>, CommandError> {
    let (mut steps, mut rule, mut words) = (Vec::new(), OverflowRule::default(), words.iter());
    while let Some(word) = words.next() {
        let name = word.to_ascii_lowercase();
        let mut next = || words.next().ok_or_else(CommandError::syntax);
        match name.as_slice() {
            b"overflow" => {
                rule = match next()?.to_ascii_lowercase().as_slice() {
                    b"wrap" => OverflowRule::Wrap,
                    b"sat" => OverflowRule::Saturate,
                    b"fail" => OverflowRule::Fail,
                    _ => return Err(CommandError::new("ERR Invalid OVERFLOW type specified")),
                };
                continue;
            }
            b"get" | b"set" | b"incrby" => {}
            _ => return Err(CommandError::syntax()),
        }
        let (kind, place) = (next()?, next()?);
        let number = if name == b"get" { None } else { Some(next()?) };
        let kind = field_type(kind)?;
        let at = offset(cx, place, Some(kind.bits))?;
        steps.push(match number {
            None => FieldStep::Get(kind, at),
            Some(number) if name == b"set" => FieldStep::Set(kind, at, parse_integer(number)?, rule),
            Some(number) => FieldStep::Add(kind, at, parse_integer(number)?, rule),
        });
    }
    if read_only && steps.iter().any(|step| step.writes()) {
        return Err(CommandError::new("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    Ok(steps)
}
