//! A mail for a program such as `sendmail -t -i`, which gets it on its standard input. Pure.
//!
//! The body is quoted-printable: a sentence may be longer than the 998 characters that a line of a mail has, and have
//! characters that are not ASCII. Addresses come from the config, which refuses line breaks in them.

use std::fmt::Write as _;

use jiff::fmt::rfc2822;

use crate::alert::message::AlertMessage;

/// The most characters of an encoded line, without the `=` that continues it (RFC 2045, section 6.7).
const LINE_MAX: usize = 75;

/// The mail, with lines that end as the host's lines do.
pub(super) fn mail(message: &AlertMessage, from: Option<&str>, to: &[String]) -> String {
    let mut mail = String::new();
    if let Some(from) = from {
        let _ = writeln!(mail, "From: {from}");
    }
    let _ = writeln!(mail, "To: {}", to.join(", "));
    let _ = writeln!(mail, "Subject: {}", message.title());
    // A date beyond what a mail may have is left to the program.
    if let Ok(date) = rfc2822::DateTimePrinter::new().timestamp_to_string(&message.time) {
        let _ = writeln!(mail, "Date: {date}");
    }
    mail += "Auto-Submitted: auto-generated\n\
             MIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: quoted-printable\n\n";
    mail + &quoted_printable(&message.text) + "\n"
}

/// The text in lines that continue each other.
fn quoted_printable(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for (at, byte) in text.bytes().enumerate() {
        // A full stop or "From " at the begin of a line has a meaning for some programs; a blank at the end may be lost.
        let has_meaning =
            |column| (column == 0 && matches!(byte, b'.' | b'F')) || (byte == b' ' && at + 1 == text.len());
        let is_plain = (byte == b' ' || byte.is_ascii_graphic()) && byte != b'=';
        let width = |column| if is_plain && !has_meaning(column) { 1 } else { 3 };
        if column + width(column) > LINE_MAX {
            out += "=\n";
            column = 0;
        }
        if width(column) == 1 {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "={byte:02X}");
        }
        column += width(column);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::event::AlertPhase;

    #[test]
    fn a_mail_has_its_headers_and_an_encoded_body() {
        let message = AlertMessage::sample(AlertPhase::Begun, "app: ä = b");
        let to = ["ops@example.net".to_owned(), "Night <night@example.net>".to_owned()];
        assert_eq!(
            mail(&message, Some("runner@example.net"), &to),
            "From: runner@example.net\nTo: ops@example.net, Night <night@example.net>\nSubject: runner: app: failed\n\
             Date: Fri, 15 Jan 2027 08:00:00 -0000\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
             app: =C3=A4 =3D b\n"
        );
        assert!(mail(&message, None, &to).starts_with("To: "));
    }

    #[test]
    fn long_lines_continue_and_nothing_at_their_edges_is_lost() {
        for text in [". From west".repeat(40), "ü".repeat(200), " ".repeat(300), "From ".repeat(60)] {
            let encoded = quoted_printable(&text);
            assert!(encoded.lines().all(|line| line.len() <= LINE_MAX + 1), "{encoded}");
            assert!(encoded.lines().all(|line| !line.starts_with(['.', 'F']) && !line.ends_with(' ')), "{encoded}");
            assert_eq!(decoded(&encoded), text);
        }
    }

    /// The decoder of RFC 2045, written without the encoder.
    fn decoded(text: &str) -> String {
        let joined = text.replace("=\n", "");
        let (mut bytes, mut rest) = (Vec::new(), joined.as_bytes());
        while let [first, tail @ ..] = rest {
            if *first == b'=' {
                let digits = std::str::from_utf8(&tail[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        String::from_utf8(bytes).unwrap()
    }
}
