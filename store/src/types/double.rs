//! Texts of floating point numbers, as Redis 7.4 writes and reads them.

/// The text of a number: a whole one in full where 64 bits hold twice as much, any other by the fewest digits that mean it.
///
/// Redis before 7.2 writes 17 digits instead (`0.1` as `0.10000000000000001`): the same number.
pub fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    if number.abs() <= (i64::MAX / 2) as f64 && number.fract() == 0.0 {
        return (number as i64).to_string();
    }
    shortest(number)
}

/// The fewest digits that mean a number, laid out as Redis' fpconv lays them out: plain while few zeros are needed, else with an exponent.
fn shortest(number: f64) -> String {
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(|digit| *digit != '.').collect();
    let (count, exponent) = (digits.len() as i32, exponent.parse::<i32>().unwrap_or(0));
    // The number is `digits · 10^scale`.
    let scale = exponent + 1 - count;
    let sign = if number < 0.0 { "-" } else { "" };
    if scale >= 0 && exponent.abs() < count + 7 {
        return format!("{sign}{digits}{}", "0".repeat(scale as usize));
    }
    if scale < 0 && (scale > -7 || exponent.abs() < 4) {
        let whole = count + scale;
        return if whole <= 0 {
            format!("{sign}0.{}{digits}", "0".repeat(-whole as usize))
        } else {
            format!("{sign}{}.{}", &digits[..whole as usize], &digits[whole as usize..])
        };
    }
    let digits = &digits[..digits.len().min(if sign.is_empty() { 18 } else { 17 })];
    let point = if digits.len() > 1 { "." } else { "" };
    let sign_of_exponent = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{}{point}{}e{sign_of_exponent}{}", &digits[..1], &digits[1..], exponent.abs())
}

/// The text of a number with all of its decimals up to the 17th, as coordinates are written.
pub fn human_text(number: f64) -> String {
    let text = format!("{number:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// A number as C's `strtod` reads it, over the whole text: decimal or hexadecimal, with an exponent, or infinite; `None` when it is none,
/// or NaN. Blanks before it are for the caller. What is too large is infinite.
pub fn parse_double(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => parse_hexadecimal(&rest[2..])?,
        // A second sign is not for Rust to forgive.
        [b'0'..=b'9' | b'.' | b'i' | b'I', ..] => rest.parse::<f64>().ok()?,
        _ => return None,
    };
    Some(if negative { -number } else { number })
}

/// The same, and nothing that a 64-bit number cannot say: what Redis takes as a score, an increment, a coordinate.
pub fn parse_exact_double(text: &[u8]) -> Option<f64> {
    let number = parse_double(text)?;
    let digits = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E' | b'p' | b'P')).copied();
    if number.is_infinite() && text.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let is_hexadecimal = text.iter().any(|byte| matches!(byte, b'x' | b'X'));
    let vanished =
        number == 0.0 && digits.filter(|byte| !is_hexadecimal || *byte != b'x').any(|byte| matches!(byte, b'1'..=b'9'));
    if vanished { None } else { Some(number) }
}

/// Digits behind `0x`, with a point and a binary exponent. Digits past the 60th bit only round.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (digits, exponent) = match text.find(['p', 'P']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?.clamp(-5000, 5000)),
        None => (text, 0),
    };
    let (mut mantissa, mut scale, mut point, mut any) = (0u64, exponent, false, false);
    for digit in digits.bytes() {
        if digit == b'.' && !point {
            point = true;
            continue;
        }
        let value = char::from(digit).to_digit(16)?;
        any = true;
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | u64::from(value);
            scale -= if point { 4 } else { 0 };
        } else {
            mantissa |= u64::from(value != 0);
            scale += if point { 0 } else { 4 };
        }
    }
    // In two steps: one factor alone may be too small or too large.
    let half = scale / 2;
    any.then(|| mantissa as f64 * 2f64.powi(half) * 2f64.powi(scale - half))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_as_redis_writes_them() {
        let table = [
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (3.0, "3"),
            (1e17, "100000000000000000"),
            (4e18, "4000000000000000000"),
            (1e20, "1e+20"),
            (-1.25e100, "-1.25e+100"),
            (1e-7, "1e-7"),
            (0.000_001, "0.000001"),
            (0.001_234_5, "0.0012345"),
            (1.234_567_89e-9, "1.23456789e-9"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (-0.0, "-0"),
        ];
        for (number, text) in table {
            assert_eq!(double_text(number), text);
        }
        assert_eq!(human_text(13.361_389_338_970_184), "13.36138933897018433");
        assert_eq!(human_text(-2.5), "-2.5");
        assert_eq!(human_text(100.0), "100");
    }

    #[test]
    fn numbers_are_read_as_strtod_reads_them() {
        let table = [
            ("1", Some(1.0)),
            ("+1.5e3", Some(1500.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("-0", Some(-0.0)),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1e400", Some(f64::INFINITY)),
            ("0x10", Some(16.0)),
            ("-0x1.8p1", Some(-3.0)),
            ("0xp1", None),
            ("nan", None),
            ("", None),
            ("-", None),
            ("+-1", None),
            (" 1", None),
            ("1 ", None),
            ("1x", None),
            ("e5", None),
        ];
        for (text, number) in table {
            assert_eq!(parse_double(text.as_bytes()), number, "{text}");
        }
        for (text, number) in
            [("1e400", None), ("1e-400", None), ("0e5", Some(0.0)), ("0x0", Some(0.0)), ("inf", Some(f64::INFINITY))]
        {
            assert_eq!(parse_exact_double(text.as_bytes()), number, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(!number.is_nan());
            prop_assert_eq!(parse_double(double_text(number).as_bytes()), Some(number));
        }
    }
}
