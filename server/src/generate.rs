//! New secrets: uniform over all strings that a target's rules allow.
//!
//! # Invariants
//! 1. Every allowed string is equally likely: characters are drawn by rejection, and a string that
//!    lacks a required class is thrown away whole, never patched.
//! 2. The bytes come from the operating system's generator.
//! 3. A definition's settings say what its target wants, within the same bounds as the configuration.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_seal::secret::SecretBytes;
use thiserror::Error;

/// Longest secret that is generated, in characters.
pub const MAX_LENGTH: usize = 256;
/// Least strength of a generated secret, in bits.
pub const MIN_ENTROPY_BITS: f64 = 80.0;
/// Whole strings drawn before the rules are called too tight. At the least strength a string that
/// has every class is drawn within a few tries.
const MAX_DRAWS: usize = 1000;

pub(crate) const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
pub(crate) const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
pub(crate) const DIGITS: &str = "0123456789";
/// Symbols that no shell, URL or connection string of the usual targets chokes on.
pub(crate) const SYMBOLS: &str = "!#%+,-./:=@^_~";
/// Characters that are mistaken for each other when typed from paper.
const LOOK_ALIKES: &str = "0O1lI|5S2Z8B";

/// The setting of a definition: the number of characters.
pub const LENGTH: &str = "secret-length";
/// The setting of a definition: which of `lower upper digits symbols`, with a blank between.
pub const CLASSES: &str = "secret-classes";
/// The setting of a definition: characters that must not occur, besides those of the configuration.
pub const FORBIDDEN: &str = "secret-forbidden";
/// The setting of a definition: `yes` where people type the secret from a screen or paper.
pub const TYPED: &str = "secret-typed";

/// What a target demands of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Number of characters.
    pub length: usize,
    /// Classes of characters, each of which must occur.
    pub classes: Vec<String>,
    /// Characters that must not occur.
    pub forbidden: String,
}

/// Why no secret can be made by these rules.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RulesError {
    /// Not a length that can be had.
    #[error("a length of {0} characters is out of bounds; use up to {MAX_LENGTH}")]
    Length(usize),
    /// A class has no character left.
    #[error("the class {0:?} has no allowed character left; forbid fewer characters")]
    EmptyClass(String),
    /// Not ASCII that can be typed.
    #[error("character {0:?} cannot be used; classes hold printable ASCII without space")]
    Character(char),
    /// Too few strings fit the rules.
    #[error("these rules give {0:.0} bits, less than {MIN_ENTROPY_BITS}; make the secret longer")]
    Weak(f64),
    /// A setting of a definition that says nothing known.
    #[error("the setting `{0}` must be {1}")]
    Setting(&'static str, &'static str),
    /// The operating system gave no random bytes.
    #[error("the system's random number generator failed; the host is not fit to make secrets")]
    Random,
}

impl Default for Rules {
    /// 32 characters of four classes: about 195 bits.
    fn default() -> Self {
        Self {
            length: 32,
            classes: [LOWER, UPPER, DIGITS, SYMBOLS].map(String::from).to_vec(),
            forbidden: String::new(),
        }
    }
}

impl Rules {
    /// For a secret that somebody will type: no symbols, no look-alikes.
    #[must_use]
    pub fn typed_by_hand(length: usize) -> Self {
        Self {
            length,
            classes: [LOWER, UPPER, DIGITS].map(String::from).to_vec(),
            forbidden: LOOK_ALIKES.to_owned(),
        }
    }

