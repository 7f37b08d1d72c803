//! `find`, `match`, `gmatch` and `gsub` of the library `string`: Lua's patterns, matched within the time and the memory that a script has.
//!
//! Lua's own matcher goes back and forth for as long as it takes, which a pattern of twenty bytes can make for ever, and looks at no
//! clock. This one counts its steps and looks every now and then; a plain search is linear.

mod matcher;

use std::rc::Rc;

use mlua::{Function, IntoLua as _, Lua, LuaString, MultiValue, Table, Value};

use self::matcher::{Captured, Matcher, Problem, plain};
use super::interpreter::Control;

/// What makes a text a pattern.
const SPECIALS: &[u8] = b"^$*+?.([%-";

impl Captured<'_> {
    fn to_lua(&self, lua: &Lua) -> mlua::Result<Value> {
        match self {
            Self::Text(text) => lua.create_string(text).map(Value::String),
            Self::Position(at) => at.into_lua(lua),
        }
    }
}

/// Why a function ends without an answer.
enum Stop {
    Problem(Problem),
    Lua(mlua::Error),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<mlua::Error> for Stop {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

/// The arguments of a function, read as Lua's own library reads them.
struct Arguments<'l> {
    lua: &'l Lua,
    name: &'static str,
    all: Vec<Value>,
}

impl Arguments<'_> {
    fn bad<T>(&self, number: usize, why: &str) -> Result<T, Stop> {
        Err(Problem::Wrong(format!("bad argument #{number} to '{}' ({why})", self.name)).into())
    }

    fn expected<T>(&self, number: usize, what: &str) -> Result<T, Stop> {
        let found = self.all.get(number - 1).map_or("no value", Value::type_name);
        self.bad(number, &format!("{what} expected, got {found}"))
    }

