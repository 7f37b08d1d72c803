//! What a connection is to commands.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{large::LargeReply, transactions::Transaction};
use crate::{
    blocked::Wait,
    clients::{Client, SlowScript, Watching},
    config::Settings,
    protocol::Version,
};

/// Which listener a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Clients.
    Data,
    /// Operator, peers, people who look in.
    Admin,
}

impl Plane {
    /// The password it asks for; empty: none.
    pub fn password(self, settings: &Settings) -> &str {
        match self {
            Self::Data => &settings.requirepass,
            Self::Admin => &settings.admin_password,
        }
    }
}

/// Whether a connection gets replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// It does.
    Sent,
    /// Not to this command, and not to the next.
    SkipTwo,
    /// Not to this command.
    SkipOne,
    /// None at all.
    None,
}

impl Replies {
    /// Whether the reply to a command that was just executed is left out; counts it.
    pub fn leaves_out(&mut self) -> bool {
        let out = *self != Self::Sent;
        *self = match *self {
            Self::SkipTwo => Self::SkipOne,
            Self::SkipOne => Self::Sent,
            other => other,
        };
        out
    }
}

/// A wait that is going on.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// Its place among those who wait.
    pub ticket: u64,
    /// Until then; `None`: without end.
    pub deadline: Option<Instant>,
}

/// How scripts of a connection are run.
#[derive(Debug, Default)]
pub enum Pace {
    /// On the thread of the connection, until one has passed its time (`busy-reply-threshold`).
    #[default]
    Quick,
    /// One has, and was undone: its request is to be executed again, alone.
    TooSlow(Arc<SlowScript>),
    /// Alone, while others are told so.
    Alone(Arc<SlowScript>),
}

/// Why a command was executed and has not answered.
pub enum Unanswered {
    /// There is nothing to answer with yet.
    Waits(Wait),
    /// Its answer is sent in pieces.
    Large(Box<LargeReply>),
}

/// The state of a connection that commands read and change.
pub struct Session {
    /// What others see of it.
    pub client: Arc<Client>,
    /// Its listener.
    pub plane: Plane,
    /// Whether it may do more than authenticate.
    pub authenticated: bool,
    /// Requests executed so far: with the connection's number the name of a request in the log.
    pub requests: u64,
    /// Protocol version of its replies.
    pub version: Version,
    /// Number of the database chosen by SELECT.
    pub database: u8,
    /// Whether it gets replies: CLIENT REPLY.
    pub replies: Replies,
    /// Whether it is subscribed to anything.
    pub subscribed: bool,
    /// What MULTI has queued.
    pub transaction: Option<Box<Transaction>>,
    /// The keys of WATCH.
    pub watching: Option<Watching>,
    /// Whether EXEC is executing: nothing waits then, as in Redis.
    pub executing: bool,
    /// The command under way has waited, and is executed once more.
    pub waited: Option<Waited>,
    /// Why the command that was just executed has not answered yet.
    pub unanswered: Option<Unanswered>,
    /// Keys that a script uses without naming them, to be claimed before it is run again.
    pub unnamed: Vec<Bytes>,
    /// Whether the script that ran last has to be run again.
    pub rerun: bool,
    /// How scripts are run.
    pub pace: Pace,
    /// Whether the connection ends once its replies are sent.
    pub closing: bool,
}

impl Session {
    /// A fresh connection.
    pub fn new(client: Arc<Client>, plane: Plane, authenticated: bool) -> Self {
        Self {
            client,
            plane,
            authenticated,
            requests: 0,
            version: Version::default(),
            database: 0,
            replies: Replies::Sent,
            subscribed: false,
            transaction: None,
            watching: None,
            executing: false,
            waited: None,
            unanswered: None,
            unnamed: Vec::new(),
            rerun: false,
            pace: Pace::Quick,
            closing: false,
        }
    }

    /// Its number, never used again by this process.
    pub fn id(&self) -> u64 {
        self.client.id
    }
}
