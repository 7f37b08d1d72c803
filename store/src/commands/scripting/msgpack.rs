//! The library `cmsgpack`: `MessagePack`, of which texts are bytes.

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::{json::array_length, values::count};

/// Tables inside of one another; what is deeper is packed as nil, as lua-cmsgpack does.
const DEPTH_MAX: usize = 16;

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let pack = |lua: &Lua, values: Variadic<Value>| {
        if values.is_empty() {
            return Ok((false, lua.create_string("MessagePack pack needs input.")?));
        }
        let mut bytes = Vec::new();
        values.iter().try_for_each(|value| write(&mut bytes, value, 0))?;
        Ok((true, lua.create_string(&bytes)?))
    };
    library.raw_set("pack", lua.create_function(pack)?)?;
    library.raw_set("unpack", lua.create_function(|lua, text: mlua::LuaString| unpack(lua, &text.as_bytes(), 0, None))?)?;
    let one = |lua: &Lua, (text, from): (mlua::LuaString, Option<f64>)| {
        unpack(lua, &text.as_bytes(), from.unwrap_or(0.0) as i64, Some(1))
    };
    library.raw_set("unpack_one", lua.create_function(one)?)?;
    let limited = |lua: &Lua, (text, limit, from): (mlua::LuaString, f64, Option<f64>)| {
        unpack(lua, &text.as_bytes(), from.unwrap_or(0.0) as i64, Some(limit as usize))
    };
    library.raw_set("unpack_limit", lua.create_function(limited)?)?;
    Ok(library)
}

/// The values in a text; with a limit, before them where the next one begins, or -1.
fn unpack(lua: &Lua, text: &[u8], from: i64, limit: Option<usize>) -> mlua::Result<MultiValue> {
    let problem = |text: &str| -> mlua::Result<MultiValue> {
        Ok([Value::Boolean(false), Value::String(lua.create_string(text)?)].into_iter().collect())
    };
    let Some(mut at) = usize::try_from(from).ok().filter(|from| *from <= text.len()) else {
        return problem(&format!("Start offset {from} greater than input length {}.", text.len()));
    };
    let mut values = Vec::new();
    while at < text.len() && limit.is_none_or(|limit| values.len() < limit) {
        let mut reader = Reader { text, at };
        match reader.value(lua, 0)? {
            Ok(value) => values.push(value),
            Err(why) => return problem(why),
        }
        at = reader.at;
    }
    let mut all = MultiValue::new();
    all.push_back(Value::Boolean(true));
    if limit.is_some() {
        all.push_back(Value::Number(if at < text.len() { at as f64 } else { -1.0 }));
    }
    all.extend(values);
    Ok(all)
}

