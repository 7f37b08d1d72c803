//! The library `redis`, but for calling commands, which only a running script can.

use mlua::{Lua, Table, Value, Variadic};
use sha1::{Digest as _, Sha1};

use super::interpreter::Sha;

/// The SHA1 of a text in hexadecimal digits.
pub(super) fn sha1_hex(text: &[u8]) -> Sha {
    let mut digits = [0; 40];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(Sha1::digest(text)) {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0') as u8;
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    digits
}

/// Levels of `redis.log`, and how they are logged here.
const LEVELS: [(&str, i64); 4] = [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];
/// Longest text a script may log.
const LOG_LEN_MAX: usize = 1024;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let sha1hex = |lua: &Lua, texts: Variadic<Value>| match texts.as_slice() {
        [Value::String(text)] => Ok((true, Value::String(lua.create_string(sha1_hex(&text.as_bytes()))?))),
        [Value::Number(number)] => {
            Ok((true, Value::String(lua.create_string(sha1_hex(crate::types::double_text(*number).as_bytes()))?)))
        }
        [Value::Integer(number)] => Ok((true, Value::String(lua.create_string(sha1_hex(number.to_string().as_bytes()))?))),
        _ => Ok((false, Value::String(lua.create_string("wrong number of arguments")?))),
    };
    library.raw_set("sha1hex", lua.create_function(sha1hex)?)?;
    for (name, level) in LEVELS {
        library.raw_set(name, level)?;
    }
    let log = |_: &Lua, words: Variadic<Value>| {
        let [level, texts @ ..] = words.as_slice() else {
            return Ok((false, Some("redis.log() requires two arguments or more.")));
        };
        if texts.is_empty() {
            return Ok((false, Some("redis.log() requires two arguments or more.")));
        }
        let level = match level {
            Value::Number(level) => *level as i64,
            Value::Integer(level) => *level,
            _ => return Ok((false, Some("First argument must be a number (log level)."))),
        };
        let text: Vec<String> = texts.iter().map(|text| text.to_string().unwrap_or_default()).collect();
        let text: String = text.join(" ").chars().take(LOG_LEN_MAX).collect();
        match level {
            0 | 1 => tracing::debug!(script = true, "{text}"),
            2 => tracing::info!(script = true, "{text}"),
            3 => tracing::warn!(script = true, "{text}"),
            _ => return Ok((false, Some("Invalid log level."))),
        }
        Ok((true, None))
    };
    library.raw_set("log", lua.create_function(log)?)?;
    for (name, value) in [("REPL_NONE", 0), ("REPL_SLAVE", 1), ("REPL_REPLICA", 1), ("REPL_AOF", 2), ("REPL_ALL", 3)] {
        library.raw_set(name, value)?;
    }
    // A script's changes are one batch: there is nothing to choose.
    library.raw_set("set_repl", lua.create_function(|_, _: Variadic<Value>| Ok(true))?)?;
    library.raw_set("replicate_commands", lua.create_function(|_, _: Variadic<Value>| Ok((true, true)))?)?;
    library.raw_set("REDIS_VERSION", crate::commands::info::REDIS_VERSION)?;
    let [major, minor, patch] = [0, 1, 2]
        .map(|at| crate::commands::info::REDIS_VERSION.split('.').nth(at).and_then(|part| part.parse::<i64>().ok()).unwrap_or(0));
    library.raw_set("REDIS_VERSION_NUM", major << 16 | minor << 8 | patch)?;
    Ok(library)
}
