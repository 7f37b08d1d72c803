//! Between what Lua holds and what the protocol says, as Redis converts them.

use mlua::{Lua, Table, Value};
use redis_protocol::{resp2, resp3};

use crate::protocol::{ReplyWriter, Version};

/// Tables inside of one another.
const DEPTH_MAX: usize = 100;

/// Writes what a script returned; its truths as such if it chose the third version of the protocol.
pub(super) fn write(reply: &mut ReplyWriter<'_>, value: &Value, booleans: bool) -> mlua::Result<()> {
    nested(reply, value, booleans, 0)
}

/// The text of a value that is answered as an error.
pub(super) fn error_of(value: &Value) -> Option<String> {
    match value.as_table()?.raw_get::<Value>("err") {
        Ok(Value::String(text)) => Some(text.to_string_lossy()),
        _ => None,
    }
}

fn nested(reply: &mut ReplyWriter<'_>, value: &Value, booleans: bool, depth: usize) -> mlua::Result<()> {
    match value {
        Value::String(text) => reply.bulk(&text.as_bytes()),
        Value::Integer(number) => reply.integer(*number),
        Value::Number(number) => reply.integer(*number as i64),
        Value::Boolean(value) if booleans => reply.boolean(*value),
        Value::Boolean(true) => reply.integer(1),
        Value::Table(_) if depth >= DEPTH_MAX => reply.error("ERR reached lua stack limit"),
        Value::Table(table) => write_table(reply, table, booleans, depth + 1)?,
        _ => reply.null(),
    }
    Ok(())
}

fn write_table(reply: &mut ReplyWriter<'_>, table: &Table, booleans: bool, depth: usize) -> mlua::Result<()> {
    let text = |name: &str| match table.raw_get::<Value>(name) {
        Ok(Value::String(text)) => Some(text),
        _ => None,
    };
    if let Some(error) = text("err") {
        reply.error(&error.to_string_lossy());
        return Ok(());
    }
    if let Some(status) = text("ok") {
        reply.simple(&status.to_string_lossy().replace(['\r', '\n'], " "));
        return Ok(());
    }
    match table.raw_get::<Value>("double")? {
        Value::Number(number) => {
            reply.double(&crate::types::double_text(number));
            return Ok(());
        }
        Value::Integer(number) => {
            reply.double(&number.to_string());
            return Ok(());
        }
        _ => {}
    }
    if let Value::Table(map) = table.raw_get::<Value>("map")? {
        reply.map(count(&map)?);
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair?;
            nested(reply, &key, booleans, depth)?;
            nested(reply, &value, booleans, depth)?;
        }
        return Ok(());
    }
    if let Value::Table(set) = table.raw_get::<Value>("set")? {
        reply.set(count(&set)?);
        for pair in set.pairs::<Value, Value>() {
            nested(reply, &pair?.0, booleans, depth)?;
        }
        return Ok(());
    }
    if let Some(number) = text("big_number") {
        reply.big_number(&number.to_string_lossy().replace(['\r', '\n'], " "));
        return Ok(());
    }
    if let Value::Table(verbatim) = table.raw_get::<Value>("verbatim_string")? {
        let string: mlua::LuaString = verbatim.raw_get("string")?;
        reply.verbatim(&string.to_string_lossy());
        return Ok(());
    }
    let mut length = 0;
    while !table.raw_get::<Value>(length + 1)?.is_nil() {
        length += 1;
    }
    reply.array(length);
    (1..=length).try_for_each(|index| nested(reply, &table.raw_get(index)?, booleans, depth))
}

/// Entries of a table. They are gone over twice: each that is held takes a place of Lua's stack, which has eight thousand.
pub(super) fn count(table: &Table) -> mlua::Result<usize> {
    table.pairs::<Value, Value>().try_fold(0, |count, pair| pair.map(|_| count + 1))
}

