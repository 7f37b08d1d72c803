//! The library `struct`: numbers and texts in the layouts of C.

use mlua::{Lua, MultiValue, Table, Value};

/// Longest text an `x`, `s` or `c` may stand for, and widest number.
const LEN_MAX: usize = 1 << 20;
const WIDTH_MAX: usize = 32;

#[derive(Clone, Copy)]
struct Layout {
    little: bool,
    align: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Item {
    Signed(usize),
    Unsigned(usize),
    Float,
    Double,
    Zero,
    Text(Option<usize>),
    Pad,
}

/// A format, read item by item.
struct Format<'f> {
    rest: &'f [u8],
    layout: Layout,
}

impl Format<'_> {
    fn number(&mut self) -> Option<usize> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(number).ok().and_then(|text| text.parse().ok())
    }

    fn next(&mut self) -> Option<Result<Item, String>> {
        loop {
            let (option, rest) = self.rest.split_first()?;
            self.rest = rest;
            return Some(match option {
                b'b' => Ok(Item::Signed(1)),
                b'B' => Ok(Item::Unsigned(1)),
                b'h' => Ok(Item::Signed(2)),
                b'H' => Ok(Item::Unsigned(2)),
                b'l' => Ok(Item::Signed(8)),
                b'L' | b'T' => Ok(Item::Unsigned(8)),
                b'i' | b'I' => match self.number().unwrap_or(4) {
                    width if width > WIDTH_MAX => Err(format!("integral size {width} is larger than limit of {WIDTH_MAX}")),
                    width if *option == b'i' => Ok(Item::Signed(width)),
                    width => Ok(Item::Unsigned(width)),
                },
                b'f' => Ok(Item::Float),
                b'd' => Ok(Item::Double),
                b's' => Ok(Item::Zero),
                b'c' => match self.number() {
                    Some(length) if length > LEN_MAX => Err("format result too large".into()),
                    length => Ok(Item::Text(Some(length.unwrap_or(1)).filter(|length| *length > 0))),
                },
                b'x' => Ok(Item::Pad),
                b' ' => continue,
                b'<' => {
                    self.layout.little = true;
                    continue;
                }
                b'>' => {
                    self.layout.little = false;
                    continue;
                }
                b'!' => {
                    self.layout.align = self.number().unwrap_or(8);
                    if !self.layout.align.is_power_of_two() {
                        return Some(Err("alignment is not a power of 2".into()));
                    }
                    continue;
                }
                other => Err(format!("invalid format option '{}'", char::from(*other))),
            });
        }
    }

    /// Zeros before an item at that place.
    fn padding(&self, item: Item, at: usize) -> usize {
        let width = match item {
            Item::Signed(width) | Item::Unsigned(width) => width,
            Item::Float => 4,
            Item::Double => 8,
            _ => 1,
        };
        let align = width.min(self.layout.align);
        if align > 1 && align.is_power_of_two() { at.next_multiple_of(align) - at } else { 0 }
    }
}

fn format(text: &[u8]) -> Format<'_> {
    Format { rest: text, layout: Layout { little: true, align: 1 } }
}

fn ordered(mut bytes: Vec<u8>, little: bool) -> Vec<u8> {
    // Made little-endian.
    if !little {
        bytes.reverse();
    }
    bytes
}

fn pack(lua: &Lua, text: &[u8], mut values: impl Iterator<Item = Value>) -> mlua::Result<Result<Vec<u8>, String>> {
    let (mut format, mut packed) = (format(text), Vec::new());
    while let Some(item) = format.next() {
        let item = match item {
            Ok(item) => item,
            Err(why) => return Ok(Err(why)),
        };
        packed.resize(packed.len() + format.padding(item, packed.len()), 0);
        if item == Item::Pad {
            packed.push(0);
            continue;
        }
        let Some(value) = values.next() else { return Ok(Err("bad argument to 'pack' (no value)".into())) };
        let little = format.layout.little;
        match item {
            Item::Zero | Item::Text(_) => {
                let Some(value) = lua.coerce_string(value)? else {
                    return Ok(Err("bad argument to 'pack' (string expected)".into()));
                };
                let value = value.as_bytes();
                match item {
                    Item::Text(Some(length)) if value.len() < length => return Ok(Err("arg too short".into())),
                    Item::Text(Some(length)) => packed.extend_from_slice(&value[..length]),
                    _ => packed.extend_from_slice(&value),
                }
                if item == Item::Zero {
                    packed.push(0);
                }
            }
            _ => {
                let Some(number) = lua.coerce_number(value)? else {
                    return Ok(Err("bad argument to 'pack' (number expected)".into()));
                };
                let bytes = match item {
                    Item::Float => (number as f32).to_le_bytes().to_vec(),
                    Item::Double => number.to_le_bytes().to_vec(),
                    Item::Signed(width) | Item::Unsigned(width) => {
                        let whole = if number < 0.0 { number as i64 } else { number as u64 as i64 };
                        let fill = if whole < 0 && number < 0.0 { 0xff } else { 0 };
                        let mut bytes = whole.to_le_bytes().to_vec();
                        bytes.resize(width.max(8), fill);
                        bytes.truncate(width);
                        bytes
                    }
                    _ => Vec::new(),
                };
                packed.extend_from_slice(&ordered(bytes, little));
            }
        }
        if packed.len() > LEN_MAX * 64 {
            return Ok(Err("format result too large".into()));
        }
    }
    Ok(Ok(packed))
}

