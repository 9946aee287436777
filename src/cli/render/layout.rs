//! The one place that breaks lines: sentences and tables at the width of the page. Pure.

use unicode_width::UnicodeWidthStr as _;

use crate::text::{self, ADVICE};

/// The widest that sentences get, in columns, however wide the terminal is.
pub const TEXT_WIDTH_MAX: usize = 80;

/// The narrowest width that is assumed for a terminal: below it each word would get a line of its own.
const WIDTH_MIN: usize = 20;

/// The narrowest width to which the last column of a table is broken.
const LAST_CELL_MIN: usize = 20;

/// The width of a page, in columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLayout {
    /// The width of sentences.
    text: usize,
    /// The width of items that are one line by nature: a row of a table, an entry of a listing.
    line: usize,
}

impl PageLayout {
    /// The page of a file or a pipe. A row stays one line there, for grep.
    pub const FILE: Self = Self { text: TEXT_WIDTH_MAX, line: usize::MAX };

    /// The page of a log, or of standard error without a terminal: each message is one line.
    pub const LOG: Self = Self { text: usize::MAX, line: usize::MAX };

    /// [`PageLayout::FILE`] for a reader that shows `columns` columns.
    pub fn file(columns: usize) -> Self {
        Self { text: columns.clamp(WIDTH_MIN, TEXT_WIDTH_MAX), ..Self::FILE }
    }

    /// A terminal of `columns` columns.
    pub fn terminal(columns: usize) -> Self {
        let columns = columns.max(WIDTH_MIN);
        Self { text: columns.min(TEXT_WIDTH_MAX), line: columns }
    }

    /// The columns of a drawing: the width of sentences, also where lines have no end.
    pub fn columns(self) -> usize {
        self.text.min(TEXT_WIDTH_MAX)
    }

    /// Whether `line` fits into one line of this page.
    pub fn fits(self, line: &str) -> bool {
        width(line) <= self.line
    }

    /// Breaks `text` into lines of this width: the first after `first`, the others indented by `indent`. Words longer
    /// than a line stay whole, so that paths can be copied. The result ends with a newline.
    pub fn wrap(self, first: &str, indent: usize, text: &str) -> String {
        // On a narrow page a deep indent would leave no room.
        fill(self.text, first, indent.min(self.text / 4), text)
    }

    /// As [`PageLayout::wrap`], with a hint at the end of the text on a line of its own. In a log a message stays one
    /// line.
    pub fn wrap_advised(self, first: &str, indent: usize, text: &str) -> String {
        match text::advised(text).filter(|_| self.text < usize::MAX) {
            Some((what, todo)) => self.wrap(first, indent, what) + &self.wrap(&format!("  {ADVICE}"), 4, todo),
            None => self.wrap(first, indent, text),
        }
    }

    /// [`PageLayout::wrap`] for an item that is one line by nature, such as a path and its problem: only a terminal
    /// breaks it.
    pub fn row(self, first: &str, indent: usize, text: &str) -> String {
        fill(self.line, first, indent, text)
    }

    /// Breaks a text of several lines: each line by itself, below its own indent.
    pub fn wrap_lines(self, text: &str) -> String {
        let line = |line: &str| {
            let rest = line.trim_start_matches(' ');
            let indent = line.len() - rest.len();
            if width(line) <= self.text { format!("{line}\n") } else { self.wrap(&line[..indent], indent + 2, rest) }
        };
        text.lines().map(line).collect()
    }