/// A reply as a script sees it; with it, whether it is an error.
pub(super) fn read(lua: &Lua, bytes: &[u8], version: Version) -> mlua::Result<(Value, bool)> {
    let damaged = |text: String| mlua::Error::runtime(format!("a reply was not read: {text}"));
    match version {
        Version::Resp2 => {
            let frame =
                resp2::decode::decode(&bytes::Bytes::copy_from_slice(bytes)).map_err(|error| damaged(error.to_string()))?;
            let (frame, _) = frame.ok_or_else(|| damaged("it is cut short".into()))?;
            Ok((of_resp2(lua, &frame)?, matches!(frame, resp2::types::OwnedFrame::Error(_))))
        }
        Version::Resp3 => {
            let frame = resp3::decode::complete::decode(bytes).map_err(|error| damaged(error.to_string()))?;
            let (frame, _) = frame.ok_or_else(|| damaged("it is cut short".into()))?;
            let is_error =
                matches!(frame, resp3::types::OwnedFrame::SimpleError { .. } | resp3::types::OwnedFrame::BlobError { .. });
            Ok((of_resp3(lua, &frame)?, is_error))
        }
    }
}

fn single(lua: &Lua, name: &str, text: &[u8]) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    table.raw_set(name, lua.create_string(text)?)?;
    Ok(Value::Table(table))
}

fn of_resp2(lua: &Lua, frame: &resp2::types::OwnedFrame) -> mlua::Result<Value> {
    use resp2::types::OwnedFrame as Frame;
    Ok(match frame {
        Frame::SimpleString(text) => single(lua, "ok", text)?,
        Frame::Error(text) => single(lua, "err", text.as_bytes())?,
        Frame::Integer(number) => Value::Number(*number as f64),
        Frame::BulkString(text) => Value::String(lua.create_string(text)?),
        Frame::Array(elements) => {
            let table = lua.create_table_with_capacity(elements.len(), 0)?;
            for (position, element) in elements.iter().enumerate() {
                table.raw_set(position + 1, of_resp2(lua, element)?)?;
            }
            Value::Table(table)
        }
        Frame::Null => Value::Boolean(false),
    })
}

fn of_resp3(lua: &Lua, frame: &resp3::types::OwnedFrame) -> mlua::Result<Value> {
    use resp3::types::OwnedFrame as Frame;
    let wrap = |name: &str, value: Value| -> mlua::Result<Value> {
        let table = lua.create_table()?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    };
    Ok(match frame {
        Frame::SimpleString { data, .. } => single(lua, "ok", data)?,
        Frame::SimpleError { data, .. } => single(lua, "err", data.as_bytes())?,
        Frame::BlobError { data, .. } => single(lua, "err", data)?,
        Frame::BlobString { data, .. } | Frame::ChunkedString(data) => Value::String(lua.create_string(data)?),
        Frame::Number { data, .. } => Value::Number(*data as f64),
        Frame::Double { data, .. } => wrap("double", Value::Number(*data))?,
        Frame::Boolean { data, .. } => Value::Boolean(*data),
        Frame::Null => Value::Nil,
        Frame::BigNumber { data, .. } => single(lua, "big_number", data)?,
        Frame::VerbatimString { data, .. } => {
            let verbatim = lua.create_table()?;
            verbatim.raw_set("string", lua.create_string(data)?)?;
            verbatim.raw_set("format", "txt")?;
            wrap("verbatim_string", Value::Table(verbatim))?
        }
        Frame::Array { data, .. } | Frame::Push { data, .. } => {
            let table = lua.create_table_with_capacity(data.len(), 0)?;
            for (position, element) in data.iter().enumerate() {
                table.raw_set(position + 1, of_resp3(lua, element)?)?;
            }
            Value::Table(table)
        }
        Frame::Map { data, .. } => {
            let map = lua.create_table()?;
            for (key, value) in data {
                map.raw_set(of_resp3(lua, key)?, of_resp3(lua, value)?)?;
            }
            wrap("map", Value::Table(map))?
        }
        Frame::Set { data, .. } => {
            let set = lua.create_table()?;
            for member in data {
                set.raw_set(of_resp3(lua, member)?, true)?;
            }
            wrap("set", Value::Table(set))?
        }
        Frame::Hello { .. } => Value::Nil,
    })
}

/// A word of a command: a string, or a number as Redis writes it; `None` for anything else.
pub(super) fn word(value: &Value) -> Option<bytes::Bytes> {
    match value {
        Value::String(text) => Some(bytes::Bytes::copy_from_slice(&text.as_bytes())),
        Value::Integer(number) => Some(number.to_string().into()),
        Value::Number(number) => Some(crate::types::double_text(*number).into()),
        _ => None,
    }
}
