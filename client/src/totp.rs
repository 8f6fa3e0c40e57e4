//! Time-based one-time codes (RFC 6238) of a seed that was opened: what people type, instead of the seed.
//!
//! A seed is base32 as targets show it (blanks, case and padding do not matter), or a whole
//! `otpauth://totp/…` address, which may name another hash, number of digits or period.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// The longest seed, in bytes.
const MAX_SEED: usize = 256;

/// A seed and how its codes are made.
pub struct Totp {
    key: hmac::Key,
    digits: u32,
    period_secs: u64,
}

/// The codes of a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    /// The code of now.
    pub code: String,
    /// The one after it.
    pub next: String,
    /// How long the first is valid.
    pub left_secs: u64,
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  for {} s, then {}",
            self.code, self.left_secs, self.next
        )
    }
}

impl Totp {
    /// Reads a seed; none where it is not one.
    pub fn parse(seed: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(seed).ok()?.trim();
        match text.strip_prefix("otpauth://totp/") {
            Some(rest) => Self::of_address(rest),
            None => Self::new(text, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 6, 30),
        }
    }

    fn of_address(rest: &str) -> Option<Self> {
        let (_, query) = rest.split_once('?')?;
        let (mut secret, mut hash, mut digits, mut period) =
            (None, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 6, 30);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "secret" => secret = Some(value),
                "algorithm" => {
                    hash = match value.to_ascii_uppercase().as_str() {
                        "SHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        "SHA256" => hmac::HMAC_SHA256,
                        "SHA512" => hmac::HMAC_SHA512,
                        _ => return None,
                    }
                }
                "digits" => digits = value.parse().ok()?,
                "period" => period = value.parse().ok()?,
                _ => {}
            }
        }
        Self::new(secret?, hash, digits, period)
    }

    fn new(base32: &str, hash: hmac::Algorithm, digits: u32, period_secs: u64) -> Option<Self> {
        let seed = decode(base32)?;
        let sound = (6..=8).contains(&digits) && (1..=3600).contains(&period_secs);
        (sound && !seed.is_empty()).then(|| Self {
            key: hmac::Key::new(hash, &seed),
            digits,
            period_secs,
        })
    }

    /// How long a code is good, in seconds.
    pub fn period(&self) -> u64 {
        self.period_secs
    }

    /// The codes at a second since 1970.
    pub fn at(&self, secs: u64) -> Option<Codes> {
        let step = secs.checked_div(self.period_secs)?;
        let gone = secs.checked_rem(self.period_secs)?;
        Some(Codes {
            code: self.code(step)?,
            next: self.code(step.checked_add(1)?)?,
            left_secs: self.period_secs.checked_sub(gone)?,
        })
    }

    /// RFC 4226, section 5.3.
    fn code(&self, step: u64) -> Option<String> {
        let tag = hmac::sign(&self.key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag.last()? & 0x0f);
        let four = tag.get(offset..offset.checked_add(4)?)?;
        let number = u32::from_be_bytes(four.try_into().ok()?) & 0x7fff_ffff;
        let code = number.checked_rem(10_u32.checked_pow(self.digits)?)?;
        let width = usize::try_from(self.digits).ok()?;
        Some(format!("{code:0width$}"))
    }
}

/// Base32 (RFC 4648) without regard to case, blanks and padding.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(MAX_SEED));
    let (mut buffer, mut bits) = (0_u32, 0_u32);
    let kept = |c: &char| !matches!(c, ' ' | '-' | '=');
    for character in text.trim_end_matches("%3D").chars().filter(kept) {
        let value = match character.to_ascii_uppercase() {
            letter @ 'A'..='Z' => u32::from(letter).checked_sub(u32::from('A'))?,
            digit @ '2'..='7' => u32::from(digit)
                .checked_sub(u32::from('2'))?
                .checked_add(26)?,
            _ => return None,
        };
        buffer = (buffer << 5) | value;
        bits = bits.checked_add(5)?;
        if bits >= 8 {
            bits = bits.checked_sub(8)?;
            out.push(u8::try_from((buffer >> bits) & 0xff).ok()?);
            buffer &= (1_u32 << bits).checked_sub(1)?;
        }
        if out.len() > MAX_SEED {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "12345678901234567890", and as long as each hash's block wants it.
    const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    const SEED_256: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA====";
    const SEED_512: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNA=";

    /// RFC 6238, appendix B.
    #[test]
    fn codes_are_those_of_the_standard() {
        for (secs, sha1, sha256, sha512) in [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ] {
            for (hash, seed, want) in [
                ("SHA1", SEED, sha1),
                ("SHA256", SEED_256, sha256),
                ("SHA512", SEED_512, sha512),
            ] {
                let address = format!(
                    "otpauth://totp/aws:root?secret={seed}&algorithm={hash}&digits=8&issuer=aws"
                );
                let codes = Totp::parse(address.as_bytes()).unwrap().at(secs).unwrap();
                assert_eq!(codes.code, want, "{hash} at {secs}");
            }
        }
    }

    #[test]
    fn a_seed_is_read_as_targets_show_it() {
        let plain = Totp::parse(SEED.as_bytes()).unwrap().at(59).unwrap();
        assert_eq!(
            (plain.code.as_str(), plain.left_secs, plain.next.as_str()),
            ("287082", 1, "359152")
        );
        assert_eq!(plain.to_string(), "287082  for 1 s, then 359152");
        for (name, seed, good) in [
            (
                "blanks and small letters",
                "gezd gnbv gy3t qojq gezd gnbv gy3t qojq\n",
                true,
            ),
            ("not base32", "correct horse 1890", false),
            ("nothing", "", false),
            (
                "another hash",
                "otpauth://totp/x?secret=GEZDGNBV&algorithm=MD5",
                false,
            ),
            (
                "ten digits",
                "otpauth://totp/x?secret=GEZDGNBV&digits=10",
                false,
            ),
            (
                "no period",
                "otpauth://totp/x?secret=GEZDGNBV&period=0",
                false,
            ),
            ("no secret", "otpauth://totp/x?digits=6", false),
        ] {
            let codes = Totp::parse(seed.as_bytes()).and_then(|seed| seed.at(59));
            assert_eq!(codes.is_some(), good, "{name}");
            assert!(!good || codes == Some(plain.clone()), "{name}");
        }
    }
}
