//! The config that `config init` writes: small, and valid as it is.

use std::path::PathBuf;

use super::store_url::StoreUrl;

/// The warning about a store in a directory: two nodes with a directory each would both be active.
const SHARED: &str = "\
# A directory: every node must reach this same one, by NFS or the like. With one
# of its own each node makes a history of its own.
";

/// A short commented config with these sources and this store. `config/runner.toml` explains every key.
pub fn starter(sources: &[PathBuf], url: &StoreUrl) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = sources.iter().map(|s| quote(&s.to_string_lossy())).collect::<Vec<_>>().join(", ");
    format!(
        r#"# The same file on every node. `runner config check` reads it, `runner whoami`
# says what this node makes of it.

timezone = "UTC"           # of schedules: an IANA name, like "Europe/Berlin"

[store]
{shared}url = {url}
# `runner init` creates it: copy it to every node, and keep a copy elsewhere.
key_file = "/etc/runner/repository.key"

[role.app]
sources = [{list}]
exclude = ["*.tmp"]
schedule = "0 1 * * *"     # minute, hour, day, month, weekday: daily at 01:00

# Which node backs it up? The one that has this address:
#eligible = {{ vip = "10.0.0.50" }}
# ... or the one on which a command exits with 0:
#eligible = {{ command = ["/usr/local/bin/am-i-primary"] }}
# With neither, the node that first takes the lease in the store; the others
# leave it to that one while it lives.
"#,
        shared = match url {
            StoreUrl::Dir(_) => SHARED,
            StoreUrl::S3 { .. } => "",
        },
        url = quote(&url.to_string()),
    )
}
