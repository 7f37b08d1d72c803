//! What is loaded: lines of real text, each a key and a value.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;

/// The input, shared by every task that reads it.
#[derive(Clone)]
pub struct Lines(Arc<Vec<(String, String)>>);

impl Lines {
    /// Reads `key TAB value` lines. Keys have to differ: a key written twice would hide a loss.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading the input {}", path.display()))?;
        let mut lines = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (number, line) in text.lines().enumerate() {
            let (key, value) = line
                .split_once('\t')
                .with_context(|| format!("{}:{}: a key, a tab and a value are expected", path.display(), number + 1))?;
            anyhow::ensure!(seen.insert(key), "{}:{}: the key {key:?} was there before", path.display(), number + 1);
            lines.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self(Arc::new(lines)))
    }

    /// Keys and values made from their number, where what they say does not matter.
    pub fn numbered(count: usize) -> Self {
        Self(Arc::new((0..count).map(|number| (format!("key:{number}"), format!("value of key {number}"))).collect()))
    }

    /// Refuses a count above what there is.
    pub fn must_have(&self, count: usize) -> anyhow::Result<()> {
        anyhow::ensure!(count <= self.0.len(), "the input has {} lines, {count} were asked for", self.0.len());
        Ok(())
    }

    /// A line that [`Self::must_have`] has shown to be there.
    pub fn line(&self, index: usize) -> &(String, String) {
        &self.0[index]
    }
}
