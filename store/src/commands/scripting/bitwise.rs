//! The library `bit`: whole numbers of 32 bits, results signed.

use mlua::{Lua, Table, Variadic};

/// A number as 32 bits, as `BitOp` normalizes it.
fn bits(number: f64) -> u32 {
    if number.is_finite() { number.round_ties_even().rem_euclid(4_294_967_296.0) as u64 as u32 } else { 0 }
}

fn signed(bits: u32) -> f64 {
    f64::from(bits as i32)
}

pub(super) fn library(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    let one = |name: &str, operation: fn(u32) -> u32| -> mlua::Result<()> {
        library.raw_set(name, lua.create_function(move |_, number: f64| Ok((true, signed(operation(bits(number))))))?)
    };
    one("tobit", |bits| bits)?;
    one("bnot", |bits| !bits)?;
    one("bswap", u32::swap_bytes)?;
    let shift = |name: &str, operation: fn(u32, u32) -> u32| -> mlua::Result<()> {
        let shift = move |_: &Lua, (number, by): (f64, f64)| Ok((true, signed(operation(bits(number), bits(by) & 31))));
        library.raw_set(name, lua.create_function(shift)?)
    };
    shift("lshift", |bits, by| bits << by)?;
    shift("rshift", |bits, by| bits >> by)?;
    shift("arshift", |bits, by| (bits as i32 >> by) as u32)?;
    shift("rol", u32::rotate_left)?;
    shift("ror", u32::rotate_right)?;
    let many = |name: &str, operation: fn(u32, u32) -> u32| -> mlua::Result<()> {
        let many = move |_: &Lua, (first, rest): (f64, Variadic<f64>)| {
            Ok((true, signed(rest.iter().fold(bits(first), |all, number| operation(all, bits(*number))))))
        };
        library.raw_set(name, lua.create_function(many)?)
    };
    many("band", |one, other| one & other)?;
    many("bor", |one, other| one | other)?;
    many("bxor", |one, other| one ^ other)?;
    let hex = |_: &Lua, (number, digits): (f64, Option<f64>)| {
        let digits = digits.unwrap_or(8.0) as i64;
        let count = digits.unsigned_abs().clamp(1, 8) as usize;
        let text = format!("{:08x}", bits(number));
        let text = text[8 - count..].to_owned();
        Ok((true, if digits < 0 { text.to_uppercase() } else { text }))
    };
    library.raw_set("tohex", lua.create_function(hex)?)?;
    Ok(library)
}
