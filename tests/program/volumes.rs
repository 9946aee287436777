//! File systems that are mounted below a source, and that are not there one night.

use std::fs;

use crate::site::{Site, files, number, role};
use crate::support::cli::{ProgramRun, TestNode};

/// The node in a mount namespace of its own, in which a volume with three entries is mounted in the source.
fn mounted(site: &Site, node: TestNode) -> TestNode {
    let volume = site.src().join("vol");
    let script = format!(
        "V={}; mount -t tmpfs tmpfs \"$V\"; mkdir \"$V/sub\"; echo data > \"$V/sub/f\"; echo more > \"$V/g\"; exec \"$@\"",
        volume.display()
    );
    let command = ["unshare", "-rm", "--propagation", "private", "sh", "-ec", &script, "sh"];
    node.started_by(command.map(str::to_owned).to_vec())
}

fn backup(node: &TestNode, code: i32) -> serde_json::Value {
    let run: ProgramRun = node.run(["backup", "app", "--json"]).expect(code);
    role(&run)
}

#[test]
fn what_a_volume_had_that_is_not_mounted_is_kept_as_unread_and_told_until_it_is_gone_for_good() {
    let site = Site::new("");
    site.write("file", "content");
    site.write("vol-beside", "content");
    fs::create_dir(site.src().join("vol")).unwrap();
    site.init();
    let east = || site.node("east");
    let first = backup(&mounted(&site, east()), 0);
    assert_eq!(files(&first), [7, 0, 0, 0, 0], "{first}");
    for _ in 0..2 {
        let run = backup(&east(), 6);
        let [_, _, _, removed, unreadable] = files(&run);
        assert_eq!((removed, unreadable, number(&run["files"]["kept"])), (0, 3, 3), "{run}");
        assert!(run["problems"][0].to_string().contains("not mounted"), "{run}");
        let check = east().run(["whoami", "--check"]).expect(1).stdout;
        assert!(check.contains("incomplete"), "{check}");
    }
    let out = site.restore(&east(), "latest", "out");
    assert_eq!(fs::read_to_string(out.join("vol/sub/f")).unwrap(), "data\n");
    let again = backup(&mounted(&site, east()), 0);
    assert_eq!(files(&again)[3..], [0, 0], "{again}");
    // A volume whose place is empty is looked for; one whose place went was taken away.
    backup(&east(), 6);
    fs::remove_dir(site.src().join("vol")).unwrap();
    let gone = backup(&east(), 0);
    assert_eq!(files(&gone)[3..], [4, 0], "{gone}");
    fs::create_dir(site.src().join("vol")).unwrap();
    assert_eq!(files(&backup(&east(), 0))[3..], [0, 0], "an empty directory of which nothing is known");
}

#[test]
fn where_a_place_may_be_empty_or_no_volume_is_wanted_none_is_missed() {
    for line in ["allow_empty = true", "one_file_system = true"] {
        let site = Site::new("");
        site.write("file", "content");
        fs::create_dir(site.src().join("vol")).unwrap();
        site.init();
        backup(&mounted(&site, site.node("east")), 0);
        site.config(line);
        let run = backup(&site.node("east"), 0);
        assert_eq!(files(&run)[3..], [3, 0], "{line}: {run}");
    }
}
