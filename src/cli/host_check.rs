//! What a config needs on this node and is missing here, for `config check`. These are only warnings: the same file is
//! read on every node, and what one node lacks another may have, or get when it takes over.

use std::env::split_paths;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use rustix::fs::{Access, access};

use crate::config::{
    ConfigLocation, ConfigProblem, KeySource, LeaseKind, NotifyChannelSettings, Probe, RoleSettings, Settings,
};
use crate::env;

/// Where programs are searched without a `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is missing on this node, whose label is `node`.
pub(super) fn host_problems(settings: &Settings, node: &str) -> Vec<ConfigProblem> {
    let place = settings.files.first().map_or_else(ConfigLocation::nowhere, ConfigLocation::file);
    let mut found =
        HostChecker { place, path: env::variable("PATH").unwrap_or_else(|| PATH.into()), problems: Vec::new() };
    found.key("store", &settings.store.key);
    found.files(settings);
    found.program("notify.command", settings.notify.command.as_deref());
    for channel in &settings.notify.channels {
        found.channel(channel);
    }
    let (own, others): (Vec<_>, Vec<_>) = settings.roles.values().partition(|role| may_hold(role, node));
    if own.is_empty() {
        found.push_problem(
            "role",
            format!("no role names this node ({node}) in its nodes: it backs nothing up"),
            &["write its name there as `hostname` says it, or start it with --node NAME"],
        );
    } else if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|role| role.name.as_str()).collect();
        found.push_problem(
            "role",
            format!("this node ({node}) is not in the nodes of {}", names.join(", ")),
            &["nothing needs to change if other nodes hold these roles"],
        );
    }
    for role in own {
        found.role(role, &settings.store.key);
    }
    found.problems
}

/// Whether the config lets this node hold the role.
fn may_hold(role: &RoleSettings, node: &str) -> bool {
    role.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|name| name == node))
}

struct HostChecker {
    place: ConfigLocation,
    path: std::ffi::OsString,
    problems: Vec<ConfigProblem>,
}

impl HostChecker {
    fn push_problem(&mut self, key: &str, what: String, hints: &[&str]) {
        let problem =
            hints.iter().fold(ConfigProblem::new(&self.place, key, what), |problem, hint| problem.hint(*hint));
        self.problems.push(problem);
    }

    fn role(&mut self, role: &RoleSettings, of_store: &KeySource) {
        let name = |key: &str| format!("role.{}.{key}", role.name);
        let is_alone = role.nodes.as_ref().is_some_and(|nodes| nodes.len() == 1);
        if role.lease == LeaseKind::None && role.eligible.is_none() && !is_alone {
            let what = "nothing decides which node is active: with \"none\" and without eligible, every node is \
                        active at the same time";
            self.push_problem(&name("lease"), what.to_owned(), &[
                "remove the line (the lease is in the store then), give the role an eligible, or name one node in nodes",
            ]);
        }
        if role.key != *of_store {
            self.key(&format!("role.{}", role.name), &role.key);
        }
        for source in role.sources.iter().filter(|source| is_gone(source)) {
            let what = format!("{} does not exist on this node: a run here fails until it does", source.display());
            self.push_problem(&name("sources"), what, &["mount it, or correct the path"]);
        }
        for (file, dump) in &role.dumps {
            self.program(&name(&format!("dumps.{file:?}.command")), Some(&dump.command));
            if let Some(user) = dump.user.as_deref().filter(|user| matches!(User::from_name(user), Ok(None))) {
                self.push_problem(
                    &name(&format!("dumps.{file:?}.user")),
                    format!("there is no user {user} on this node"),
                    &[],
                );
            }
        }
        let hooks = &role.hooks;
        for (key, command) in [
            ("before", &hooks.before),
            ("after", &hooks.after),
            ("on_takeover", &hooks.on_takeover),
            ("on_lost", &hooks.on_lost),
        ] {
            self.program(&name(key), command.as_deref());
        }
        for (key, probe) in
            [("eligible", role.eligible.as_ref()), ("fallback", role.fallback.as_ref().map(|f| &f.probe))]
        {
            self.probe(&name(key), probe);
        }
    }

    fn probe(&mut self, key: &str, probe: Option<&Probe>) {
        match probe {
            Some(Probe::Command { command, .. }) => self.program(key, Some(command)),
            Some(Probe::All(all) | Probe::Any(all)) => all.iter().for_each(|probe| self.probe(key, Some(probe))),
            Some(Probe::Not(inner)) => self.probe(key, Some(inner)),
            _ => {}
        }
    }

    /// Checks that the key files exist; their content is not checked.
    fn key(&mut self, section: &str, key: &KeySource) {
        match key {
            KeySource::KeyFile(file) => self.secret(&format!("{section}.key_file"), file, &[
                "`runner init` makes it for a new repository; for one that exists, copy it from the node that made it",
            ]),
            KeySource::PassphraseFile(file) => self.secret(&format!("{section}.passphrase_file"), file, &[
                "write the passphrase into it, on one line, and `chmod 600` it: `runner init` makes none",
            ]),
            KeySource::None => {}
        }
    }

