//! The connection.

use super::{CLIENT, CONNECTION, LEAVES, NO_KEYS, OPEN};
use crate::commands::{client, clients, databases};

commands! {
    "connection";
    "ping"        -1 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(client::ping) "Answers PONG, or its argument.";
    "echo"         2 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(client::echo) "Answers its argument.";
    "auth"        -2 OPEN  NO_KEYS "1.0.0" "O(1)" Now(client::auth) "Authenticates the connection.";
    "hello"       -1 OPEN  NO_KEYS "6.0.0" "O(1)" Now(client::hello) "Chooses RESP2 or RESP3, with AUTH and SETNAME.";
    "quit"        -1 LEAVES NO_KEYS "1.0.0" "O(1)" Now(client::quit) "Closes the connection.";
    "reset"        1 LEAVES NO_KEYS "6.2.0" "O(1)" Now(client::reset) "Puts the connection back to its beginning.";
    "select"       2 CONNECTION NO_KEYS "1.0.0" "O(1)" Now(databases::select) "Chooses the database; in cluster mode there is number 0.";
    "client"      -2 CLIENT NO_KEYS "2.4.0" "O(1)" Now(clients::client) "ID, INFO, LIST, KILL, names, PAUSE, REPLY, UNBLOCK: this connection and the others.";
}
