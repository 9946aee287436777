//! The environment variables of commands, and what is sent over the network in the clear.

use super::*;

#[test]
fn what_commands_find_is_the_roles_and_the_dumps_own_and_its_values_are_not_shown() {
    let text = role(
        "environment = { PGHOST = \"/run/pg\", PGPASSWORD = \"s3cret\" }\npass_environment = [\"TZDIR\"]\n\
         [role.app.dumps.\"a.sql\"]\ncommand = [\"pg_dump\"]\nenvironment = { PGHOST = \"other\" }\npass_environment = [\"TZDIR\", \"PGSERVICE\"]\n\
         [notify]\ncommand = [\"tell\"]\nenvironment = { TOKEN = \"s3cret\" }",
    );
    let settings = parse(&text).unwrap();
    let app = &settings.roles[&"app".parse::<RoleName>().unwrap()];
    let own = &app.dumps["a.sql"].environment;
    assert_eq!((own.set["PGHOST"].as_str(), own.set["PGPASSWORD"].as_str()), ("other", "s3cret"));
    assert_eq!(
        (app.environment.set["PGHOST"].as_str(), &own.pass[..]),
        ("/run/pg", &["TZDIR".to_owned(), "PGSERVICE".to_owned()][..])
    );
    let shown = settings.render();
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("environment = { PGHOST = \"…\", PGPASSWORD = \"…\" }"), "{shown}");
    assert!(parse(&shown).is_ok(), "{shown}");
    assert_ne!(
        parse(&text.replace("s3cret", "other")).unwrap().hash,
        settings.hash,
        "two nodes that are configured otherwise"
    );
    insta::assert_snapshot!(refused(&role(
        "environment = { \"A B\" = \"x\", RUNNER_TERM = \"1\", N = 5 }\npass_environment = [\"AWS_*\", \"RUNNER_ROLE\", 3]\n\
         [notify]\nenvironment = [\"A\"]"
    )), @r#"
    runner.toml:7: role.app.environment."A B": "A B" is not the name of a variable
        hint: write it like "PGHOST"
    runner.toml:7: role.app.environment.N: expected a text, found a number
        hint: put it in quotes: "…"
    runner.toml:7: role.app.environment.RUNNER_TERM:
        RUNNER_TERM is what each run sets itself
        hint: remove it
    runner.toml:8: role.app.pass_environment: entry 3 is a number, expected a text
        hint: put it in quotes
    runner.toml:8: role.app.pass_environment: "AWS_*" is not the name of a variable
        hint: write it like "PGHOST"
    runner.toml:8: role.app.pass_environment:
        RUNNER_ROLE is what each run sets itself
        hint: remove it
    runner.toml:10: notify.environment: expected variables, found a list
        hint: write it like { PGHOST = "/run/postgresql" }
    "#);
}

#[test]
fn what_goes_over_the_network_in_the_clear_is_warned_about() {
    let config = |host: &str| {
        let etcd = if cfg!(feature = "etcd") {
            format!("[etcd]\nendpoints = [\"http://{host}:2379\"]\nuser = \"runner\"\npassword_file = \"/p\"\n")
        } else {
            String::new()
        };
        format!(
            "[store]\nurl = \"s3://bucket/p\"\nendpoint = \"http://{host}:9000\"\nkey_file = \"/k\"\n\
             [role.app]\nlease = \"bucket\"\nsources = [\"/srv\"]\n\
             [notify]\nwebhook = \"http://{host}/s3cret\"\nhealthchecks = \"http://{host}/s3cret/{{role}}\"\n{etcd}"
        )
    };
    let warned = |host: &str| parse(&config(host)).unwrap().warnings;
    let keys: Vec<String> = warned("10.0.0.7").iter().map(|warning| warning.key.clone()).collect();
    let all = ["store.endpoint", "notify.webhook", "notify.healthchecks", "etcd.endpoints"];
    for key in all.iter().take(if cfg!(feature = "etcd") { 4 } else { 3 }) {
        assert!(keys.iter().any(|found| found == key), "{key}: {keys:?}");
    }
    for here in ["127.0.0.1", "localhost", "[::1]", "minio.localhost"] {
        assert_eq!(warned(here), [], "{here}");
    }
    let shown = warned("store.example.net").iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(
        shown.starts_with("runner.toml:3: store.endpoint:") && shown.contains("store.example.net:9000 is asked"),
        "{shown}"
    );
}

#[test]
fn a_program_is_found_wherever_runner_was_started() {
    for program in ["pg_dump", "/usr/bin/pg_dump"] {
        assert!(parse(&role(&format!("before = [\"{program}\"]"))).is_ok(), "{program}");
    }
    let said = refused(&role("before = [\"./freeze\"]"));
    assert!(said.contains("role.app.before:") && said.contains("commands are started in /"), "{said}");
}
