//! Objects that people can read: one line of JSON, and a second line with a MAC over the exact bytes of the first.

use crate::repo::crypto::Keys;

/// Why such an object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not have the shape.
    #[error("not a line of JSON with a MAC line after it")]
    Shape,
    /// The MAC does not fit the line.
    #[error("its MAC does not fit: it was changed, or belongs to another repository")]
    Forged,
}

const MAC_PREFIX: &[u8] = b"{\"mac\":\"";
const MAC_SUFFIX: &[u8] = b"\"}\n";

/// The object for this line.
pub(crate) fn seal(line: &[u8], keys: &Keys) -> Vec<u8> {
    let mut object = line.to_vec();
    object.push(b'\n');
    object.extend_from_slice(MAC_PREFIX);
    object.extend_from_slice(hex::encode(keys.line_mac(line)).as_bytes());
    object.extend_from_slice(MAC_SUFFIX);
    object
}

/// The first line and the MAC, unchecked.
pub(crate) fn split(object: &[u8]) -> Result<(&[u8], [u8; 32]), LineError> {
    let end = object.iter().position(|&b| b == b'\n').ok_or(LineError::Shape)?;
    let (line, rest) = (&object[..end], &object[end + 1..]);
    let mac = rest.strip_prefix(MAC_PREFIX).and_then(|r| r.strip_suffix(MAC_SUFFIX)).ok_or(LineError::Shape)?;
    let mut bytes = [0; 32];
    // Lower case only: one object, one spelling.
    if mac.iter().any(u8::is_ascii_uppercase) || hex::decode_to_slice(mac, &mut bytes).is_err() {
        return Err(LineError::Shape);
    }
    Ok((line, bytes))
}

/// The first line, if the MAC fits it.
pub(crate) fn open<'a>(object: &'a [u8], keys: &Keys) -> Result<&'a [u8], LineError> {
    let (line, mac) = split(object)?;
    aws_lc_rs::constant_time::verify_slices_are_equal(&keys.line_mac(line), &mac).map_err(|_| LineError::Forged)?;
    Ok(line)
}
