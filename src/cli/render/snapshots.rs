//! `snapshots`: the table.

use super::{View, short, table};
use crate::cli::units::{bytes, count, minute};
use crate::job::report::snapshot::SnapshotInfo;

/// Oldest first, so that the newest stands above the prompt.
pub fn list(snapshots: &[SnapshotInfo], view: &View) -> String {
    if snapshots.is_empty() {
        return "no snapshots yet\n".to_owned();
    }
    let rows = snapshots.iter().map(|s| {
        [
            short(s.id),
            minute(s.time, &view.zone),
            s.node.clone(),
            s.term.to_string(),
            count(s.files),
            bytes(s.bytes),
            count(s.changed),
        ]
    });
    table(
        ["ID", "TIME", "NODE", "TERM", "FILES", "SIZE", "CHANGED"],
        [false, false, false, true, true, true, true],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use crate::cli::render::samples;

    #[test]
    fn the_table_fits_and_puts_numbers_under_numbers() {
        let mut list = vec![
            samples::snapshot(0x11, "2026-07-01T00:00:00Z"),
            samples::snapshot(0x22, "2026-11-19T01:00:00Z"),
            samples::snapshot(0x3f, "2026-11-20T01:00:00Z"),
        ];
        list[1].node = "orders-db-02".to_owned();
        list[1].files = 9;
        list[1].bytes = 312;
        let text = super::list(&list, &samples::view());
        assert!(text.lines().all(|l| l.chars().count() <= 80));
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(super::list(&[], &samples::view()), @"no snapshots yet");
    }
}
