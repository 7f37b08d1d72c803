//! The library `cjson`. Texts are bytes: what is no UTF-8 passes as it is.

mod settings;

use std::io::Write as _;

use mlua::{Lua, Table, Value};

pub(super) use settings::reset;
use settings::{Invalid, Settings};

/// Tables and texts inside of one another, whatever more a script allows: each is a level of this thread's stack.
const DEPTH_MAX: i64 = 1000;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let encode = |lua: &Lua, value: Value| {
        let mut text = Vec::new();
        Ok(match write(&mut text, &value, &Settings::of(lua), 0)? {
            Ok(()) => (true, lua.create_string(&text)?),
            Err(problem) => (false, lua.create_string(problem)?),
        })
    };
    library.raw_set("encode", lua.create_function(encode)?)?;
    let decode = |lua: &Lua, text: mlua::LuaString| {
        let bytes = text.as_bytes();
        let mut reader = Reader { lua, text: &bytes, at: 0, settings: Settings::of(lua) };
        Ok(match reader.whole() {
            Ok(value) => (true, value),
            Err(Problem::Text(expected)) => {
                let found = reader.found();
                let at = reader.at + 1;
                (false, Value::String(lua.create_string(format!("Expected {expected} but found {found} at character {at}"))?))
            }
            Err(Problem::Deep(depth)) => {
                let text = format!("Found too many nested data structures ({depth}) at character {}", reader.at + 1);
                (false, Value::String(lua.create_string(text)?))
            }
            Err(Problem::Lua(error)) => return Err(error),
        })
    };
    library.raw_set("decode", lua.create_function(decode)?)?;
    settings::add(lua, &library)?;
    Ok(library)
}

type Written = Result<(), String>;

fn write(text: &mut Vec<u8>, value: &Value, settings: &Settings, depth: i64) -> mlua::Result<Written> {
    match value {
        Value::String(string) => quote(text, &string.as_bytes()),
        Value::Integer(number) => text.extend_from_slice(decimal(*number as f64, settings.precision as usize).as_bytes()),
        Value::Number(number) if !number.is_finite() => match settings.encode_invalid {
            Invalid::Refused => return Ok(Err("Cannot serialise number: must not be NaN or Inf".into())),
            Invalid::Null => text.extend_from_slice(b"null"),
            Invalid::Written if number.is_nan() => text.extend_from_slice(b"nan"),
            Invalid::Written => text.extend_from_slice(if *number > 0.0 { b"inf" } else { b"-inf" }),
        },
        Value::Number(number) => text.extend_from_slice(decimal(*number, settings.precision as usize).as_bytes()),
        Value::Boolean(true) => text.extend_from_slice(b"true"),
        Value::Boolean(false) => text.extend_from_slice(b"false"),
        Value::Nil | Value::LightUserData(_) => text.extend_from_slice(b"null"),
        Value::Table(_) if depth >= settings.encode_depth.min(DEPTH_MAX) => {
            return Ok(Err(format!("Cannot serialise, excessive depth ({})", depth + 1)));
        }
        Value::Table(table) => return write_table(text, table, settings, depth + 1),
        other => return Ok(Err(format!("Cannot serialise {}: type not supported", other.type_name()))),
    }
    Ok(Ok(()))
}

/// The highest index of a table that is an array; 0: it is none.
pub(super) fn array_length(table: &Table) -> mlua::Result<(usize, usize)> {
    let (mut highest, mut entries) = (0, 0);
    for pair in table.pairs::<Value, Value>() {
        entries += 1;
        let index = match pair?.0 {
            Value::Integer(index) => usize::try_from(index).unwrap_or(0),
            Value::Number(index) if index.fract() == 0.0 && (1.0..1e15).contains(&index) => index as usize,
            _ => 0,
        };
        if index == 0 {
            return Ok((0, entries));
        }
        highest = index.max(highest);
    }
    Ok((highest, entries))
}

