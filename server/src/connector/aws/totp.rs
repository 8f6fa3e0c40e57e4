//! RFC 6238 codes from a seed, as AWS's virtual devices take them: HMAC-SHA-1, 30 seconds, 6 digits.

use aws_lc_rs::hmac;
use keyturn_seal::secret::SecretBytes;

/// Seconds in which a code is good.
pub const STEP: u64 = 30;

/// A seed in the base32 of RFC 4648 (upper case, without padding), as bytes; none where it is not.
pub fn seed(base32: &[u8]) -> Option<SecretBytes> {
    let mut bits: u64 = 0;
    let mut held: u32 = 0;
    let mut out = Vec::with_capacity(base32.len());
    for digit in base32 {
        let value = match digit {
            b'A'..=b'Z' => digit.checked_sub(b'A')?,
            b'2'..=b'7' => digit.checked_sub(b'2')?.checked_add(26)?,
            _ => return None,
        };
        bits = (bits << 5) | u64::from(value);
        held = held.saturating_add(5);
        if held >= 8 {
            held = held.saturating_sub(8);
            out.push(u8::try_from((bits >> held) & 0xff).ok()?);
            bits &= (1_u64 << held).saturating_sub(1);
        }
    }
    (!out.is_empty() && bits == 0).then(|| SecretBytes::from(out))
}

/// The code of one step.
pub fn code(seed: &SecretBytes, step: u64) -> String {
    // `expose`: the key of the HMAC.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, seed.expose());
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last().copied().unwrap_or(0) & 0x0f);
    let word = tag
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |four| u32::from_be_bytes(*four) & 0x7fff_ffff);
    format!("{:06}", word.checked_rem(1_000_000).unwrap_or(0))
}

/// The codes of the step before this moment and of the step in it: two that follow each other and can
/// be sent at once.
pub fn consecutive(seed: &SecretBytes, unix_secs: u64) -> [String; 2] {
    let now = unix_secs.checked_div(STEP).unwrap_or(0);
    [code(seed, now.saturating_sub(1)), code(seed, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed of the RFC's appendix B; it gives eight digits, of which these are the last six.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let seed = seed(b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        assert_eq!(seed.expose(), b"12345678901234567890");
        for (secs, want) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(consecutive(&seed, secs)[1], want, "{secs}");
        }
        assert_eq!(consecutive(&seed, 1_111_111_111)[0], "081804");
    }

    #[test]
    fn what_is_not_base32_is_no_seed() {
        for (name, text) in [
            ("nothing", ""),
            ("lower case", "gezdgnbv"),
            ("padding", "GEZDGNA="),
            ("a digit that base32 lacks", "GEZD1NBV"),
            ("bits left over", "GEZDGNBVG7"),
        ] {
            assert!(seed(text.as_bytes()).is_none(), "{name}");
        }
    }
}