    /// These rules with what a definition's settings say.
    pub fn with_settings(&self, settings: &BTreeMap<String, String>) -> Result<Self, RulesError> {
        let mut rules = self.clone();
        match settings.get(TYPED).map(String::as_str) {
            Some("yes") => {
                let symbols =
                    |class: &String| class.bytes().any(|byte| byte.is_ascii_punctuation());
                rules.classes.retain(|class| !symbols(class));
                rules.forbidden.push_str(LOOK_ALIKES);
            }
            None | Some("no") => {}
            Some(_) => return Err(RulesError::Setting(TYPED, "`yes` or `no`")),
        }
        if let Some(length) = settings.get(LENGTH) {
            let bad = RulesError::Setting(LENGTH, "a number of characters");
            rules.length = length.parse().map_err(|_| bad)?;
        }
        if let Some(names) = settings.get(CLASSES) {
            let own = self.classes.iter().find(|class| {
                let known = [LOWER, UPPER, DIGITS].contains(&class.as_str());
                !known
            });
            let class = |name: &str| match name {
                "lower" => Ok(LOWER.to_owned()),
                "upper" => Ok(UPPER.to_owned()),
                "digits" => Ok(DIGITS.to_owned()),
                "symbols" => Ok(own.map_or(SYMBOLS, String::as_str).to_owned()),
                _ => Err(RulesError::Setting(
                    CLASSES,
                    "one or more of `lower upper digits symbols`",
                )),
            };
            rules.classes = names
                .split_whitespace()
                .map(class)
                .collect::<Result<_, _>>()?;
        }
        if let Some(forbidden) = settings.get(FORBIDDEN) {
            rules.forbidden.push_str(forbidden);
        }
        Ok(rules)
    }

    /// The strength of what these rules make, in bits, where it is enough.
    pub fn check(&self) -> Result<f64, RulesError> {
        let bits = self.entropy_bits()?;
        if bits < MIN_ENTROPY_BITS {
            return Err(RulesError::Weak(bits));
        }
        Ok(bits)
    }

    /// The strength in bits: the logarithm of the number of strings over the alphabet. Requiring
    /// each class takes away less than a bit at the lengths that pass.
    pub fn entropy_bits(&self) -> Result<f64, RulesError> {
        let alphabet = self.alphabet()?;
        let length = u16::try_from(self.length).map_err(|_| RulesError::Length(self.length))?;
        let size = u16::try_from(alphabet.len()).map_err(|_| RulesError::Length(alphabet.len()))?;
        Ok(f64::from(length) * f64::from(size).log2())
    }

    /// Draws a secret.
    pub fn generate(&self) -> Result<SecretBytes, RulesError> {
        let bits = self.check()?;
        let alphabet = self.alphabet()?;
        for _ in 0..MAX_DRAWS {
            let candidate = draw(&alphabet, self.length)?;
            if self.has_every_class(candidate.expose()) {
                return Ok(candidate);
            }
        }
        Err(RulesError::Weak(bits))
    }

    fn has_every_class(&self, candidate: &[u8]) -> bool {
        self.classes
            .iter()
            .all(|class| candidate.iter().any(|byte| class.as_bytes().contains(byte)))
    }

    fn alphabet(&self) -> Result<Vec<u8>, RulesError> {
        if self.length == 0 || self.length > MAX_LENGTH || self.length < self.classes.len() {
            return Err(RulesError::Length(self.length));
        }
        let mut all = BTreeSet::new();
        for class in &self.classes {
            if let Some(odd) = class.chars().find(|c| !c.is_ascii_graphic()) {
                return Err(RulesError::Character(odd));
            }
            let before = all.len();
            let allowed = class
                .bytes()
                .filter(|byte| !self.forbidden.as_bytes().contains(byte));
            all.extend(allowed.clone());
            if before == all.len() && allowed.count() == 0 {
                return Err(RulesError::EmptyClass(class.clone()));
            }
        }
        Ok(all.into_iter().collect())
    }
}

