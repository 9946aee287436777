//! Pure. The text of keys.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A key as text. Each byte that is no UTF-8 becomes U+FFFD and its two hex digits, so that different keys stay
/// different.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(out, "\u{fffd}{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// Decodes a key of S3 Inventory, in which a space is `+` and other bytes are `%` with two hex digits.
pub(super) fn url_decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) if let (Some(high), Some(low)) = (hex(*high), hex(*low)) => {
                out.push(high << 4 | low);
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

/// Whether a key may be encoded: it has no byte that encoding replaces.
pub(super) fn is_url_encoded(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let plain = byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        let escape = byte != b'%' || matches!(after, [high, low, ..] if hex(*high).is_some() && hex(*low).is_some());
        if !plain || !escape {
            return false;
        }
        rest = after;
    }
    true
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_bytes_give_different_keys() {
        assert_eq!(text(b"app/a.tar"), "app/a.tar");
        assert_eq!(text("däta/Ü".as_bytes()), "däta/Ü");
        assert_eq!(text(b"a\xff/b"), "a\u{fffd}ff/b");
        assert_ne!(text(b"a\xfe"), text(b"a\xff"));
    }

    #[test]
    fn a_key_of_an_inventory_is_decoded() {
        assert_eq!(&*url_decoded(b"a+b%2Bc%2fd%C3%A4"), "a b+c/dä".as_bytes());
        assert_eq!(&*url_decoded(b"100%"), b"100%");
        assert!(is_url_encoded(b"a+b%2B/c") && !is_url_encoded(b"a b") && !is_url_encoded(b"100%"));
    }
}
