//! A profile: stacks of return addresses, and what was measured at each.

/// One stack, the innermost call first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Return addresses.
    pub stack: Vec<usize>,
    /// One number for each of the profile's kinds.
    pub values: [u64; 2],
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What the two numbers of a sample are, and in which unit.
    pub kinds: [(&'static str, &'static str); 2],
    /// What one sample stands for: its kind, its unit, how many.
    pub period: (&'static str, &'static str, u64),
    /// Nanoseconds that it was taken for; 0: it is of a moment.
    pub duration_ns: u64,
    /// The samples.
    pub samples: Vec<Sample>,
}

impl Profile {
    /// Reads jemalloc's text form, `heap_v2`. `None`: it is none.
    ///
    /// jemalloc samples by bytes, so a small allocation is seen more rarely than a large one. Its figures are made to be corrected by the
    /// mean size at each stack, which is done here.
    pub fn of_heap(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (header, rest) = text.split_once('\n')?;
        let interval: u64 = header.strip_prefix("heap_v2/")?.trim().parse().ok()?;
        let body = rest.split_once("\nMAPPED_LIBRARIES:").map_or(rest, |(body, _)| body);
        let mut samples = Vec::new();
        let mut stack: Option<Vec<usize>> = None;
        for line in body.lines().map(str::trim) {
            if let Some(addresses) = line.strip_prefix('@') {
                let read = |word: &str| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok();
                stack = Some(addresses.split_whitespace().map(read).collect::<Option<_>>()?);
            } else if let Some(totals) = line.strip_prefix("t*:")
                && let Some(stack) = stack.take()
            {
                let mut numbers = totals.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
                let (count, bytes): (u64, u64) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
                if count > 0 {
                    samples.push(Sample { stack, values: corrected(count, bytes, interval) });
                }
            }
        }
        let kinds = [("inuse_objects", "count"), ("inuse_space", "bytes")];
        Some(Self { kinds, period: ("space", "bytes", interval), duration_ns: 0, samples })
    }
}

fn corrected(count: u64, bytes: u64, interval: u64) -> [u64; 2] {
    let mean = bytes as f64 / count as f64;
    let factor = 1.0 / (1.0 - (-mean / interval as f64).exp());
    let scale = |number: u64| if factor.is_finite() { (number as f64 * factor).round() as u64 } else { number };
    [scale(count), scale(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "heap_v2/524288\n  t*: 3: 1049088 [0: 0]\n  t0: 3: 1049088 [0: 0]\n@ 0x10 0x2f\n  t*: 1: 1048576 [0: 0]\n  \
                        t0: 1: 1048576 [0: 0]\n@ 0x11 0x2f\n  t*: 2: 512 [0: 0]\n@ 0x12\n  t*: 0: 0 [4: 9]\n\nMAPPED_LIBRARIES:\n@ x\n";

    #[test]
    fn small_allocations_count_for_those_that_were_not_sampled() {
        let profile = Profile::of_heap(TEXT.as_bytes()).unwrap();
        assert_eq!(profile.samples.len(), 2, "what holds nothing any more is left out");
        let [large, small] = &profile.samples[..] else { panic!() };
        assert_eq!((&large.stack[..], &small.stack[..]), (&[0x10, 0x2f][..], &[0x11, 0x2f][..]));
        // One of two intervals' length is nearly always seen; of 256 bytes one in two thousand.
        assert_eq!(large.values, [1, 1_212_697]);
        assert_eq!(small.values, [4097, 1_048_832]);
    }

    #[test]
    fn what_is_no_profile_is_none() {
        for text in ["", "heap profile: 1: 2 [3: 4] @ heap/1\n", "heap_v2/x\n", "heap_v2/1\n@ zz\n  t*: 1: 1 [0: 0]\n"] {
            assert_eq!(Profile::of_heap(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Profile::of_heap(&[0xff, b'\n']), None);
    }
}
