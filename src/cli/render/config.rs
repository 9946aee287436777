//! `config check`, `config init` and `config show --systemd`. Pure.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::layout::PageLayout;
use crate::cli::settings::SymlinkedSource;
use crate::cli::units::counted;
use crate::config::files::DEFAULT as CONFIG_FILE;
use crate::config::{ConfigProblem, LeaseKind, Probe, Schedule, Settings};
use crate::job::report::ADVICE;

/// `config init FILE`.
pub fn written(file: &Path, page: PageLayout) -> String {
    let is_default = file == Path::new(CONFIG_FILE);
    let config = if is_default { String::new() } else { format!("--config {} ", file.display()) };
    let next = format!("edit it, then 'runner {config}config check' and 'runner {config}init'.");
    format!("wrote {}\n{}", file.display(), page.row(ADVICE, 2, &next))
}

/// `config show --systemd=DIR`.
pub fn drop_ins(files: &[PathBuf], page: PageLayout) -> String {
    let mut wrote = String::new();
    for file in files {
        let _ = writeln!(wrote, "wrote {}", file.display());
    }
    wrote + &page.row(ADVICE, 2, "'systemctl daemon-reload', and restart what runs.")
}

/// The summary of a valid config.
pub fn checked(settings: &Settings, links: &[SymlinkedSource], missing: &[ConfigProblem], page: PageLayout) -> String {
    let files: Vec<String> = settings.files.iter().map(|f| f.display().to_string()).collect();
    let mut out = page.wrap(
        "ok: ",
        2,
        &format!(
            "{}; {}, store {}, config {}",
            files.join(", "),
            counted(settings.roles.len() as u64, "role", "roles"),
            settings.store.url,
            settings.hash
        ),
    );
    let rows = settings.roles.values().map(|role| {
        let eligible = match (&role.eligible, role.lease) {
            (Some(eligible), _) => probe(eligible),
            (None, LeaseKind::None) => "on every node".to_owned(),
            (None, _) => "it has the lease".to_owned(),
        };
        let schedule = match &role.schedule {
            None => "by hand".to_owned(),
            Some(Schedule::Cron(line)) => line.clone(),
            Some(Schedule::Every(every)) => format!("every {}", crate::config::value::format_duration(*every)),
        };
        let lease = match role.lease {
            LeaseKind::Etcd => "etcd",
            LeaseKind::Bucket => "bucket",
            LeaseKind::None => "none",
        };
        [role.name.to_string(), eligible, lease.to_owned(), schedule]
    });
    out += &page.table(["ROLE", "ACTIVE WHERE", "LEASE", "SCHEDULE"], [false; 4], rows);
    for warning in settings.warnings.iter().chain(missing) {
        out += &page.wrap_lines(&format!("WARNING {warning}"));
    }
    for link in links {
        out += &page.wrap("WARNING ", 4, &self::link(link));
    }
    out
}

/// A source that is a symbolic link, which no run backs up.
pub fn link(link: &SymlinkedSource) -> String {
    let SymlinkedSource { role, source, target } = link;
    format!(
        "role.{role}.sources: {} is a symbolic link to {}, and only the link would be stored: every run refuses it on this \
         node. Name what it leads to as the source.",
        source.display(),
        target.display()
    )
}

/// A probe in the config's words.
fn probe(probe: &Probe) -> String {
    let list = |probes: &[Probe], word: &str| probes.iter().map(self::probe).collect::<Vec<_>>().join(word);
    match probe {
        Probe::Vip { address, interface: None } => format!("vip {address}"),
        Probe::Vip { address, interface: Some(name) } => format!("vip {address} on {name}"),
        Probe::Command { command, .. } => format!("command {}", command.first().map_or("", String::as_str)),
        Probe::Http { url, .. } => format!("http {url}"),
        Probe::Mounted { path } => format!("mounted {}", path.display()),
        Probe::Unit { unit, .. } => format!("unit {unit}"),
        Probe::All(probes) => format!("({})", list(probes, " and ")),
        Probe::Any(probes) => format!("({})", list(probes, " or ")),
        Probe::Not(inner) => format!("not {}", self::probe(inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigEnvironment;

    #[test]
    fn a_valid_config_is_summed_up() {
        let text = r#"
            timezone = "Europe/Berlin"
            [store]
            url = "s3://backups/prod"
            key_file = "/etc/runner/repository.key"
            [role.app]
            sources = ["/srv/app"]
            eligible = { all = [{ vip = "10.0.0.50" }, { not = { command = ["/usr/local/bin/maintenance"] } }] }
            lease = "none"
            schedule = "0 1 * * *"
            [role.files]
            sources = ["/srv/files"]
            eligible = { any = [{ mounted = "/srv/files" }, { unit = "nfs-server.service" }] }
            [role.orders-db]
            eligible = { http = "http://127.0.0.1:8008/primary" }
            sources = ["/srv/orders"]
            lease = "none"
            every = "1h"
        "#;
        let settings =
            Settings::parse(&[("/etc/runner/runner.toml".into(), text.to_owned())], &ConfigEnvironment::default())
                .unwrap();
        let links =
            [SymlinkedSource { role: "app".parse().unwrap(), source: "/srv/app".into(), target: "/data/app".into() }];
        let text = checked(&settings, &links, &[], PageLayout::FILE).replace(&settings.hash, "[hash]");
        insta::assert_snapshot!(text);
    }
}
