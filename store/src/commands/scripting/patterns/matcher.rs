//! Matching itself: a pattern against a text, step by step.

/// Longest pattern: matching goes down a level of the stack for each item of it.
const PATTERN_MAX: usize = 2000;
/// Most captures of a pattern, as in Lua.
const CAPTURES_MAX: usize = 32;
/// Steps between two looks at the time.
const LOOK_EVERY: u64 = 10_000;

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The pattern is none, or an argument is wrong: what Lua says.
    Wrong(String),
    /// The script has been ended.
    Ended,
}

fn wrong<T>(text: &str) -> Result<T, Problem> {
    Err(Problem::Wrong(text.to_owned()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// Its end was not reached yet.
    Unfinished,
    /// `()`: a position.
    Position,
    Bytes(usize),
}

/// A match under way.
pub(super) struct Matcher<'a> {
    text: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<(usize, Length)>,
    steps: u64,
    /// Whether the script has been ended meanwhile.
    ended: &'a dyn Fn() -> bool,
}

type Found = Result<Option<usize>, Problem>;

impl<'a> Matcher<'a> {
    /// Nothing is matched yet.
    pub(super) fn new(text: &'a [u8], pattern: &'a [u8], ended: &'a dyn Fn() -> bool) -> Result<Self, Problem> {
        if pattern.len() > PATTERN_MAX {
            return Err(Problem::Wrong(format!("the pattern is longer than {PATTERN_MAX} bytes")));
        }
        // As in Lua 5.1 a zero ends a pattern; `%z` stands for one.
        let end = pattern.iter().position(|byte| *byte == 0).unwrap_or(pattern.len());
        Ok(Self { text, pattern: &pattern[..end], captures: Vec::new(), steps: 0, ended })
    }

    fn step(&mut self) -> Result<(), Problem> {
        self.steps += 1;
        if self.steps.is_multiple_of(LOOK_EVERY) && (self.ended)() { Err(Problem::Ended) } else { Ok(()) }
    }

    /// Where a match that begins at `at` ends.
    pub(super) fn at(&mut self, at: usize, pattern_from: usize) -> Found {
        self.captures.clear();
        self.rest(at, pattern_from)
    }

    /// Where the text from `s` on ends that the pattern from `p` on matches.
    fn rest(&mut self, mut s: usize, mut p: usize) -> Found {
        loop {
            self.step()?;
            let Some(first) = self.pattern.get(p) else { return Ok(Some(s)) };
            match (first, self.pattern.get(p + 1)) {
                (b'(', Some(b')')) => return self.open(s, p + 2, Length::Position),
                (b'(', _) => return self.open(s, p + 1, Length::Unfinished),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.text.len()).then_some(s)),
                (b'%', Some(b'b')) => {
                    let Some(end) = self.balanced(s, p + 2)? else { return Ok(None) };
                    (s, p) = (end, p + 4);
                    continue;
                }
                (b'%', Some(b'f')) => {
                    p += 2;
                    if self.pattern.get(p) != Some(&b'[') {
                        return wrong("missing '[' after '%f' in pattern");
                    }
                    let end = self.item_end(p)?;
                    let before = s.checked_sub(1).map_or(0, |at| self.text[at]);
                    let behind = self.text.get(s).copied().unwrap_or(0);
                    if self.in_set(before, p, end - 1) || !self.in_set(behind, p, end - 1) {
                        return Ok(None);
                    }
                    p = end;
                    continue;
                }
                (b'%', Some(digit)) if digit.is_ascii_digit() => {
                    let Some(end) = self.same_again(s, *digit)? else { return Ok(None) };
                    (s, p) = (end, p + 2);
                    continue;
                }
                _ => {}
            }
            let end = self.item_end(p)?;
            match self.pattern.get(end) {
                Some(b'?') => {
                    if self.one(s, p, end)
                        && let Some(found) = self.rest(s + 1, end + 1)?
                    {
                        return Ok(Some(found));
                    }
                    p = end + 1;
                }
                Some(b'*') => return self.most(s, p, end),
                Some(b'+') => return if self.one(s, p, end) { self.most(s + 1, p, end) } else { Ok(None) },
                Some(b'-') => return self.fewest(s, p, end),
                _ if self.one(s, p, end) => (s, p) = (s + 1, end),
                _ => return Ok(None),
            }
        }
    }

    /// As many as there are, and fewer where the rest does not follow.
    fn most(&mut self, s: usize, p: usize, end: usize) -> Found {
        let mut last = s;
        while self.one(last, p, end) {
            self.step()?;
            last += 1;
        }
        loop {
            if let Some(found) = self.rest(last, end + 1)? {
                return Ok(Some(found));
            }
            if last == s {
                return Ok(None);
            }
            last -= 1;
        }
    }

    /// As few as the rest lets there be.
    fn fewest(&mut self, mut s: usize, p: usize, end: usize) -> Found {
        loop {
            if let Some(found) = self.rest(s, end + 1)? {
                return Ok(Some(found));
            }
            if !self.one(s, p, end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, length: Length) -> Found {
        if self.captures.len() >= CAPTURES_MAX {
            return wrong("too many captures");
        }
        self.captures.push((s, length));
        let found = self.rest(s, p)?;
        if found.is_none() {
            self.captures.pop();
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> Found {
        let Some(number) = self.captures.iter().rposition(|(_, length)| *length == Length::Unfinished) else {
            return wrong("invalid pattern capture");
        };
        self.captures[number].1 = Length::Bytes(s - self.captures[number].0);
        let found = self.rest(s, p)?;
        if found.is_none() {
            self.captures[number].1 = Length::Unfinished;
        }
        Ok(found)
    }

    /// `%bxy`: from an x to the y that belongs to it.
    fn balanced(&mut self, s: usize, p: usize) -> Found {
        let (Some(opening), Some(closing)) = (self.pattern.get(p).copied(), self.pattern.get(p + 1).copied()) else {
            return wrong("unbalanced pattern");
        };
        if self.text.get(s) != Some(&opening) {
            return Ok(None);
        }
        let mut open = 1;
        for at in s + 1..self.text.len() {
            self.step()?;
            if self.text[at] == closing {
                open -= 1;
                if open == 0 {
                    return Ok(Some(at + 1));
                }
            } else if self.text[at] == opening {
                open += 1;
            }
        }
        Ok(None)
    }

    /// `%1`: what a capture holds, once more.
    fn same_again(&mut self, s: usize, digit: u8) -> Found {
        let capture = usize::from(digit).checked_sub(usize::from(b'1')).and_then(|number| self.captures.get(number));
        match capture {
            None | Some((_, Length::Unfinished)) => wrong("invalid capture index"),
            Some((_, Length::Position)) => Ok(None),
            Some((from, Length::Bytes(length))) => {
                // As many steps as bytes are compared.
                self.steps += (*length / 64) as u64;
                let again = self.text[s..].starts_with(&self.text[*from..from + length]);
                Ok(again.then_some(s + length))
            }
        }
    }

    /// Where the single item that begins at `p` ends.
    fn item_end(&self, p: usize) -> Result<usize, Problem> {
        match self.pattern[p] {
            b'%' if p + 1 == self.pattern.len() => wrong("malformed pattern (ends with '%')"),
            b'%' => Ok(p + 2),
            b'[' => {
                let mut at = p + 1 + usize::from(self.pattern.get(p + 1) == Some(&b'^'));
                // What comes first is of the set, a bracket too.
                loop {
                    let Some(byte) = self.pattern.get(at) else { return wrong("malformed pattern (missing ']')") };
                    at += 1 + usize::from(*byte == b'%' && at + 1 < self.pattern.len());
                    if self.pattern.get(at) == Some(&b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    /// Whether the byte at `s` is what the single item says.
    fn one(&self, s: usize, p: usize, end: usize) -> bool {
        let Some(byte) = self.text.get(s).copied() else { return false };
        match self.pattern[p] {
            b'.' => true,
            b'%' => in_class(byte, self.pattern[p + 1]),
            b'[' => self.in_set(byte, p, end - 1),
            plain => plain == byte,
        }
    }

    /// Whether a byte is of the set between the brackets at `p` and `end`.
    fn in_set(&self, byte: u8, p: usize, end: usize) -> bool {
        let inverted = self.pattern[p + 1] == b'^';
        let mut at = p + 1 + usize::from(inverted);
        while at < end {
            let (found, width) = match self.pattern[at] {
                b'%' => (in_class(byte, self.pattern[at + 1]), 2),
                from if self.pattern[at + 1] == b'-' && at + 2 < end => ((from..=self.pattern[at + 2]).contains(&byte), 3),
                plain => (plain == byte, 1),
            };
            if found {
                return !inverted;
            }
            at += width;
        }
        inverted
    }

    /// How many captures there are.
    pub(super) fn captured(&self) -> usize {
        self.captures.len()
    }

    /// A part of the text.
    pub(super) fn text(&self, from: usize, to: usize) -> &'a [u8] {
        &self.text[from..to]
    }

    /// How many values a match gives: the whole of it when it captures nothing.
    pub(super) fn values(&self) -> usize {
        self.captures.len().max(1)
    }

    /// The value of a capture of the match between `from` and `to`.
    pub(super) fn value(&self, number: usize, from: usize, to: usize) -> Result<Captured<'a>, Problem> {
        match self.captures.get(number) {
            None if number == 0 => Ok(Captured::Text(&self.text[from..to])),
            None => wrong("invalid capture index"),
            Some((_, Length::Unfinished)) => wrong("unfinished capture"),
            Some((at, Length::Position)) => Ok(Captured::Position(at + 1)),
            Some((at, Length::Bytes(length))) => Ok(Captured::Text(&self.text[*at..at + length])),
        }
    }
}

/// What a capture holds.
pub(super) enum Captured<'a> {
    Text(&'a [u8]),
    Position(usize),
}

/// Whether a byte is of the class a letter stands for; as a capital, whether it is not. What is no such letter stands for itself.
fn in_class(byte: u8, letter: u8) -> bool {
    let found = match letter.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 0x0b,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return letter == byte,
    };
    found != letter.is_ascii_uppercase()
}

/// Where a text is found first, from `from` on, as it is: Knuth, Morris and Pratt, one step a byte.
pub(super) fn plain(text: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let mut borders = vec![0; wanted.len()];
    let mut length = 0;
    for at in 1..wanted.len() {
        while length > 0 && wanted[at] != wanted[length] {
            length = borders[length - 1];
        }
        length += usize::from(wanted[at] == wanted[length]);
        borders[at] = length;
    }
    let mut matched = 0;
    if wanted.is_empty() {
        return Some(from);
    }
    for (at, byte) in text.iter().enumerate().skip(from) {
        while matched > 0 && *byte != wanted[matched] {
            matched = borders[matched - 1];
        }
        matched += usize::from(*byte == wanted[matched]);
        if matched == wanted.len() {
            return Some(at + 1 - matched);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_for_ever_is_ended() {
        let (text, looks) = ("a".repeat(100), std::cell::Cell::new(0));
        let ended = || {
            looks.set(looks.get() + 1);
            looks.get() > 50
        };
        for pattern in [".-.-.-.-.-.-.-.-.-.-b", "a*a*a*a*a*a*a*a*a*a*b", "(a*)(a*)(a*)(a*)(a*)(a*)(a*)%1b"] {
            looks.set(0);
            let mut matcher = Matcher::new(text.as_bytes(), pattern.as_bytes(), &ended).unwrap();
            assert_eq!(matcher.at(0, 0), Err(Problem::Ended), "{pattern}");
        }
        let (text, wanted) = ("a".repeat(200_000), format!("{}b", "a".repeat(100_000)));
        assert_eq!(plain(text.as_bytes(), wanted.as_bytes(), 0), None);
    }
}
