//! The script that has passed its time (`busy-reply-threshold`), while everybody else is told that it runs.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;

/// What a node is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Busy {
    /// A script.
    Script,
    /// A function.
    Function,
}

impl Busy {
    /// What others are told. The texts are Redis'.
    pub fn text(self) -> &'static str {
        match self {
            Self::Script => "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            Self::Function => "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
        }
    }
}

/// One run of a script.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it is.
    pub kind: Busy,
    /// The function's name, or the script's SHA1.
    pub name: String,
    /// Its request.
    pub words: Vec<Bytes>,
    /// When it began.
    pub since: Instant,
}

/// See the module's text. A transaction may run several, one after the other.
#[derive(Debug)]
pub struct SlowScript {
    run: Mutex<Run>,
    begun: AtomicBool,
    written: AtomicBool,
    killed: AtomicBool,
}

impl SlowScript {
    /// It is to run, alone. `written`: it had written when it was undone, and will have again.
    pub fn new(run: Run, written: bool) -> Self {
        let [begun, written, killed] = [false, written, false].map(AtomicBool::new);
        Self { run: Mutex::new(run), begun, written, killed }
    }

    /// This run begins now. If it was told to end, it still is.
    pub fn begin(&self, run: Run) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = run;
        if self.begun.swap(true, Ordering::SeqCst) {
            self.written.store(false, Ordering::SeqCst);
        }
    }

    /// What runs.
    pub fn run(&self) -> Run {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What others are told.
    pub fn busy(&self) -> Busy {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).kind
    }

    /// It has executed a command that writes.
    pub fn note_write(&self) {
        self.written.store(true, Ordering::SeqCst);
    }

    /// Whether it has.
    pub fn has_written(&self) -> bool {
        self.written.load(Ordering::SeqCst)
    }

    /// Tells it to end.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    /// Whether it was told to end, since this was last asked.
    pub fn take_kill(&self) -> bool {
        self.killed.load(Ordering::Relaxed) && self.killed.swap(false, Ordering::SeqCst)
    }
}
