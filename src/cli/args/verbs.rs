//! Each verb's own arguments.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::direct::DirectStoreArgs;
use super::values::{InvalidTreePath, OverwriteArg, duration, path_of, pause_duration, tree_path};
use crate::ids::{KeyId, RoleName};
use crate::repo::entry::TreePath;

/// What selects a snapshot.
const SNAPSHOT_HELP: &str = "Snapshot: latest, latest~2, 4 or more characters of an ID, 2026-11-20, \"2h ago\"";

/// The same where every snapshot may be meant.
const SNAPSHOT_OR_ALL_HELP: &str = "Snapshot: all, latest, latest~2, 4 or more characters of an ID, 2026-11-20";

/// `runner init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Only these roles [default: all of the config]
    #[arg(value_name = "ROLE")]
    pub roles: Vec<RoleName>,
    /// Make a new repository also where this node knows one that is gone
    #[arg(long)]
    pub new: bool,
    /// Make this node a new one: after its machine was cloned
    #[arg(long)]
    pub new_identity: bool,
}

/// `runner backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Only these roles [default: all of the config]
    #[arg(value_name = "ROLE", conflicts_with = "source")]
    pub roles: Vec<RoleName>,
    /// Only if a slot of the schedule is due and not yet committed
    #[arg(long, conflicts_with = "source")]
    pub scheduled: bool,
    /// Exit 3 instead of 0 when another node is active
    #[arg(long, conflicts_with = "source")]
    pub require_active: bool,
    /// Read every file again, also those that look unchanged
    #[arg(long)]
    pub rehash: bool,
    /// Directory or file to back up; repeat for more
    #[arg(long, value_name = "DIR", requires = "store", help_heading = "Without a config file")]
    pub source: Vec<PathBuf>,
    /// Make a new repository also where this node knows one that is gone
    #[arg(long, requires = "source", help_heading = "Without a config file")]
    pub new: bool,
    /// Name to keep it under [default: default]
    #[arg(long, value_name = "NAME", requires = "source", help_heading = "Without a config file")]
    pub role: Option<RoleName>,
    /// Leave these out (as in .gitignore); repeat for more
    #[arg(long, value_name = "PATTERN", requires = "source", help_heading = "Without a config file")]
    pub exclude: Vec<String>,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner daemon`
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Decide and report, but take no role and run nothing
    #[arg(long)]
    pub observe: bool,
}

/// `runner snapshots`
#[derive(Debug, Args)]
pub struct SnapshotsArgs {
    /// The role
    pub role: RoleName,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner ls`
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The role
    pub role: RoleName,
    #[arg(default_value = "latest", help = SNAPSHOT_HELP)]
    /// The snapshot.
    pub snapshot: String,
    /// List this directory [default: the sources]
    #[arg(value_parser = tree_path())]
    pub path: Option<TreePath>,
    /// Mode, owner, size and time, too
    #[arg(short, long)]
    pub long: bool,
    /// Everything below, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

impl LsArgs {
    /// The snapshot: where a path stands in its place, the newest.
    pub fn selector(&self) -> &str {
        if self.names_no_snapshot() { "latest" } else { &self.snapshot }
    }

    /// What is listed.
    ///
    /// # Errors
    /// It is no path.
    pub fn below(&self) -> Result<TreePath, InvalidTreePath> {
        match &self.path {
            Some(path) => Ok(path.clone()),
            None if self.names_no_snapshot() => path_of(self.snapshot.as_bytes()),
            None => Ok(TreePath::default()),
        }
    }

    fn names_no_snapshot(&self) -> bool {
        self.path.is_none() && self.snapshot.starts_with('/')
    }
}

/// `runner cat`
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The role
    pub role: RoleName,
    /// The file
    #[arg(value_parser = tree_path())]
    pub path: TreePath,
    #[arg(long, value_name = "ID", default_value = "latest", help = SNAPSHOT_HELP)]
    /// The snapshot.
    pub snapshot: String,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner find`
#[derive(Debug, Args)]
pub struct FindArgs {
    /// The role
    pub role: RoleName,
    /// Name or path, with *, ? and ** (as in .gitignore)
    pub pattern: String,
    #[arg(long, value_name = "ID", default_value = "latest", help = SNAPSHOT_OR_ALL_HELP)]
    /// The snapshot, or `all`.
    pub snapshot: String,
    /// Mode, owner, size and time, too
    #[arg(short, long)]
    pub long: bool,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The role
    pub role: RoleName,
    /// The older snapshot
    #[arg(value_name = "A")]
    pub before: String,
    /// The newer snapshot
    #[arg(value_name = "B", default_value = "latest")]
    pub after: String,
    /// Only this path and what is below
    #[arg(long, value_parser = tree_path())]
    pub path: Option<TreePath>,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner restore`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true).args(["target", "in_place"]))]
