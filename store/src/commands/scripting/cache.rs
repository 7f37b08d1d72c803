//! The scripts a node knows by their SHA1: those of SCRIPT LOAD until SCRIPT FLUSH or the end of the process, those of EVAL as long as
//! newer ones leave them room.

use std::{
    collections::{HashMap, VecDeque},
    sync::{LazyLock, PoisonError, RwLock},
};

use bytes::Bytes;

use super::interpreter::Sha;
use crate::commands::CommandError;

/// Scripts of EVAL that are remembered.
const SEEN_MAX: usize = 500;
/// Bytes of all scripts together.
const BYTES_MAX: usize = 64 << 20;

#[derive(Default)]
struct Scripts {
    bodies: HashMap<Sha, (Bytes, bool)>,
    /// Those of EVAL, the oldest first.
    seen: VecDeque<Sha>,
    bytes: usize,
}

static SCRIPTS: LazyLock<RwLock<Scripts>> = LazyLock::new(RwLock::default);

impl Scripts {
    fn add(&mut self, sha: Sha, body: &[u8], kept: bool) -> bool {
        if self.bytes + body.len() > BYTES_MAX {
            return false;
        }
        self.bytes += body.len();
        // A copy: a slice would keep the whole request alive.
        self.bodies.insert(sha, (Bytes::copy_from_slice(body), kept));
        true
    }

    fn remove_oldest(&mut self) {
        let Some(sha) = self.seen.pop_front() else { return };
        if let Some((body, false)) = self.bodies.get(&sha) {
            self.bytes -= body.len();
            self.bodies.remove(&sha);
        }
    }
}

/// How many scripts are remembered.
pub(in crate::commands) fn count() -> usize {
    SCRIPTS.read().unwrap_or_else(PoisonError::into_inner).bodies.len()
}

/// Remembers a script of EVAL.
pub(super) fn seen(sha: Sha, body: &[u8]) {
    if SCRIPTS.read().unwrap_or_else(PoisonError::into_inner).bodies.contains_key(&sha) {
        return;
    }
    let mut scripts = SCRIPTS.write().unwrap_or_else(PoisonError::into_inner);
    if scripts.seen.len() >= SEEN_MAX {
        scripts.remove_oldest();
    }
    if !scripts.bodies.contains_key(&sha) && scripts.add(sha, body, false) {
        scripts.seen.push_back(sha);
    }
}

/// Keeps a script of SCRIPT LOAD.
pub(super) fn keep(sha: Sha, body: &[u8]) -> Result<(), CommandError> {
    let mut scripts = SCRIPTS.write().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, kept)) = scripts.bodies.get_mut(&sha) {
        *kept = true;
        return Ok(());
    }
    while scripts.bytes + body.len() > BYTES_MAX && !scripts.seen.is_empty() {
        scripts.remove_oldest();
    }
    if scripts.add(sha, body, true) {
        return Ok(());
    }
    Err(CommandError::new(format!(
        "ERR the scripts that are loaded have {BYTES_MAX} bytes, which is the most: SCRIPT FLUSH forgets them"
    )))
}

/// A script's text.
pub(super) fn body(sha: Sha) -> Option<Bytes> {
    SCRIPTS.read().unwrap_or_else(PoisonError::into_inner).bodies.get(&sha).map(|(body, _)| body.clone())
}

/// Forgets all of them.
pub(super) fn flush() {
    *SCRIPTS.write().unwrap_or_else(PoisonError::into_inner) = Scripts::default();
}
