//! Settings: `key value` lines of a file, `--key value` on the command line, `SLUICE_KEY_NAME` in the environment; later ones win in
//! the order file, environment, command line. One table of keys; unknown ones are refused by name.

mod conflicts;
mod container;
mod live;
mod load;
mod memory;
mod settings;
mod value;

pub use live::{Live, SetError, on_log_level};
pub use load::{ConfigError, Invocation, load, unquote};
pub use memory::{MemoryPlan, ProcessMemory, plan_memory, process_memory};
pub use settings::{ALIASES, Settings, Spec, spec, specs};
pub use value::{DebugAllowed, WalRecovery};
