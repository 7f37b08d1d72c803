//! Sums in the 80-bit floating point that Redis computes INCRBYFLOAT in, printed with 17 decimals as it prints them: a 64-bit mantissa,
//! rounded to nearest even. Rust has no such type. What lies outside of its everyday range is for the caller to do in 64 bits.

/// Decimals printed (`%.17Lf`).
const DECIMALS: usize = 17;

/// `mantissa · 2^exponent`; the mantissa's highest bit is set, or it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LongDouble {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// The sum as Redis writes it; `None` when a number is not a plain decimal of up to 38 digits, 18 of them behind the point.
pub(super) fn add(left: &[u8], right: &[u8]) -> Option<String> {
    render(sum(parse(left)?, parse(right)?)?)
}

/// Rounds `value · 2^exponent`, plus something below one unit when `inexact`, to 64 bits.
fn round(negative: bool, value: u128, exponent: i32, inexact: bool) -> LongDouble {
    let bits = 128 - value.leading_zeros() as i32;
    let shift = bits - 64;
    if shift <= 0 {
        let mantissa = if value == 0 { 0 } else { (value << -shift) as u64 };
        return LongDouble { negative, mantissa, exponent: exponent + shift };
    }
    let (kept, rest, half) = (value >> shift, value & ((1 << shift) - 1), 1u128 << (shift - 1));
    let up = rest > half || (rest == half && (inexact || kept & 1 == 1));
    let kept = kept + u128::from(up);
    if kept >> 64 == 0 {
        LongDouble { negative, mantissa: kept as u64, exponent: exponent + shift }
    } else {
        LongDouble { negative, mantissa: 1 << 63, exponent: exponent + shift + 1 }
    }
}

fn parse(text: &[u8]) -> Option<LongDouble> {
    let (text, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], std::str::from_utf8(&text[at + 1..]).ok()?.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let (mut value, mut decimals, mut point, mut any) = (0u128, 0i32, false, false);
    for byte in digits {
        match byte {
            b'.' if !point => point = true,
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(u128::from(byte - b'0'))?;
                decimals += i32::from(point);
                any = true;
            }
            _ => return None,
        }
    }
    let power = exponent.checked_sub(decimals)?;
    if !any {
        return None;
    }
    if value == 0 || power >= 0 {
        let factor = if value == 0 { 1 } else { 10u128.checked_pow(power.unsigned_abs())? };
        return Some(round(negative, value.checked_mul(factor)?, 0, false));
    }
    // All 128 bits for the quotient: at least 65 are left behind a divisor of up to 10^18.
    let divisor = (power >= -18).then(|| 10u128.pow(power.unsigned_abs()))?;
    let shift = value.leading_zeros() as i32;
    let widened = value << shift;
    Some(round(negative, widened / divisor, -shift, !widened.is_multiple_of(divisor)))
}

fn sum(left: LongDouble, right: LongDouble) -> Option<LongDouble> {
    if left.mantissa == 0 || right.mantissa == 0 {
        return Some(if left.mantissa == 0 { right } else { left });
    }
    let (high, low) = if left.exponent >= right.exponent { (left, right) } else { (right, left) };
    let distance = high.exponent - low.exponent;
    if distance > 62 {
        return None;
    }
    let (a, b) = (u128::from(high.mantissa) << distance, u128::from(low.mantissa));
    Some(match (high.negative == low.negative, a >= b) {
        (true, _) => round(high.negative, a + b, low.exponent, false),
        (false, true) => round(high.negative && a != b, a - b, low.exponent, false),
        (false, false) => round(low.negative, b - a, low.exponent, false),
    })
}

fn render(value: LongDouble) -> Option<String> {
    let unit = 10u128.pow(DECIMALS as u32);
    let (mut whole, mut decimals) = match value.exponent {
        0..=63 => (u128::from(value.mantissa) << value.exponent, 0),
        64.. => return None,
        exponent => {
            let shift = exponent.unsigned_abs();
            let whole = u128::from(value.mantissa).checked_shr(shift).unwrap_or(0);
            let rest = u128::from(value.mantissa) - whole.checked_shl(shift).unwrap_or(0);
            let scaled = rest * unit;
            let kept = scaled.checked_shr(shift).unwrap_or(0);
            let below = scaled - kept.checked_shl(shift).unwrap_or(0);
            let half = 1u128.checked_shl(shift - 1).unwrap_or(u128::MAX);
            (whole, kept + u128::from(below > half || (below == half && kept & 1 == 1)))
        }
    };
    if decimals == unit {
        (whole, decimals) = (whole + 1, 0);
    }
    let text = format!("{decimals:0DECIMALS$}");
    let text = text.trim_end_matches('0');
    let sign = if value.negative && (whole > 0 || decimals > 0) { "-" } else { "" };
    Some(if text.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{text}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_what_redis_prints() {
        // Right-hand sides printed by INCRBYFLOAT of redis-server 7.
        let table = [
            ("0.1", "0.2", "0.3"),
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("-1.5", "1.5", "0"),
            ("3", "-0.25", "2.75"),
            ("798.73", "3", "801.72999999999999998"),
            ("236782536865472688", "1e2", "236782536865472788"),
            ("-0.5", "0.25", "-0.25"),
            ("1e-17", "0", "0.00000000000000001"),
            ("0", "0", "0"),
        ];
        for (left, right, sum) in table {
            assert_eq!(add(left.as_bytes(), right.as_bytes()).as_deref(), Some(sum), "{left} + {right}");
        }
        for odd in ["", "-", ".", "1e-19", "1e40", "0x1", "inf", "1.2.3"] {
            assert_eq!(add(odd.as_bytes(), b"0"), None, "{odd}");
        }
    }
}
