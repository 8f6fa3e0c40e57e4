//! Fuzz targets: one per parser, each with a well-formed seed to mutate.
//!
//! A target panics if a parser accepts what has a second spelling, or what it must refuse. The tests here replay 10,000
//! mutations of each seed; `fuzz/` goes on from there.

#![expect(
    clippy::expect_used,
    reason = "seeds are constants, and a target reports by panicking"
)]

use std::str::from_utf8;

use crate::{
    Binding, Identity, KeyFile, Secret, SecretBytes, ShareIdentity, ShareKey, Sharing, Submission,
    SubmittedShare, ValidShare, decrypt_with, encrypt_to,
    envelope::MAX_PLAINTEXT_BYTES,
    keyfile::{Cost, Header},
    payload,
    piv::SoftwareKey,
    shamir::Share,
};

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Input that it accepts.
    pub seed: fn() -> Vec<u8>,
    /// Parses `input` and panics if the parser breaks a promise; says whether the input was accepted.
    pub run: fn(input: &[u8]) -> bool,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "share-key-x25519",
        seed: || key().share_key().to_string().into(),
        run: share_key,
    },
    Target {
        name: "share-key-piv",
        seed: || piv_key().to_string().into(),
        run: share_key,
    },
    Target {
        name: "age-x25519",
        seed: || file(&key().share_key()),
        run: |input| age(&key(), input),
    },
    Target {
        name: "age-piv",
        seed: || file(&piv_key()),
        run: |input| age(&card(), input),
    },
    Target {
        name: "envelope",
        seed: || envelope_text().expose().to_vec(),
        run: envelope,
    },
    Target {
        name: "payload",
        seed: || payload_text(b"the\n\nsecret"),
        run: payload,
    },
    Target {
        name: "submission",
        seed: || submission_seed().expose().to_vec(),
        run: submission,
    },
    Target {
        name: "key-file",
        seed: key_file_seed,
        run: key_file,
    },
];

/// A key has one spelling.
fn share_key(input: &[u8]) -> bool {
    let parsed = from_utf8(input)
        .ok()
        .and_then(|text| Some((text, text.parse::<ShareKey>().ok()?)));
    parsed.is_some_and(|(text, key)| {
        assert_eq!(key.to_string(), text);
        true
    })
}

/// An age file opens to what was encrypted, or not at all. (Its header may hold stanzas for others, but is authenticated.)
fn age(identity: &dyn Identity, input: &[u8]) -> bool {
    decrypt_with(identity, input, MAX_PLAINTEXT_BYTES).is_ok_and(|plaintext| {
        assert_eq!(plaintext.expose(), PLAINTEXT);
        true
    })
}

/// An envelope is exactly the one expected, or refused.
fn envelope(input: &[u8]) -> bool {
    let (sharing, _) = sharing();
    sharing
        .read_envelope(1, &SecretBytes::from_slice(input))
        .is_ok_and(|_| {
            assert_eq!(input, envelope_text().expose());
            true
        })
}

/// What is accepted as a payload is the secret after the expected lines.
fn payload(input: &[u8]) -> bool {
    payload::read(SecretBytes::from_slice(input), &binding()).is_ok_and(|secret| {
        assert_eq!(input, payload_text(secret.expose()));
        true
    })
}

/// A submission has one spelling.
fn submission(input: &[u8]) -> bool {
    Submission::parse(input).is_ok_and(|submission| {
        assert_eq!(input, submission.text().expose());
        true
    })
}

/// A key file's lines and contents have one spelling. (Argon2 is too slow to be fuzzed; the age file is a target of its own.)
fn key_file(input: &[u8]) -> bool {
    let Ok(header) = Header::parse(input) else {
        return false;
    };
    assert_eq!(header.file(), input);
    KeyFile::parse(header.sealed).is_ok_and(|key_file| {
        assert_eq!(key_file.contents().expose(), header.sealed);
        true
    })
}

const PLAINTEXT: &[u8] = b"plaintext";

fn key() -> ShareIdentity {
    ShareIdentity::from_secret(&filled(1))
}

fn card() -> SoftwareKey {
    SoftwareKey::from_secret(&filled(1)).expect("1…1 is below the order of P-256")
}

fn piv_key() -> ShareKey {
    ShareKey::Piv(card().public())
}

fn filled(byte: u8) -> Secret<32> {
    Secret::from_slice(&[byte; 32]).expect("32 bytes")
}

fn file(to: &ShareKey) -> Vec<u8> {
    encrypt_to(std::slice::from_ref(to), PLAINTEXT).expect("one recipient")
}

