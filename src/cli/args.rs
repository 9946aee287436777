//! What a person types. The verbs' own arguments stand in [`verbs`], the forms without a config file in [`direct`].

pub mod direct;
mod groups;
pub mod values;
pub mod verbs;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::args::groups::HELP_WIDTH_MAX;
use crate::ids::RoleName;
use crate::text::ADVICE;

/// Where a node keeps what it remembers unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/runner";

/// A command line.
#[derive(Debug, Parser)]
#[command(
    name = "runner",
    version,
    about = "Backups that follow the role, not the host: every node runs the same config, and only \
        the node that is active for a role backs that role up.",
    long_about = None,
    max_term_width = HELP_WIDTH_MAX,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done or not our turn, 1 failed, 2 wrong usage or config,\n\
        3 not active, 4 cannot tell, 5 fenced, 6 committed but files unreadable,\n\
        7 verify, audit or repair found something, 130 interrupted.\n\n\
        Environment: RUNNER_CONFIG, RUNNER_NODE and RUNNER_STATE_DIR stand for --config,\n\
        --node and --state-dir; RUNNER_LOG=debug logs more, RUNNER_LOG_FORMAT=json one\n\
        JSON document a line.",
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub globals: GlobalArgs,
    /// The verb.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Config file [default: /etc/runner/runner.toml]
    #[arg(long, global = true, value_name = "FILE", env = "RUNNER_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// No progress, only errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// This node's name [default: the hostname]
    #[arg(long, global = true, value_name = "NAME", env = "RUNNER_NODE", hide_env = true, value_parser = values::node_name)]
    pub node: Option<String>,
    /// This node's own memory [default: /var/lib/runner]
    #[arg(long, global = true, value_name = "DIR", env = "RUNNER_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Create the repositories of roles
    #[command(after_help = "Safe to repeat. Says which key file to copy to the other nodes.\n\n\
        Example: runner init")]
    Init(verbs::InitArgs),
    /// Back up roles, if this node is active for them
    #[command(after_help = "Examples:\n  runner backup app\n  runner backup --scheduled\n  \
        runner backup --source /srv/app --store file:///mnt/backup --key-file app.key")]
    Backup(verbs::BackupArgs),
    /// List the snapshots of a role
    #[command(after_help = "Example: runner snapshots app")]
    Snapshots(verbs::SnapshotsArgs),
    /// List files of a snapshot
    #[command(after_help = "Example: runner ls app latest /srv/app -l")]
    Ls(verbs::LsArgs),
    /// Write one file of a snapshot to standard output
    #[command(after_help = "Example: runner cat app /srv/app/settings.ini > settings.ini")]
    Cat(verbs::CatArgs),
    /// Find files by name in snapshots
    #[command(after_help = "Example: runner find app '*.sql' --snapshot all")]
    Find(verbs::FindArgs),
    /// Show what differs between two snapshots
    #[command(after_help = "+ new   - removed   M content changed   m only metadata changed\n\n\
        Example: runner diff app latest~1 latest")]
    Diff(verbs::DiffArgs),
    /// Write files of a snapshot back
    #[command(after_help = "Files land below their whole path: --target /mnt gives /mnt/srv/app/...\n\
        Every byte is checked against its hash, in files that are there as well\n\
        (with --trust-mtime not in those of equal size and time).\n\n\
        Examples:\n  runner restore app --target /mnt/restore\n  \
        runner restore app --in-place --path /srv/app/data --dry-run")]
    Restore(verbs::RestoreArgs),
    /// Check that a role's backups can be restored
    #[command(after_help = "Examples:\n  runner verify app\n  runner verify app --read-data=10")]
    Verify(verbs::VerifyArgs),
    /// Tell who this node is, whether it is active, and why
    #[command(after_help = "With --check the exit code is a monitoring plugin's: 0 fine (also a\n\
        healthy standby), 1 warning, 2 critical, 3 unknown.\n\n\
        Example: runner whoami app")]
    Whoami(verbs::WhoamiArgs),
    /// Show every role in one table
    #[command(after_help = "Its holder, the age of its last snapshot, its last 10 slots, and what needs\n\
        attention. Answers within 2 seconds, even if the store does not.\n\n\
        Example: runner status")]
    Status,
    /// Find missed, late and doubled slots, and damage
    #[command(after_help = "In a role's own journal; or in what another program stores, from a listing: no\n\
        config and no key, and no object is read. Exit code 7: findings; 4: unknown.\n\
        docs/AUDIT.md says what each finding means, and which listings are read.\n\n\
        Examples:\n  runner audit\n  runner audit app --since 7d\n  \
        runner audit --bucket s3://backups/prod --calendar\n  \
        aws s3 ls --recursive s3://backups | runner audit --listing -")]
    Audit(verbs::AuditArgs),
    /// Guard for scripts: exit 0 active, 3 not active, 4 cannot tell
    #[command(after_help = "It asks the config and the probes, and the lease where the role has one: in the\n\
        store or in etcd, within 2 seconds. With lease = \"none\" and no fallback it\n\
        answers without the store. 'runner whoami' says why.\n\n\
        Example: runner is-active app && /usr/local/bin/nightly-report")]
    IsActive(verbs::IsActiveArgs),
    /// Run a command only while this node is active for a role
    #[command(after_help = "The command gets RUNNER_ROLE, RUNNER_TERM and RUNNER_DEADLINE, and is ended when\n\
        this node is no longer active: it and all that it started, with one grace. It\n\
        keeps its caller's environment but for AWS_* credentials ('pass_environment').\n\
        Its exit code is passed on. If it is not run, the code is 3, or 4 if it cannot\n\
        be told whether this node is active.\n\n\
        Examples:\n  runner exec db -- /usr/local/bin/nightly-report\n  \
        runner exec --scheduled --skip-exit 0 db -- pgbackrest backup")]
    Exec(verbs::ExecArgs),
    /// Hold every role's election, run its schedule, take over when it is time
    #[command(after_help = "What systemd starts. It runs until SIGTERM; SIGHUP reads the config again, and so does\n\
        a change of its files. Roles of other nodes are followed.\n\n\
        Examples:\n  runner daemon\n  runner daemon --observe")]
    Daemon(verbs::DaemonArgs),
    /// Forget old snapshots by the role's 'keep', and free unused space
    #[command(after_help = "Only on the node that has the role. Space is freed when 'prune_grace' is over,\n\
        by the next prune: running restores still find what they read.\n\n\
        Examples:\n  runner prune app --dry-run\n  runner prune app")]
    Prune(verbs::PruneArgs),
    /// Repair what the store lost, as far as possible
    #[command(after_help = "Makes the index again from the packs, names the lost records of the journal in\n\
        it, and makes 'format' again. Deletes nothing. First run it with --dry-run, and\n\
        find out what happened to the store. Exit code 7: something is lost (--dry-run),\n\
        or stays lost. docs/REPAIR.md says what comes back.\n\n\
        Examples:\n  runner repair app --dry-run\n  runner repair app")]
    Repair(verbs::RepairArgs),
    /// Give a role to this node
    #[command(after_help = "Recorded in the role's journal. Work of the other node for the role can no\n\
        longer commit. Refused if the probes say no (exit code 3) or cannot tell (4):\n\
        this node would have the role and not back it up, and the node that does would\n\
        be stopped. --force takes the role over anyway, and the record says so.\n\n\
        Example: runner takeover app")]
    Takeover(verbs::TakeoverArgs),
    /// Stop a role's runs on every node
    #[command(after_help = "Recorded in the role's journal. A run that is in progress continues.\n\n\
        Example: runner pause app --for 2h --why 'disk-swap'")]
    Pause(verbs::PauseArgs),
    /// End a pause
    #[command(after_help = "Example: runner resume app")]
    Resume(verbs::RoleArgs),
    /// List, export, add, remove and rotate repository keys
    #[command(subcommand)]
    Key(verbs::KeyCommand),
    /// Look at a role's journal, or adopt it
    #[command(subcommand)]
    Journal(verbs::JournalCommand),
    /// Try the channels for alerts
    #[command(subcommand)]
    Notify(verbs::NotifyCommand),
    /// Start, check and show the config
    #[command(subcommand)]
    Config(verbs::ConfigCommand),
    /// Print shell completions
    #[command(after_help = "Example: runner completions bash > /etc/bash_completion.d/runner")]
    Completions(verbs::CompletionsArgs),
    /// Print the manual page, or write all of them to a directory
    #[command(after_help = "Example: runner man --dir /usr/local/share/man/man1")]
    Man(verbs::ManArgs),
}

