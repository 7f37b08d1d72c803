//! Transactions.

use super::{ALL, AT_ONCE, BEGINS, CLAIMS, FORGETS, NO_KEYS};
use crate::commands::transactions;

commands! {
    "transactions";
    "multi"        1 BEGINS NO_KEYS "1.2.0" "O(1)" Now(transactions::multi) "Queues what follows until EXEC.";
    "exec"         1 AT_ONCE NO_KEYS "1.2.0" "the cost of what is queued" Now(transactions::exec) "Executes what is queued, all at once.";
    "discard"      1 BEGINS NO_KEYS "2.0.0" "O(N) of what is queued" Now(transactions::discard) "Forgets what is queued.";
    "watch"       -2 CLAIMS ALL "2.2.0" "O(1) a key" Now(transactions::watch) "Lets EXEC execute nothing if one of the keys has changed by then.";
    "unwatch"      1 FORGETS NO_KEYS "2.2.0" "O(1)" Now(transactions::unwatch) "Watches nothing any more.";
}