pub struct RestoreArgs {
    /// The role
    pub role: RoleName,
    /// What other programs take for the snapshot here.
    #[arg(hide = true)]
    pub second: Option<String>,
    /// Write below this directory
    #[arg(long, value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Write to where it came from
    #[arg(long)]
    pub in_place: bool,
    #[arg(long, value_name = "ID", default_value = "latest", help = SNAPSHOT_HELP)]
    /// The snapshot.
    pub snapshot: String,
    /// Only this path and what is below; repeat for more
    #[arg(long = "path", value_name = "PATH", value_parser = tree_path())]
    pub paths: Vec<TreePath>,
    /// Leave these out (as in .gitignore); repeat for more
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Delete what is in the target but not in the snapshot
    #[arg(long)]
    pub delete: bool,
    /// Files that are there: compare their content (always), leave them alone (never)
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    pub overwrite: OverwriteArg,
    /// Do not read files that are there with equal size and time: believe their content
    #[arg(long, conflicts_with = "overwrite")]
    pub trust_mtime: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Write what is whole, whatever the store lost, and name what is not (exit code 6)
    #[arg(long, conflicts_with_all = ["delete", "trust_mtime"])]
    pub salvage: bool,
    /// Owners by number, not by name
    #[arg(long)]
    pub numeric_ids: bool,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The role
    pub role: RoleName,
    /// Read and hash the data, too: all of it, or a random part
    #[arg(
        long,
        value_name = "PERCENT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100",
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub read_data: Option<u8>,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner whoami`
#[derive(Debug, Args)]
pub struct WhoamiArgs {
    /// Only this role [default: all of the config]
    pub role: Option<RoleName>,
    /// One line and an exit code for monitoring
    #[arg(long)]
    pub check: bool,
    /// Show it anew every two seconds, until interrupted
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
}

/// `runner audit`
#[derive(Debug, Args)]
#[command(override_usage = "runner audit [OPTIONS] [ROLE]...\n       \
        runner audit [OPTIONS] --bucket <URL>\n       \
        runner audit [OPTIONS] --listing <FILE>")]
pub struct AuditArgs {
    /// Only these roles [default: all of the config]
    #[arg(value_name = "ROLE", conflicts_with = "foreign")]
    pub roles: Vec<RoleName>,
    /// How far back, like 7d or 12h; with --calendar 365d if not said
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30d",
        default_value_if("calendar", "true", "365d"),
        value_parser = duration,
        conflicts_with = "foreign"
    )]
    pub since: std::time::Duration,
    /// Draw the days of the last year
    #[arg(long)]
    pub calendar: bool,
    /// What other programs store.
    #[command(flatten)]
    pub foreign: ForeignAuditArgs,
}

/// `runner audit` of backups that another program made.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Backups of other programs, from a listing alone")]
#[group(id = "foreign_options", multiple = true)]
pub struct ForeignAuditArgs {
    /// List this bucket or directory: s3://BUCKET/PREFIX or file:///DIR
    #[arg(long, value_name = "URL", group = "foreign")]
    pub bucket: Option<String>,
    /// Read this listing; - is standard input
    #[arg(long, value_name = "FILE", group = "foreign")]
    pub listing: Option<PathBuf>,
    /// How keys are made, like '{host}/{date}.tar.gz' [default: found out]
    #[arg(long, value_name = "PATTERN", requires = "foreign")]
    pub pattern: Option<String>,
    /// S3 server, if it is not AWS
    #[arg(long, value_name = "URL", requires = "bucket", conflicts_with = "listing")]
    pub endpoint: Option<String>,
    /// S3 region
    #[arg(long, value_name = "NAME", requires = "bucket", conflicts_with = "listing")]
    pub region: Option<String>,
    /// Profile of the AWS config files
    #[arg(long, value_name = "NAME", requires = "bucket", conflicts_with = "listing")]
    pub profile: Option<String>,
}

/// `runner is-active`
#[derive(Debug, Args)]
pub struct IsActiveArgs {
    /// The role
    pub role: RoleName,
}

/// `runner key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys that unlock the repository
    #[command(after_help = "Example: runner key list app")]
    List(KeyListArgs),
    /// Write the repository key to a new key file
    #[command(after_help = "Example: runner key export app --output /root/app.key")]
    Export(KeyExportArgs),
    /// Let one more key file or passphrase unlock the repository
    #[command(after_help = "Example: runner key add app --new-passphrase-file /root/phrase")]
    Add(KeyAddArgs),
    /// Stop a key file or passphrase from unlocking the repository
    ///
    /// The key opens nothing from now on. It does not shut out a person who had it before: the repository key stays the
    /// same, and a person who kept it, or a copy of the slot, can still read the backups, also those that are made from now on.
    /// Against such a person `runner key rotate` protects what is written from then on.
    #[command(after_help = "Example: runner key remove app 3f2a91c04be07d15")]
    Remove(KeyRemoveArgs),
    /// Write new data under a new repository key
    ///
    /// For when a key was seen by a person who should not have it. What is written from now on does not open with the old key, and
    /// records that are made with it are refused. What was written before stays as it is: the new key opens it too, and so does the
    /// old one, for a person who can read the store. Content that is stored already is not stored again.
    ///
    /// Each key that unlocks the repository now is renewed if its file is named by --keep-key-file or --keep-passphrase-file, or
    /// removed. With a new key, the one that this command is given is removed; any other has to be named by --drop. A file that was
    /// seen is not one to keep.
    ///
    /// This node takes the role over. Every node needs the new key file before its next backup, and stops with a message until it has
    /// it. Nodes with an older version of runner stop, too. Copies of a key from 'runner key export' are to be made anew. One that was
    /// interrupted is finished by running it again, with the same files.
    #[command(after_help = "Example: runner key rotate app --new-key-file /etc/runner/new.key")]
    Rotate(KeyRotateArgs),
}