    fn text(&self, number: usize) -> Result<LuaString, Stop> {
        let text = match self.all.get(number - 1) {
            Some(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => self.lua.coerce_string(value.clone())?,
            _ => None,
        };
        text.map_or_else(|| self.expected(number, "string"), Ok)
    }

    fn number(&self, number: usize) -> Result<Option<i64>, Stop> {
        match self.all.get(number - 1) {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => match self.lua.coerce_number(value.clone())? {
                Some(found) => Ok(Some(found as i64)),
                None => self.expected(number, "number"),
            },
        }
    }

    /// Where a search begins that is told so by its third argument: at most behind the end.
    fn start(&self, length: usize) -> Result<usize, Stop> {
        let at = self.number(3)?.unwrap_or(1);
        let at = if at < 0 { at.saturating_add(length as i64).saturating_add(1).max(0) } else { at };
        Ok(usize::try_from(at.saturating_sub(1)).unwrap_or(0).min(length))
    }
}

/// `find` and `match`.
fn search(arguments: &Arguments<'_>, find: bool, ended: &dyn Fn() -> bool) -> Result<MultiValue, Stop> {
    let lua = arguments.lua;
    let (text, pattern) = (arguments.text(1)?, arguments.text(2)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let from = arguments.start(text.len())?;
    let as_it_is = arguments.all.get(3).is_some_and(|value| !matches!(value, Value::Nil | Value::Boolean(false)));
    if find && (as_it_is || !pattern.iter().any(|byte| SPECIALS.contains(byte))) {
        let found = plain(&text, &pattern, from).map(|at| (at + 1, at + pattern.len()));
        return match found {
            Some((first, last)) => Ok(MultiValue::from_iter([first.into_lua(lua)?, last.into_lua(lua)?])),
            None => Ok(MultiValue::from_iter([Value::Nil])),
        };
    }
    let anchored = usize::from(pattern.first() == Some(&b'^'));
    let mut matcher = Matcher::new(&text, &pattern, ended)?;
    for at in from..=text.len() {
        if let Some(end) = matcher.at(at, anchored)? {
            let mut answers = MultiValue::new();
            if find {
                answers.extend([(at + 1).into_lua(lua)?, end.into_lua(lua)?]);
            }
            let count = if find { matcher.captured() } else { matcher.values() };
            for number in 0..count {
                answers.push_back(matcher.value(number, at, end)?.to_lua(lua)?);
            }
            return Ok(answers);
        }
        if anchored == 1 {
            break;
        }
    }
    Ok(MultiValue::from_iter([Value::Nil]))
}

/// A step of `gmatch`: where the next one begins, counted from 0, and what was captured.
fn following(arguments: &Arguments<'_>, ended: &dyn Fn() -> bool) -> Result<MultiValue, Stop> {
    let lua = arguments.lua;
    let (text, pattern) = (arguments.text(1)?, arguments.text(2)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let from = usize::try_from(arguments.number(3)?.unwrap_or(0)).unwrap_or(0);
    let mut matcher = Matcher::new(&text, &pattern, ended)?;
    for at in from..=text.len() {
        if let Some(end) = matcher.at(at, 0)? {
            let next = end + usize::from(end == at);
            let mut answers = MultiValue::from_iter([next.into_lua(lua)?]);
            for number in 0..matcher.values() {
                answers.push_back(matcher.value(number, at, end)?.to_lua(lua)?);
            }
            return Ok(answers);
        }
    }
    Ok(MultiValue::from_iter([(text.len() + 1).into_lua(lua)?, Value::Nil]))
}

/// What `gsub` puts in the place of a match.
enum Replacement {
    Text(LuaString),
    Table(Table),
    Function(Function),
}

fn substitute(arguments: &Arguments<'_>, memory_max: usize, ended: &dyn Fn() -> bool) -> Result<MultiValue, Stop> {
    let lua = arguments.lua;
    let (text, pattern) = (arguments.text(1)?, arguments.text(2)?);
    let replacement = match arguments.all.get(2) {
        Some(Value::Table(table)) => Replacement::Table(table.clone()),
        Some(Value::Function(function)) => Replacement::Function(function.clone()),
        Some(Value::String(_) | Value::Integer(_) | Value::Number(_)) => Replacement::Text(arguments.text(3)?),
        _ => return arguments.bad(3, "string/function/table expected"),
    };
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let most = arguments.number(4)?.map_or(text.len() + 1, |most| usize::try_from(most).unwrap_or(0));
    let anchored = usize::from(pattern.first() == Some(&b'^'));
    let mut matcher = Matcher::new(&text, &pattern, ended)?;
    let (mut out, mut at, mut count) = (Vec::new(), 0, 0);
    while count < most {
        let found = matcher.at(at, anchored)?;
        if let Some(end) = found {
            count += 1;
            replace(lua, &matcher, &replacement, (at, end), &mut out)?;
            if out.len() > memory_max {
                return Err(mlua::Error::MemoryError("not enough memory".into()).into());
            }
        }
        match found {
            Some(end) if end > at => at = end,
            _ => match text.get(at) {
                Some(byte) => {
                    out.push(*byte);
                    at += 1;
                }
                None => break,
            },
        }
        if anchored == 1 {
            break;
        }
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    Ok(MultiValue::from_iter([Value::String(lua.create_string(&out)?), count.into_lua(lua)?]))
}

fn replace(
    lua: &Lua,
    matcher: &Matcher<'_>,
    replacement: &Replacement,
    (from, to): (usize, usize),
    out: &mut Vec<u8>,
) -> Result<(), Stop> {
    let value = match replacement {
        Replacement::Text(text) => {
            let text = text.as_bytes();
            let mut bytes = text.iter();
            while let Some(byte) = bytes.next() {
                match (byte, if *byte == b'%' { bytes.next() } else { None }) {
                    (b'%', Some(b'0')) => out.extend_from_slice(matcher.text(from, to)),
                    (b'%', Some(digit)) if digit.is_ascii_digit() => match matcher.value(usize::from(digit - b'1'), from, to)? {
                        Captured::Text(text) => out.extend_from_slice(text),
                        Captured::Position(at) => out.extend_from_slice(at.to_string().as_bytes()),
                    },
                    // As in Lua 5.1, at the end it stands for the zero behind a text of C.
                    (b'%', other) => out.push(other.copied().unwrap_or(0)),
                    (plain, _) => out.push(*plain),
                }
            }
            return Ok(());
        }
        Replacement::Table(table) => table.get::<Value>(matcher.value(0, from, to)?.to_lua(lua)?)?,
        Replacement::Function(function) => {
            let captured = (0..matcher.values()).map(|number| Ok(matcher.value(number, from, to)?.to_lua(lua)?));
            function.call::<Value>(captured.collect::<Result<MultiValue, Stop>>()?)?
        }
    };
    match value {
        Value::Nil | Value::Boolean(false) => out.extend_from_slice(matcher.text(from, to)),
        Value::String(_) | Value::Integer(_) | Value::Number(_) => {
            let text = lua.coerce_string(value)?;
            out.extend_from_slice(&text.map(|text| text.as_bytes().to_vec()).unwrap_or_default());
        }
        other => return Err(Problem::Wrong(format!("invalid replacement value (a {})", other.type_name())).into()),
    }
    Ok(())
}

/// What a function does with its arguments; the other is whether the script has been ended meanwhile.
type Body = Box<dyn Fn(&Arguments<'_>, &dyn Fn() -> bool) -> Result<MultiValue, Stop>>;

/// The functions; each answers `true` and its values, or `false` and why not. `step` is that of `gmatch`.
pub(super) fn library(lua: &Lua, control: &Rc<Control>, memory_max: usize) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let functions: [(&str, &'static str, Body); 4] = [
        ("find", "find", Box::new(|arguments, ended| search(arguments, true, ended))),
        ("match", "match", Box::new(|arguments, ended| search(arguments, false, ended))),
        ("gsub", "gsub", Box::new(move |arguments, ended| substitute(arguments, memory_max, ended))),
        ("step", "gmatch", Box::new(following)),
    ];
    for (key, name, body) in functions {
        let control = control.clone();
        let function = lua.create_function(move |lua, all: MultiValue| {
            let arguments = Arguments { lua, name, all: all.into_iter().collect() };
            match body(&arguments, &|| control.look()) {
                Ok(mut answers) => {
                    answers.push_front(Value::Boolean(true));
                    Ok(answers)
                }
                Err(Stop::Problem(Problem::Wrong(text))) => {
                    Ok(MultiValue::from_iter([Value::Boolean(false), Value::String(lua.create_string(text)?)]))
                }
                Err(Stop::Problem(Problem::Ended)) => Err(mlua::Error::runtime("the script was ended")),
                Err(Stop::Lua(error)) => Err(error),
            }
        })?;
        library.raw_set(key, function)?;
    }
    Ok(library)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both matchers in one state: Lua's own as `string`, this one as `ours`. What is raised becomes its text.
    fn both() -> Lua {
        let lua = Lua::new();
        let ours = library(&lua, &Rc::new(Control::default()), 1 << 20).unwrap();
        lua.globals().set("ours", ours).unwrap();
        lua.load(
            r##"
            local function outcome(ok, ...)
                local all = {tostring(ok), select("#", ...)}
                for place = 1, select("#", ...) do
                    local text = tostring((select(place, ...)))
                    -- Where it was raised is no matter.
                    all[#all + 1] = not ok and text:match("^%S+:%d+: (.*)$") or text
                end
                return table.concat(all, " | ")
            end
            local function raised(ok, ...)
                if not ok then error((...), 0) end
                return ...
            end
            local function plainly(name)
                return function(...) return raised(ours[name](...)) end
            end
            local function gmatch(iterate, text, pattern)
                local all = {}
                for one, other in iterate(text, pattern) do all[#all + 1] = tostring(one) .. "," .. tostring(other) end
                return table.concat(all, ";")
            end
            local function iterator(text, pattern)
                local at = 0
                local function go(next_at, ...) at = next_at return ... end
                return function() return go(plainly("step")(text, pattern, at)) end
            end
            function theirs_and_ours(text, pattern, with, from)
                local function run(find, match, gsub, iterate)
                    return outcome(pcall(find, text, pattern, from)) .. "\n" .. outcome(pcall(match, text, pattern, from)) .. "\n" ..
                        outcome(pcall(gsub, text, pattern, with)) .. "\n" .. outcome(pcall(gsub, text, pattern, "<%0>", 2)) .. "\n" ..
                        outcome(pcall(gsub, text, pattern, function(a, b) return b or (a == "a" and "x") end)) .. "\n" ..
                        outcome(pcall(gsub, text, pattern, {a = 1, b = "two"})) .. "\n" ..
                        outcome(pcall(gmatch, iterate, text, pattern)) .. "\n" .. outcome(pcall(find, text, pattern, from, true))
                end
                return run(string.find, string.match, string.gsub, string.gmatch), run(plainly("find"), plainly("match"), plainly("gsub"), iterator)
            end"##,
        )
        .exec()
        .unwrap();
        lua
    }

    fn compare(lua: &Lua, text: &[u8], pattern: &[u8], with: &[u8], from: i64) -> Result<(), String> {
        let compare: Function = lua.globals().get("theirs_and_ours").unwrap();
        let words = [text, pattern, with].map(|bytes| lua.create_string(bytes).unwrap());
        let [text, pattern, with] = words;
        let (theirs, ours): (LuaString, LuaString) = compare.call((text, &pattern, with, from)).unwrap();
        let (theirs, ours) = (theirs.to_string_lossy(), ours.to_string_lossy());
        if theirs == ours { Ok(()) } else { Err(format!("{}:\nLua:\n{theirs}\nhere:\n{ours}", pattern.to_string_lossy())) }
    }

    #[test]
    fn patterns_mean_what_they_mean_to_lua() {
        let lua = both();
        let patterns: [&[u8]; 40] = [
            b"",
            b"a",
            b"^a",
            b"a$",
            b"^$",
            b"a*",
            b"a+b",
            b"a-b",
            b"a?b",
            b"(a*)(b)",
            b"()b()",
            b"(a)%1",
            b"%b()",
            b"%f[%a]%a+",
            b"[ab]+",
            b"[^ab]",
            b"[a-c]",
            b"[]]",
            b"[^]]",
            b"[%]]",
            b"[a-]",
            b"[%a-z]",
            b"%a%d",
            b"%S+",
            b"%z",
            b".",
            b"(.)(.)",
            b"((a)b)",
            b"%",
            b"[",
            b"[a",
            b"[%",
            b"(",
            b")",
            b"(()",
            b"%1",
            b"%b",
            b"%bx",
            b"%f",
            b"(a)%2",
        ];
        let texts: [&[u8]; 8] = [b"", b"a", b"ab", b"aab b(a(b))c", b"a]b-z", b"one two  3", b"\0a\0", b"xyz(abab"];
        for pattern in patterns {
            for text in texts {
                for with in [&b"<%1>"[..], b"%%", b"x%", b"%2"] {
                    for from in [1, 2, -1, 0, 100, -100] {
                        compare(&lua, text, pattern, with, from).unwrap();
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_pattern_both_find_the_same(
            text in "[ab1 (\\]x]{0,12}", pattern in "[ab1%^$()\\[\\].*+?afdswbx-]{0,10}", with in "[%012x]{0,4}", from in -3i64..9
        ) {
            let outcome = compare(&both(), text.as_bytes(), pattern.as_bytes(), with.as_bytes(), from);
            prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
        }
    }
}