    /// A table without rules; `right` tells which columns are numbers. If its rows do not fit, the last cell of each is
    /// broken; if there is no room for that either, each row becomes a paragraph: its first cell, and the others below
    /// with their headings.
    pub fn table<const N: usize>(
        self,
        header: [&str; N],
        right: [bool; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> String {
        // A row is one line, whatever its cells contain.
        let rows: Vec<[String; N]> =
            rows.into_iter().map(|row| row.map(|cell| text::line(&cell).into_owned())).collect();
        let table = lines(header, right, &rows);
        if table.lines().all(|line| self.fits(line)) {
            return table;
        }
        let mut fixed = rows.clone();
        for row in &mut fixed {
            row[N - 1].clear();
        }
        let mut heading = header;
        heading[N - 1] = "";
        let fixed = lines(heading, right, &fixed);
        let offset = fixed.lines().map(width).max().unwrap_or_default() + 2;
        if right[N - 1] || offset + LAST_CELL_MIN > self.line {
            return rows.iter().map(|row| self.paragraph(header, row)).collect();
        }
        let last = std::iter::once(header[N - 1]).chain(rows.iter().map(|row| row[N - 1].as_str()));
        let line = |(line, last): (&str, &str)| {
            let first = format!("{line}{}", " ".repeat(offset.saturating_sub(width(line))));
            fill(self.line, &first, offset, last)
        };
        fixed.lines().zip(last).map(line).collect()
    }

    fn paragraph<const N: usize>(self, header: [&str; N], row: &[String; N]) -> String {
        let mut cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        let first = cells.next().map(|(name, cell)| format!("{} {cell}", name.to_lowercase()));
        let mut out = self.wrap("", 2, &first.unwrap_or_default());
        let widest = header.iter().map(|name| width(name)).max().unwrap_or_default();
        for (name, cell) in cells {
            out += &self.wrap(&format!("  {:<widest$}  ", name.to_lowercase()), widest + 4, cell);
        }
        out
    }
}

/// [`PageLayout::wrap`] for `most` columns.
fn fill(most: usize, first: &str, indent: usize, text: &str) -> String {
    let mut out = String::from(first);
    let mut column = width(first);
    // The beginning of the line counts as a word of it: if the next word does not fit after it, that word goes below.
    let mut fresh = first.trim_end().is_empty();
    for word in glued(&text::without_os_error(text)) {
        let len = width(&word);
        let space = usize::from(!out.is_empty() && !out.ends_with(' ') && column > 0);
        if !fresh && column + space + len > most && column > indent {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if space > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += len;
        fresh = false;
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
    out
}

fn lines<const N: usize>(header: [&str; N], right: [bool; N], rows: &[[String; N]]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    // This library does not break cells: [`PageLayout::table`] breaks what does not fit, and in a pipe a row stays one
    // line for grep.
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows.iter().cloned());
    for (i, (column, right)) in table.column_iter_mut().zip(right).enumerate() {
        column.set_padding((0, if i + 1 == N { 0 } else { 2 }));
        if right {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let mut shown = table.trim_fmt();
    shown.push('\n');
    shown
}

/// `text` for a screen of `rows` rows that shows another text: it is written over it row by row, so that the screen is
/// never empty. Lines that do not fit are counted, so that nothing scrolls.
pub fn screen(text: &str, rows: usize) -> String {
    const HOME: &str = "\x1b[H";
    const END_LINE: &str = "\x1b[K\n";
    const CLEAR_BELOW: &str = "\x1b[J";
    let lines: Vec<&str> = text.lines().collect();
    // The last row is for the cursor.
    let room = rows.saturating_sub(1).max(2);
    let shown = if lines.len() > room { room - 1 } else { lines.len() };
    let mut out = String::from(HOME);
    for line in &lines[..shown] {
        out += &format!("{line}{END_LINE}");
    }
    if shown < lines.len() {
        out += &format!("... {} more lines: a taller terminal shows them{END_LINE}", lines.len() - shown);
    }
    out + CLEAR_BELOW
}

/// The columns that `text` takes. Control characters are not in it, or are escaped when it is shown.
fn width(text: &str) -> usize {
    text.width()
}

/// The words of `text`; a number and its unit count as one word.
fn glued(text: &str) -> Vec<String> {
    const UNITS: [&str; 14] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "bytes", "ms", "s", "min", "h", "d", "%"];
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let bare = word.trim_end_matches([',', ';', '.', ')']);
        match words.last_mut() {
            Some(number) if UNITS.contains(&bare) && number.ends_with(|c: char| c.is_ascii_digit()) => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_fit_and_lose_no_word() {
        let text = "word ".repeat(60);
        for columns in [80, 40, 20] {
            let wrapped = PageLayout::terminal(columns).wrap("app: ", 2, &text);
            assert!(wrapped.lines().all(|line| line.chars().count() <= columns), "{wrapped}");
            assert_eq!(wrapped.split_whitespace().count(), 61);
        }
        assert_eq!(PageLayout::terminal(200), PageLayout { text: 80, line: 200 });
        assert_eq!(PageLayout::LOG.wrap("error: ", 2, &text).lines().count(), 1);
        assert_eq!(glued("a 4.2 MiB, 1 file"), ["a", "4.2 MiB,", "1", "file"], "a number keeps its unit");
        let path = "x".repeat(100);
        assert_eq!(PageLayout::FILE.wrap("", 2, &path), format!("{path}\n"), "a path stays whole");
        assert_eq!(PageLayout::FILE.wrap("error: ", 2, &path), format!("error:\n  {path}\n"));
        assert_eq!(PageLayout::FILE.wrap("app:", 2, "one two"), "app: one two\n");
        assert_eq!(PageLayout::terminal(20).wrap("", 2, "日本語日本語 日本語日本語"), "日本語日本語\n  日本語日本語\n");
    }

    #[test]
    fn lines_keep_their_own_indent() {
        let text = format!("short  one\n  {}", "word ".repeat(20));
        let shown = PageLayout::terminal(40).wrap_lines(&text);
        assert!(shown.starts_with("short  one\n  word") && shown.contains("\n    word"), "{shown}");
        assert!(shown.lines().all(|line| line.len() <= 40), "{shown}");
    }

    #[test]
    fn a_screen_is_drawn_over_and_never_scrolls() {
        assert_eq!(screen("a\nb\n", 24), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        let long = "x\n".repeat(30);
        assert_eq!(screen(&long, 24).matches('\n').count(), 23);
        assert!(screen(&long, 24).contains("... 8 more lines"));
    }

    #[test]
    fn the_last_cell_is_broken_before_the_row() {
        let rows = [["1".to_owned(), "word ".repeat(9)], ["12".to_owned(), "x".to_owned()]];
        let shown = PageLayout::terminal(30).table(["SEQ", "WHAT"], [true, false], rows);
        assert_eq!(shown, "SEQ  WHAT\n  1  word word word word word\n     word word word word\n 12  x\n");
    }

    #[test]
    fn a_row_that_does_not_fit_is_a_paragraph() {
        let rows = || [["app".to_owned(), "active".to_owned(), "12".to_owned()]];
        let table = |page: PageLayout| page.table(["ROLE", "HERE", "TERM"], [false, false, true], rows());
        assert_eq!(table(PageLayout::FILE), "ROLE  HERE    TERM\napp   active    12\n");
        assert_eq!(table(PageLayout::terminal(20)), table(PageLayout::FILE));
        let narrow = PageLayout { text: 17, line: 17 };
        assert_eq!(table(narrow), "role app\n  here  active\n  term  12\n");
    }
}
