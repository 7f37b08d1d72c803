//! Kubernetes quantities of bytes, as far as the operator compares them.

/// Why a text is not a quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a quantity: write it like 10Gi, 500Mi or 1000000")]
pub struct QuantityError(pub String);

/// Suffixes and what they multiply by.
const SUFFIXES: [(&str, u128); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// A quantity of bytes, rounded up to a whole one. Exponents (`1e9`) and thousandths (`500m`) are refused: neither is a size anybody
/// means for a volume or for memory.
pub fn parse_quantity(text: &str) -> Result<u64, QuantityError> {
    let error = || QuantityError(text.chars().take(64).collect());
    let (digits, multiplier) = SUFFIXES
        .iter()
        .find_map(|(suffix, multiplier)| text.strip_suffix(suffix).map(|digits| (digits, *multiplier)))
        .unwrap_or((text, 1));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 19 || fraction.len() > 9 || !plain(whole) || !plain(fraction) {
        return Err(error());
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| error())?);
    let number: u128 = format!("{whole}{fraction}").parse().map_err(|_| error())?;
    let bytes = number.checked_mul(multiplier).ok_or_else(error)?.div_ceil(scale);
    u64::try_from(bytes).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1000000", 1_000_000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("10G", 10_000_000_000),
            ("0.5", 1),
            ("1k", 1000),
        ] {
            assert_eq!(parse_quantity(text), Ok(bytes), "{text}");
        }
        for bad in ["", "Gi", "ten", "-1Gi", "1 Gi", "1GiB", "500m", "1e9", "99999999999999999999", "99999999Ei", "1.2.3"] {
            assert!(parse_quantity(bad).is_err(), "{bad}");
        }
    }
}