fn unpack(lua: &Lua, text: &[u8], data: &[u8], from: usize) -> mlua::Result<Result<Vec<Value>, String>> {
    let (mut format, mut at, mut values) = (format(text), from, Vec::new());
    let short = || Ok(Err("data string too short".to_owned()));
    while let Some(item) = format.next() {
        let item = match item {
            Ok(item) => item,
            Err(why) => return Ok(Err(why)),
        };
        at += format.padding(item, at);
        let width = match item {
            Item::Signed(width) | Item::Unsigned(width) => width,
            Item::Float => 4,
            Item::Double => 8,
            Item::Pad => 1,
            Item::Text(Some(length)) => length,
            // As long as the number before it says, which is taken away.
            Item::Text(None) => match values.pop() {
                Some(Value::Number(length)) if length >= 0.0 => length as usize,
                _ => return Ok(Err("format 'c0' needs a previous size".into())),
            },
            Item::Zero => match data.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) {
                Some(length) => length + 1,
                None => return Ok(Err("unfinished string in data".into())),
            },
        };
        let Some(part) = at.checked_add(width).and_then(|end| data.get(at..end)) else { return short() };
        at += width;
        let bytes = || ordered(part.to_vec(), format.layout.little);
        let value = match item {
            Item::Pad => continue,
            Item::Zero => Value::String(lua.create_string(&part[..width - 1])?),
            Item::Text(_) => Value::String(lua.create_string(part)?),
            Item::Float => Value::Number(f64::from(f32::from_le_bytes(bytes().try_into().unwrap_or_default()))),
            Item::Double => Value::Number(f64::from_le_bytes(bytes().try_into().unwrap_or_default())),
            Item::Signed(_) | Item::Unsigned(_) => {
                let signed = matches!(item, Item::Signed(_));
                let bytes = bytes();
                let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut whole = [if negative { 0xff } else { 0 }; 8];
                let length = bytes.len().min(8);
                whole[..length].copy_from_slice(&bytes[..length]);
                let whole = u64::from_le_bytes(whole);
                Value::Number(if signed { whole as i64 as f64 } else { whole as f64 })
            }
        };
        values.push(value);
    }
    values.push(Value::Number(at as f64 + 1.0));
    Ok(Ok(values))
}

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let answer = |lua: &Lua, outcome: Result<Vec<Value>, String>| -> mlua::Result<MultiValue> {
        Ok(match outcome {
            Ok(values) => std::iter::once(Value::Boolean(true)).chain(values).collect(),
            Err(why) => [Value::Boolean(false), Value::String(lua.create_string(why)?)].into_iter().collect(),
        })
    };
    let packs = move |lua: &Lua, (text, values): (mlua::LuaString, mlua::Variadic<Value>)| {
        let packed = pack(lua, &text.as_bytes(), values.into_iter())?;
        let packed = packed.map(|bytes| lua.create_string(bytes)).map(|text| text.map(|text| vec![Value::String(text)]));
        answer(
            lua,
            match packed {
                Ok(text) => Ok(text?),
                Err(why) => Err(why),
            },
        )
    };
    library.raw_set("pack", lua.create_function(packs)?)?;
    let unpacks = move |lua: &Lua, (text, data, from): (mlua::LuaString, mlua::LuaString, Option<f64>)| {
        let from = from.unwrap_or(1.0);
        if from < 1.0 {
            return answer(lua, Err("offset must be 1 or greater".into()));
        }
        let outcome = unpack(lua, &text.as_bytes(), &data.as_bytes(), from as usize - 1)?;
        answer(lua, outcome)
    };
    library.raw_set("unpack", lua.create_function(unpacks)?)?;
    let size = move |lua: &Lua, text: mlua::LuaString| {
        let bytes = text.as_bytes();
        let (mut format, mut size) = (format(&bytes), 0usize);
        while let Some(item) = format.next() {
            let width = match item {
                Ok(Item::Signed(width) | Item::Unsigned(width)) => width,
                Ok(Item::Float) => 4,
                Ok(Item::Double) => 8,
                Ok(Item::Pad) => 1,
                Ok(Item::Text(Some(length))) => length,
                Ok(Item::Text(None) | Item::Zero) => return answer(lua, Err("variable-size format for 'size'".into())),
                Err(why) => return answer(lua, Err(why)),
            };
            if let Ok(item) = item {
                size += format.padding(item, size);
            }
            size += width;
        }
        answer(lua, Ok(vec![Value::Number(size as f64)]))
    };
    library.raw_set("size", lua.create_function(size)?)?;
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let lua = Lua::new();
        lua.globals().set("l", library(&lua).unwrap()).unwrap();
        lua.load(
            "local function back(format, ...) local _, packed = l.pack(format, ...) return select(2, l.unpack(format, packed)) end
            assert(back('>I2', 258) == 258 and select(2, l.pack('>I2', 258)) == '\\1\\2')
            assert(select(2, l.pack('<I2', 258)) == '\\2\\1')
            local a, b, c, d, next = back('<bHi4d', -1, 65535, -70000, 0.1)
            assert(a == -1 and b == 65535 and c == -70000 and d == 0.1 and next == 16)
            assert(back('>f', 0.5) == 0.5)
            assert(back('s', 'text') == 'text')
            assert(back('c3', 'abcdef') == 'abc')
            local _, packed = l.pack('Bc0', 3, 'xyz')
            assert(select(2, l.unpack('Bc0', packed)) == 'xyz')
            assert(select(2, l.size('!4 b i4')) == 8)
            assert(not l.unpack('i4', 'x') and not l.pack('i4') and not l.pack('q', 1) and not l.pack('i33', 1))
            assert(not l.unpack('c0', 'x') and not l.unpack('i4', 'abcd', -1) and not l.unpack('c1048577', ''))",
        )
        .exec()
        .unwrap();
    }
}
