//! Makes foreign text safe to show: the one place that decides which characters may control a terminal, forge a line or
//! look like something else. All text passes through it where it leaves the program: standard output and standard
//! error, the log, alerts.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;

/// Invisible characters, or characters that change the direction of the text around them: a name with one of them reads
/// as another name.
const DECEPTIVE: [(char, char); 18] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200b}'),
    ('\u{200e}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
    ('\u{f0000}', '\u{10ffff}'),
];

/// They join or separate letters, which some scripts and emoji need; next to a Latin letter they only hide something.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];

/// They select the form of the character before them; behind a Latin letter they only hide something.
const VARIATIONS: std::ops::RangeInclusive<char> = '\u{fe00}'..='\u{fe0f}';

/// Whether `c` is shown unchanged, between the characters before and after it.
fn is_plain(before: Option<char>, c: char, after: Option<char>) -> bool {
    if JOINERS.contains(&c) {
        return [before, after]
            .iter()
            .all(|near| near.is_some_and(|near| !near.is_ascii() && is_plain(None, near, None)));
    }
    if VARIATIONS.contains(&c) {
        return before.is_some_and(|before| !before.is_ascii() && is_plain(None, before, None));
    }
    !c.is_control() && !DECEPTIVE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Replaces with `write` the characters of `text` that are neither plain nor accepted by `keep`.
fn replaced(text: &str, keep: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    // Almost all text is printable ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') || keep(byte.into()) && byte.is_ascii()) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut before) = (String::with_capacity(text.len()), None);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if keep(c) || is_plain(before, c, rest.peek().copied()) {
            out.push(c);
        } else {
            write(&mut out, c);
        }
        before = Some(c);
    }
    Cow::Owned(out)
}

/// The prefix of the remedy in an error's message. Alerts omit it, because the hint is for the user who started the
/// run.
pub const ADVICE: &str = "hint: ";

/// Splits an error's message into the error, with its full stop, and the hint.
pub fn advised(said: &str) -> Option<(&str, &str)> {
    let at = said.find(&format!(". {ADVICE}"))?;
    Some((&said[..=at], &said[at + 2 + ADVICE.len()..]))
}

/// The text as one line: line breaks too are escaped, as in a literal (`\n`, `\u{202e}`).
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, |_| false, |out, c| out.extend(c.escape_default()))
}

/// The text as lines: line breaks and tabs stay, everything else is escaped as in [`line()`].
pub fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| matches!(c, '\n' | '\t'), |out, c| out.extend(c.escape_default()))
}