/// Commands that the design promises for later versions: the error says so instead of guessing a typing mistake.
const LATER: [&str; 3] = ["point", "demo", "adopt"];

/// The whole tree as clap sees it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The same with the verbs in groups, as a person sees it.
pub fn shown_command() -> clap::Command {
    groups::grouped(command())
}

impl CliCommand {
    /// The one role that it is about.
    pub fn role(&self) -> Option<&RoleName> {
        match self {
            Self::Snapshots(args) => Some(&args.role),
            Self::Ls(args) => Some(&args.role),
            Self::Cat(args) => Some(&args.role),
            Self::Find(args) => Some(&args.role),
            Self::Diff(args) => Some(&args.role),
            Self::Restore(args) => Some(&args.role),
            Self::Verify(args) => Some(&args.role),
            Self::Exec(args) => Some(&args.role),
            Self::IsActive(args) => Some(&args.role),
            Self::Prune(args) => Some(&args.role),
            Self::Repair(args) => Some(&args.role),
            Self::Takeover(args) => Some(&args.role),
            Self::Pause(args) => Some(&args.role),
            Self::Resume(args) => Some(&args.role),
            Self::Init(verbs::InitArgs { roles, .. })
            | Self::Backup(verbs::BackupArgs { roles, .. })
            | Self::Audit(verbs::AuditArgs { roles, .. }) => match &roles[..] {
                [role] => Some(role),
                _ => None,
            },
            Self::Whoami(args) => args.role.as_ref(),
            Self::Key(args) => Some(args.place().0),
            Self::Journal(
                verbs::JournalCommand::Show(verbs::JournalShowArgs { role, .. })
                | verbs::JournalCommand::Adopt(verbs::RoleArgs { role })
                | verbs::JournalCommand::Amend(verbs::AmendArgs { role, .. }),
            ) => Some(role),
            Self::Status
            | Self::Daemon(_)
            | Self::Notify(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_) => None,
        }
    }
}

