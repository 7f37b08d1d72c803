//! Patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^x]`, and a backslash that takes the next byte as it is.

/// Whether the text matches. Iterative: one place to come back to, the last star, so the cost is at most pattern times text.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        match one(&pattern[p..], text[t]) {
            Some(length) => {
                p += length;
                t += 1;
            }
            None => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Length of the pattern's first element when it matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => class(pattern, byte),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        literal => (*literal == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = pattern.get(1) == Some(&b'^');
    let (mut position, mut found) = (if negated { 2 } else { 1 }, false);
    loop {
        match pattern.get(position..)? {
            [] => break,
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                position += 2;
            }
            [b']', ..] => {
                position += 1;
                break;
            }
            [low, b'-', high, ..] => {
                let (low, high) = if low <= high { (low, high) } else { (high, low) };
                found |= (low..=high).contains(&&byte);
                position += 3;
            }
            [single, ..] => {
                found |= *single == byte;
                position += 1;
            }
        }
    }
    (found != negated).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        let table = [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("", "", true),
            ("", "a", false),
            ("[", "a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("a**b", "ab", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_pattern_times_text() {
        let (pattern, text) = ("a*".repeat(2000) + "b", "a".repeat(4000));
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }
}