/// A JSON document with deceptive characters escaped. Its meaning stays the same: such a character can only occur in a
/// string, where JSON has an escape for it.
pub fn json(document: &str) -> Cow<'_, str> {
    replaced(
        document,
        |c| matches!(c, '\n' | '\t' | '\r'),
        |out, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

/// Bytes as one unambiguous line: invalid UTF-8 as `\xNN`, and a backslash as two.
pub fn exact(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (at, part) in chunk.valid().split('\\').enumerate() {
            if at > 0 {
                out.push_str("\\\\");
            }
            out.push_str(&line(part));
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// An error's message with the TLS library's texts about certificates and plain HTTP servers replaced by texts that
/// help the operator.
pub fn of_tls(said: &str) -> Cow<'_, str> {
    /// The library's text and its replacement; longer texts come before those that they contain.
    const WORDS: [(&str, &str); 4] = [
        ("Other(OtherError(CaUsedAsEndEntity))", OWN_AUTHORITY),
        ("OtherError(CaUsedAsEndEntity)", OWN_AUTHORITY),
        ("CaUsedAsEndEntity", OWN_AUTHORITY),
        ("received corrupt message of type InvalidContentType", "the answer is not TLS; is it a port for http://?"),
    ];
    const OWN_AUTHORITY: &str = "the server shows an authority's own certificate (CA:TRUE), as openssl req -x509 makes it; make it with -addext \
                                 basicConstraints=critical,CA:FALSE";
    let said = match WORDS.into_iter().find(|(name, _)| said.contains(name)) {
        None => Cow::Borrowed(said),
        Some((name, words)) => Cow::Owned(said.replace(name, words)),
    };
    match out_of_date(&said) {
        None => said,
        Some(dated) => Cow::Owned(dated),
    }
}

/// The message about an expired certificate, with dates instead of seconds since 1970.
fn out_of_date(said: &str) -> Option<String> {
    let (before, rest) = said.split_once(": verification time ")?;
    let (now, rest) = rest.split_once(" (UNIX), but certificate is not valid ")?;
    let (word, rest) = rest.split_once(' ')?;
    let (limit, rest) = rest.split_once(" (")?;
    let (_, after) = rest.split_once(')')?;
    let date = |seconds: &str| Some(Timestamp::from_second(seconds.parse().ok()?).ok()?.strftime("%Y-%m-%d %H:%M UTC"));
    Some(format!("{before}: it is not valid {word} {}, and here it is {}{after}", date(limit)?, date(now)?))
}

/// An error's message without the error number that the standard library appends to the operating system's text.
pub fn without_os_error(said: &str) -> Cow<'_, str> {
    const BEFORE: &str = " (os error ";
    let (mut out, mut rest) = (String::new(), said);
    while let Some((before, after)) = rest.split_once(BEFORE) {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let is_number = digits > 0 && after[digits..].starts_with(')');
        out += before;
        if is_number {
            rest = &after[digits + 1..];
        } else {
            out += BEFORE;
            rest = after;
        }
    }
    if out.is_empty() { Cow::Borrowed(said) } else { Cow::Owned(out + rest) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_to_do_is_told_from_what_is_wrong() {
        assert_eq!(
            advised("it is full (1.5 GiB). hint: make room. Then go on."),
            Some(("it is full (1.5 GiB).", "make room. Then go on."))
        );
        assert_eq!(advised("a hint: none"), None);
    }

    #[test]
    fn the_numbers_of_the_operating_system_go() {
        for (said, shown) in [
            ("x: Permission denied (os error 13)", "x: Permission denied"),
            (
                "Read-only file system (os error 30), here; No space left (os error 28)",
                "Read-only file system, here; No space left",
            ),
            ("nothing of it", "nothing of it"),
            ("a name (os error x) (os error 7", "a name (os error x) (os error 7"),
        ] {
            assert_eq!(without_os_error(said), shown);
        }
    }

    #[test]
    fn a_certificate_of_an_authority_is_refused_in_words() {
        let said = of_tls("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))").into_owned();
        assert!(said.contains("openssl req -x509") && !said.contains("Other"), "{said}");
        let plain = "invalid peer certificate: UnknownIssuer";
        assert_eq!(of_tls(plain), plain);
        for (said, shown) in [
            (
                "certificate expired: verification time 1796053183 (UNIX), but certificate is not valid after 1580428800 (215624383 seconds ago): x",
                "certificate expired: it is not valid after 2020-01-31 00:00 UTC, and here it is 2026-11-30 15:39 UTC: x",
            ),
            (
                "certificate not valid yet: verification time 1580428800 (UNIX), but certificate is not valid before 1796053183 (215624383 seconds in future)",
                "certificate not valid yet: it is not valid before 2026-11-30 15:39 UTC, and here it is 2020-01-31 00:00 UTC",
            ),
            (
                "TLS handshake failed: received corrupt message of type InvalidContentType",
                "TLS handshake failed: the answer is not TLS; is it a port for http://?",
            ),
        ] {
            assert_eq!(of_tls(said), shown);
        }
    }

    #[test]
    fn what_steers_or_deceives_is_written_out() {
        for (given, shown) in [
            ("plain, grün, 日本語, 👩‍👩‍👧, می‌خواهم", "plain, grün, 日本語, 👩‍👩‍👧, می‌خواهم"),
            ("\u{1b}]0;owned\u{7}", "\\u{1b}]0;owned\\u{7}"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("exe.\u{202e}gpj", "exe.\\u{202e}gpj"),
            ("a\u{2028}b\u{2029}\u{2066}\u{feff}", "a\\u{2028}b\\u{2029}\\u{2066}\\u{feff}"),
            ("a\u{200b}pp a\u{200d}pp \u{200c}x", "a\\u{200b}pp a\\u{200d}pp \\u{200c}x"),
            ("one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
            ("a\u{34f}pp a\u{fe0f}pp ❤\u{fe0f}", "a\\u{34f}pp a\\u{fe0f}pp ❤\u{fe0f}"),
        ] {
            assert_eq!(line(given), shown);
        }
        assert_eq!(lines("one\ntwo\tthree\u{1b}\r"), "one\ntwo\tthree\\u{1b}\\r");
        assert_eq!(exact(b"a\\n\n\xff\xe2\x80\xae"), "a\\\\n\\n\\xff\\u{202e}");
    }

    #[test]
    fn a_document_means_the_same_as_before() {
        let value = serde_json::json!({ "name": "a\u{202e}b\u{9b}\n\u{e0041}\u{1b}", "list": [1, "\u{2028}"] });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(shown.chars().all(|c| c == '\n' || is_plain(None, c, None)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    proptest! {
        #[test]
        fn nothing_deceptive_is_left_and_nothing_else_changes(text in ".*", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let (shown, exact) = (line(&text), exact(&bytes));
            for text in [&*shown, &exact] {
                let chars: Vec<char> = text.chars().collect();
                let near = |at: Option<usize>| at.and_then(|at| chars.get(at)).copied();
                for (at, c) in chars.iter().enumerate() {
                    prop_assert!(is_plain(near(at.checked_sub(1)), *c, near(Some(at + 1))), "{text:?}");
                }
            }
            if text.chars().all(|c| is_plain(None, c, None)) {
                prop_assert_eq!(&*shown, &*text);
            }
        }
    }
}
