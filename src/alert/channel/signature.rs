//! The signature of a webhook's request, in the form that Stripe uses. Pure.
//!
//! The header is `Runner-Signature: t=TIME,v1=SIGNATURE`. `TIME` is the time of the attempt in seconds since 1970, in
//! decimal digits. `SIGNATURE` is the HMAC-SHA256, in 64 lower-case hexadecimal digits, of these bytes: the digits of
//! `TIME`, a full stop, and the body exactly as it is sent. A receiver that compares the signature in constant time and
//! refuses a time of more than five minutes ago accepts no forged request and no old one.

use aws_lc_rs::hmac;

/// The name of the header.
pub(super) const HEADER: &str = "Runner-Signature";

/// The value of the header for a body that is sent at `time`, in seconds since 1970.
pub(super) fn header_value(key: &[u8], time: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, format!("{time}.{body}").as_bytes());
    format!("t={time},v1={}", hex::encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_implementation_makes_the_same_signature() {
        // python3 -c 'import hmac;print(hmac.new(b"0123456789abcdef", b"1800000000.{\"a\":1}", "sha256").hexdigest())'
        assert_eq!(
            header_value(b"0123456789abcdef", 1_800_000_000, "{\"a\":1}"),
            "t=1800000000,v1=d3e17924cac4a72ca2ee9e5700df170fdb5733eaf69ecd909fb0c18a962b03a5"
        );
    }
}
