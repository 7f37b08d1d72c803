//! Kinds of values a setting may have, and how they are written.

use std::fmt::Write as _;

use crate::{
    clients::{Notify, PushLimits},
    engine::{Compression, SyncPolicy},
    memory::Watermarks,
    tls::ClientAuth,
};

/// A value that a setting can have.
pub(super) trait Value: Sized {
    /// Reads it, or says what it has to look like.
    fn parse(text: &str) -> Result<Self, String>;
    /// Reads a change of it; what the text leaves out stays.
    fn changed(&self, text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
    /// Writes it so that it can be read again.
    fn render(&self) -> String;
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err("it has to be yes or no".into()),
        }
    }

    fn render(&self) -> String {
        if *self { "yes".into() } else { "no".into() }
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) { Err("it has to be free of control characters".into()) } else { Ok(text.into()) }
    }

    fn render(&self) -> String {
        if self.is_empty() || self.contains([' ', '"', '\'', '\\']) { format!("{self:?}") } else { self.clone() }
    }
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("it has to be a whole number from {} to {}", <$kind>::MIN, <$kind>::MAX))
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
number!(u16, u32, u64, i32, i64);

impl Value for Notify {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into())
    }

    fn render(&self) -> String {
        let letters = Self::render(*self);
        if letters.is_empty() { "\"\"".into() } else { letters }
    }
}

/// A size in bytes, written like `64mb`, with the units of Redis: `k`, `m`, `g` are powers of 1000, `kb`, `mb`, `gb` of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Value for Bytes {
    fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: u64 = match &lower[digits.len()..] {
            "" | "b" => 1,
            "k" => 1000,
            "kb" => 1 << 10,
            "m" => 1_000_000,
            "mb" => 1 << 20,
            "g" => 1_000_000_000,
            "gb" => 1 << 30,
            _ => return Err("it has to be a size like 1024, 64kb, 512mb or 4gb".into()),
        };
        let number: u64 = digits.parse().map_err(|_| "it has to be a size like 1024, 64kb, 512mb or 4gb".to_owned())?;
        number.checked_mul(factor).map(Self).ok_or_else(|| "it is larger than any memory".into())
    }

    fn render(&self) -> String {
        self.0.to_string()
    }
}

/// Bounds of what is sent to clients, as Redis writes them: `class hard soft seconds`, for several classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Longest reply, in bytes. Its soft limit and time mean nothing: a reply is refused before it is made.
    pub normal: u64,
    /// What may wait for a subscriber.
    pub pubsub: PushLimits,
}

impl Default for OutputLimits {
    fn default() -> Self {
        let pubsub = PushLimits { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 };
        Self { normal: 256 << 20, pubsub }
    }
}

impl Value for OutputLimits {
    fn parse(text: &str) -> Result<Self, String> {
        Self::default().changed(text)
    }

    fn changed(&self, text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [alone] = words.as_slice() {
            return Ok(Self { normal: Bytes::parse(alone)?.0, ..*self });
        }
        let mut limits = *self;
        if words.is_empty() || !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        for class in words.chunks_exact(4) {
            let (hard, soft) = (Bytes::parse(class[1])?, Bytes::parse(class[2])?);
            let seconds =
                class[3].parse().map_err(|_| "Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
            match class[0].to_ascii_lowercase().as_str() {
                "normal" => limits.normal = hard.0,
                "pubsub" => {
                    limits.pubsub = PushLimits { hard_bytes: hard.0, soft_bytes: soft.0, soft_seconds: seconds };
                }
                // There are none.
                "replica" | "slave" => {}
                _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
            }
        }
        Ok(limits)
    }

    fn render(&self) -> String {
        let PushLimits { hard_bytes, soft_bytes, soft_seconds } = self.pubsub;
        format!("normal {} 0 0 slave 0 0 0 pubsub {hard_bytes} {soft_bytes} {soft_seconds}", self.normal)
    }
}

/// Commands and what they are called instead; an empty name: they cannot be called at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renames(pub Vec<(String, String)>);

impl Value for Renames {
    fn parse(text: &str) -> Result<Self, String> {
        Self::default().changed(text)
    }