/// Reads the command line.
///
/// # Errors
/// Clap's, which also carries help and version texts; it knows where to print itself and with which exit code.
pub fn parse<I, T>(args: I) -> Result<Cli, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let mut command = shown_command();
    let parsed = command.try_get_matches_from_mut(args).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| only_with_a_config(&command, not_in_this_version(&command, error)))
}

/// Says that a command takes its store from the config, instead of how to pass the option as a value.
fn only_with_a_config(command: &clap::Command, error: clap::Error) -> clap::Error {
    const DIRECT: [&str; 4] = ["--store", "--key-file", "--passphrase-file", "--no-encryption"];
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word))
            if error.kind() == ErrorKind::UnknownArgument && DIRECT.contains(&word.as_str()) =>
        {
            let text = format!(
                "this command needs a config file, and takes no {word}\n\n{ADVICE}write one with 'runner config init FILE', and name it \
                 with --config FILE\n"
            );
            clap::Error::raw(ErrorKind::UnknownArgument, text).with_cmd(command)
        }
        _ => error,
    }
}

/// Replaces clap's guess at a typing mistake where the word is a command of a later version.
fn not_in_this_version(command: &clap::Command, error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if LATER.contains(&word.as_str()) => {
            let text = format!(
                "there is no '{word}' in this version ({})\n\n{ADVICE}'runner help' lists what there is.\n",
                env!("CARGO_PKG_VERSION")
            );
            clap::Error::raw(ErrorKind::InvalidSubcommand, text).with_cmd(command)
        }
        _ => error,
    }
}
