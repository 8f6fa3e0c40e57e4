//! Six words that people compare by voice.
//!
//! The words are the first 66 bits of a SHA-256 digest, eleven bits a word, most significant bit
//! first, in the English list of BIP-39 (2048 words; the first four letters of each are unique).

use crate::digest::Digest;

/// The list as BIP-39 publishes it: one word a line, in alphabetical order.
const LIST: &str = include_str!("words.txt");

/// Bits that one word stands for.
const BITS_PER_WORD: usize = 11;

/// The six words of a digest.
pub fn six_words(digest: &Digest) -> [&'static str; 6] {
    let mut words = [""; 6];
    for (slot, word) in words.iter_mut().enumerate() {
        *word = word_at(digest, slot.saturating_mul(BITS_PER_WORD));
    }
    words
}

/// The six words with spaces between them, as they are shown and read aloud.
pub fn spoken(digest: &Digest) -> String {
    six_words(digest).join(" ")
}

/// The word for the eleven bits from bit `first` on.
fn word_at(digest: &Digest, first: usize) -> &'static str {
    let bit = |position: usize| {
        let byte = digest.0.get(position / 8).copied().unwrap_or(0);
        usize::from(byte & (0x80 >> (position % 8)) != 0)
    };
    let index = (first..first.saturating_add(BITS_PER_WORD))
        .fold(0_usize, |index, position| (index << 1) | bit(position));
    // Eleven bits are below 2048, and a test counts the list's lines.
    LIST.lines().nth(index).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_one_of_bip_39() {
        let published = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda";
        assert_eq!(Digest::of(LIST.as_bytes()).to_string(), published);
        assert_eq!(LIST.lines().count(), 2048);
    }

    #[test]
    fn words_follow_the_bits() {
        let mut counting = [0; 32];
        // 00000000000 00000000001 00000000010 00000000011 00000000100 00000000101
        counting[..9].copy_from_slice(&[0, 0, 4, 1, 0, 0x30, 0x08, 0x01, 0x40]);
        for (name, bytes, want) in [
            (
                "no bit",
                [0; 32],
                "abandon abandon abandon abandon abandon abandon",
            ),
            ("every bit", [255; 32], "zoo zoo zoo zoo zoo zoo"),
            (
                "counting up",
                counting,
                "abandon ability able about above absent",
            ),
        ] {
            assert_eq!(spoken(&Digest(bytes)), want, "{name}");
        }
    }
}