impl KeyCommand {
    /// The role, and where it is.
    pub fn place(&self) -> (&RoleName, &DirectStoreArgs) {
        match self {
            KeyCommand::List(args) => (&args.role, &args.direct),
            KeyCommand::Export(args) => (&args.role, &args.direct),
            KeyCommand::Add(args) => (&args.role, &args.direct),
            KeyCommand::Remove(args) => (&args.role, &args.direct),
            KeyCommand::Rotate(args) => (&args.role, &args.direct),
        }
    }
}

/// `runner key list`
#[derive(Debug, Args)]
pub struct KeyListArgs {
    /// The role
    pub role: RoleName,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner key export`
#[derive(Debug, Args)]
pub struct KeyExportArgs {
    /// The role
    pub role: RoleName,
    /// Create this file (mode 0600); - is standard output
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner key add`
#[derive(Debug, Args)]
#[command(
    override_usage = "runner key add [OPTIONS] <ROLE> --new-key-file <FILE>\n       \
        runner key add [OPTIONS] <ROLE> --new-passphrase-file <FILE>",
    group = ArgGroup::new("new_key").required(true).args(["new_key_file", "new_passphrase_file"])
)]
pub struct KeyAddArgs {
    /// The role
    pub role: RoleName,
    /// Key file to add; created if missing
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// File with the passphrase to add
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner key remove`
#[derive(Debug, Args)]
pub struct KeyRemoveArgs {
    /// The role
    pub role: RoleName,
    /// The key's ID
    #[arg(value_name = "KEY")]
    pub id: KeyId,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner key rotate`
#[derive(Debug, Args)]
#[command(
    override_usage = "runner key rotate [OPTIONS] <ROLE> --new-key-file <FILE>\n       \
        runner key rotate [OPTIONS] <ROLE> --new-passphrase-file <FILE>\n       \
        runner key rotate [OPTIONS] <ROLE> --keep-key-file <FILE>",
    group = ArgGroup::new("opens_then").required(true).multiple(true).args([
    "new_key_file", "new_passphrase_file", "keep_key_file", "keep_passphrase_file"
]))]
pub struct KeyRotateArgs {
    /// The role
    pub role: RoleName,
    /// Key file that unlocks the repository from then on; created if missing
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
    pub new_key_file: Option<PathBuf>,
    /// File with a passphrase that unlocks the repository from then on
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Key file that goes on to unlock it; may be given several times
    #[arg(long, value_name = "FILE")]
    pub keep_key_file: Vec<PathBuf>,
    /// File with a passphrase that goes on to unlock it; may be given several times
    #[arg(long, value_name = "FILE")]
    pub keep_passphrase_file: Vec<PathBuf>,
    /// ID of a key that is to unlock it no more; may be given several times
    #[arg(long, value_name = "KEY")]
    pub drop: Vec<KeyId>,
    /// Say which keys would go, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also where the probes do not say that this node is active
    #[arg(long)]
    pub force: bool,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner journal`
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// List the newest records: takeovers, snapshots, operators' acts
    #[command(after_help = "Example: runner journal show app --last 5")]
    Show(JournalShowArgs),
    /// Continue from the store's last record when etcd has lost the head
    #[command(after_help = "Takes the role over on this node. Does nothing where the head is sound. First\n\
        make sure that no node writes through another etcd that still has the head.\n\n\
        Example: runner journal adopt app")]
    Adopt(RoleArgs),
    /// Correct dates beyond the present, which a wrong clock has written
    #[command(after_help = "Snapshots from beyond the present are dated now, so that retention counts\n\
        them. What they committed stays committed, and closes no other slot. Does\n\
        nothing if all dates are past, or if this node's clock is more likely to be\n\
        wrong: first make sure that it is right.\n\n\
        Example: runner journal amend app")]
    Amend(AmendArgs),
}

/// `runner journal show`
#[derive(Debug, Args)]
pub struct JournalShowArgs {
    /// The role
    pub role: RoleName,
    /// How many records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub last: u64,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner notify`
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test message through each channel, and tell what was seen
    #[command(after_help = "Nothing is kept or tried again. A healthchecks service gets a line for its log,\n\
        which changes no state. Exit code 1: a channel did not accept the message.\n\n\
        Examples:\n  runner notify test\n  runner notify test ops")]
    Test(NotifyTestArgs),
}