fn binding() -> Binding {
    Binding::new("vault.example.org/prod", "01HZXW3VJ0E0N7Q7D1Y8K2M4TA", 7).expect("names")
}

/// A 2-of-2 sharing, and its first share.
fn sharing() -> (Sharing, ValidShare) {
    let commitments = [1, 2]
        .map(|x| {
            crate::commitment(
                &binding(),
                "ops",
                &Share::new(x, filled(x)).expect("x is 1 or 2"),
            )
        })
        .to_vec();
    let sharing = Sharing::new(binding(), "ops", 2, commitments).expect("2 of 2");
    let share = sharing
        .verify(1, filled(1))
        .expect("it was committed to above");
    (sharing, share)
}

fn envelope_text() -> SecretBytes {
    let (sharing, share) = sharing();
    sharing.envelope_text(&Share::new(share.x(), filled(1)).expect("x is 1"))
}

fn payload_text(secret: &[u8]) -> Vec<u8> {
    payload::text(&SecretBytes::from_slice(secret), &binding())
        .expose()
        .to_vec()
}

fn submission_seed() -> SecretBytes {
    let share = |credential: &str, x| SubmittedShare {
        credential: credential.to_owned(),
        version: 7,
        group: "ops".to_owned(),
        x,
        share: filled(x),
    };
    let shares = vec![share("01HZXW3VJ0E0N7Q7D1Y8K2M4TA", 2), share("01J0", 12)];
    let (ceremony, person) = ("01JD8Q6J4Y1W7R0K5T3N9B2XCE".to_owned(), "01HX".to_owned());
    Submission {
        approval_sha256: [9; 32],
        ceremony,
        person,
        shares,
    }
    .text()
}

fn key_file_seed() -> Vec<u8> {
    let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\nBB==\n-----END PRIVATE KEY-----\n";
    let contents = KeyFile {
        identity: key(),
        approval_key: pem.to_owned().into(),
    }
    .contents();
    Header {
        cost: Cost::RECOMMENDED,
        salt: &"0123abcd".repeat(4),
        sealed: contents.expose(),
    }
    .file()
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "lengths of a few hundred bytes"
)]
mod tests {
    use super::*;

    const MUTATIONS: u64 = 10_000;

    /// `SplitMix64`: the same mutations in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((z ^ (z >> 31)) % u64::try_from(bound.max(1)).unwrap()).unwrap()
        }
    }

    /// What parsers trip over.
    const TOKENS: [&[u8]; 12] = [
        b"\n",
        b"\r\n",
        b": ",
        b" ",
        b"0",
        b"1",
        b"256",
        b"18446744073709551616",
        b"\0",
        b"\xff",
        b"x0",
        b"\n--- ",
    ];

    fn mutate(input: &mut Vec<u8>, random: &mut Random) {
        for _ in 0..=random.below(3) {
            let (a, b) = (random.below(input.len()), random.below(input.len()));
            let (from, to) = (a.min(b), a.max(b));
            match random.below(7) {
                0 if !input.is_empty() => input[a] ^= 1 << random.below(8),
                1 if !input.is_empty() => input[a] = u8::try_from(random.below(256)).unwrap(),
                2 => drop(input.drain(from..to.min(from + 8))),
                3 => input.truncate(a),
                4 => input.splice(a..a, input[from..to].to_vec()).for_each(drop),
                5 => input
                    .splice(a..a, TOKENS[random.below(TOKENS.len())].iter().copied())
                    .for_each(drop),
                _ => input
                    .splice(
                        from..to.min(from + 1),
                        TOKENS[random.below(TOKENS.len())].iter().copied(),
                    )
                    .for_each(drop),
            }
        }
    }

    #[test]
    fn ten_thousand_mutations_of_each_seed() {
        for Target { name, seed, run } in TARGETS {
            let seed = seed();
            assert!(run(&seed), "{name} refuses its seed");
            let mut random = Random(0);
            let refused = (0..MUTATIONS)
                .filter(|_| {
                    let mut input = seed.clone();
                    mutate(&mut input, &mut random);
                    !run(&input)
                })
                .count();
            assert!(refused > 5000, "{name} refused only {refused}");
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for Target { name, seed, run } in TARGETS {
            let seed = seed();
            // A payload's last bytes are the secret; nothing but its encryption protects them.
            let free = if name == "payload" {
                b"the\n\nsecret".len() - 1
            } else {
                0
            };
            for length in 0..seed.len() - free {
                assert!(
                    !run(&seed[..length]),
                    "{name} accepts its first {length} bytes"
                );
            }
        }
    }
}
