//! A named background thread of the engine, joined once.

use std::{
    sync::{Mutex, PoisonError},
    thread::{Builder, JoinHandle},
};

use super::EngineError;

pub(crate) struct Worker(Mutex<Option<JoinHandle<()>>>);

impl Worker {
    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Self, EngineError> {
        let thread =
            Builder::new().name(name.into()).spawn(work).map_err(|source| EngineError::Thread { name: name.into(), source })?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits for its end; the caller has told it to stop.
    pub(crate) fn join(&self) {
        if let Some(thread) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}