/// `runner notify test`
#[derive(Debug, Args)]
pub struct NotifyTestArgs {
    /// Only the channel with this name [default: all of the config]
    pub channel: Option<String>,
}

/// `runner config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a config to start from, or write it to a new file
    #[command(after_help = "Example: runner config init /etc/runner/runner.toml")]
    Init(ConfigInitArgs),
    /// Say whether the config is valid, and what it comes to
    #[command(after_help = "Example: runner config check --config ./runner.toml")]
    Check,
    /// Print the config with every default filled in
    #[command(after_help = "The systemd units may write to their own state alone. --systemd prints what a\n\
        store in a directory needs beside that, or writes it for each unit below DIR.\n\n\
        Examples:\n  runner config show\n  runner config show --systemd=/etc/systemd/system")]
    Show(ConfigShowArgs),
    /// Print the JSON Schema of the config, for editors
    #[command(after_help = "With it an editor completes keys, shows their documentation, and marks mistakes.\n\
        The first line '#:schema ./runner.schema.json' of a config names it to taplo, and\n\
        so to Helix, Neovim, and VS Code with Even Better TOML.\n\n\
        Example: runner config schema > runner.schema.json")]
    Schema,
}

/// `runner config show`
#[derive(Debug, Args)]
pub struct ConfigShowArgs {
    /// Print the drop-in that the systemd units need instead, or write it below DIR
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with = "json")]
    pub systemd: Option<Option<PathBuf>>,
}

/// `runner config init`
#[derive(Debug, Args)]
pub struct ConfigInitArgs {
    /// Create this file instead of printing; it must not exist
    pub file: Option<PathBuf>,
    /// What to back up; repeat for more
    #[arg(long, value_name = "DIR", default_value = "/srv/app")]
    pub source: Vec<PathBuf>,
    /// Where to: s3://BUCKET/PREFIX or file:///DIR
    #[arg(long, value_name = "URL", default_value = "file:///var/backups/runner")]
    pub store: String,
}

/// `runner exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Only if a slot of the schedule is due and not committed; begin and end are recorded
    #[arg(long)]
    pub scheduled: bool,
    /// Exit with this instead of 3 where the command is not run: 0 for cron, 75 for mail systems
    #[arg(long, value_name = "CODE", default_value_t = 3)]
    pub skip_exit: u8,
    /// End the command when it takes longer (exit code 124); without this it keeps the role's lease for as long as it runs
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<std::time::Duration>,
    /// The role
    pub role: RoleName,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    pub command: Vec<String>,
}

/// `runner prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Which role
    #[arg(value_name = "ROLE")]
    pub role: RoleName,
    /// Say what would go, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `runner repair`
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Which role
    #[arg(value_name = "ROLE")]
    pub role: RoleName,
    /// Say what is lost and what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also where the probes do not say that this node is active
    #[arg(long)]
    pub force: bool,
    /// Write the key slot again that opened the repository here last
    #[arg(long)]
    pub key_slot: bool,
    /// Also read the content, as 'verify --read-data' does
    #[arg(long)]
    pub read_data: bool,
    /// Store and key.
    #[command(flatten)]
    pub direct: DirectStoreArgs,
}

/// `runner takeover`
#[derive(Debug, Args)]
pub struct TakeoverArgs {
    /// The role
    pub role: RoleName,
    /// Also where the probes do not say that this node is active
    #[arg(long)]
    pub force: bool,
}

/// `runner resume` and `runner journal adopt`
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The role
    pub role: RoleName,
}

/// `runner journal amend`
#[derive(Debug, Args)]
pub struct AmendArgs {
    /// The role
    pub role: RoleName,
    /// Also where this node's clock is more likely to be wrong
    #[arg(long)]
    pub force: bool,
}

/// `runner pause`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The role
    pub role: RoleName,
    /// Resume by itself after so long, like 2h or 30m, at most 366d [default: never]
    #[arg(long = "for", value_name = "DURATION", value_parser = pause_duration)]
    pub lasts: Option<std::time::Duration>,
    /// Why, for everyone who asks
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
}

/// `runner completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `runner man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page per command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
