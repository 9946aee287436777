//! The names of files that a restore has not completed. Pure.
//!
//! Such a name can be recognised by itself: part of it is a hash of the rest, so that no file of another program has
//! one by accident. A backup leaves such files out, and a restore removes those that an earlier one left behind.

/// The prefix of all such names.
const START: &[u8] = b".runner-";

/// Number of hexadecimal digits of the random number, and of its hash.
const RANDOM: usize = 16;
const CHECK: usize = 12;

/// The prefix of the names that a process with this random number uses.
pub(crate) fn prefix(random: [u8; RANDOM / 2]) -> String {
    let random = hex::encode(random);
    format!(".runner-{random}{}-", check(&random))
}

fn check(random: &str) -> String {
    let mut digits = blake3::derive_key("runner: the name of an unfinished file", random.as_bytes())
        .map(|b| format!("{b:02x}"))
        .concat();
    digits.truncate(CHECK);
    digits
}

/// Whether `name` is a temporary name of any restore.
pub fn is_unfinished(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(START) else { return false };
    let Some((random, rest)) = rest.split_at_checked(RANDOM) else { return false };
    let Some((hash, rest)) = rest.split_at_checked(CHECK) else { return false };
    let number = rest.strip_prefix(b"-").is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_hexdigit));
    number && std::str::from_utf8(random).is_ok_and(|random| check(random).as_bytes() == hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_it_is() {
        let name = format!("{}1f", prefix([7; 8]));
        assert!(is_unfinished(name.as_bytes()), "{name}");
        for other in [
            ".runner-0707070707070707-1f",
            ".runner-0707070707070707000000000000-1f",
            ".runner-",
            ".runner-notes",
            &prefix([7; 8]),
            &name.replace("-1f", "-1f.bak"),
            &name.replace(".runner", "runner"),
            &name.replacen('7', "8", 1),
        ] {
            assert!(!is_unfinished(other.as_bytes()), "{other}");
        }
    }
}
