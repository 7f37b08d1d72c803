//! The end of a thread's turn, as those see it who wait for it: what was executed in it is answered only then.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// How a turn ended, for one of its connections: the text of the error when its changes were not applied.
pub type Outcome = Result<(), Arc<str>>;

#[derive(Default)]
struct Stage {
    outcome: Option<Outcome>,
    waiting: Vec<Waker>,
}

impl Stage {
    fn complete(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// The end of a turn.
#[derive(Default)]
pub struct TurnEnd {
    committed: Mutex<Stage>,
    /// As durable as the sync policy promises; an error: it never will be, and nobody is to hear of it.
    durable: Mutex<Stage>,
}

impl TurnEnd {
    /// The end of a turn in which nothing happened.
    pub fn of_nothing() -> Arc<Self> {
        let end = Self::default();
        end.complete(&Ok(()), true);
        Arc::new(end)
    }

    /// Waits until the turn's changes are applied.
    pub async fn committed(&self) -> Outcome {
        wait(&self.committed).await
    }

    /// Waits until the turn's changes are as durable as the sync policy promises.
    pub async fn durable(&self) -> Outcome {
        wait(&self.durable).await
    }

    /// The turn's changes are applied, or were not; with `durable`, they are as durable as the policy promises too.
    pub fn complete(&self, outcome: &Outcome, durable: bool) {
        lock(&self.committed).complete(outcome.clone());
        if durable {
            lock(&self.durable).complete(outcome.clone());
        }
    }

    /// The turn's changes are as durable as the policy promises, or never will be.
    pub fn complete_durable(&self, outcome: Outcome) {
        lock(&self.durable).complete(outcome);
    }
}

async fn wait(stage: &Mutex<Stage>) -> Outcome {
    poll_fn(|cx| {
        let mut stage = lock(stage);
        match &stage.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                // A wait of many wakes is rare, a wrong waker would be a hang.
                stage.waiting.push(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
