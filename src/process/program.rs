//! The one place that starts programs. Environment, user, groups, directory, umask, descriptors, signals and cgroup of
//! a started program are decided here, and are the same from a shell, a timer and a service.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid};

use super::account::UserAccount;
use super::cgroup::Cgroup;
use super::members::ProcessTree;
use super::{ProcessGroup, environment};
use crate::config::EnvironmentSettings;
use crate::env;

/// The working directory. A relative path would otherwise depend on how this process was started.
const DIRECTORY: &str = "/";

/// The umask: files that a program creates are not accessible to other users.
const UMASK: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO);

/// A program to start, with its environment.
#[derive(Debug)]
pub struct CommandBuilder {
    command: Command,
    name: String,
    account: Option<UserAccount>,
    inherits_caller_environment: bool,
}

impl CommandBuilder {
    /// A program that the config names, with its arguments: in a clean environment with `given` and `told`, as
    /// `account` (by default the user of this process), in `/`, with umask 077, without standard input and output, with
    /// no other descriptor, and with default signal handling.
    ///
    /// # Errors
    /// `words` is empty.
    pub fn configured(
        words: &[String],
        given: &EnvironmentSettings,
        told: &[(&str, String)],
        account: Option<UserAccount>,
    ) -> io::Result<Self> {
        let host = env::variables();
        let own = UserAccount::own(host.get(std::ffi::OsStr::new("HOME")).map(std::ffi::OsString::as_os_str));
        let variables = environment::build_environment(&host, account.as_ref().unwrap_or(&own), given, told);
        let mut program = Self::of(words)?;
        program.command.env_clear().envs(variables).current_dir(DIRECTORY);
        program.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A change to the same user needs a privilege that an ordinary user lacks.
        program.account = account.filter(|account| geteuid().is_root() || account.uid != geteuid());
        Ok(program)
    }

    /// A program from the command line: with this process's environment, all three streams, directory, umask and other
    /// descriptors, but without the store's credentials, which `given` may still pass on.
    ///
    /// # Errors
    /// `words` is empty.
    pub fn from_command_line(
        words: &[String],
        given: &EnvironmentSettings,
        told: &[(&str, String)],
    ) -> io::Result<Self> {
        let mut program = Self { inherits_caller_environment: true, ..Self::of(words)? };
        for name in environment::SECRETS.iter().filter(|name| !given.pass.iter().any(|passed| passed == *name)) {
            program.command.env_remove(name);
        }
        program.command.envs(&given.set).envs(told.iter().map(|(name, value)| (name, value)));
        Ok(program)
    }

    fn of(words: &[String]) -> io::Result<Self> {
        let [name, arguments @ ..] = words else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no program"));
        };
        let mut command = Command::new(name);
        command.args(arguments).process_group(0);
        Ok(Self { command, name: name.clone(), account: None, inherits_caller_environment: false })
    }

    /// Adds pipes for standard input (if requested), standard output and standard error.
    #[must_use]
    pub fn piped(mut self, input: bool) -> Self {
        if input {
            self.command.stdin(Stdio::piped());
        }
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self
    }

    /// Starts the program in its own process group.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(self) -> io::Result<ProcessGroup> {
        // The runtime's own threads know the handle; the thread that starts the program does not.
        let runtime = tokio::runtime::Handle::current();
        let cgroup = Cgroup::create();
        self.launch(move |command| {
            let _entered = runtime.enter();
            let child = tokio::process::Command::from(command).spawn()?;
            let members = child.id().and_then(|id| ProcessTree::of(id, cgroup));
            Ok(ProcessGroup::new(child, members))
        })
    }

    /// Like [`CommandBuilder::start`], for a thread that may block.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_blocking(self) -> io::Result<(Child, ProcessTree)> {
        let cgroup = Cgroup::create();
        self.launch(|mut command| {
            let child = command.spawn()?;
            let members = ProcessTree::of(child.id(), cgroup).ok_or(io::ErrorKind::InvalidData)?;
            Ok((child, members))
        })
    }

    fn launch<C: Send>(self, start: impl FnOnce(Command) -> io::Result<C> + Send) -> io::Result<C> {
        let Self { mut command, name, account, inherits_caller_environment: of_caller } = self;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        if of_caller {
            return start(command).map_err(named);
        }
        if let Some(account) = &account {
            command.uid(account.uid.as_raw());
        }
        // Attributes that a program inherits from the starting thread are changed on a thread that ends with the start.
        let started = std::thread::scope(|scope| {
            let starting = std::thread::Builder::new().name("start".to_owned()).spawn_scoped(scope, || {
                set_credentials(account.as_ref())?;
                start(command)
            })?;
            starting.join().unwrap_or_else(|_| Err(io::Error::other("starting it panicked")))
        });
        started.map_err(named)
    }
}

/// Gives this thread's children the credentials of `account`, except for the user, which each child sets itself: until
/// then this thread keeps its user, so that no other user may send it a signal.
fn set_credentials(account: Option<&UserAccount>) -> io::Result<()> {
    // A container may refuse this; then the umask of this process stays.
    if unshare(CloneFlags::CLONE_FS).is_ok() {
        umask(UMASK);
    }
    let Some(account) = account else { return Ok(()) };
    let gid = |gid: &nix::unistd::Gid| rustix::process::Gid::from_raw(gid.as_raw());
    set_thread_groups(&account.groups.iter().map(gid).collect::<Vec<_>>())?;
    let own = gid(&account.gid);
    set_thread_res_gid(own, own, own)?;
    // With a capability over groups, a process that changes its user first drops all of its groups.
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::SETGID);
    sets.permitted.remove(CapabilitySet::SETGID);
    sets.inheritable.remove(CapabilitySet::SETGID);
    set_capabilities(None, sets)?;
    Ok(())
}