fn write(bytes: &mut Vec<u8>, value: &Value, depth: usize) -> mlua::Result<()> {
    match value {
        Value::String(text) => {
            let text = text.as_bytes();
            match text.len() {
                length @ 0..=31 => bytes.push(0xa0 | length as u8),
                length => sized(bytes, length, [Some(0xd9), Some(0xda), Some(0xdb)]),
            }
            bytes.extend_from_slice(&text);
        }
        Value::Integer(number) => whole(bytes, *number),
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => whole(bytes, *number as i64),
        Value::Number(number) => {
            if f64::from(*number as f32).to_bits() == number.to_bits() {
                bytes.push(0xca);
                bytes.extend_from_slice(&(*number as f32).to_be_bytes());
            } else {
                bytes.push(0xcb);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
        Value::Boolean(value) => bytes.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Table(table) if depth < DEPTH_MAX => {
            let (length, entries) = array_length(table)?;
            if length == entries {
                match length {
                    0..=15 => bytes.push(0x90 | length as u8),
                    _ => sized(bytes, length, [None, Some(0xdc), Some(0xdd)]),
                }
                for index in 1..=length {
                    write(bytes, &table.raw_get(index)?, depth + 1)?;
                }
            } else {
                match count(table)? {
                    count @ 0..=15 => bytes.push(0x80 | count as u8),
                    count => sized(bytes, count, [None, Some(0xde), Some(0xdf)]),
                }
                for pair in table.pairs::<Value, Value>() {
                    let (key, value) = pair?;
                    write(bytes, &key, depth + 1)?;
                    write(bytes, &value, depth + 1)?;
                }
            }
        }
        _ => bytes.push(0xc0),
    }
    Ok(())
}

/// A tag and a length, of one, two or four bytes.
fn sized(bytes: &mut Vec<u8>, length: usize, [one, two, four]: [Option<u8>; 3]) {
    match (one, two, four) {
        (Some(tag), ..) if length <= 0xff => bytes.extend_from_slice(&[tag, length as u8]),
        (_, Some(tag), _) if length <= 0xffff => {
            bytes.push(tag);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        (_, _, tag) => {
            bytes.push(tag.unwrap_or(0xdb));
            bytes.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn whole(bytes: &mut Vec<u8>, number: i64) {
    match number {
        0..=127 => bytes.push(number as u8),
        128..=0xff => bytes.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            bytes.push(0xcd);
            bytes.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(0xce);
            bytes.extend_from_slice(&(number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            bytes.push(0xcf);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        -32..=-1 => bytes.push(number as i8 as u8),
        -128..=-33 => bytes.extend_from_slice(&[0xd0, number as i8 as u8]),
        -0x8000..=-129 => {
            bytes.push(0xd1);
            bytes.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            bytes.push(0xd2);
            bytes.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            bytes.push(0xd3);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

const SHORT: &str = "Missing bytes in input.";
const WRONG: &str = "Bad data format in input.";

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let part = self.text.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(part)
    }

    fn number<const N: usize>(&mut self) -> Option<u64> {
        let part = self.take(N)?;
        Some(part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn value(&mut self, lua: &Lua, depth: usize) -> mlua::Result<Result<Value, &'static str>> {
        if depth > 64 {
            return Ok(Err(WRONG));
        }
        let Some(tag) = self.number::<1>() else { return Ok(Err(SHORT)) };
        let unsigned = |number: Option<u64>| number.map(|number| Value::Number(number as f64)).ok_or(SHORT);
        let length = match tag as u8 {
            tag @ 0..=0x7f => return Ok(Ok(Value::Number(f64::from(tag)))),
            tag @ 0xe0.. => return Ok(Ok(Value::Number(f64::from(tag as i8)))),
            0xc0 => return Ok(Ok(Value::Nil)),
            0xc2 => return Ok(Ok(Value::Boolean(false))),
            0xc3 => return Ok(Ok(Value::Boolean(true))),
            0xcc => return Ok(unsigned(self.number::<1>())),
            0xcd => return Ok(unsigned(self.number::<2>())),
            0xce => return Ok(unsigned(self.number::<4>())),
            0xcf => return Ok(unsigned(self.number::<8>())),
            0xd0 => return Ok(self.number::<1>().map(|number| Value::Number(f64::from(number as i8))).ok_or(SHORT)),
            0xd1 => return Ok(self.number::<2>().map(|number| Value::Number(f64::from(number as i16))).ok_or(SHORT)),
            0xd2 => return Ok(self.number::<4>().map(|number| Value::Number(f64::from(number as i32))).ok_or(SHORT)),
            0xd3 => return Ok(self.number::<8>().map(|number| Value::Number(number as i64 as f64)).ok_or(SHORT)),
            0xca => return Ok(self.number::<4>().map(|bits| Value::Number(f64::from(f32::from_bits(bits as u32)))).ok_or(SHORT)),
            0xcb => return Ok(self.number::<8>().map(|bits| Value::Number(f64::from_bits(bits))).ok_or(SHORT)),
            tag @ (0xa0..=0xbf) => Some(u64::from(tag & 31)),
            tag @ (0x80..=0x9f) => Some(u64::from(tag & 15)),
            0xc4 | 0xd9 => self.number::<1>(),
            0xc5 | 0xda | 0xdc | 0xde => self.number::<2>(),
            0xc6 | 0xdb | 0xdd | 0xdf => self.number::<4>(),
            _ => return Ok(Err(WRONG)),
        };
        let Some(length) = length.map(|length| length as usize) else { return Ok(Err(SHORT)) };
        match tag as u8 {
            0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb => match self.take(length) {
                Some(text) => Ok(Ok(Value::String(lua.create_string(text)?))),
                None => Ok(Err(SHORT)),
            },
            0x90..=0x9f | 0xdc | 0xdd => {
                let table = lua.create_table()?;
                for index in 1..=length {
                    match self.value(lua, depth + 1)? {
                        Ok(value) => table.raw_set(index, value)?,
                        Err(why) => return Ok(Err(why)),
                    }
                }
                Ok(Ok(Value::Table(table)))
            }
            _ => {
                let table = lua.create_table()?;
                for _ in 0..length {
                    match (self.value(lua, depth + 1)?, self.value(lua, depth + 1)?) {
                        (Ok(Value::Nil), Ok(_)) => {}
                        (Ok(Value::Number(key)), Ok(_)) if key.is_nan() => {}
                        (Ok(key), Ok(value)) => table.raw_set(key, value)?,
                        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
                    }
                }
                Ok(Ok(Value::Table(table)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let lua = Lua::new();
        let library = library(&lua).unwrap();
        lua.globals().set("l", library).unwrap();
        lua.load(
            "local function same(v) local _, packed = l.pack(v) local ok, back = l.unpack(packed) assert(ok) return back, packed end
            for _, v in ipairs({0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, -1, -32, -33, -128, -129, -32768, -32769,
                -2147483648, -2147483649, 0.5, 1e300, 0.1, true, '', 'x', ('y'):rep(31), ('y'):rep(32), ('y'):rep(300), ('y'):rep(70000)}) do
                assert(same(v) == v, tostring(v))
            end
            local t = same({1, 2, {3, 'a'}})
            assert(#t == 3 and t[3][2] == 'a')
            local m = same({a = 1, b = {c = true}})
            assert(m.a == 1 and m.b.c == true)
            local _, packed = l.pack(1, 'two', 3)
            local ok, a, b, c = l.unpack(packed)
            assert(ok and a == 1 and b == 'two' and c == 3)
            local ok, next, one = l.unpack_one(packed)
            assert(ok and one == 1 and next == 1)
            local ok, why = l.unpack('\\217\\10abc')
            assert(not ok and why == 'Missing bytes in input.')
            assert(not l.unpack('\\193'))",
        )
        .exec()
        .unwrap();
    }
}