fn write_table(text: &mut Vec<u8>, table: &Table, settings: &Settings, depth: i64) -> mlua::Result<Written> {
    let (length, entries) = array_length(table)?;
    // A higher index is none in Redis.
    let length = if i32::try_from(length).is_ok() { length } else { 0 };
    let ratio = settings.sparse_ratio as usize;
    let sparse = ratio > 0 && length > settings.sparse_safe as usize && length > entries.saturating_mul(ratio);
    if sparse && !settings.sparse_convert {
        return Ok(Err("Cannot serialise table: excessively sparse array".into()));
    }
    if length > 0 && !sparse {
        text.push(b'[');
        for index in 1..=length {
            if index > 1 {
                text.push(b',');
            }
            if let Err(problem) = write(text, &table.raw_get(index)?, settings, depth)? {
                return Ok(Err(problem));
            }
        }
        text.push(b']');
        return Ok(Ok(()));
    }
    text.push(b'{');
    for (position, pair) in table.pairs::<Value, Value>().enumerate() {
        let (key, value) = pair?;
        if position > 0 {
            text.push(b',');
        }
        match &key {
            Value::String(key) => quote(text, &key.as_bytes()),
            Value::Integer(key) => quote(text, decimal(*key as f64, settings.precision as usize).as_bytes()),
            Value::Number(key) => quote(text, decimal(*key, settings.precision as usize).as_bytes()),
            _ => return Ok(Err("Cannot serialise table: table key must be a number or string".into())),
        }
        text.push(b':');
        if let Err(problem) = write(text, &value, settings, depth)? {
            return Ok(Err(problem));
        }
    }
    text.push(b'}');
    Ok(Ok(()))
}

