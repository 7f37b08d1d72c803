//! What a connection is to commands.

use bytes::Bytes;

use crate::{config::Settings, protocol::Version};

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

/// The state of a connection that commands read and change.
pub struct Session {
    /// Its number, never used again by this process.
    pub id: u64,
    /// Its listener.
    pub plane: Plane,
    /// Whether it may do more than authenticate.
    pub authenticated: bool,
    /// Protocol version of its replies.
    pub version: Version,
    /// Number of the database chosen by SELECT.
    pub database: u8,
    /// Name given by CLIENT SETNAME.
    pub name: Bytes,
    /// Library name given by CLIENT SETINFO.
    pub lib_name: Bytes,
    /// Library version given by CLIENT SETINFO.
    pub lib_version: Bytes,
    /// Whether the connection ends once its replies are sent.
    pub closing: bool,
}

impl Session {
    /// A fresh connection.
    pub fn new(id: u64, plane: Plane, authenticated: bool) -> Self {
        Self {
            id,
            plane,
            authenticated,
            version: Version::default(),
            database: 0,
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_version: Bytes::new(),
            closing: false,
        }
    }
}
