//! `snapshots`: the table. Pure.

use super::{RenderContext, short_id};
use crate::cli::units::{bytes, count, counted, minute};
use crate::job::report::snapshot::SnapshotInfo;

/// Oldest first, so that the newest is next to the prompt. `doubtful`: the journal may have more records than could be
/// read.
pub fn list(snapshots: &[SnapshotInfo], doubtful: bool, view: &RenderContext) -> String {
    if snapshots.is_empty() {
        let none = if doubtful { "no snapshot in what can be read\n" } else { "no snapshots yet\n" };
        return none.to_owned();
    }
    let rows = snapshots.iter().map(|s| {
        [
            short_id(s.id),
            minute(s.time, &view.zone),
            s.node.clone(),
            s.term.to_string(),
            count(s.files),
            bytes(s.bytes),
            count(s.changed),
        ]
    });
    let mut out = view.page.table(
        ["ID", "TIME", "NODE", "TERM", "FILES", "SIZE", "CHANGED"],
        [false, false, false, true, true, true, true],
        rows,
    );
    for s in snapshots.iter().filter(|s| s.unreadable > 0) {
        out += &view.page.wrap("INCOMPLETE ", 11, &format!("{}: {}", short_id(s.id), unread(s.unreadable)));
    }
    for s in snapshots {
        if let Some(empty @ 1..) = s.empty {
            out += &view.page.wrap("EMPTY ", 6, &format!("{}: {}", short_id(s.id), self::empty(empty)));
        }
    }
    out
}

/// The note about sources without a file, for an older snapshot.
pub(super) fn empty(count: u64) -> String {
    let sources = counted(count, "source or dump", "sources or dumps");
    format!("{sources} held no file when it was made")
}

/// The note about files that a run could not read, for an older snapshot.
pub(super) fn unread(count: u64) -> String {
    format!("{} could not be read when it was made: missing, or in it as last read", counted(count, "file", "files"))
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
        (list[0].unreadable, list[1].unreadable) = (1, 5200);
        (list[1].empty, list[2].empty) = (Some(0), Some(1));
        let text = super::list(&list, false, &samples::view());
        samples::assert_fits(|view| super::list(&list, false, view));
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(super::list(&[], false, &samples::view()), @"no snapshots yet");
        insta::assert_snapshot!(super::list(&[], true, &samples::view()), @"no snapshot in what can be read");
    }
}
