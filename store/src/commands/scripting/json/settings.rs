//! The settings of `cjson`. In Redis those of one script are the next one's as well; here they end with the script that made them.

use mlua::{Lua, MultiValue, Table, Value};

/// What becomes of a number that JSON has no text for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    Refused,
    Written,
    Null,
}

/// As a script has set them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// A table with few of its indexes is written as an object, rather than refused.
    pub(super) sparse_convert: bool,
    /// Few: the highest index is so many times their number; 0: any number will do,
    pub(super) sparse_ratio: i64,
    /// and it is above this.
    pub(super) sparse_safe: i64,
    pub(super) encode_depth: i64,
    pub(super) decode_depth: i64,
    /// Significant digits of a number.
    pub(super) precision: i64,
    /// Of no consequence here.
    keep_buffer: bool,
    pub(super) encode_invalid: Invalid,
    /// Numbers that JSON does not have are read.
    pub(super) decode_invalid: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            keep_buffer: true,
            encode_invalid: Invalid::Refused,
            decode_invalid: true,
        }
    }
}

impl Settings {
    /// Those of the script that runs.
    pub(super) fn of(lua: &Lua) -> Self {
        lua.app_data_ref::<Self>().map_or_else(Self::default, |settings| *settings)
    }
}

/// A script begins: with the settings that every script begins with.
pub(in super::super) fn reset(lua: &Lua) {
    lua.set_app_data(Settings::default());
}

struct Arguments<'l> {
    lua: &'l Lua,
    values: Vec<Value>,
}

impl Arguments<'_> {
    fn get(&self, at: usize) -> &Value {
        self.values.get(at).unwrap_or(&Value::Nil)
    }

    /// Changes a number, unless it is left out, and says what it is.
    fn integer(&self, at: usize, setting: &mut i64, least: i64, most: i64) -> Result<Value, String> {
        if !self.get(at).is_nil() {
            let given = self.lua.coerce_number(self.get(at).clone()).ok().flatten();
            let given = given.filter(|number| (least as f64..most as f64 + 1.0).contains(number));
            *setting = given.ok_or_else(|| format!("expected integer between {least} and {most}"))? as i64;
        }
        Ok(Value::Integer(*setting))
    }

    /// The same of something that is on or off, or another word.
    fn choice(&self, at: usize, setting: &mut usize, words: &[&str]) -> Result<Value, String> {
        match self.get(at) {
            Value::Nil => {}
            Value::Boolean(on) => *setting = usize::from(*on),
            other => {
                let word = other.as_string().map(mlua::LuaString::to_string_lossy).unwrap_or_default();
                *setting = words.iter().position(|known| *known == word).ok_or_else(|| format!("invalid option '{word}'"))?;
            }
        }
        Ok(match *setting {
            at @ (0 | 1) => Value::Boolean(at == 1),
            at => Value::String(self.lua.create_string(words[at]).map_err(|error| error.to_string())?),
        })
    }

    fn switch(&self, at: usize, setting: &mut bool) -> Result<Value, String> {
        let mut choice = usize::from(*setting);
        let now = self.choice(at, &mut choice, &["off", "on"])?;
        *setting = choice == 1;
        Ok(now)
    }
}

type Change = fn(&mut Settings, &Arguments<'_>) -> Result<Vec<Value>, String>;

const INT_MAX: i64 = i32::MAX as i64;

/// Each function, how many arguments it takes, and what it does. Without arguments it says what is set.
const FUNCTIONS: [(&str, usize, Change); 7] = [
    ("encode_sparse_array", 3, |settings, given| {
        Ok(vec![
            given.switch(0, &mut settings.sparse_convert)?,
            given.integer(1, &mut settings.sparse_ratio, 0, INT_MAX)?,
            given.integer(2, &mut settings.sparse_safe, 0, INT_MAX)?,
        ])
    }),
    ("encode_max_depth", 1, |settings, given| Ok(vec![given.integer(0, &mut settings.encode_depth, 1, INT_MAX)?])),
    ("decode_max_depth", 1, |settings, given| Ok(vec![given.integer(0, &mut settings.decode_depth, 1, INT_MAX)?])),
    ("encode_number_precision", 1, |settings, given| Ok(vec![given.integer(0, &mut settings.precision, 1, 14)?])),
    ("encode_keep_buffer", 1, |settings, given| Ok(vec![given.switch(0, &mut settings.keep_buffer)?])),
    ("encode_invalid_numbers", 1, |settings, given| {
        const CHOICES: [Invalid; 3] = [Invalid::Refused, Invalid::Written, Invalid::Null];
        let mut choice = settings.encode_invalid as usize;
        let now = given.choice(0, &mut choice, &["off", "on", "null"])?;
        settings.encode_invalid = CHOICES[choice];
        Ok(vec![now])
    }),
    ("decode_invalid_numbers", 1, |settings, given| Ok(vec![given.switch(0, &mut settings.decode_invalid)?])),
];

/// Adds the functions that change them.
pub(super) fn add(lua: &Lua, library: &Table) -> mlua::Result<()> {
    for (name, most, change) in FUNCTIONS {
        let function = move |lua: &Lua, values: MultiValue| {
            let given = Arguments { lua, values: values.into_vec() };
            let mut settings = Settings::of(lua);
            let changed = if given.values.len() > most {
                Err("found too many arguments".to_owned())
            } else {
                change(&mut settings, &given)
            };
            match changed {
                Ok(now) => {
                    lua.set_app_data(settings);
                    Ok([Value::Boolean(true)].into_iter().chain(now).collect::<MultiValue>())
                }
                Err(problem) => {
                    let text = lua.create_string(format!("bad argument to '{name}' ({problem})"))?;
                    Ok([Value::Boolean(false), Value::String(text)].into_iter().collect())
                }
            }
        };
        library.raw_set(name, lua.create_function(function)?)?;
    }
    Ok(())
}
