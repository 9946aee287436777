//! Starts programs: in an environment that does not depend on how this process was started, and as a group that does
//! not outlive its owner. A terminated group has a grace period and ends with all its children; a dropped group is
//! killed.

mod account;
mod cgroup;
mod environment;
pub mod harden;
mod members;
mod output;
mod program;

pub use self::group::{ProcessExit, ProcessGroup};
pub use account::UserAccount;
pub use members::{ProcessTree, cpu_ticks, is_cpu_work};
pub use output::log_lines;
pub use program::CommandBuilder;

pub(crate) mod group;
#[cfg(test)]
mod tests;
