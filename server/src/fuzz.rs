//! Fuzz targets: what the daemon reads from its own disk, and what a program answers that it called, must neither
//! panic nor be read in two ways.
//!
//! Plain functions with a well-formed seed each, so that a fuzzer and the tests run the same ones.

use std::path::Path;

use keyturn_vault::rotation::Slot;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{Config, ConfigError},
    connector::exec,
    rows,
};

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Input that it accepts.
    pub seed: &'static [u8],
    /// Parses `input` and panics if the parser breaks a promise; says whether the input was accepted.
    pub run: fn(input: &[u8]) -> bool,
}

macro_rules! target {
    ($name:literal, $seed:literal, $run:expr) => {
        Target {
            name: $name,
            seed: include_bytes!(concat!("../testdata/fuzz/", $seed)),
            run: $run,
        }
    };
}

/// All of them: each kind of row, the configuration, an answer.
pub const TARGETS: [Target; 12] = [
    target!("row-vault", "vault.json", row::<rows::Vault>),
    target!("row-clock", "clock.json", row::<rows::Clocks>),
    target!("row-proposals", "proposals.json", row::<rows::Proposals>),
    target!("row-restore", "restore.json", row::<rows::Restoring>),
    target!("row-credential", "credential.json", row::<rows::Credential>),
    target!("row-version", "blob.json", row::<rows::Blob>),
    target!("row-ceremony", "ceremony.json", row::<rows::Ceremony>),
    target!("row-job", "job.json", row::<Slot>),
    target!("row-outbox", "outbox.json", row::<rows::Outbox>),
    target!("row-letter", "letter.json", row::<rows::Letter>),
    target!("config", "keyturnd.toml", config),
    target!("exec-answer", "exec-answer.json", exec::fuzz),
];

/// What is read of a row is written so that it reads the same.
fn row<T: Serialize + DeserializeOwned>(json: &[u8]) -> bool {
    let write = |row: &T| rows::encode(row).unwrap_or_default();
    let Ok(read) = rows::decode::<T>(&[&[rows::FORMAT], json].concat()) else {
        return false;
    };
    let written = write(&read);
    let again = rows::decode::<T>(&written).ok();
    assert_eq!(again.as_ref().map(write), Some(written), "another row");
    true
}

/// A refusal names a line of the file.
fn config(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    match Config::parse(Path::new("keyturnd.toml"), text) {
        Ok(config) => {
            assert!(config.warnings().len() < 10);
            true
        }
        Err(ConfigError::Line { line, .. }) => {
            assert!(
                (1..=text.split('\n').count()).contains(&line),
                "no such line"
            );
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "lengths of a few thousand bytes"
)]
mod tests {
    use super::*;

    const MUTATIONS: u32 = 10_000;

    /// Numbers that are the same each time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
        }

        /// A few bytes changed, put in, taken out or repeated.
        fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
            const TELLING: &[u8] = b"\n\0 \"\\{}[]:,.+-=e019A\x80\xff";
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                let end = bytes.len().min(at + self.below(16));
                match self.below(5) {
                    0 => bytes.insert(at, TELLING[self.below(TELLING.len())]),
                    1 => drop(bytes.drain(at..end)),
                    2 => {
                        let part = bytes[at..end].to_vec();
                        bytes.splice(at..at, part);
                    }
                    3 if at < end => bytes[at] = TELLING[self.below(TELLING.len())],
                    _ if at < end => bytes[at] ^= 1 << self.below(8),
                    _ => {}
                }
            }
            bytes
        }
    }

    #[test]
    fn ten_thousand_mutations_of_each_seed() {
        for target in TARGETS {
            assert!((target.run)(target.seed), "{}: its seed", target.name);
            let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
            let mut accepted = 0;
            for _ in 0..MUTATIONS {
                let input = numbers.mutated(target.seed);
                accepted += u32::from((target.run)(&input));
            }
            // Some still pass, so that what passes is looked at, too.
            assert!(
                (1..MUTATIONS).contains(&accepted),
                "{}: {accepted}",
                target.name
            );
        }
    }
}
