//! The command line: what is understood, what is refused, and in which words.

use runner::cli::args::{self, Cli, CliCommand, verbs};
use runner::repo::entry::TreePath;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    args::parse(line.split_whitespace())
}

#[track_caller]
fn accepted(line: &str) -> CliCommand {
    parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command
}

#[track_caller]
fn refused(line: &str) -> String {
    let error = parse(line).map(|_| ()).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn global_options_stand_anywhere() {
    for line in ["runner --json --config /x.toml -q snapshots app", "runner snapshots app --json -q --config /x.toml"] {
        let cli = parse(line).unwrap();
        assert!(cli.globals.json && cli.globals.quiet, "{line}");
        assert_eq!(cli.globals.config.as_deref(), Some("/x.toml".as_ref()), "{line}");
    }
    assert_eq!(parse("runner -vv whoami").unwrap().globals.verbose, 2);
    refused("runner -v -q whoami");
}

#[test]
fn backup_reads_a_config_or_the_flags_but_not_both() {
    let CliCommand::Backup(backup) = accepted("runner backup app db --scheduled --require-active --rehash") else {
        panic!()
    };
    assert_eq!(backup.roles.len(), 2);
    assert!(backup.scheduled && backup.require_active && backup.rehash);
    let CliCommand::Backup(backup) = accepted(
        "runner backup --source /srv/a --source /srv/b --store s3://b/p --key-file k --role app --exclude *.tmp \
         --endpoint http://[::1]:9000 --region x --profile y",
    ) else {
        panic!()
    };
    assert_eq!((backup.source.len(), backup.role.unwrap().as_str().to_owned()), (2, "app".to_owned()));
    for bad in [
        "runner backup app --source /srv/a --store file:///b --key-file k",
        "runner backup --source /srv/a --key-file k",
        "runner backup --source /srv/a --store file:///b",
        "runner backup --source /srv/a --store file:///b --key-file k --passphrase-file p",
        "runner backup --source /srv/a --store file:///b --key-file k --scheduled",
        "runner backup --role app",
        "runner backup --exclude x",
    ] {
        refused(bad);
    }
}

#[test]
fn a_store_needs_its_key_and_a_key_its_store() {
    for verb in
        ["snapshots app", "ls app", "cat app /x", "find app x", "diff app a b", "restore app --in-place", "verify app"]
    {
        accepted(&format!("runner {verb} --store file:///b --key-file k"));
        accepted(&format!("runner {verb} --store file:///b --passphrase-file k"));
        accepted(&format!("runner {verb} --store file:///b --no-encryption"));
        refused(&format!("runner {verb} --store file:///b"));
        refused(&format!("runner {verb} --key-file k"));
        refused(&format!("runner {verb} --region eu"));
    }
}

#[test]
fn a_restore_says_where_to() {
    let CliCommand::Restore(restore) = accepted("runner restore app --target /mnt --path /srv/app/ --path //srv//b")
    else {
        panic!()
    };
    assert_eq!(restore.paths.iter().map(TreePath::display).collect::<Vec<_>>(), ["/srv/app", "/srv/b"]);
    assert_eq!(restore.snapshot, "latest");
    refused("runner restore app");
    refused("runner restore app --in-place --target /mnt");
    refused("runner restore app --in-place --overwrite sometimes");
    assert!(refused("runner restore app --in-place --path srv/app").contains("absolute"));
    assert!(refused("runner restore app --in-place --path /srv/../etc").contains("'..'"));
    for other in ["--delete", "--trust-mtime"] {
        let refused = refused(&format!("runner restore app --target /out --salvage {other}"));
        assert!(refused.contains("cannot be used with") && refused.contains(other), "{refused}");
    }
}

#[test]
fn a_path_may_have_any_bytes() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    let odd = OsString::from_vec(b"/srv/\xff".to_vec());
    let words = [OsString::from("runner"), "cat".into(), "app".into(), odd];
    let CliCommand::Cat(cat) = args::parse(words).unwrap().command else { panic!() };
    assert_eq!(cat.path.as_bytes(), b"srv/\xff");
}

#[test]
fn verify_reads_all_or_a_part() {
    let percent = |line: &str| match accepted(line) {
        CliCommand::Verify(verbs::VerifyArgs { read_data, .. }) => read_data,
        other => panic!("{other:?}"),
    };
    assert_eq!(percent("runner verify app"), None);
    assert_eq!(percent("runner verify app --read-data"), Some(100));
    assert_eq!(percent("runner verify --read-data=10 app"), Some(10));
    assert_eq!(percent("runner verify --read-data app"), Some(100), "the role is not the percentage");
    refused("runner verify app --read-data=0");
    refused("runner verify app --read-data=101");
}

#[test]
fn audit_looks_back_for_a_month_or_as_long_as_is_said() {
    let days = |line: &str| match accepted(line) {
        CliCommand::Audit(verbs::AuditArgs { roles, since, .. }) => (roles.len(), since.as_secs() / 86400),
        other => panic!("{other:?}"),
    };
    assert_eq!(days("runner audit"), (0, 30));
    assert_eq!(days("runner audit app db --since 7d"), (2, 7));
    assert_eq!(days("runner audit --calendar"), (0, 365));
    assert_eq!(days("runner audit --calendar --since 7d"), (0, 7));
    assert_eq!(days("runner audit --bucket s3://prod --calendar"), (0, 365));
    for twofold in ["audit app --bucket s3://prod", "audit --since 7d --listing -", "audit --listing - --bucket s3://b"]
    {
        refused(&format!("runner {twofold}"));
    }
    refused("runner audit --since yesterday");
    refused("runner status app");
}

#[test]
fn names_and_ids_are_checked_at_once() {
    assert!(refused("runner snapshots a/b").contains("is not a role name"));
    assert!(refused("runner key remove app 12").contains("is not a key ID"));
    refused("runner key add app");
    refused("runner key add app --new-key-file a --new-passphrase-file b");
}

#[test]
fn a_command_of_a_later_version_is_no_typing_mistake() {
    insta::assert_snapshot!(refused("runner point list"));
    assert!(refused("runner snapshot app").contains("snapshots"), "a typing mistake is");
    for word in ["point", "demo"] {
        assert!(refused(&format!("runner {word}")).contains("in this version"), "{word}");
    }
}

#[test]
fn nothing_at_all_shows_the_help() {
    assert!(refused("runner").contains("Usage: runner"));
}
