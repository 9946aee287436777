//! `ls`, `find` and `diff`: one line per entry. Pure.

use super::{RenderContext, short_id};
use crate::cli::units::{bytes, count, counted, file_time};
use crate::job::report::browse::{DiffChange, DiffCounts, DiffLine, FindMatch};
use crate::repo::entry::{EntryKind, ManifestEntry};
use crate::text;

/// One line of `ls`; with `long` in the format of `ls -l`.
pub fn entry(entry: &ManifestEntry, long: bool, view: &RenderContext) -> String {
    let path = entry.path.display();
    if !long {
        return format!("{path}\n");
    }
    let owner = &entry.owner;
    let name = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { name.to_owned() };
    let size = match &entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => format!("{major}, {minor}"),
        kind => count(kind.size()),
    };
    let target = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", escaped(target)),
        EntryKind::Hardlink { target } => format!(" = {}", target.display()),
        _ => String::new(),
    };
    format!(
        "{} {:<8} {:<8} {size:>13} {} {path}{target}\n",
        mode(entry),
        name(&owner.user, owner.uid),
        name(&owner.group, owner.gid),
        file_time(entry.mtime, &view.zone),
    )
}

/// One match of `find`.
pub fn found_entry(found: &FindMatch, long: bool, view: &RenderContext) -> String {
    format!("{}  {}", short_id(found.snapshot), entry(&found.entry, long, view))
}

/// One line of `diff`.
pub fn diff(line: &DiffLine) -> String {
    let sign = match line.change {
        DiffChange::New => '+',
        DiffChange::Removed => '-',
        DiffChange::Content => 'M',
        DiffChange::Metadata => 'm',
    };
    let size = match line.change {
        DiffChange::Content if line.size_before != line.size_after => {
            format!("  ({} -> {})", bytes(line.size_before), bytes(line.size_after))
        }
        _ => String::new(),
    };
    format!("{sign} {}{size}\n", line.path.display())
}

/// The last line of `diff`.
pub fn diff_total(counts: &DiffCounts) -> String {
    if *counts == DiffCounts::default() {
        return "no differences\n".to_owned();
    }
    format!(
        "{} new, {} removed, {} with other content, {}\n",
        count(counts.new),
        count(counts.removed),
        count(counts.content),
        counted(counts.metadata, "with other metadata only", "with other metadata only"),
    )
}

/// The target of a link, which need not be a path that a snapshot could hold.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    text::exact(bytes)
}

/// `drwxr-xr-x`.
fn mode(entry: &ManifestEntry) -> String {
    let kind = match entry.kind {
        EntryKind::File { .. } | EntryKind::Hardlink { .. } => '-',
        EntryKind::Dir => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
    };
    let bits = entry.owner.mode;
    let mut text = String::from(kind);
    for (shift, special, letters) in [(6, 0o4000, ('s', 'S')), (3, 0o2000, ('s', 'S')), (0, 0o1000, ('t', 'T'))] {
        let three = bits >> shift;
        text.push(if three & 4 != 0 { 'r' } else { '-' });
        text.push(if three & 2 != 0 { 'w' } else { '-' });
        text.push(match (three & 1 != 0, bits & special != 0) {
            (true, true) => letters.0,
            (false, true) => letters.1,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::repo::entry::{OwnerAndMode, TreePath, UnixNanos};

    fn sample(path: &[u8], kind: EntryKind, mode: u16) -> ManifestEntry {
        ManifestEntry {
            path: TreePath::new(path).unwrap(),
            kind,
            owner: OwnerAndMode { mode, uid: 1000, gid: 33, user: "app".into(), group: "".into() },
            mtime: UnixNanos::new(1_795_136_400, 5),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn long_lines_look_like_those_of_ls() {
        let path = |text: &str| TreePath::new(text).unwrap();
        let all = [
            sample(b"srv/app", EntryKind::Dir, 0o1777),
            sample(b"srv/app/big", EntryKind::File { size: 1_234_567_890, extents: None, chunks: Vec::new() }, 0o644),
            sample(b"srv/app/again", EntryKind::Hardlink { target: path("srv/app/big") }, 0o644),
            sample(b"srv/app/su", EntryKind::File { size: 1, extents: None, chunks: Vec::new() }, 0o4755),
            sample(b"srv/app/odd\xff\n", EntryKind::File { size: 0, extents: None, chunks: Vec::new() }, 0o2640),
            sample(b"srv/app/link", EntryKind::Symlink { target: b"../x\x1b[0m".to_vec() }, 0o777),
            sample(b"srv/app/pipe", EntryKind::Fifo, 0o600),
            sample(b"dev/sda", EntryKind::BlockDevice { major: 8, minor: 0 }, 0o660),
            sample(b"dev/null", EntryKind::CharDevice { major: 1, minor: 3 }, 0o666),
        ];
        let view = samples::view();
        insta::assert_snapshot!(all.iter().map(|e| entry(e, true, &view)).collect::<String>());
        insta::assert_snapshot!(entry(&all[4], false, &view), @r"/srv/app/odd\xff\n");
        let hit = FindMatch { snapshot: samples::digest(0x3f), entry: all[1].clone() };
        insta::assert_snapshot!(found_entry(&hit, false, &view), @"3f2a91c0  /srv/app/big");
    }

    #[test]
    fn diff_lines_carry_a_sign_and_a_total() {
        let mut counts = DiffCounts::default();
        let mut text = String::new();
        for (change, name) in [
            (DiffChange::New, "new"),
            (DiffChange::Removed, "gone"),
            (DiffChange::Content, "more"),
            (DiffChange::Metadata, "mode"),
        ] {
            counts.add(change);
            let path = TreePath::new(format!("srv/{name}")).unwrap();
            text += &diff(&DiffLine { path, change, size_before: 10, size_after: 2048 });
        }
        insta::assert_snapshot!(text + &diff_total(&counts));
        insta::assert_snapshot!(diff_total(&DiffCounts::default()), @"no differences");
    }
}