    /// A line more of the configuration file.
    fn changed(&self, text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if !words.len().is_multiple_of(2) {
            return Err("it has to be a command and its new name, \"\" for none".into());
        }
        let plain = |word: &str| word.trim_matches(['"', '\'']).to_ascii_lowercase();
        let mut all = self.0.clone();
        all.extend(words.chunks_exact(2).map(|pair| (plain(pair[0]), plain(pair[1]))));
        Ok(Self(all))
    }

    fn render(&self) -> String {
        if self.0.is_empty() {
            return "\"\"".into();
        }
        let pairs: Vec<String> = self.0.iter().map(|(from, to)| format!("{from} \"{to}\"")).collect();
        pairs.join(" ")
    }
}

/// Addresses to listen on, as Redis writes them: a leading `-` means that the address may be missing on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<String>);

impl Value for Addresses {
    fn parse(text: &str) -> Result<Self, String> {
        let all: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if all.is_empty() || all.len() > 16 {
            return Err("it has to be 1 to 16 addresses, like `127.0.0.1 -::1` or `*`".into());
        }
        Ok(Self(all))
    }

    fn render(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, address| {
            let _ = write!(text, "{}{address}", if text.is_empty() { "" } else { " " });
            text
        })
    }
}

impl Value for SyncPolicy {
    fn parse(text: &str) -> Result<Self, String> {
        [Self::Always, Self::EverySecond, Self::No]
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| "it has to be always, everysec or no".into())
    }

    fn render(&self) -> String {
        self.name().into()
    }
}

/// Who may use DEBUG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugAllowed {
    /// Nobody but the admin plane.
    No,
    /// Clients of this machine.
    Local,
    /// Everybody.
    Yes,
}

impl Value for DebugAllowed {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "no" => Ok(Self::No),
            "local" => Ok(Self::Local),
            "yes" => Ok(Self::Yes),
            _ => Err("it has to be no, local or yes".into()),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::No => "no".into(),
            Self::Local => "local".into(),
            Self::Yes => "yes".into(),
        }
    }
}

impl Value for ClientAuth {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "yes" => Ok(Self::Yes),
            "no" => Ok(Self::No),
            "optional" => Ok(Self::Optional),
            _ => Err("it has to be yes, no or optional".into()),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Yes => "yes".into(),
            Self::No => "no".into(),
            Self::Optional => "optional".into(),
        }
    }
}

/// What a start does with a damaged write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalRecovery {
    /// A torn end is what a kill leaves; damage elsewhere refuses to start.
    TolerateCorruptedTail,
    /// Everything before the first damage is kept, what is behind it is lost.
    PointInTime,
}

impl Value for WalRecovery {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "tolerate_corrupted_tail" => Ok(Self::TolerateCorruptedTail),
            "point_in_time" => Ok(Self::PointInTime),
            _ => Err("it has to be tolerate_corrupted_tail or point_in_time".into()),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::TolerateCorruptedTail => "tolerate_corrupted_tail".into(),
            Self::PointInTime => "point_in_time".into(),
        }
    }
}

impl Value for Watermarks {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "it has to be four percents, each larger than the one before, like `70 78 85 92`".to_owned();
        let marks: Vec<u32> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let marks: [u32; 4] = marks.try_into().map_err(|_| wrong())?;
        let rising = marks.windows(2).all(|pair| pair[0] < pair[1]);
        if rising && marks[0] > 0 && marks[3] <= 100 { Ok(Self(marks)) } else { Err(wrong()) }
    }

    fn render(&self) -> String {
        self.0.map(|mark| mark.to_string()).join(" ")
    }
}

impl Value for Compression {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "no" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            _ => Err("it has to be no, lz4 or zstd".into()),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::None => "no".into(),
            Self::Lz4 => "lz4".into(),
            Self::Zstd => "zstd".into(),
        }
    }
}
