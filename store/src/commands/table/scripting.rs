//! Scripts and functions.

use super::{COUNTED_2, NO_KEYS, SLOW_READ, SLOW_WRITE, SUBCOMMANDS};
use crate::commands::{functions, scripting};

commands! {
    "scripting";
    "eval"        -3 SLOW_WRITE COUNTED_2 "2.6.0" "the cost of the script" Now(scripting::eval) "Runs a script.";
    "eval_ro"     -3 SLOW_READ COUNTED_2 "7.0.0" "the cost of the script" Now(scripting::eval_ro) "Runs a script that writes nothing.";
    "evalsha"     -3 SLOW_WRITE COUNTED_2 "2.6.0" "the cost of the script" Now(scripting::evalsha) "Runs a script by its SHA1.";
    "evalsha_ro"  -3 SLOW_READ COUNTED_2 "7.0.0" "the cost of the script" Now(scripting::evalsha_ro) "Runs a script that writes nothing by its SHA1.";
    "script"      -2 SUBCOMMANDS NO_KEYS "2.6.0" "O(N) of the scripts named" Now(scripting::script_command) "Scripts that are known: LOAD, EXISTS, FLUSH, KILL.";
    "fcall"       -3 SLOW_WRITE COUNTED_2 "7.0.0" "the cost of the function" Now(functions::fcall) "Calls a function.";
    "fcall_ro"    -3 SLOW_READ COUNTED_2 "7.0.0" "the cost of the function" Now(functions::fcall_ro) "Calls a function that writes nothing.";
    "function"    -2 SUBCOMMANDS NO_KEYS "7.0.0" "O(N) of the libraries" Now(functions::function) "Libraries of functions: LOAD, DELETE, FLUSH, LIST, DUMP, RESTORE, STATS, KILL.";
}
