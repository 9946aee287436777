//! Encodes and decodes the LEB128 integers and length-prefixed strings that every stored binary type is made of.
//!
//! A reader never trusts a count: it is checked against the bytes that are left before anything is allocated, so that a
//! damaged object causes an error and no large allocation.
//!
//! Pure.

/// The error for bytes that do not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    /// What was expected, or what is wrong with the bytes.
    pub what: &'static str,
}

/// Returns a [`DecodeError`] with this text.
pub(crate) fn decode_error<T>(what: &'static str) -> Result<T, DecodeError> {
    Err(DecodeError { what })
}

/// Appends `value` as LEB128: seven bits a byte, least significant first, high bit set on all but the last.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zigzag-coded (0, -1, 1, -2 … become 0, 1, 2, 3 …), so that small negatives stay short.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends the length of `bytes`, then the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of a slice.
#[derive(Debug, Clone)]
pub(crate) struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless every byte was read: with trailing bytes one value would have several encodings.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { decode_error("bytes after the end") }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else { return decode_error("ends too early") };
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("take gives the length asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return decode_error("an integer over 64 bits");
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // One value has one encoding: a padded one would make equal values differ.
                return if byte == 0 && shift > 0 { decode_error("an integer with padding") } else { Ok(value) };
            }
        }
        decode_error("an integer over 64 bits")
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).or(decode_error("an integer over 32 bits"))
    }

    /// Reads the number of items that take at least `min_bytes` each.
    pub(crate) fn count(&mut self, min_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(n) if n.checked_mul(min_bytes).is_some_and(|need| need <= self.remaining()) => Ok(n),
            _ => decode_error("a count beyond the end"),
        }
    }

    /// Reads bytes with their length in front.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.take(len)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers that are too large for any real count. A decoder that allocates by one of them fails.
    pub(crate) const LIES: [u64; 2] = [1 << 40, u64::MAX];

    /// Replaces the byte at `at` in `bytes` with an encoded number.
    pub(crate) fn with_number(bytes: &[u8], at: usize, number: u64) -> Vec<u8> {
        let mut out = bytes[..at].to_vec();
        put_varint(&mut out, number);
        out.extend_from_slice(&bytes[at + 1..]);
        out
    }

    /// Asserts what holds for every decoder of a type with one encoding: it refuses truncated bytes, accepts only bytes
    /// that an encoder would have written, and trusts no count. `again` decodes and encodes.
    pub(crate) fn assert_strict(bytes: &[u8], again: impl Fn(&[u8]) -> Result<Vec<u8>, DecodeError>) {
        let is_canonical = |bytes: &[u8]| again(bytes).is_ok_and(|written| written == bytes);
        assert!(is_canonical(bytes));
        assert!(again(&[bytes, b"\0"].concat()).is_err(), "one byte more");
        for at in 0..bytes.len() {
            assert!(again(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                assert!(again(&flipped).is_err() || is_canonical(&flipped), "bit {bit} of byte {at}");
            }
            for lie in LIES {
                let lying = with_number(bytes, at, lie);
                assert!(again(&lying).is_err() || is_canonical(&lying), "{lie} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            let mut reader = ByteReader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_accepted_integer_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = ByteReader::new(&bytes);
            if let Ok(value) = reader.varint() {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(&bytes[..bytes.len() - reader.remaining()], &out[..]);
            }
        }
    }

    #[test]
    fn a_count_is_checked_before_anything_is_allocated() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert!(ByteReader::new(&out).count(1).is_err());
        assert!(ByteReader::new(&out).bytes().is_err());
        assert!(ByteReader::new(&[0x80, 0x00]).varint().is_err());
    }
}