/// `length` characters, each uniform over the alphabet (1 to 95 characters).
fn draw(alphabet: &[u8], length: usize) -> Result<SecretBytes, RulesError> {
    let size = alphabet.len();
    // The largest multiple of the alphabet's size that a byte can hold; bytes above it are skipped.
    let fair = 256_usize
        .checked_rem(size)
        .map_or(0, |rest| 256_usize.saturating_sub(rest));
    let mut out = Vec::with_capacity(length);
    let mut random = zeroize::Zeroizing::new([0_u8; 64]);
    while out.len() < length {
        getrandom::fill(random.as_mut()).map_err(|_| RulesError::Random)?;
        let picks = random
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < fair);
        let wanted = length.saturating_sub(out.len());
        out.extend(
            picks
                .take(wanted)
                .filter_map(|byte| alphabet.get(byte.checked_rem(size)?)),
        );
    }
    Ok(SecretBytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(length: usize, classes: &[&str], forbidden: &str) -> Rules {
        Rules {
            length,
            classes: classes.iter().map(|c| (*c).to_owned()).collect(),
            forbidden: forbidden.to_owned(),
        }
    }

    #[test]
    fn rules_that_cannot_be_met_are_refused() {
        for (name, rules, want) in [
            (
                "no characters",
                rules(0, &[LOWER], ""),
                RulesError::Length(0),
            ),
            (
                "too long",
                rules(257, &[LOWER], ""),
                RulesError::Length(257),
            ),
            (
                "shorter than its classes",
                rules(1, &[LOWER, UPPER], ""),
                RulesError::Length(1),
            ),
            (
                "a class forbidden whole",
                rules(30, &[LOWER, DIGITS], DIGITS),
                RulesError::EmptyClass(DIGITS.into()),
            ),
            (
                "a space",
                rules(30, &["ab "], ""),
                RulesError::Character(' '),
            ),
            (
                "a letter beyond ASCII",
                rules(30, &["aé"], ""),
                RulesError::Character('é'),
            ),
            ("too weak", rules(20, &["ab"], ""), RulesError::Weak(20.0)),
        ] {
            assert_eq!(rules.generate().err(), Some(want), "{name}");
        }
    }

    #[test]
    fn a_definition_says_what_its_target_wants() {
        let own = Rules::default();
        for (name, settings, want) in [
            ("nothing", vec![], Ok(own.clone())),
            (
                "length and forbidden characters",
                vec![(LENGTH, "40"), (FORBIDDEN, "@/")],
                Ok(Rules {
                    length: 40,
                    forbidden: "@/".into(),
                    ..own.clone()
                }),
            ),
            (
                "classes",
                vec![(CLASSES, "digits symbols")],
                Ok(rules(32, &[DIGITS, SYMBOLS], "")),
            ),
            (
                "typed by hand",
                vec![(TYPED, "yes")],
                Ok(Rules::typed_by_hand(32)),
            ),
            (
                "no number",
                vec![(LENGTH, "long")],
                Err(RulesError::Setting(LENGTH, "a number of characters")),
            ),
            (
                "no class",
                vec![(CLASSES, "emoji")],
                Err(RulesError::Setting(
                    CLASSES,
                    "one or more of `lower upper digits symbols`",
                )),
            ),
            (
                "neither yes nor no",
                vec![(TYPED, "perhaps")],
                Err(RulesError::Setting(TYPED, "`yes` or `no`")),
            ),
        ] {
            let settings = settings
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            assert_eq!(own.with_settings(&settings), want, "{name}");
        }
    }

    #[test]
    fn secrets_follow_their_rules() {
        for (name, rules) in [
            ("default", Rules::default()),
            ("typed by hand", Rules::typed_by_hand(24)),
            ("forbidden characters", rules(40, &[LOWER, SYMBOLS], "@/:")),
        ] {
            for _ in 0..200 {
                let secret = rules.generate().unwrap();
                let bytes = secret.expose();
                assert_eq!(bytes.len(), rules.length, "{name}");
                assert!(rules.has_every_class(bytes), "{name}");
                assert!(
                    !bytes.iter().any(|b| rules.forbidden.as_bytes().contains(b)),
                    "{name}"
                );
            }
        }
    }

    /// Chi-squared over 65 characters at 64 degrees of freedom: 130 is beyond one in a million.
    #[test]
    fn characters_are_uniform() {
        let alphabet: Vec<u8> = (b'!'..b'!' + 65).collect();
        let drawn = draw(&alphabet, 65_000).unwrap();
        let mut counts = [0_f64; 256];
        for byte in drawn.expose() {
            counts[usize::from(*byte)] += 1.0;
        }
        let chi: f64 = alphabet
            .iter()
            .map(|b| (counts[usize::from(*b)] - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi < 130.0, "chi-squared {chi}");
    }
}