fn quote(text: &mut Vec<u8>, string: &[u8]) {
    text.push(b'"');
    for byte in string {
        match byte {
            b'"' => text.extend_from_slice(b"\\\""),
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'/' => text.extend_from_slice(b"\\/"),
            8 => text.extend_from_slice(b"\\b"),
            12 => text.extend_from_slice(b"\\f"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            b'\t' => text.extend_from_slice(b"\\t"),
            0..=31 | 127 => {
                // Writing into a vector does not fail.
                let _ = write!(text, "\\u{byte:04x}");
            }
            _ => text.push(*byte),
        }
    }
    text.push(b'"');
}

/// A number with so many significant digits, as C's `%.14g`.
pub(super) fn decimal(number: f64, digits: usize) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let scientific = format!("{:.*e}", digits - 1, number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    trimmed(&format!("{:.*}", (digits as i32 - 1 - exponent).max(0) as usize, number))
}

enum Problem {
    Text(&'static str),
    /// So many inside of one another.
    Deep(i64),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Problem {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

struct Reader<'t> {
    lua: &'t Lua,
    text: &'t [u8],
    at: usize,
    settings: Settings,
}

impl Reader<'_> {
    fn whole(&mut self) -> Result<Value, Problem> {
        let value = self.value(0)?;
        self.blanks();
        if self.at == self.text.len() { Ok(value) } else { Err(Problem::Text("the end")) }
    }

    fn found(&self) -> &'static str {
        match self.text.get(self.at) {
            None => "T_END",
            Some(b'{') => "T_OBJ_BEGIN",
            Some(b'}') => "T_OBJ_END",
            Some(b'[') => "T_ARR_BEGIN",
            Some(b']') => "T_ARR_END",
            Some(b',') => "T_COMMA",
            Some(b':') => "T_COLON",
            Some(b'"') => "T_STRING",
            Some(b'0'..=b'9' | b'-') if !self.settings.decode_invalid && self.is_invalid_number() => "invalid number",
            Some(b'0'..=b'9' | b'-') => "T_NUMBER",
            Some(_) => "invalid token",
        }
    }

    fn blanks(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &[u8]) -> bool {
        let there = self.text[self.at..].starts_with(word);
        if there {
            self.at += word.len();
        }
        there
    }

    fn value(&mut self, depth: i64) -> Result<Value, Problem> {
        self.blanks();
        match self.text.get(self.at) {
            Some(b'{' | b'[') if depth >= self.settings.decode_depth.min(DEPTH_MAX) => Err(Problem::Deep(depth + 1)),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(_) if self.is_invalid_number() => self.invalid_number(),
            Some(b'"') => self.string().map(Value::String),
            Some(b'0'..=b'9' | b'-') => self.number(),
            _ if self.take(b"true") => Ok(Value::Boolean(true)),
            _ if self.take(b"false") => Ok(Value::Boolean(false)),
            _ if self.take(b"null") => Ok(Value::NULL),
            _ => Err(Problem::Text("value")),
        }
    }

    fn number(&mut self) -> Result<Value, Problem> {
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        let number = std::str::from_utf8(&rest[..length]).ok().and_then(|text| text.parse::<f64>().ok());
        let number = number.ok_or(Problem::Text("value"))?;
        self.at += length;
        Ok(Value::Number(number))
    }

    /// Whether C would read a number here, and JSON has none like it: a plus, zeros in front, hexadecimal, `inf`, `nan`.
    fn is_invalid_number(&self) -> bool {
        let rest = &self.text[self.at..];
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        let word = |word: &[u8]| digits.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let zero = matches!(digits, [b'0', b'0'..=b'9' | b'x' | b'X', ..]);
        rest.first() == Some(&b'+') || zero || word(b"inf") || word(b"nan")
    }

    fn invalid_number(&mut self) -> Result<Value, Problem> {
        if !self.settings.decode_invalid {
            return Err(Problem::Text("value"));
        }
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')).count();
        let text = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        let (sign, digits) =
            text.strip_prefix('-').map_or((1.0, text.strip_prefix('+').unwrap_or(text)), |digits| (-1.0, digits));
        let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok().map(|number| number as f64),
            None => digits.parse::<f64>().ok(),
        };
        let number = number.ok_or(Problem::Text("value"))?;
        self.at += length;
        Ok(Value::Number(sign * number))
    }

    fn array(&mut self, depth: i64) -> Result<Value, Problem> {
        let table = self.lua.create_table()?;
        self.at += 1;
        self.blanks();
        if self.take(b"]") {
            return Ok(Value::Table(table));
        }
        for index in 1.. {
            let value = self.value(depth)?;
            table.raw_set(index, value)?;
            self.blanks();
            if self.take(b"]") {
                break;
            }
            if !self.take(b",") {
                return Err(Problem::Text("comma or array end"));
            }
        }
        Ok(Value::Table(table))
    }

    fn object(&mut self, depth: i64) -> Result<Value, Problem> {
        let table = self.lua.create_table()?;
        self.at += 1;
        self.blanks();
        if self.take(b"}") {
            return Ok(Value::Table(table));
        }
        loop {
            self.blanks();
            if self.text.get(self.at) != Some(&b'"') {
                return Err(Problem::Text("object key string"));
            }
            let key = self.string()?;
            self.blanks();
            if !self.take(b":") {
                return Err(Problem::Text("colon"));
            }
            let value = self.value(depth)?;
            table.raw_set(key, value)?;
            self.blanks();
            if self.take(b"}") {
                return Ok(Value::Table(table));
            }
            if !self.take(b",") {
                return Err(Problem::Text("comma or object end"));
            }
        }
    }

    fn string(&mut self) -> Result<mlua::LuaString, Problem> {
        let wrong = || Problem::Text("value");
        let mut string = Vec::new();
        self.at += 1;
        loop {
            let byte = *self.text.get(self.at).ok_or_else(wrong)?;
            self.at += 1;
            match byte {
                b'"' => return Ok(self.lua.create_string(&string)?),
                b'\\' => {
                    let escaped = *self.text.get(self.at).ok_or_else(wrong)?;
                    self.at += 1;
                    match escaped {
                        b'b' => string.push(8),
                        b'f' => string.push(12),
                        b'n' => string.push(b'\n'),
                        b'r' => string.push(b'\r'),
                        b't' => string.push(b'\t'),
                        b'u' => self.code_point(&mut string)?,
                        b'"' | b'\\' | b'/' => string.push(escaped),
                        _ => return Err(wrong()),
                    }
                }
                0..=31 => return Err(wrong()),
                byte => string.push(byte),
            }
        }
    }

    fn hex(&mut self) -> Result<u32, Problem> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or(Problem::Text("value"))?;
        self.at += 4;
        Ok(number)
    }

    fn code_point(&mut self, string: &mut Vec<u8>) -> Result<(), Problem> {
        let mut code = self.hex()?;
        if (0xd800..0xdc00).contains(&code) {
            if !self.take(b"\\u") {
                return Err(Problem::Text("value"));
            }
            let low = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(Problem::Text("value"))?;
            code = 0x1_0000 + ((code - 0xd800) << 10) + low;
        }
        let character = char::from_u32(code).ok_or(Problem::Text("value"))?;
        string.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e14, "1e+14"),
            (99_999_999_999_999.0, "99999999999999"),
            (1.0 / 3.0, "0.33333333333333"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(decimal(number, 14), text);
        }
    }

    #[test]
    fn what_is_decoded_encodes_to_the_same() {
        let lua = Lua::new();
        let library = library(&lua).unwrap();
        let check = lua.load("local l, text = ... local ok, value = l.decode(text) if not ok then return value end return select(2, l.encode(value))");
        let check = check.into_function().unwrap();
        let run = |text: &str| check.call::<String>((&library, text)).unwrap();
        for text in ["[1,2.5,\"a\\n\\u0001\",true,false,null]", "{\"a\":{\"b\":[]}}", "[[[]]]", "\"\u{e4}\u{1f600}\""] {
            assert_eq!(run(text).replace("{}", "[]"), text.replace("{}", "[]"));
        }
        assert_eq!(run("\"\\ud83d\\ude00\""), "\"\u{1f600}\"");
        for (text, problem) in
            [("[1", "comma or array end"), ("{1", "object key string"), ("", "value"), ("[1] x", "the end"), ("{\"a\"}", "colon")]
        {
            assert!(run(text).contains(problem), "{text}: {}", run(text));
        }
        assert!(run(&"[".repeat(2000)).contains("nested"));
    }
}