    fn files(&mut self, settings: &Settings) {
        let etcd = settings.etcd.as_ref();
        let of_etcd =
            |file: fn(&crate::config::EtcdSettings) -> &Option<PathBuf>| etcd.and_then(|etcd| file(etcd).as_deref());
        for (key, file) in [
            ("store.ca_file", settings.store.ca_file.as_deref()),
            ("store.credentials_file", settings.store.credentials_file.as_deref()),
            ("etcd.ca_file", of_etcd(|etcd| &etcd.ca_file)),
            ("etcd.cert_file", of_etcd(|etcd| &etcd.cert_file)),
            ("etcd.key_file", of_etcd(|etcd| &etcd.key_file)),
            ("etcd.password_file", of_etcd(|etcd| &etcd.password_file)),
        ] {
            if let Some(file) = file {
                self.secret(key, file, &["copy it to this node, or correct the path"]);
            }
        }
    }

    fn channel(&mut self, channel: &NotifyChannelSettings) {
        let name = |key: &str| format!("notify.channel {}.{key}", channel.name);
        self.program(&name("command"), channel.command.as_deref());
        let ca_file = channel.ca_file.as_ref().map(|file| ("ca_file", file));
        for (key, file) in channel.secret_files().chain(ca_file) {
            self.secret(&name(key), file, &["copy it to this node, or correct the path"]);
        }
    }

    fn secret(&mut self, key: &str, file: &Path, hints: &[&str]) {
        let shown = file.display();
        match std::fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.push_problem(key, format!("{shown} does not exist on this node"), hints);
            }
            Err(error) => self.push_problem(key, format!("{shown} cannot be examined by this user ({error})"), &[]),
            Ok(found) if found.is_dir() => {
                self.push_problem(key, format!("{shown} is a directory"), &["name the file in it"]);
            }
            Ok(_) if access(file, Access::READ_OK).is_err() => {
                self.push_problem(
                    key,
                    format!("{shown} cannot be read by this user on this node"),
                    &["run it as the user that makes the backups, or give that user the right"],
                );
            }
            Ok(_) => {}
        }
    }

    fn program(&mut self, key: &str, command: Option<&[String]>) {
        let Some(program) = command.and_then(<[String]>::first) else { return };
        let runs = |file: &Path| file.is_file() && access(file, Access::EXEC_OK).is_ok();
        let named = Path::new(program);
        let is_found = if program.contains('/') {
            runs(named)
        } else {
            split_paths::<OsStr>(&self.path).any(|directory| runs(&directory.join(named)))
        };
        if !is_found {
            let what = if named.exists() {
                format!("{program} cannot be run on this node: it is no program, or not executable")
            } else {
                format!("there is no program {program} on this node")
            };
            self.push_problem(key, what, &["install it, or correct the path"]);
        }
    }
}

/// Whether the path does not exist. If that cannot be told, the run will report it.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata()
        .is_err_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigEnvironment;

    #[test]
    fn what_this_node_lacks_is_named_by_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"
            [store]
            url = "file:///srv/store"
            key_file = "DIR"
            [role.app]
            sources = ["DIR/gone", "/etc"]
            nodes = ["east"]
            before = ["DIR/freeze"]
            after = ["true"]
            eligible = { any = [{ command = ["no-such-program-here"] }, { vip = "10.0.0.1" }] }
            [role.app.dumps]
            "app.sql" = { command = ["DIR/pg_dump"], user = "no-such-user" }
            [role.mail]
            sources = ["/etc"]
            lease = "none"
            nodes = ["west", "north-east"]
            passphrase_file = "DIR/phrase"
        "#;
        let text = text.replace("DIR", dir.path().to_str().unwrap());
        let settings = Settings::parse(&[("runner.toml".into(), text)], &ConfigEnvironment::default()).unwrap();
        let found = |node| {
            host_problems(&settings, node).into_iter().map(|problem| (problem.key, problem.what)).collect::<Vec<_>>()
        };
        let keys = |node| found(node).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let dump = |key: &str| format!("role.app.dumps.\"app.sql\".{key}");
        let of_app = ["role.app.sources", &dump("command"), &dump("user"), "role.app.before", "role.app.eligible"];
        assert_eq!(keys("east"), [&["store.key_file", "role"], &of_app[..]].concat());
        assert_eq!(keys("west"), ["store.key_file", "role", "role.mail.lease", "role.mail.passphrase_file"]);
        assert_eq!(keys("north"), ["store.key_file", "role"]);
        assert_eq!(found("north")[1].1, "no role names this node (north) in its nodes: it backs nothing up");
        assert!(found("east")[0].1.ends_with("is a directory") && found("east")[4].1.contains("no-such-user"));
    }
}
