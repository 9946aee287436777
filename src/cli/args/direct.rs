//! The forms without a config file, for a host that has nothing but the bucket and the key.

use std::path::PathBuf;

use clap::Args;

/// Where the repository is and what unlocks it, said on the command line.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Without a config file")]
pub struct DirectStoreArgs {
    /// The store: s3://BUCKET/PREFIX or file:///DIR
    #[arg(long, value_name = "URL", requires = "direct_key")]
    pub store: Option<String>,
    /// What unlocks the repository.
    #[command(flatten)]
    pub key: DirectKeyArgs,
    /// S3 server, if it is not AWS
    #[arg(long, value_name = "URL", requires = "store")]
    pub endpoint: Option<String>,
    /// S3 region
    #[arg(long, value_name = "NAME", requires = "store")]
    pub region: Option<String>,
    /// Profile of the AWS config files
    #[arg(long, value_name = "NAME", requires = "store")]
    pub profile: Option<String>,
}

/// What unlocks the repository: exactly one of these where `--store` is given.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "direct_key", multiple = false, requires = "store")]
pub struct DirectKeyArgs {
    /// File with the repository key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File with the passphrase
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The repository is not encrypted
    #[arg(long)]
    pub no_encryption: bool,
}
