//! Objects that people can read: one line of JSON, and a second line with a MAC over the exact bytes of the first.
//!
//! The second line names the generation of the repository key that the MAC is made with, unless it is the first one.
//! The reader decides which generations are accepted: a statement about the present needs the MAC of the newest one.
//!
//! Pure.

use crate::ids::KeyGeneration;
use crate::repo::crypto::DerivedKeys;

/// Why such an object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacLineError {
    /// The object is not one line of JSON and a MAC line.
    #[error("not a line of JSON with a MAC line after it")]
    Shape,
    /// The MAC does not match the line.
    #[error("its MAC does not fit: it was changed, or belongs to another repository")]
    Forged,
    /// The MAC's generation is not accepted here, or not known.
    #[error("its MAC is of generation {0} of the repository key")]
    Generation(KeyGeneration),
}

const MAC_PREFIX: &[u8] = b"{\"mac\":\"";
const MAC_LEN: usize = 64;
const MAC_SUFFIX: &[u8] = b"\"}\n";
const GENERATION_PREFIX: &[u8] = b"\",\"generation\":";
const GENERATION_SUFFIX: &[u8] = b"}\n";

/// The object for this line, with the MAC of the current generation.
pub(crate) fn seal(line: &[u8], keys: &DerivedKeys) -> Vec<u8> {
    seal_by(line, keys, keys.generation())
}

/// The object for this line, with the MAC of this generation, which the keys have.
pub(crate) fn seal_by(line: &[u8], keys: &DerivedKeys, generation: KeyGeneration) -> Vec<u8> {
    seal_with(line, generation, keys.line_mac_by(generation, line).expect("what is written under is in the keyring"))
}

/// The object for this line, with this MAC of this generation.
fn seal_with(line: &[u8], generation: KeyGeneration, mac: [u8; 32]) -> Vec<u8> {
    let mut object = line.to_vec();
    object.push(b'\n');
    object.extend_from_slice(MAC_PREFIX);
    object.extend_from_slice(hex::encode(mac).as_bytes());
    if generation.is_first() {
        object.extend_from_slice(MAC_SUFFIX);
    } else {
        object.extend_from_slice(GENERATION_PREFIX);
        object.extend_from_slice(generation.to_string().as_bytes());
        object.extend_from_slice(GENERATION_SUFFIX);
    }
    object
}

/// The first line, its MAC and the MAC's generation, unchecked.
pub(crate) fn split(object: &[u8]) -> Result<(&[u8], [u8; 32], KeyGeneration), MacLineError> {
    let end = object.iter().position(|&b| b == b'\n').ok_or(MacLineError::Shape)?;
    let (line, rest) = (&object[..end], &object[end + 1..]);
    let rest = rest.strip_prefix(MAC_PREFIX).and_then(|rest| rest.split_at_checked(MAC_LEN));
    let (mac, rest) = rest.ok_or(MacLineError::Shape)?;
    let mut bytes = [0; 32];
    // Lower case only, so that an object has one spelling.
    if mac.iter().any(u8::is_ascii_uppercase) || hex::decode_to_slice(mac, &mut bytes).is_err() {
        return Err(MacLineError::Shape);
    }
    let generation = if rest == MAC_SUFFIX { Some(KeyGeneration::FIRST) } else { generation(rest) };
    Ok((line, bytes, generation.ok_or(MacLineError::Shape)?))
}

/// Parses the number of a later generation, in its only spelling.
fn generation(rest: &[u8]) -> Option<KeyGeneration> {
    let digits = rest.strip_prefix(GENERATION_PREFIX)?.strip_suffix(GENERATION_SUFFIX)?;
    let number: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 0 && number.to_string().as_bytes() == digits).then_some(KeyGeneration(number))
}

/// The first line, if the MAC matches and is of the current generation.
pub(crate) fn open<'a>(object: &'a [u8], keys: &DerivedKeys) -> Result<&'a [u8], MacLineError> {
    open_by(object, keys, keys.generation())
}

/// The first line, if the MAC matches and is of this generation.
pub(crate) fn open_by<'a>(
    object: &'a [u8],
    keys: &DerivedKeys,
    wanted: KeyGeneration,
) -> Result<&'a [u8], MacLineError> {
    let (line, generation) = open_any(object, keys)?;
    if generation == wanted { Ok(line) } else { Err(MacLineError::Generation(generation)) }
}

/// The first line and the generation of its MAC, if the MAC matches.
pub(crate) fn open_any<'a>(object: &'a [u8], keys: &DerivedKeys) -> Result<(&'a [u8], KeyGeneration), MacLineError> {
    let (line, mac, generation) = split(object)?;
    let expected = keys.line_mac_by(generation, line).ok_or(MacLineError::Generation(generation))?;
    aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &mac).map_err(|_| MacLineError::Forged)?;
    Ok((line, generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::{keys, rotated};

    #[test]
    fn what_an_older_generation_vouches_for_is_not_of_the_present() {
        let old = keys(Cipher::Aes256GcmSiv);
        let (_, new) = rotated(&old);
        let (before, after) = (seal(b"{}", &old), seal(b"{}", &new));
        assert!(after.ends_with(b",\"generation\":1}\n"), "{}", String::from_utf8_lossy(&after));
        assert_eq!(open(&before, &old), Ok(&b"{}"[..]));
        assert_eq!(open(&after, &new), Ok(&b"{}"[..]));
        assert_eq!(open(&before, &new), Err(MacLineError::Generation(KeyGeneration(0))), "a holder of the old key");
        assert_eq!(open(&after, &old), Err(MacLineError::Generation(KeyGeneration(1))));
        assert_eq!(open_any(&before, &new), Ok((&b"{}"[..], KeyGeneration(0))));
        // The old MAC with the new generation's number, and the new MAC with the old one.
        assert_eq!(open(&seal_with(b"{}", KeyGeneration(1), old.line_mac(b"{}")), &new), Err(MacLineError::Forged));
        assert_eq!(open_any(&seal_with(b"{}", KeyGeneration(0), new.line_mac(b"{}")), &new), Err(MacLineError::Forged));
    }

    #[test]
    fn a_generation_has_one_spelling() {
        let keys = keys(Cipher::Aes256GcmSiv);
        let text = String::from_utf8(seal_with(b"{}", KeyGeneration(12), keys.line_mac(b"{}"))).unwrap();
        assert_eq!(split(text.as_bytes()).unwrap().2, KeyGeneration(12));
        for other in ["012", "+12", "0", "", "65536", "12 ", "-1", "1e1"] {
            let other = text.replace(":12}", &format!(":{other}}}"));
            assert_eq!(split(other.as_bytes()), Err(MacLineError::Shape), "{other}");
        }
    }
}
