//! `audit --listing` and `--bucket` of a directory: each format over the command line, exit codes, and what is said.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::cli::{ProgramRun, TestNode};

fn node(dir: &Path) -> TestNode {
    TestNode::new(dir, "laptop").without_config()
}

/// Runs it with this as its standard input.
fn piped(node: &TestNode, args: &[&str], input: &[u8]) -> ProgramRun {
    let mut command = node.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    ProgramRun {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const LISTINGS: [(&str, &str); 9] = [
    (
        "aws-ls.txt",
        "2026-10-01 01:04:16          5 app/a b\n2026-10-02 01:04:48          7 app/c\n\nTotal Objects: 2\n   Total Size: 12\n",
    ),
    ("header.csv", "key,size,last_modified\n\"app/a b\",5,2026-10-01T01:04:16Z\napp/c,7,2026-10-02T01:04:48Z\n"),
    (
        "inventory.csv",
        "\"prod\",\"app/a+b\",\"5\",\"2026-10-01T01:04:16.000Z\"\n\"prod\",\"app/c\",\"7\",\"2026-10-02T01:04:48.000Z\"\n",
    ),
    (
        "mc.jsonl",
        "{\"status\":\"success\",\"type\":\"file\",\"lastModified\":\"2026-10-01T01:04:16Z\",\"size\":5,\"key\":\"app/a b\"}\n{\"status\":\"success\",\"type\":\"file\",\"lastModified\":\"2026-10-02T01:04:48Z\",\"size\":7,\"key\":\"app/c\"}\n",
    ),
    (
        "rclone.json",
        "[\n{\"Path\":\"app/a b\",\"Name\":\"a b\",\"Size\":5,\"ModTime\":\"2026-10-01T01:04:16Z\",\"IsDir\":false},\n{\"Path\":\"app/c\",\"Name\":\"c\",\"Size\":7,\"ModTime\":\"2026-10-02T01:04:48Z\",\"IsDir\":false}\n]\n",
    ),
    (
        "s3api.json",
        "{\n  \"Contents\": [\n    {\"Key\": \"app/a b\", \"Size\": 5, \"LastModified\": \"2026-10-01T01:04:16+00:00\"},\n    {\"Key\": \"app/c\", \"Size\": 7, \"LastModified\": \"2026-10-02T01:04:48+00:00\"}\n  ]\n}\n",
    ),
    (
        "versions.json",
        "{\"Versions\": [{\"Key\": \"app/a b\", \"VersionId\": \"x\", \"IsLatest\": true, \"Size\": 5, \"LastModified\": \"2026-10-01T01:04:16+00:00\"}, {\"Key\": \"app/c\", \"VersionId\": \"y\", \"IsLatest\": true, \"Size\": 7, \"LastModified\": \"2026-10-02T01:04:48+00:00\"}], \"DeleteMarkers\": [{\"Key\": \"app/d\", \"VersionId\": \"z\", \"IsLatest\": true, \"LastModified\": \"2026-10-02T01:04:48+00:00\"}]}",
    ),
    ("find.txt", "1790816656.1234567890 5 ./app/a b\n1790903088.0000000000 7 ./app/c\n"),
    ("lsl.txt", "        5 2026-10-01 01:04:16.000000000 app/a b\n        7 2026-10-02 01:04:48.000000000 app/c\n"),
];

#[test]
fn each_format_is_read_from_a_file_and_from_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    for (name, text) in LISTINGS {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let packed = dir.path().join(format!("{name}.gz"));
        fs::write(&packed, gzip(text)).unwrap();
        let runs = [
            node.run(["audit", "--json", "--listing", path.to_str().unwrap()]),
            node.run(["audit", "--json", "--listing", packed.to_str().unwrap()]),
            piped(&node, &["audit", "--listing", "-", "--json"], text.as_bytes()),
        ];
        for run in runs {
            let audited = run.expect(0).json();
            let totals = (&audited["objects"], &audited["bytes"], &audited["sick"]);
            assert_eq!(totals, (&2.into(), &12.into(), &false.into()), "{name}: {audited}");
        }
    }
}

/// The range of bytes that the finding of a second writer names.
fn range_of_stereo(audited: &Value) -> (u64, u64) {
    let findings = audited["findings"].as_array().unwrap();
    let stereo = findings.iter().find(|found| found["kind"] == "stereo").unwrap();
    let number = |name: &str| stereo["surplus_bytes"][name].as_u64().unwrap();
    (number("min"), number("max"))
}

#[test]
fn each_sick_and_healthy_listing_is_judged_as_expected() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let listings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/listings");
    let expected: Value = serde_json::from_slice(&fs::read(listings.join("expected.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for expected in expected.as_array().unwrap() {
        let name = expected["file"].as_str().unwrap();
        let run = node.run(["audit", "--json", "--listing", listings.join(name).to_str().unwrap()]);
        let is_sick = expected["sick"] == true;
        let audited = run.expect(if is_sick { 7 } else { 0 }).json();
        let mut compare = |field: &str, expected: &Value, found: &Value| {
            if expected != found {
                wrong.push(format!("{name}: {field} is {found}, not {expected}"));
            }
        };
        compare("sick", &expected["sick"], &audited["sick"]);
        compare("verdict", &expected["verdict"], &audited["verdict"]);
        for (fact, value) in expected["facts"].as_object().unwrap() {
            if fact == "waste_bytes" {
                let (min, max) = range_of_stereo(&audited);
                let is_within = (min..=max).contains(&value.as_u64().unwrap());
                compare("waste_bytes within the surplus", &json!(true), &json!(is_within));
            } else {
                compare(fact, value, &audited["facts"][fact]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_an_answer_and_no_listing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let run = piped(&node, &["audit", "--listing", "-"], b"").expect(0);
    assert_eq!(run.stdout, "standard input: there is nothing: no object is listed\n");
    let run = piped(&node, &["audit", "--listing", "-"], b"Dear Sir or Madam,\n").expect(1);
    assert!(run.stderr.contains("line 1: Dear Sir or Madam,") && run.stderr.contains("hint: "), "{}", run.stderr);
    assert!(run.stderr.contains("aws s3 ls --recursive"), "{}", run.stderr);
    let run = piped(&node, &["audit", "--listing", "-", "--json"], b"PAR1\0").expect(1).json();
    assert!(run["error"]["message"].as_str().unwrap().contains("Apache Parquet"), "{run}");
    let run = node.run(["audit", "--listing", "/nonexistent"]).expect(1);
    assert!(run.stderr.contains("/nonexistent: "), "{}", run.stderr);
    let run = piped(&node, &["audit", "--listing", "-", "--json"], b"2026-10-01 01:04:16 5 a\n".repeat(20).as_slice());
    assert_eq!(run.expect(0).json()["bytes"], 100);
}

#[test]
fn lines_that_are_left_out_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "2026-10-01 01:04:16          5 app/a\n".repeat(15);
    text += "An error occurred\n                           PRE other/\n";
    let run = piped(&node(dir.path()), &["audit", "--listing", "-", "--json"], text.as_bytes()).expect(0).json();
    assert_eq!((&run["objects"], &run["bytes"]), (&15.into(), &75.into()), "{run}");
    let notes: Vec<&str> = run["notes"].as_array().unwrap().iter().filter_map(|note| note["text"].as_str()).collect();
    let has = |part: &str| notes.iter().any(|note| note.contains(part));
    assert!(has("line 16: An error occurred") && has("--recursive"), "{notes:?}");
}

#[test]
fn a_directory_is_listed_and_what_cannot_be_read_is_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let (root, node) = (dir.path().join("backups"), node(dir.path()));
    fs::create_dir_all(root.join("app")).unwrap();
    fs::write(root.join("app/a b.tar"), "12345").unwrap();
    let url = format!("file://{}", root.display());
    let audited = node.run(["audit", "--bucket", &url, "--json"]).expect(0).json();
    assert_eq!((&audited["objects"], &audited["bytes"]), (&1.into(), &5.into()), "{audited}");
    for host in ["app01", "app02"] {
        for day in 1..=20 {
            let content = vec![0; 4000 + (day * 7919 % 97) * 11];
            fs::write(root.join(format!("app/{host}-2026-10-{day:02}.tar")), content).unwrap();
        }
    }
    let audited = node.run(["audit", "--bucket", &url, "--json"]).expect(7).json();
    let facts = &audited["facts"];
    assert_eq!((&facts["hosts"], &facts["slots"]), (&json!(["app01", "app02"]), &20.into()), "{audited}");
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    let run = node.run(["audit", "--bucket", &url, "--calendar"]).expect(0);
    assert!(run.stderr.is_empty() && run.stdout.starts_with(&url), "{run:?}");
    let run = node.run(["audit", "--bucket", &format!("{url}/none")]).expect(1);
    assert!(run.stderr.contains("hint: check the path"), "{}", run.stderr);
}

#[test]
fn a_command_line_that_means_two_things_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    for args in [
        &["audit", "app", "--listing", "x"][..],
        &["audit", "--bucket", "file:///x", "--listing", "x"],
        &["audit", "--since", "7d", "--listing", "x"],
        &["audit", "--pattern", "{date}"],
        &["audit", "--listing", "x", "--endpoint", "http://127.0.0.1:1"],
        &["audit", "--bucket", "gs://x"],
        &["audit", "--bucket", "s3://key:secret@prod/x"],
    ] {
        let run = node.run(args).expect(2);
        assert!(run.stderr.contains("hint: ") && !run.stderr.contains("secret"), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn an_audit_reads_no_config() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("runner.toml"), "nonsense = [").unwrap();
    let run = piped(&TestNode::new(dir.path(), "laptop"), &["audit", "--listing", "-"], b"").expect(0);
    assert!(run.stderr.is_empty(), "{}", run.stderr);
    let state: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(state, ["runner.toml"], "and writes nothing");
}

#[test]
fn a_calendar_of_a_role_shows_its_slots() {
    use crate::site::Site;
    let site = Site::new("every = \"1h\"\njitter = \"0s\"");
    site.write("file", "content");
    site.init();
    site.node("east").run(["backup", "app", "--scheduled"]).expect(0);
    let text = site.node("east").run(["audit", "app", "--calendar"]).expect(0).stdout;
    assert!(text.contains("\n  Mon ") && text.contains('█') && text.contains("none expected"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let plain: Value = site.node("east").run(["audit", "app", "--calendar", "--json"]).expect(0).json();
    assert!(plain["roles"][0]["since"].is_string());
}
